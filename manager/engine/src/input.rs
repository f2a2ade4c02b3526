//! What a client sends to a process, and what it gets from it; the same for attach and exec.

use std::collections::VecDeque;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::container::Exit;
use crate::shim::Shim;

/// From the client to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for standard input.
    Stdin(Vec<u8>),
    /// The client's window has this size now.
    Resize {
        /// Characters in a row.
        columns: u32,
        /// Rows.
        rows: u32,
    },
    /// No more bytes will come.
    CloseStdin,
}

/// From the process to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// What it wrote to standard output, or its terminal.
    Stdout(Vec<u8>),
    /// What it wrote to standard error.
    Stderr(Vec<u8>),
    /// It has ended; nothing follows.
    Exit(Exit),
}

/// Inputs on their way from the client.
pub(crate) const INPUT_QUEUE_MAX: usize = 8;
/// Outputs that may wait for a client that does not read.
pub(crate) const OUTPUT_QUEUE_MAX: usize = 8;
/// Bytes that may wait for a process that does not read; then the client waits, with all that it has to say.
const WAITING_MAX_BYTES: usize = 1 << 20;

/// Pass a client's input on to a process until the client leaves and what it sent is taken. `fifo` is the
/// process's standard input, if this client has it; `close_at_end`: it goes with the client.
///
/// A process that does not read holds up its standard input only: sizes of the window still reach it.
pub(crate) async fn forward(
    mut inputs: mpsc::Receiver<Input>,
    shim: &Shim,
    exec_id: &str,
    fifo: Option<&Path>,
    close_at_end: bool,
) {
    let mut stdin = Stdin::open(fifo);
    // The end of standard input is asked for, and comes after all that waits.
    let mut closing = false;
    let mut client_is_here = true;
    while client_is_here || !stdin.is_idle() || closing {
        if closing && stdin.is_idle() {
            closing = false;
            stdin.close();
            if fifo.is_some()
                && let Err(error) = shim.close_stdin(exec_id).await
            {
                tracing::debug!(exec_id, %error, "standard input was not closed");
            }
            continue;
        }
        tokio::select! {
            input = inputs.recv(), if client_is_here && stdin.has_room() => match input {
                Some(Input::Stdin(bytes)) => stdin.push(bytes),
                Some(Input::Resize { columns, rows }) => {
                    if let Err(error) = shim.resize(exec_id, columns, rows).await {
                        tracing::debug!(exec_id, %error, "the terminal was not resized");
                    }
                }
                Some(Input::CloseStdin) => closing = true,
                None => {
                    client_is_here = false;
                    closing = close_at_end;
                }
            },
            () = stdin.write_some(), if !stdin.is_idle() => {}
        }
    }
}

/// A process's standard input, and what waits for it.
struct Stdin {
    pipe: Option<pipe::Sender>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Of the first that waits, so many are written.
    written_bytes: usize,
}

impl Stdin {
    fn open(fifo: Option<&Path>) -> Stdin {
        let pipe = fifo.and_then(|fifo| match pipe::OpenOptions::new().open_sender(fifo) {
            Ok(sender) => Some(sender),
            Err(error) => {
                // Nobody reads there any more: somebody has closed it before.
                tracing::debug!(fifo = %fifo.display(), %error, "standard input is closed");
                None
            }
        });
        Stdin {
            pipe,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            written_bytes: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    fn has_room(&self) -> bool {
        self.waiting_bytes < WAITING_MAX_BYTES
    }

    fn push(&mut self, bytes: Vec<u8>) {
        // Without a reader it is for nobody, as in a shell's pipe.
        if self.pipe.is_some() && !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(bytes);
        }
    }

    /// Write as much as the process takes. Nothing is lost if this is given up before it is done.
    async fn write_some(&mut self) {
        let (Some(pipe), Some(first)) = (&mut self.pipe, self.waiting.front()) else {
            return;
        };
        match pipe.write(&first[self.written_bytes..]).await {
            Ok(count) => {
                self.written_bytes += count;
                if self.written_bytes == first.len() {
                    self.waiting_bytes -= first.len();
                    self.written_bytes = 0;
                    self.waiting.pop_front();
                }
            }
            Err(error) => {
                // The process has closed it, or ended.
                tracing::debug!(%error, "standard input takes no more");
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.pipe = None;
        self.waiting.clear();
        (self.waiting_bytes, self.written_bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;
    use crate::bundle;

    #[tokio::test]
    async fn what_a_process_does_not_read_yet_waits_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdin");
        bundle::make_fifo(&path).unwrap();
        let mut reader = pipe::OpenOptions::new()
            .open_receiver(&path)
            .unwrap()
            .into_nonblocking_fd()
            .map(std::fs::File::from)
            .unwrap();
        let mut stdin = Stdin::open(Some(&path));
        let blocks: Vec<Vec<u8>> = (0..210).map(|byte| vec![byte; 5000]).collect();
        for block in &blocks {
            assert!(stdin.has_room());
            stdin.push(block.clone());
        }
        assert!(!stdin.has_room());

        let mut read = Vec::new();
        while read.len() < blocks.concat().len() {
            // The fifo takes some of it, and then nobody waits for ever.
            while !stdin.is_idle()
                && tokio::time::timeout(Duration::from_millis(20), stdin.write_some())
                    .await
                    .is_ok()
            {}
            let mut block = vec![0; 50_000];
            let count = reader.read(&mut block).unwrap();
            read.extend_from_slice(&block[..count]);
        }
        assert!(stdin.is_idle() && read == blocks.concat());
        drop(reader);
        stdin.push(vec![1]);
        stdin.write_some().await;
        assert!(stdin.is_idle(), "what nobody reads does not wait");
    }

    #[test]
    fn a_standard_input_that_is_closed_takes_nothing() {
        let mut stdin = Stdin::open(Some(Path::new("/nonexistent/stdin")));
        stdin.push(vec![1]);
        assert!(stdin.is_idle() && stdin.has_room());
    }
}
