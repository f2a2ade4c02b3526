//! What the one thread waits for: descriptors by epoll and a few deadlines. With nothing due it sleeps in the kernel
//! without end, so an idle shim never wakes up.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::sys::{Epoll, Interest, Ready};
use crate::task::ProcessKey;

/// Whose readiness it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Listener,
    Signals,
    Publisher,
    Connection(u32),
    /// The side of a copy that is read.
    Source(u32),
    /// The side of a copy that is written.
    Sink(u32),
    /// The watch on a container's memory.
    OutOfMemory(u32),
    /// The pipe on which a logger says that it is ready.
    Logger(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Token::Listener => (1, 0),
            Token::Signals => (2, 0),
            Token::Publisher => (3, 0),
            Token::Connection(number) => (5, number),
            Token::Source(number) => (6, number),
            Token::Sink(number) => (7, number),
            Token::OutOfMemory(number) => (8, number),
            Token::Logger(number) => (9, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(code: u64) -> Option<Self> {
        let number = code as u32;
        Some(match code >> 32 {
            1 => Token::Listener,
            2 => Token::Signals,
            3 => Token::Publisher,
            5 => Token::Connection(number),
            6 => Token::Source(number),
            7 => Token::Sink(number),
            8 => Token::OutOfMemory(number),
            9 => Token::Logger(number),
            _ => return None,
        })
    }
}

/// What happens when a deadline has come. A deadline whose matter was settled meanwhile does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deadline {
    /// A delete waited long enough for a reader of the remaining output.
    Delete(ProcessKey),
    /// A look whether somebody has opened the fifo that a copy waits with; how many there were.
    Reader(u32, u32),
    /// A look whether the kernel has killed by now, in the container with this number.
    OutOfMemory(u32),
    /// The event queue tries its receiver again.
    Publish,
    /// A logger did not say that it is ready.
    LoggerReady(u32),
    /// A logger had its time to end after its input did.
    LoggerEnd(u32),
    /// Listening was stopped because no descriptor was left.
    Accept,
    /// The events had their time to leave before the process ends.
    Exit,
}

#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
    ready: Vec<Ready>,
    deadlines: BTreeMap<(Instant, u64), Deadline>,
    next_deadline: u64,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    Ready {
        token: Token,
        readable: bool,
        writable: bool,
    },
    Due(Deadline),
}

impl Reactor {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            ready: Vec::new(),
            deadlines: BTreeMap::new(),
            next_deadline: 0,
        })
    }

    pub fn watch(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        self.epoll.add(fd, token.encode(), interest)
    }

    pub fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        self.epoll.modify(fd, token.encode(), interest)
    }

    /// Takes a descriptor off the list. Needed before it is closed when another descriptor for the same open file
    /// lives on; harmless otherwise.
    pub fn forget(&self, fd: impl AsFd) {
        let _ = self.epoll.remove(fd);
    }

    pub fn after(&mut self, delay: Duration, deadline: Deadline) {
        self.next_deadline += 1;
        self.deadlines
            .insert((Instant::now() + delay, self.next_deadline), deadline);
    }

    pub fn cancel(&mut self, deadline: &Deadline) {
        self.deadlines.retain(|_, other| other != deadline);
    }

    /// Sleeps until something is to be done and tells what.
    pub fn wait(&mut self) -> io::Result<Vec<Wake>> {
        let now = Instant::now();
        let timeout = self
            .deadlines
            .keys()
            .next()
            .map(|(due, _)| due.saturating_duration_since(now));
        self.epoll.wait(&mut self.ready, timeout)?;
        let mut wakes: Vec<Wake> = self
            .ready
            .iter()
            .filter_map(|ready| {
                let token = Token::decode(ready.token)?;
                Some(Wake::Ready {
                    token,
                    readable: ready.readable,
                    writable: ready.writable,
                })
            })
            .collect();
        let now = Instant::now();
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                break;
            }
            wakes.push(Wake::Due(entry.remove()));
        }
        Ok(wakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Connection(7),
            Token::Sink(u32::MAX),
            Token::Logger(0),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(0), None);
    }

    #[test]
    fn deadlines_come_in_the_order_of_their_time() {
        let mut reactor = Reactor::new().unwrap();
        reactor.after(Duration::from_millis(2), Deadline::Publish);
        reactor.after(Duration::ZERO, Deadline::Accept);
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(reactor.wait().unwrap());
        }
        assert_eq!(seen, [Wake::Due(Deadline::Accept), Wake::Due(Deadline::Publish)]);
    }
}
