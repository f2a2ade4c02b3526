//! `logs`: what a container has written, each byte to the output where it belongs.

use std::collections::HashMap;
use std::fmt::Write as _;

use proto::v1::{LogChunk, LogsRequest, log_chunk};

use crate::cli::Logs;
use crate::client::Client;
use crate::failure::Result;
use crate::stdio::{self, Stream};
use crate::time::rfc3339;

pub(super) async fn logs(client: &Client, flags: Logs) -> Result<u8> {
    let request = LogsRequest {
        container: flags.container,
        follow: flags.follow,
        tail_lines: flags.tail.0,
        since_unix_nanos: flags.since.unwrap_or(0),
        until_unix_nanos: flags.until.unwrap_or(0),
        details: flags.details,
    };
    let reply = client
        .containers()
        .logs(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut chunks = reply.into_inner();
    let mut stamper = (flags.timestamps || flags.details).then(|| Stamper {
        times: flags.timestamps,
        details: flags.details,
        inside_line: HashMap::new(),
    });
    while let Some(chunk) = chunks.message().await.map_err(|status| client.failure(&status))? {
        let stream = match chunk.stream() {
            log_chunk::Stream::Stderr => Stream::Stderr,
            _ => Stream::Stdout,
        };
        match &mut stamper {
            Some(stamper) => stdio::write(stream, &stamper.stamp(&chunk))?,
            None => stdio::write(stream, &chunk.data)?,
        }
    }
    Ok(0)
}

/// Puts the time and the attributes before each line. A line may come in several chunks: it has those of the first.
struct Stamper {
    times: bool,
    details: bool,
    /// By stream: its last chunk ended inside a line.
    inside_line: HashMap<i32, bool>,
}

impl Stamper {
    fn stamp(&mut self, chunk: &LogChunk) -> Vec<u8> {
        let inside_line = self.inside_line.entry(chunk.stream).or_default();
        let mut stamp = String::new();
        if self.times {
            stamp = rfc3339(chunk.at_unix_nanos) + " ";
        }
        if self.details {
            stamp += &details(&chunk.attributes);
            stamp.push(' ');
        }
        let mut stamped = Vec::with_capacity(chunk.data.len() + stamp.len());
        for line in chunk.data.split_inclusive(|&byte| byte == b'\n') {
            if !*inside_line {
                stamped.extend_from_slice(stamp.as_bytes());
            }
            stamped.extend_from_slice(line);
            *inside_line = !line.ends_with(b"\n");
        }
        stamped
    }
}

/// As docker shows them: sorted, and escaped as in a query, so that they are one word.
fn details(attributes: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = attributes
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    pairs.sort();
    pairs.join(",")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => escaped.push(char::from(byte)),
            byte => {
                // Writing into memory does not fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: log_chunk::Stream, data: &[u8], at_unix_nanos: i64) -> LogChunk {
        LogChunk {
            stream: stream.into(),
            data: data.to_vec(),
            at_unix_nanos,
            attributes: [
                ("b".to_owned(), "x y".to_owned()),
                ("a".to_owned(), "ü".to_owned()),
            ]
            .into(),
        }
    }

    #[test]
    fn details_are_one_word_before_each_line() {
        let mut stamper = Stamper {
            times: false,
            details: true,
            inside_line: HashMap::new(),
        };
        let mut chunk = chunk(log_chunk::Stream::Stdout, b"1\n2\n", 0);
        assert_eq!(stamper.stamp(&chunk), b"a=%C3%BC,b=x+y 1\na=%C3%BC,b=x+y 2\n");
        chunk.attributes.clear();
        assert_eq!(stamper.stamp(&chunk), b" 1\n 2\n");
    }

    #[test]
    fn each_line_has_the_time_of_its_beginning() {
        use log_chunk::Stream::{Stderr, Stdout};
        let mut stamper = Stamper {
            times: true,
            details: false,
            inside_line: HashMap::new(),
        };
        let mut stamp = |chunk| String::from_utf8(stamper.stamp(&chunk)).unwrap();
        let (t0, t1) = ("1970-01-01T00:00:00.000000000Z", "1970-01-01T00:00:00.000000001Z");
        assert_eq!(stamp(chunk(Stdout, b"a\nb", 0)), format!("{t0} a\n{t0} b"));
        assert_eq!(stamp(chunk(Stderr, b"x\n", 0)), format!("{t0} x\n"));
        assert_eq!(stamp(chunk(Stdout, b"c\nd\n", 1)), format!("c\n{t1} d\n"));
    }
}
