//! The `Range` header by which a registry says how much of an upload it has.

/// How many bytes of `size` have arrived; `None` if the header says nothing that can be.
///
/// It is `0-<last byte>`, in the wild also `bytes=0-<last byte>`. `0-0` stands for one byte by the letter, and for
/// none at registries of the distribution project; read as none, it costs at most an upload anew.
pub(crate) fn received(header: &str, size: u64) -> Option<u64> {
    let range = header.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    if first.trim() != "0" {
        return None;
    }
    match last.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1).filter(|count| *count <= size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_the_last_byte() {
        for (header, count) in [
            ("0-0", Some(0)),
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            (" 0-99 ", Some(100)),
            ("0-100", None),
            ("5-9", None),
            ("0-", None),
            ("0--1", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(received(header, 100), count, "{header}");
        }
    }
}
