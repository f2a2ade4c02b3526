//! Messages as receivers want them: journald's native protocol (`systemd.io/JOURNAL_NATIVE_PROTOCOL`), and syslog as RFC
//! 3164 and RFC 5424 have it, with docker's choices in what they leave open.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::ForwardSettings;
use crate::stdio::log::Stream;
use crate::{sys, timestamp};

const SEVERITY_ERROR: u8 = 3;
const SEVERITY_INFORMATIONAL: u8 = 6;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    Journald,
    /// Like RFC 3164 without a host name, as programs write to their own machine's socket.
    #[default]
    Unix,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

impl Format {
    pub const RULE: &str = "journald, unix, rfc3164, rfc5424 or rfc5424micro";

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "journald" => Format::Journald,
            "unix" => Format::Unix,
            "rfc3164" => Format::Rfc3164,
            "rfc5424" => Format::Rfc5424,
            "rfc5424micro" => Format::Rfc5424Micro,
            _ => return None,
        })
    }
}

/// Which piece of a line a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// 0: there was none before.
    before: u32,
    last: bool,
}

impl Piece {
    pub(super) fn and(self, last: bool) -> Self {
        Self { last, ..self }
    }

    pub(super) fn next(self, last: bool) -> Self {
        Self {
            before: if last { 0 } else { self.before.saturating_add(1) },
            last: false,
        }
    }

    fn is_whole(self) -> bool {
        self.before == 0 && self.last
    }
}

pub(super) struct Message<'a> {
    /// Without a newline.
    pub(super) text: &'a [u8],
    pub(super) at: SystemTime,
    pub(super) piece: Piece,
}

impl<'a> Message<'a> {
    pub(super) fn whole(text: &'a [u8]) -> Self {
        Self {
            text,
            at: SystemTime::now(),
            piece: Piece::default().and(true),
        }
    }
}

#[derive(Debug)]
pub(super) struct Encoder {
    format: Format,
    severity: u8,
    facility: u8,
    tag: String,
    host: String,
    fields: String,
    /// Tells the lines of this stream that came in pieces from those of others.
    line_id: u64,
}

impl Encoder {
    pub(super) fn new(settings: &ForwardSettings, stream: Stream) -> Self {
        Self {
            format: settings.format,
            severity: match stream {
                Stream::Stdout => SEVERITY_INFORMATIONAL,
                Stream::Stderr => SEVERITY_ERROR,
            },
            facility: settings.facility,
            tag: settings.tag.clone(),
            host: sys::host_name(),
            fields: settings.fields.clone(),
            line_id: timestamp::unix_nanos(SystemTime::now()),
        }
    }

    pub(super) fn encode(&mut self, message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.text.len() + self.fields.len() + 256);
        // Writing into memory does not fail.
        let _ = match self.format {
            Format::Journald => self.journald(&mut out, message),
            _ => self.syslog(&mut out, message),
        };
        out.extend_from_slice(message.text);
        out.push(b'\n');
        out
    }

    fn journald(&mut self, out: &mut Vec<u8>, message: &Message<'_>) -> std::io::Result<()> {
        out.extend_from_slice(self.fields.as_bytes());
        writeln!(out, "PRIORITY={}", self.severity)?;
        writeln!(out, "SYSLOG_TIMESTAMP={}", timestamp::rfc3339(message.at))?;
        if !message.piece.is_whole() {
            if message.piece.before == 0 {
                self.line_id = self.line_id.wrapping_add(1);
            }
            writeln!(out, "CONTAINER_PARTIAL_ID={:016x}", self.line_id)?;
            writeln!(out, "CONTAINER_PARTIAL_ORDINAL={}", message.piece.before + 1)?;
            writeln!(out, "CONTAINER_PARTIAL_LAST={}", message.piece.last)?;
            if !message.piece.last {
                writeln!(out, "CONTAINER_PARTIAL_MESSAGE=true")?;
            }
        }
        write!(out, "MESSAGE=")
    }

    fn syslog(&self, out: &mut Vec<u8>, message: &Message<'_>) -> std::io::Result<()> {
        let priority = self.facility * 8 + self.severity;
        let (host, tag, pid) = (&self.host, &self.tag, std::process::id());
        match self.format {
            Format::Rfc5424 | Format::Rfc5424Micro => {
                let time = timestamp::rfc3339(message.at);
                let second = &time[.."2026-01-02T03:04:05".len()];
                let micros = match self.format {
                    Format::Rfc5424Micro => &time[second.len().."2026-01-02T03:04:05.123456".len()],
                    _ => "",
                };
                write!(out, "<{priority}>1 {second}{micros}Z {host} {tag} {pid} {tag} - ")
            }
            Format::Rfc3164 => write!(out, "<{priority}>{} {host} {tag}[{pid}]: ", stamp(message.at)),
            _ => write!(out, "<{priority}>{} {tag}[{pid}]: ", stamp(message.at)),
        }
    }
}

/// `Jan  2 03:04:05`, in local time as RFC 3164 asks for.
fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let [month, day, hour, minute, second] = sys::local_time(seconds.cast_signed());
    let month = MONTHS[usize::try_from(month).unwrap_or(0) % MONTHS.len()];
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn encode(format: Format, piece: Piece, stream: Stream) -> String {
        let settings = ForwardSettings {
            format,
            facility: 3,
            tag: "web".to_owned(),
            fields: "CONTAINER_NAME=one\n".to_owned(),
            ..ForwardSettings::default()
        };
        let mut encoder = Encoder::new(&settings, stream);
        (encoder.host, encoder.line_id) = ("here".to_owned(), 7);
        let message = Message {
            text: b"hello",
            at: UNIX_EPOCH + Duration::new(1_767_323_045, 123_456_789),
            piece,
        };
        let text = String::from_utf8(encoder.encode(&message)).unwrap();
        text.replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn syslog_messages_are_as_their_rfcs_have_them() {
        let whole = Piece::default().and(true);
        assert_eq!(
            encode(Format::Rfc5424, whole, Stream::Stdout),
            "<30>1 2026-01-02T03:04:05Z here web PID web - hello\n"
        );
        assert_eq!(
            encode(Format::Rfc5424Micro, whole, Stream::Stderr),
            "<27>1 2026-01-02T03:04:05.123456Z here web PID web - hello\n"
        );
        let old = encode(Format::Rfc3164, whole, Stream::Stderr);
        assert!(old.starts_with("<27>Jan  "), "{old}");
        assert!(old.ends_with(":05 here web[PID]: hello\n"), "{old}");
        let local = encode(Format::Unix, whole, Stream::Stdout);
        assert!(local.ends_with(":05 web[PID]: hello\n"), "{local}");
    }

    #[test]
    fn journald_is_told_which_pieces_belong_together() {
        let whole = encode(Format::Journald, Piece::default().and(true), Stream::Stderr);
        assert_eq!(
            whole,
            "CONTAINER_NAME=one\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05.123456789Z\nMESSAGE=hello\n"
        );
        let first = Piece::default().and(false);
        let text = encode(Format::Journald, first, Stream::Stdout);
        assert!(
            text.contains(
                "PARTIAL_ORDINAL=1\nCONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\n"
            ),
            "{text}"
        );
        let last = first.next(false).and(true);
        let text = encode(Format::Journald, last, Stream::Stdout);
        assert!(
            text.contains("PARTIAL_ORDINAL=2\nCONTAINER_PARTIAL_LAST=true\nMESSAGE="),
            "{text}"
        );
        assert!(last.next(true).and(true).is_whole());
    }
}
