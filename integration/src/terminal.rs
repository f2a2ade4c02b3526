//! A program on a pseudo-terminal, typed at as a person would.

use crate::process::{DEADLINE, describe};
use crate::sys::{lead_a_session, set_window_size};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running program that has the slave as its controlling terminal; all it wrote so far is kept.
pub struct Terminal {
    child: Child,
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
    read_to: usize,
    command: String,
}

impl Terminal {
    /// Start a command on a terminal of 80 columns and 24 rows.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("open a pseudo-terminal");
        let slave = File::from(pty.slave);
        let share = || slave.try_clone().expect("share the terminal");
        command.stdin(share()).stdout(share()).stderr(share());
        lead_a_session(&mut command);
        let text = describe(&command);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {text}: {error}"));
        // The Command holds the slave too, and the master's end is only seen when nobody does.
        drop((command, slave));
        let master = File::from(pty.master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("share the master"), seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock()
                    .expect("the reader's list")
                    .extend_from_slice(&buffer[..n]);
            }
        });
        Self {
            child,
            master,
            seen,
            read_to: 0,
            command: text,
        }
    }

    /// Type this.
    #[track_caller]
    pub fn send(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("type at the terminal");
    }

    /// Wait until `text` is shown, after what an earlier call waited for; returns all up to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let shown = self.shown();
            let rest = shown.get(self.read_to..).unwrap_or_default();
            if let Some(at) = find(rest, text.as_bytes()) {
                let end = self.read_to + at + text.len();
                let before = String::from_utf8_lossy(&shown[self.read_to..end]).into_owned();
                self.read_to = end;
                return before;
            }
            let all = String::from_utf8_lossy(&shown).into_owned();
            assert!(
                Instant::now() < until,
                "{:?} was not shown by `{}`, but:\n{all}",
                text,
                self.command
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Change the size of the window.
    #[track_caller]
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        set_window_size(&self.master, size).expect("resize the terminal");
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown()).into_owned()
    }

    fn shown(&self) -> Vec<u8> {
        self.seen.lock().expect("the reader's list").clone()
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait for the program's end, and tell its exit code.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(
                Instant::now() < until,
                "`{}` does not end; it has shown:\n{}",
                self.command,
                self.screen()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
