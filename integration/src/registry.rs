//! A real registry (Debian's docker-registry, CNCF distribution) in a network namespace.

use crate::image::Image;
use crate::process::{eventually, run};
use crate::sandbox::Sandbox;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A registry that listens on port 5000 of the loopback of its network namespace.
pub struct Registry {
    child: Child,
    netns: PathBuf,
    scratch: PathBuf,
}

impl Registry {
    /// Its name in image references.
    pub const HOST: &'static str = "127.0.0.1:5000";

    pub(crate) fn start(sandbox: &Sandbox, netns: &Path) -> Self {
        let scratch = sandbox.path().join("registry");
        fs::create_dir_all(scratch.join("data")).expect("make the registry's folder");
        let config = scratch.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: {}\n",
            scratch.join("data").display(),
            Self::HOST
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let log = fs::File::create(scratch.join("log")).expect("make the registry's log");
        let child = inside(netns, "docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry (package docker-registry)");
        let registry = Self {
            child,
            netns: netns.to_owned(),
            scratch,
        };
        eventually("the registry answers", || {
            let answer = run(inside(netns, "bash").args(["-c", "exec 3<>/dev/tcp/127.0.0.1/5000"]));
            (answer.code == 0).then_some(())
        });
        registry
    }

    /// Push an image under `name` ("library/box:latest"), and tell its whole reference.
    #[track_caller]
    pub fn push(&self, image: &Image, name: &str) -> String {
        let layout = tempfile::tempdir_in(&self.scratch).expect("make a folder for the layout");
        image.write_layout(layout.path());
        let reference = format!("{}/{name}", Self::HOST);
        run(inside(&self.netns, "skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--dest-tls-verify=false",
                "--preserve-digests",
            ])
            .arg(format!("oci:{}:image", layout.path().display()))
            .arg(format!("docker://{reference}")))
        .ok();
        reference
    }

    /// Where the registry keeps its blobs, for a test that damages them.
    pub fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in a network namespace, with the mounts (and so the cgroups) of the host.
pub(crate) fn inside(netns: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", netns.display()))
        .arg("--")
        .arg(program);
    command
}
