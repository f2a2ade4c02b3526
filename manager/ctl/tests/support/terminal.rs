//! A pseudo-terminal with a person at it: types, looks at the screen, drags the window's corner.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, OutputModes, Winsize};

use super::until;

pub(crate) struct Terminal {
    master: File,
    /// Kept open, so that the terminal outlives its programs.
    slave: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub(crate) fn open(columns: u16, rows: u16) -> Self {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        // `setsid --ctty` makes it a controlling terminal, not this open: a test has none to lose or to gain.
        let slave = open_without_control(Path::new(name.to_str().unwrap()));
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, seen) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        let terminal = Self {
            master,
            slave,
            screen,
        };
        terminal.resize(columns, rows);
        terminal
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Starts a program in the foreground of this terminal, as its session's leader.
    pub(crate) fn spawn(&self, command: &Command) -> Child {
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        let slave = || self.slave.try_clone().unwrap();
        leader
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap()
    }

    pub(crate) fn type_in(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    pub(crate) fn wait_for(&self, text: &str) {
        until(&format!("the screen shows {text:?}"), || {
            self.screen().contains(text)
        });
    }

    /// Keys go to the program as they are typed, and are not shown by the terminal itself.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// `\n` from a program becomes `\r\n`.
    pub(crate) fn makes_line_ends(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().output_modes;
        modes.contains(OutputModes::OPOST)
    }

    /// As a shell expects to find it.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

fn open_without_control(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let no_control = rustix::fs::OFlags::NOCTTY.bits() as i32;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(no_control)
        .open(path)
        .unwrap()
}
