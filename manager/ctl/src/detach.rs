//! The keys that leave a container without ending it: ^P^Q, or what `--detach-keys` says.
//!
//! The sequence may come split over several reads, so its beginning is held back until the next byte tells. A
//! beginning that leads nowhere is passed on, with the byte that told.

use std::str::FromStr;

/// More would never be typed.
const KEYS_MAX: usize = 16;

/// A key sequence, as bytes of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Docker's notation: `ctrl-p,ctrl-q`, or single characters, separated by commas. Empty: no way out.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        Ok(Self(keys))
    }
}

fn key(name: &str) -> Result<u8, String> {
    let bytes = name.as_bytes();
    if let [character] = bytes {
        return Ok(*character);
    }
    match name.to_ascii_lowercase().strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(letter & 0x1f),
        _ => Err(format!(
            "{name:?} is no key: use a character, or ctrl- and one of a-z @ [ \\ ] ^ _"
        )),
    }
}

/// Reads what is typed, and notices the sequence.
#[derive(Debug)]
pub(crate) struct Detector {
    keys: Vec<u8>,
    /// How many keys of the sequence have been typed and are held back.
    held: usize,
}

impl Detector {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self {
            keys: keys.0,
            held: 0,
        }
    }

    /// Takes what was read; gives what is to be passed on, and whether the whole sequence was typed. What follows
    /// the sequence in the same read is nobody's.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(typed.len() + self.held);
        for &byte in typed {
            // What is held is a beginning of the sequence: let go of it from the front, until the byte fits
            // to what is left, or nothing is.
            while self.held > 0 && self.keys[self.held] != byte {
                let shorter = self.longest_beginning_within_held();
                passed.extend_from_slice(&self.keys[..self.held - shorter]);
                self.held = shorter;
            }
            if self.keys[self.held] != byte {
                passed.push(byte);
                continue;
            }
            self.held += 1;
            if self.held == self.keys.len() {
                self.held = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// Length of the longest end of the held keys, shorter than all of them, that begins the sequence again.
    fn longest_beginning_within_held(&self) -> usize {
        let held = &self.keys[..self.held];
        (0..held.len())
            .rev()
            .find(|&length| held.ends_with(&self.keys[..length]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector() -> Detector {
        Detector::new(DetachKeys::default())
    }

    fn passed(detector: &mut Detector, typed: &[u8]) -> Vec<u8> {
        let (passed, detached) = detector.feed(typed);
        assert!(!detached);
        passed
    }

    #[test]
    fn the_sequence_detaches_whole_or_split() {
        assert_eq!(detector().feed(b"\x10\x11"), (vec![], true));
        let mut split = detector();
        assert_eq!(passed(&mut split, b"ls\x10"), b"ls");
        assert_eq!(split.feed(b"\x11rest"), (vec![], true));
    }

    #[test]
    fn what_was_typed_before_the_sequence_is_passed_on() {
        assert_eq!(detector().feed(b"exit\n\x10\x11"), (b"exit\n".to_vec(), true));
    }

    #[test]
    fn a_lone_beginning_is_passed_on_with_the_next_byte() {
        let mut detector = detector();
        assert_eq!(passed(&mut detector, b"\x10"), b"");
        assert_eq!(passed(&mut detector, b"x"), b"\x10x");
        assert_eq!(passed(&mut detector, b"\x11"), b"\x11");
    }

    #[test]
    fn a_repeated_first_key_begins_anew() {
        let mut first = detector();
        assert_eq!(passed(&mut first, b"\x10\x10"), b"\x10");
        assert!(first.feed(b"\x11").1);

        let mut longer = Detector::new("a,a,b".parse().unwrap());
        assert_eq!(passed(&mut longer, b"aaa"), b"a");
        assert!(longer.feed(b"b").1);
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-[,x".parse(), Ok(DetachKeys(vec![0x1b, b'x'])));
        assert!("ctrl-1".parse::<DetachKeys>().is_err());
        assert!("ctrl-a,,".parse::<DetachKeys>().is_err());
        let mut none = Detector::new("".parse().unwrap());
        assert_eq!(passed(&mut none, b"\x10\x11"), b"\x10\x11");
    }
}
