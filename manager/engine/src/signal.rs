//! Signals by name or number, as people write them: `KILL`, `SIGKILL`, `9`, `RTMIN+3`.

use nix::sys::signal::Signal;

use crate::Error;

/// glibc keeps the first two of the kernel's real-time signals for itself.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal. `field` names where it was asked for.
pub(crate) fn parse(field: &'static str, name: &str) -> Result<u32, Error> {
    number(name).ok_or_else(|| Error::invalid(field, format!("{name:?} is not a signal's name or number")))
}

fn number(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse::<u32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        return real_time(RTMIN, offset, '+');
    }
    if let Some(offset) = bare.strip_prefix("RTMAX") {
        return real_time(RTMAX, offset, '-');
    }
    let bare = match bare {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{bare}")
        .parse::<Signal>()
        .ok()
        .map(|signal| signal as u32)
}

fn real_time(base: u32, offset: &str, sign: char) -> Option<u32> {
    let offset = match offset {
        "" => 0,
        signed => signed.strip_prefix(sign)?.parse::<u32>().ok()?,
    };
    let number = if sign == '+' {
        base.checked_add(offset)?
    } else {
        base.checked_sub(offset)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals_are_known() {
        for (name, expected) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("winch", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("IOT", 6),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for bad in [
            "",
            "0",
            "65",
            "KILLER",
            "-9",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "SIGSIGKILL",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
