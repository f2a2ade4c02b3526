//! `logs`: what a container has written, each byte to the output where it belongs.

use std::collections::HashMap;

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
    };
    let reply = client
        .containers()
        .logs(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut chunks = reply.into_inner();
    let mut stamper = flags.timestamps.then(Stamper::default);
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

/// Puts the time before each line. A line may come in several chunks: it has the time of the first.
#[derive(Default)]
struct Stamper {
    /// By stream: its last chunk ended inside a line.
    inside_line: HashMap<i32, bool>,
}

impl Stamper {
    fn stamp(&mut self, chunk: &LogChunk) -> Vec<u8> {
        let inside_line = self.inside_line.entry(chunk.stream).or_default();
        let time = rfc3339(chunk.at_unix_nanos);
        let mut stamped = Vec::with_capacity(chunk.data.len() + time.len() + 1);
        for line in chunk.data.split_inclusive(|&byte| byte == b'\n') {
            if !*inside_line {
                stamped.extend_from_slice(time.as_bytes());
                stamped.push(b' ');
            }
            stamped.extend_from_slice(line);
            *inside_line = !line.ends_with(b"\n");
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(stream: log_chunk::Stream, data: &[u8], at_unix_nanos: i64) -> LogChunk {
        LogChunk {
            stream: stream.into(),
            data: data.to_vec(),
            at_unix_nanos,
        }
    }

    #[test]
    fn each_line_has_the_time_of_its_beginning() {
        use log_chunk::Stream::{Stderr, Stdout};
        let mut stamper = Stamper::default();
        let mut stamp = |chunk| String::from_utf8(stamper.stamp(&chunk)).unwrap();
        let (t0, t1) = ("1970-01-01T00:00:00.000000000Z", "1970-01-01T00:00:00.000000001Z");
        assert_eq!(stamp(chunk(Stdout, b"a\nb", 0)), format!("{t0} a\n{t0} b"));
        assert_eq!(stamp(chunk(Stderr, b"x\n", 0)), format!("{t0} x\n"));
        assert_eq!(stamp(chunk(Stdout, b"c\nd\n", 1)), format!("c\n{t1} d\n"));
    }
}
