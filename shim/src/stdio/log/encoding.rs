//! One record of a log: a line of JSON.

use std::io::Write as _;
use std::time::SystemTime;

use super::Stream;
use crate::timestamp;

/// Adds a record to `line`.
pub(super) fn encode(line: &mut Vec<u8>, stream: Stream, chunk: &[u8], attributes: &str, at: SystemTime) {
    // Writing into memory does not fail.
    if let Ok(text) = std::str::from_utf8(chunk) {
        line.extend_from_slice(b"{\"log\":");
        let _ = serde_json::to_writer(&mut *line, text);
    } else {
        line.extend_from_slice(b"{\"log64\":\"");
        base64(line, chunk);
        line.push(b'"');
    }
    let _ = write!(line, ",\"stream\":\"{}\"", stream.name());
    if !attributes.is_empty() {
        let _ = write!(line, ",\"attrs\":{attributes}");
    }
    let _ = writeln!(line, ",\"time\":\"{}\"}}", timestamp::rfc3339(at));
}

/// RFC 4648 with padding.
fn base64(output: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4usize {
            if index <= group.len() {
                output.push(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]);
            } else {
                output.push(b'=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_standard_says() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut output = Vec::new();
            base64(&mut output, plain.as_bytes());
            assert_eq!(String::from_utf8(output).unwrap(), coded);
        }
    }
}
