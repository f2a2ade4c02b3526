//! Hooks: programs that run beside a container's life and read its state from standard input.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{Hook, Spec};
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::state::Status;
use crate::sys::process::pidfd_open;

/// What a hook wrote is quoted up to this length.
const OUTPUT_BYTES_MAX: u64 = 2000;

/// When in a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// The hooks of one kind, in order.
#[allow(deprecated)] // prestart is old but still in use
pub(crate) fn of(spec: &Spec, kind: Kind) -> &[Hook] {
    let Some(hooks) = spec.hooks() else { return &[] };
    let list = match kind {
        Kind::Prestart => hooks.prestart(),
        Kind::CreateRuntime => hooks.create_runtime(),
        Kind::CreateContainer => hooks.create_container(),
        Kind::StartContainer => hooks.start_container(),
        Kind::Poststart => hooks.poststart(),
        Kind::Poststop => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

/// What a hook reads: the state of the spec.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: Status,
    pub(crate) pid: i32,
    pub(crate) bundle: &'a Path,
    pub(crate) annotations: &'a std::collections::HashMap<String, String>,
}

/// Runs all hooks of a kind and stops at the first that fails.
pub(crate) fn run(spec: &Spec, kind: Kind, state: &State<'_>) -> Result<()> {
    run_with(spec, kind, state, &[])
}

/// As `run`; a hook that says nothing of its environment gets `environment`.
pub(crate) fn run_with(spec: &Spec, kind: Kind, state: &State<'_>, environment: &[String]) -> Result<()> {
    for (index, hook) in of(spec, kind).iter().enumerate() {
        run_one(kind, hook, state, environment).map_err(|why| {
            Error::Refused(format!(
                "error running {} hook #{index}: {}: {why}",
                kind.name(),
                hook.path().display()
            ))
        })?;
    }
    Ok(())
}

fn run_one(kind: Kind, hook: &Hook, state: &State<'_>, environment: &[String]) -> Result<()> {
    let mut output = memory_file("hook output")?;
    let mut input = memory_file("hook input")?;
    let text = serde_json::to_vec(state).map_err(|e| Error::Refused(format!("write the state: {e}")))?;
    let prepare = |file: &mut File| {
        file.write_all(&text)?;
        file.seek(SeekFrom::Start(0))
    };
    prepare(&mut input).context(|| "write the state".into())?;
    let mut command = Command::new(hook.path());
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for entry in hook.env().as_deref().unwrap_or(environment) {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    let streams = || Ok::<_, std::io::Error>((output.try_clone()?, output.try_clone()?));
    let (stdout, stderr) = streams().context(|| "prepare its output".into())?;
    let mut child = command
        .stdin(Stdio::from(input))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .context(|| "start".into())?;
    let deadline = hook
        .timeout()
        .map(|seconds| Instant::now() + Duration::from_secs(seconds as u64));
    let status = wait(&mut child, deadline)?;
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let mut text = String::new();
    let _ = output.seek(SeekFrom::Start(0));
    let _ = (&mut output).take(OUTPUT_BYTES_MAX).read_to_string(&mut text);
    let what = match status {
        // These run under the filter.
        Some(status) if kind == Kind::StartContainer && status.signal() == Some(libc::SIGSYS) => {
            "killed for a bad system call (SIGSYS; is it forbidden by linux.seccomp?)".into()
        }
        Some(status) => status.to_string(),
        None => format!("no end within {} s, killed", hook.timeout().unwrap_or_default()),
    };
    Err(Error::Refused(format!("{what}, output: {}", text.trim())))
}

/// Waits for the hook's end; `None` when it had to be killed at its deadline.
fn wait(child: &mut Child, deadline: Option<Instant>) -> Result<Option<std::process::ExitStatus>> {
    let what = || "wait for it".into();
    if let Some(deadline) = deadline {
        let pidfd = pidfd_open(child.id() as i32).context(what)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if Instant::now() >= deadline => {
                    child
                        .kill()
                        .and_then(|()| child.wait())
                        .context(|| "kill it".into())?;
                    return Ok(None);
                }
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => break,
                Err(e) => return Err(e).context(what),
            }
        }
    }
    child.wait().map(Some).context(what)
}

/// A file that is nowhere in a file system: a hook that leaves a daemon behind can hold it for as long as it likes.
fn memory_file(name: &str) -> Result<File> {
    let name = std::ffi::CString::new(name).unwrap_or_default();
    memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC)
        .map(File::from)
        .context(|| "make a memory file".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_hook(json: &str) -> Result<()> {
        let annotations = std::collections::HashMap::new();
        let state = State {
            oci_version: "1.0.2",
            id: "box",
            status: Status::Creating,
            pid: 42,
            bundle: Path::new("/b"),
            annotations: &annotations,
        };
        let text = format!(r#"{{"ociVersion":"1.0.2","hooks":{{"createRuntime":[{json}]}}}}"#);
        run(&serde_json::from_str(&text).unwrap(), Kind::CreateRuntime, &state)
    }

    #[test]
    fn a_hook_reads_the_state() {
        let script = r#"grep -q '\"id\":\"box\",\"status\":\"creating\",\"pid\":42' && [ \"$A\" = 1 ]"#;
        run_hook(&format!(
            r#"{{"path":"/bin/sh","args":["sh","-c","{script}"],"env":["A=1","PATH=/bin"]}}"#
        ))
        .unwrap();
    }

    #[test]
    fn a_failing_hook_is_quoted() {
        let error = run_hook(r#"{"path":"/bin/sh","args":["sh","-c","echo no luck; exit 3"]}"#).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("createRuntime hook #0") && error.contains("no luck") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_killed_at_its_timeout() {
        let error = run_hook(r#"{"path":"/bin/sleep","args":["sleep","1000"],"timeout":1}"#).unwrap_err();
        assert!(error.to_string().contains("killed"), "{error}");
    }
}
