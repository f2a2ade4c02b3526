//! Copies between a process's pipe or terminal and where its stream goes.
//!
//! A copy owns both ends and at most one buffer of what was read and not yet taken. It waits for its source or for its
//! sink, never for both, and the side it does not wait for is not watched: a hang-up is always reported and would wake
//! the loop for nothing. Big amounts go from pipe to fifo by splice(2), without a copy; small ones are read and
//! written, so that many short lines share a page of the fifo. A writer that fills its pipe gets a bigger one, and bigger
//! reads: half of the time of a stream goes into taking turns.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::forward::Forward;
use super::log::{self, Stream};
use crate::reactor::{Reactor, Token};
use crate::shim_log;
use crate::sys::{self, Interest};

/// What one read takes.
pub const CHUNK_BYTES: usize = 16 << 10;
/// What one read takes of a stream that comes faster.
const BUSY_CHUNK_BYTES: usize = 64 << 10;
/// What the pipes of such a stream are made to hold, and what one splice moves at most.
const BUSY_PIPE_BYTES: usize = 256 << 10;
/// How much one copy moves before the others have their turn.
const TURN_BYTES: usize = 256 << 10;
/// What a copy keeps back at most, see [`Pump::hold`].
const HELD_BYTES_MAX: usize = 64 << 10;

/// Where a copy goes.
#[derive(Debug)]
pub enum Sink {
    /// A client's fifo, non-blocking and open for both directions.
    Fifo(OwnedFd),
    /// A pipe, non-blocking.
    Pipe(OwnedFd),
    /// A terminal or another device, non-blocking.
    Stream(OwnedFd),
    /// A plain file.
    File { file: File, lost_bytes: u64 },
    /// The container's log.
    Log(log::Shared, Stream),
    /// A receiver of messages, and the container's log.
    Forward(Box<Forward>, log::Shared, Stream),
    /// Nowhere: a terminal that nobody reads stops its process once it is full.
    Nowhere,
}

impl Sink {
    pub fn pipe(fd: OwnedFd) -> io::Result<Self> {
        sys::set_nonblocking(&fd, true)?;
        Ok(Sink::Pipe(fd))
    }

    pub fn fifo(fd: OwnedFd) -> io::Result<Self> {
        sys::set_nonblocking(&fd, true)?;
        Ok(Sink::Fifo(fd))
    }

    pub fn append_to(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        Ok(Sink::File { file, lost_bytes: 0 })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Fifo(fd) | Sink::Pipe(fd) | Sink::Stream(fd) => Some(fd.as_fd()),
            Sink::Forward(forward, ..) => forward.descriptor(),
            Sink::File { .. } | Sink::Log(..) | Sink::Nowhere => None,
        }
    }

    /// Takes bytes; how many. `WouldBlock` when it is full. Files and logs always take all: a full disk must not stop
    /// the container, so what they can't keep is counted and told.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Fifo(fd) | Sink::Pipe(fd) | Sink::Stream(fd) => sys::write(fd, bytes),
            Sink::File { file, lost_bytes } => {
                if let Err(error) = file.write_all(bytes) {
                    if *lost_bytes == 0 {
                        shim_log::warn(format_args!("output file: {error}; output is being lost"));
                    }
                    *lost_bytes += bytes.len() as u64;
                } else if std::mem::take(lost_bytes) > 0 {
                    shim_log::warn(format_args!("output file: writing works again"));
                }
                Ok(bytes.len())
            }
            Sink::Log(log, stream) => {
                log.borrow_mut().append(*stream, bytes);
                Ok(bytes.len())
            }
            Sink::Forward(forward, log, stream) => {
                let taken = forward.take(bytes)?;
                log.borrow_mut().append(*stream, &bytes[..taken]);
                Ok(taken)
            }
            Sink::Nowhere => Ok(bytes.len()),
        }
    }

    /// Its end has come. `WouldBlock`: what it was given is not delivered yet.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Sink::Forward(forward, ..) => forward.finish(),
            _ => Ok(()),
        }
    }

    /// Whether it has taken what it has still to deliver.
    fn is_behind(&self) -> bool {
        matches!(self, Sink::Forward(forward, ..) if forward.is_behind())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Not watched yet.
    Unwatched,
    ForSource,
    ForSink,
}

/// One copy.
#[derive(Debug)]
pub struct Pump {
    source: OwnedFd,
    sink: Sink,
    /// Read, and not yet taken by the sink.
    pending: Vec<u8>,
    waiting: Waiting,
    source_is_pipe: bool,
    /// Its pipes were made to hold more.
    widened: bool,
    held: bool,
    /// The source has ended, and what the fifo holds has no reader yet.
    unclaimed: bool,
    /// [`Pumps::take_unclaimed`] has told of it.
    told: bool,
    /// The sink is watched too, as it has something to deliver while the source may be quiet.
    delivering: bool,
}

