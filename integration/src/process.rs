//! Running programs and waiting for things, with deadlines that only a hang can reach.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getsid};

/// Far beyond what a loaded machine needs: who reaches it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// What a finished program left: its exit code (128 + signal when it was killed) and what it wrote.
#[derive(Debug, Clone)]
pub struct Done {
    /// What was run, for messages.
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The output, of a program that must have worked.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// What stands on stderr, of a program that must have refused.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_ne!(self.code, 0, "this was to be refused: {self}");
        self.stderr
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            out,
            "`{command}` ended with {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// How many kills a test makes of what it kills: `BERTH_KILLS` asks for another number than the usual one, which is for
/// runs that have other things to do too.
///
/// # Panics
/// When that is no number.
pub fn kills(usual: u32) -> u32 {
    std::env::var("BERTH_KILLS").map_or(usual, |number| number.parse().expect("BERTH_KILLS is a number"))
}

/// A binary of the project, from `BERTH_BIN_DIR` or the folder that these tests were built into.
///
/// # Panics
/// When it has not been built: `hack/test` builds all of them first.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("BERTH_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("this test's own path");
            test.parent()
                .and_then(|deps| deps.parent())
                .expect("the build folder")
                .to_owned()
        },
        PathBuf::from,
    );
    let path = match folder.join(name) {
        // Installed it has another name.
        path if name == "init" && !path.is_file() => folder.join("berth-init"),
        path => path,
    };
    assert!(
        path.is_file(),
        "{} is not there: run hack/test, or cargo build first",
        path.display()
    );
    path
}

/// Whether a program is in `PATH` (a peer that a test compares with).
pub fn command_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// Whether the kernel is of this version or a later one; if not, says that a test is skipped, and what it needs it for.
pub fn is_linux_since((major, minor): (u32, u32), what: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's version");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    let running: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let is_new = running >= (major, minor);
    if !is_new {
        println!(
            "skipped: {what} needs Linux {major}.{minor}, and this is {}",
            release.trim()
        );
    }
    is_new
}

/// Run a program to its end, without input; one that hangs is killed and fails the test.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    finish(spawn_captured(command), describe(command))
}

pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[track_caller]
pub(crate) fn spawn_captured(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", describe(command)))
}

/// Wait for a child whose output is piped. Its end is its exit, not the end of its pipes: what it leaves
/// running may hold them.
#[track_caller]
pub fn finish(mut child: Child, command: String) -> Done {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let until = Instant::now() + DEADLINE;
    let (status, hung) = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break (status, false);
        }
        if Instant::now() > until {
            child.kill().expect("kill a child that hangs");
            break (child.wait().expect("wait for a child"), true);
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |reader: Option<Reader>| reader.map(Reader::text).unwrap_or_default();
    let done = Done {
        command,
        code: code_of(status),
        stdout: text(stdout),
        stderr: text(stderr),
    };
    assert!(!hung, "this hung: {done}");
    done
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

struct Reader {
    bytes: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> Reader {
    let bytes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = bytes.clone();
    let thread = thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            sink.lock()
                .expect("no reader panics")
                .extend_from_slice(&buffer[..n]);
        }
    });
    Reader { bytes, thread }
}

impl Reader {
    /// All that came, once the pipe ends, or (held open by a process that runs on) has been quiet for a while.
    fn text(self) -> String {
        let mut last = 0;
        let mut quiet = 0;
        while !self.thread.is_finished() && quiet < 100 {
            thread::sleep(Duration::from_millis(5));
            let now = self.bytes.lock().expect("no reader panics").len();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }
}

/// Reap, from now on, the processes whose parents die below this one. A killed shim leaves zombies in a container's PID
/// namespace, which ends when they are reaped; the machine's first process may be one that takes its time with that.
pub fn adopt_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
        thread::spawn(|| {
            let own = getsid(None).expect("the own session");
            loop {
                for pid in children() {
                    // Those of our session are the test's own, which waits for them itself.
                    if getsid(Some(pid)).is_ok_and(|session| session != own) {
                        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
    });
}

/// The processes whose parent is this one.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task")
        .expect("list the threads")
        .flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let pids = lists.collect::<String>();
    pids.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Wait until `condition` gives something, or fail the test, naming `what` was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < until,
            "this did not come about in {} s: {what}",
            DEADLINE.as_secs()
        );
        thread::sleep(Duration::from_millis(10));
    }
}
