//! Numbers as people write them: `64m`, `1.5g`, `0.5` CPUs; and sizes as people read them.

/// Bytes, from a number with an optional unit: b, k, m, g, t, p, each 1024 times the one before; `kb` and `KiB`
/// are `k`. A fraction is allowed, and rounded down to bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    const UNITS: &str = "bkmgtp";
    let trimmed = text.trim();
    let digits_end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits_end);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.as_bytes() {
        [] => 0,
        [letter] | [letter, b'b'] | [letter, b'i', b'b'] => UNITS
            .find(char::from(*letter))
            .ok_or_else(|| format!("{unit:?} is no unit: use one of b k m g t p"))?,
        _ => return Err(format!("{unit:?} is no unit: use one of b k m g t p")),
    };
    scaled(number, 1 << (10 * power), 9)
}

/// Thousandths of a CPU, from a decimal number of CPUs.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    scaled(text.trim(), 1000, 3)
}

/// A decimal number times `factor`, exactly; no float comes between.
fn scaled(number: &str, factor: u64, fraction_digits_max: usize) -> Result<i64, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(format!("{number:?} is no number"));
    }
    if fraction.len() > fraction_digits_max {
        return Err(format!("more than {fraction_digits_max} digits after the point"));
    }
    let too_large = || format!("{number} is too large");
    let parse = |part: &str| {
        if part.is_empty() {
            Ok(0)
        } else {
            part.parse::<u128>().map_err(|_| too_large())
        }
    };
    let factor = u128::from(factor);
    let scaled_whole = parse(whole)?.checked_mul(factor).ok_or_else(too_large)?;
    let scaled_fraction = parse(fraction)? * factor / 10_u128.pow(fraction.len() as u32);
    scaled_whole
        .checked_add(scaled_fraction)
        .and_then(|sum| i64::try_from(sum).ok())
        .ok_or_else(too_large)
}

/// Three digits and a decimal unit, as docker shows sizes: `117MB`, `1.23kB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

/// Four digits and a binary unit, as docker shows memory: `1.176MiB`.
pub(crate) fn format_binary_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_have_binary_units() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("512kb"), Ok(512 << 10));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("10 b"), Ok(10));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "m",
            ".",
            "-1",
            "1x",
            "1mm",
            "1..5m",
            "1e3",
            "99999999999999999999p",
            "9999999p",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact_thousandths() {
        assert_eq!(parse_cpus("1.5"), Ok(1500));
        assert_eq!(parse_cpus(".25"), Ok(250));
        assert_eq!(parse_cpus("0.001"), Ok(1));
        assert_eq!(parse_cpus("0"), Ok(0));
        assert_eq!(parse_cpus("2"), Ok(2000));
        for text in ["0.0001", "-1", "two", ""] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_shown_with_four_digits() {
        assert_eq!(format_binary_bytes(0), "0B");
        assert_eq!(format_binary_bytes(64 << 20), "64MiB");
        assert_eq!(format_binary_bytes(1_233_125), "1.176MiB");
        assert_eq!(format_binary_bytes(1023 << 10), "1023KiB");
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        assert_eq!(format_bytes(0), "0B");
        assert_eq!(format_bytes(999), "999B");
        assert_eq!(format_bytes(1000), "1kB");
        assert_eq!(format_bytes(1234), "1.23kB");
        assert_eq!(format_bytes(116_900_000), "117MB");
        assert_eq!(format_bytes(999_999), "1MB");
        assert_eq!(format_bytes(u64::MAX), "18.4EB");
    }
}