/// What came of a turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    SourceEmpty,
    SinkFull,
    /// More could be done at once.
    Unfinished,
    /// All that will ever come was read, and is kept back.
    Held,
    /// The sink can take no more ever.
    SinkGone,
    /// The source ended.
    Over,
}

impl Pump {
    /// A copy of what a process writes into a pipe.
    pub fn output(pipe: OwnedFd, sink: Sink) -> io::Result<Self> {
        sys::set_nonblocking(&pipe, true)?;
        Ok(Self {
            source: pipe,
            sink,
            pending: Vec::new(),
            waiting: Waiting::Unwatched,
            source_is_pipe: true,
            widened: false,
            held: false,
            unclaimed: false,
            told: false,
            delivering: false,
        })
    }

    /// A copy from a terminal, which goes on without its sink. `source` must be non-blocking.
    pub fn terminal(source: OwnedFd, sink: Sink) -> Self {
        Self {
            source,
            sink,
            pending: Vec::new(),
            waiting: Waiting::Unwatched,
            source_is_pipe: false,
            widened: false,
            held: false,
            unclaimed: false,
            told: false,
            delivering: false,
        }
    }

    /// A copy of what clients write into the stdin fifo.
    pub fn input(fifo: OwnedFd, sink: Sink) -> io::Result<Self> {
        Self::output(fifo, sink)
    }

    /// Keeps back what comes until [`Pumps::release`]; dropped before that, it was never there. No more than a pipe's
    /// worth: whoever writes more than that is let through, so that a held copy never blocks its writer.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Reads what can be read and keeps it.
    fn hold_more(&mut self) -> Turn {
        while self.pending.len() < HELD_BYTES_MAX {
            let mut chunk = [0u8; CHUNK_BYTES];
            match sys::read(&self.source, &mut chunk) {
                Ok(0) => return Turn::Held,
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::SourceEmpty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Turn::Held,
            }
        }
        self.held = false;
        Turn::Unfinished
    }

    /// Makes room for more, once, where a pipe was found full. What the kernel refuses (a user has a bound) is no loss.
    fn widen(&mut self) {
        if !std::mem::replace(&mut self.widened, true) {
            let sink = self.sink.descriptor();
            for pipe in sink.into_iter().chain([self.source.as_fd()]) {
                if sys::pipe_capacity(pipe).is_ok_and(|capacity| capacity < BUSY_PIPE_BYTES) {
                    let _ = sys::set_pipe_capacity(pipe, BUSY_PIPE_BYTES);
                }
            }
        }
    }

    /// Moves up to `budget` bytes, by way of `buffer`.
    fn turn(&mut self, budget: usize, buffer: &mut Vec<u8>) -> Turn {
        if self.held {
            let turn = self.hold_more();
            if self.held {
                return turn;
            }
        }
        if let Sink::Forward(forward, ..) = &mut self.sink {
            forward.flush();
        }
        let mut moved = 0;
        while moved < budget {
            if !self.pending.is_empty() {
                let length = self.pending.len().min(CHUNK_BYTES);
                match self.sink.take(&self.pending[..length]) {
                    Ok(count) => {
                        self.pending.drain(..count);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::SinkFull,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return Turn::SinkGone,
                }
            }
            if self.source_is_pipe && matches!(self.sink, Sink::Fifo(_) | Sink::Pipe(_)) {
                match self.splice() {
                    Some(Ok(count)) => {
                        moved += count;
                        continue;
                    }
                    Some(Err(turn)) => return turn,
                    None => {}
                }
            }
            match sys::read(&self.source, buffer) {
                Ok(0) => return Turn::Over,
                Ok(count) => {
                    moved += count;
                    let chunk = &buffer[..count];
                    match self.sink.take(chunk) {
                        Ok(taken) => self.pending.extend_from_slice(&chunk[taken..]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.pending.extend_from_slice(chunk);
                            return Turn::SinkFull;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                            self.pending.extend_from_slice(chunk);
                        }
                        Err(_) => return Turn::SinkGone,
                    }
                    if count == buffer.len() && self.source_is_pipe {
                        buffer.resize(BUSY_CHUNK_BYTES, 0);
                        self.widen();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::SourceEmpty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EIO: nobody has the other side of the terminal open any more.
                Err(_) => return Turn::Over,
            }
        }
        // A sink that took only a part is full.
        if self.pending.is_empty() {
            Turn::Unfinished
        } else {
            Turn::SinkFull
        }
    }

    /// Moves pages when there is enough for it; `None` when reading and writing is better.
    fn splice(&mut self) -> Option<Result<usize, Turn>> {
        let (Sink::Fifo(sink) | Sink::Pipe(sink)) = &self.sink else {
            return None;
        };
        if sys::bytes_readable(&self.source).ok()? < CHUNK_BYTES {
            return None;
        }
        match sys::splice(&self.source, sink, BUSY_PIPE_BYTES) {
            Ok(0) => Some(Err(Turn::Over)),
            Ok(count) => {
                self.widen();
                Some(Ok(count))
            }
            // There was enough to read a moment ago, so it is the sink that would block.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Err(Turn::SinkFull)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(Ok(0)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            Err(_) => Some(Err(Turn::SinkGone)),
        }
    }

    /// Whether there is output that its reader has not taken: bytes here, or in the pipe behind a full sink.
    fn has_unread(&self) -> bool {
        self.unclaimed
            || !self.pending.is_empty()
            || self.sink.is_behind()
            || (self.waiting == Waiting::ForSink && sys::bytes_readable(&self.source).unwrap_or(0) > 0)
    }

    /// A fifo that nobody has open loses what it holds, and a client opens its end at about the time at which a short
    /// process is over already. So the last writer, which is this copy, stays for a while.
    fn stay_unclaimed(&mut self) -> bool {
        if !matches!(&self.sink, Sink::Fifo(fifo) if sys::bytes_readable(fifo).unwrap_or(0) > 0) {
            return false;
        }
        if let Sink::Fifo(fifo) = &self.sink
            && let Ok(writer) = sys::reopen_for_writing(fifo)
        {
            // Without our own read end it is seen whether there is another.
            self.sink = Sink::Fifo(writer);
        }
        self.unclaimed = !self.has_reader();
        self.unclaimed
    }

    fn has_reader(&self) -> bool {
        self.sink.descriptor().is_none_or(sys::has_reader)
    }

    /// The socket to a receiver may be another one after a turn: it is watched anew.
    fn forget_receiver(&mut self, number: u32, reactor: &Reactor) {
        if !matches!(self.sink, Sink::Forward(..)) {
            return;
        }
        if self.waiting == Waiting::ForSink {
            let _ = self.wait_for(Waiting::Unwatched, number, reactor);
        } else if std::mem::take(&mut self.delivering)
            && let Some(sink) = self.sink.descriptor()
        {
            reactor.forget(sink);
        }
    }

    /// Goes on when the receiver takes more of what waits for it.
    fn watch_delivery(&mut self, number: u32, reactor: &Reactor) {
        if self.waiting == Waiting::ForSource
            && self.sink.is_behind()
            && let Some(sink) = self.sink.descriptor()
        {
            let watched = reactor.watch(sink, Token::Sink(number), Interest::Writable);
            self.delivering = watched.is_ok();
        }
    }

    fn wait_for(&mut self, waiting: Waiting, number: u32, reactor: &Reactor) -> io::Result<()> {
        if self.waiting == waiting {
            return Ok(());
        }
        match self.waiting {
            Waiting::ForSource => reactor.forget(&self.source),
            Waiting::ForSink => {
                if let Some(sink) = self.sink.descriptor() {
                    reactor.forget(sink);
                }
            }
            Waiting::Unwatched => {}
        }
        self.waiting = waiting;
        match waiting {
            Waiting::ForSource => reactor.watch(&self.source, Token::Source(number), Interest::Readable),
            Waiting::ForSink => match self.sink.descriptor() {
                Some(sink) => reactor.watch(sink, Token::Sink(number), Interest::Writable),
                None => Ok(()),
            },
            Waiting::Unwatched => Ok(()),
        }
    }
}

/// All copies of the shim.
#[derive(Debug, Default)]
pub struct Pumps {
    running: BTreeMap<u32, Pump>,
    last_number: u32,
    /// What is being copied; empty when nothing comes, so that an idle shim holds no memory for it.
    buffer: Vec<u8>,
}

impl Pumps {
    /// Starts a copy and returns its number.
    pub fn start(&mut self, mut pump: Pump, reactor: &Reactor) -> io::Result<u32> {
        self.last_number = self.last_number.wrapping_add(1);
        let number = self.last_number;
        pump.wait_for(Waiting::ForSource, number, reactor)?;
        self.running.insert(number, pump);
        Ok(number)
    }

    /// Moves what can be moved. True when the copy is over and gone.
    pub fn advance(&mut self, number: u32, reactor: &Reactor) -> bool {
        self.run(number, TURN_BYTES, reactor)
    }

    /// Moves everything that the process has written up to now, as far as the reader takes it. Bounded, because
    /// another process that holds the pipe may be writing without end.
    pub fn drain(&mut self, number: u32, reactor: &Reactor) {
        const TERMINAL_BYTES: usize = 1 << 20;
        let Some(pump) = self.running.get(&number) else {
            return;
        };
        let budget = sys::pipe_capacity(&pump.source).unwrap_or(0).max(TERMINAL_BYTES) + CHUNK_BYTES;
        self.run(number, budget, reactor);
    }

    fn run(&mut self, number: u32, budget: usize, reactor: &Reactor) -> bool {
        let Some(pump) = self.running.get_mut(&number) else {
            return true;
        };
        if self.buffer.is_empty() {
            self.buffer.resize(CHUNK_BYTES, 0);
        }
        pump.forget_receiver(number, reactor);
        let mut turn = pump.turn(budget, &mut self.buffer);
        if turn == Turn::Over && pump.sink.finish().is_err() {
            turn = Turn::SinkFull;
        }
        if turn != Turn::Unfinished {
            self.buffer = Vec::new();
            if let Sink::Log(log, _) | Sink::Forward(_, log, _) = &pump.sink {
                log.borrow_mut().rest();
            }
        }
        let waiting = match turn {
            // Nobody tells a process with a terminal that its reader is gone, as a pipe does.
            Turn::SinkGone if !pump.source_is_pipe => {
                let _ = pump.wait_for(Waiting::Unwatched, number, reactor);
                pump.sink = Sink::Nowhere;
                pump.pending.clear();
                Waiting::ForSource
            }
            Turn::Over | Turn::SinkGone => {
                let _ = pump.wait_for(Waiting::Unwatched, number, reactor);
                if !pump.unclaimed && !pump.stay_unclaimed() {
                    self.stop(number, reactor);
                }
                return true;
            }
            Turn::SourceEmpty | Turn::Unfinished => Waiting::ForSource,
            // The end of the source would be reported again and again.
            Turn::Held => Waiting::Unwatched,
            Turn::SinkFull => Waiting::ForSink,
        };
        if let Err(error) = pump.wait_for(waiting, number, reactor) {
            shim_log::warn(format_args!("watch a stream: {error}; it ends here"));
            self.stop(number, reactor);
            return true;
        }
        pump.watch_delivery(number, reactor);
        false
    }

    /// Copies that are over, but for output in a fifo without a reader; each is told once.
    pub fn take_unclaimed(&mut self) -> Vec<u32> {
        let new = self
            .running
            .iter_mut()
            .filter(|(_, pump)| pump.unclaimed && !pump.told);
        new.map(|(number, pump)| {
            pump.told = true;
            *number
        })
        .collect()
    }

    /// Whether a copy still waits for its first reader.
    pub fn is_unclaimed(&self, number: u32) -> bool {
        let pump = self.running.get(&number);
        pump.is_some_and(|pump| pump.unclaimed && !pump.has_reader())
    }

    /// Lets through what a copy has kept back, and all that follows.
    pub fn release(&mut self, number: u32, reactor: &Reactor) {
        if let Some(pump) = self.running.get_mut(&number)
            && std::mem::take(&mut pump.held)
        {
            self.advance(number, reactor);
        }
    }

    /// What a copy that was never released has kept back.
    pub fn held_text(&mut self, number: u32, reactor: &Reactor) -> Option<String> {
        self.running.get(&number).filter(|pump| pump.held)?;
        self.advance(number, reactor);
        let pump = self.running.get(&number).filter(|pump| pump.held)?;
        let text = String::from_utf8_lossy(&pump.pending).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Whether any of these copies holds output that was not read yet.
    pub fn have_unread(&self, numbers: &[u32]) -> bool {
        numbers
            .iter()
            .any(|number| self.running.get(number).is_some_and(Pump::has_unread))
    }

    /// Ends a copy and closes its ends.
    pub fn stop(&mut self, number: u32, reactor: &Reactor) {
        if let Some(mut pump) = self.running.remove(&number) {
            // Taken off the list by hand: the file behind a descriptor may have another one.
            let _ = pump.wait_for(Waiting::Unwatched, number, reactor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn read_all(fd: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        while let Ok(count) = sys::read(fd, &mut chunk) {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&chunk[..count]);
        }
        all
    }

    /// (what the process writes into, the pump, what the reader reads from)
    fn pump() -> (OwnedFd, Pump, OwnedFd) {
        let (source, input) = sys::pipe().unwrap();
        let (output, sink) = sys::pipe().unwrap();
        sys::set_nonblocking(&input, true).unwrap();
        sys::set_nonblocking(&output, true).unwrap();
        (
            input,
            Pump::output(source, Sink::pipe(sink).unwrap()).unwrap(),
            output,
        )
    }

    #[test]
    fn all_bytes_arrive_in_order_with_a_reader_that_stalls() {
        let (input, pump, output) = pump();
        let reactor = Reactor::new().unwrap();
        let mut pumps = Pumps::default();
        let number = pumps.start(pump, &reactor).unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let (mut written, mut received) = (0, Vec::new());
        let mut sizes = [1, 10, 5000, 40_000, 70_000].into_iter().cycle();
        while received.len() < sent.len() {
            let end = sent.len().min(written + sizes.next().unwrap());
            written += sys::write(&input, &sent[written..end]).unwrap_or(0);
            pumps.advance(number, &reactor);
            if written % 3 == 0 || written == sent.len() {
                received.extend(read_all(&output));
            }
        }
        assert!(received == sent);
        drop(input);
        assert!(pumps.advance(number, &reactor));
    }

    #[test]
    fn what_is_held_comes_with_the_release_or_never() {
        let reactor = Reactor::new().unwrap();
        let mut pumps = Pumps::default();
        for released in [true, false] {
            let (input, mut pump, output) = pump();
            pump.hold();
            let number = pumps.start(pump, &reactor).unwrap();
            sys::write(&input, b"said").unwrap();
            assert!(!pumps.advance(number, &reactor));
            drop(input);
            // The end does not make a held copy go away.
            assert!(!pumps.advance(number, &reactor));
            assert!(read_all(&output).is_empty());
            assert_eq!(pumps.held_text(number, &reactor).as_deref(), Some("said"));
            if released {
                pumps.release(number, &reactor);
                assert_eq!(pumps.held_text(number, &reactor), None);
            } else {
                pumps.stop(number, &reactor);
            }
            let expected: &[u8] = if released { b"said" } else { b"" };
            assert_eq!(read_all(&output), expected);
        }
    }

    #[test]
    fn a_held_copy_does_not_block_who_writes_much() {
        let (input, mut pump, output) = pump();
        let reactor = Reactor::new().unwrap();
        let mut pumps = Pumps::default();
        pump.hold();
        let number = pumps.start(pump, &reactor).unwrap();
        let (mut written, mut received) = (0, 0);
        while written < 4 * HELD_BYTES_MAX {
            written += sys::write(&input, &[7; 4096]).unwrap_or(0);
            pumps.advance(number, &reactor);
            received += read_all(&output).len();
        }
        drop(input);
        while !pumps.advance(number, &reactor) {
            received += read_all(&output).len();
        }
        received += read_all(&output).len();
        assert_eq!(received, written);
    }

    #[test]
    fn a_fast_stream_is_logged_whole_and_leaves_no_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let settings = log::LogSettings::new(folder.path().join("log.json"));
        let sink = Sink::Log(
            Rc::new(log::LogFile::open(&settings).unwrap().into()),
            Stream::Stdout,
        );
        let (source, input) = sys::pipe().unwrap();
        sys::set_nonblocking(&input, true).unwrap();
        let reactor = Reactor::new().unwrap();
        let mut pumps = Pumps::default();
        let number = pumps
            .start(Pump::output(source, sink).unwrap(), &reactor)
            .unwrap();
        let sent: String = (0..50_000).fold(String::new(), |text, line| text + &format!("line {line}\n"));
        let (mut rest, mut largest) = (sent.as_bytes(), 0);
        while !rest.is_empty() {
            let written = sys::write(&input, rest).unwrap_or(0);
            largest = largest.max(written);
            rest = &rest[written..];
            pumps.advance(number, &reactor);
        }
        let logged: String = std::fs::read_to_string(&settings.path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|entry| entry["log"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(logged, sent);
        assert_eq!(largest, BUSY_PIPE_BYTES);
        assert_eq!(pumps.buffer.capacity(), 0);
    }

    #[test]
    fn a_full_fifo_neither_blocks_nor_loses() {
        let (input, pump, output) = pump();
        let reactor = Reactor::new().unwrap();
        let mut pumps = Pumps::default();
        let number = pumps.start(pump, &reactor).unwrap();
        let mut written = 0;
        loop {
            pumps.drain(number, &reactor);
            match sys::write(&input, &[7; 4096]) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        assert!(pumps.have_unread(&[number]));
        drop(input);
        let mut received = 0;
        loop {
            let over = pumps.advance(number, &reactor);
            received += read_all(&output).len();
            if over {
                break;
            }
        }
        assert_eq!(received, written);
    }
}
