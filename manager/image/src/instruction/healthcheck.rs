//! `HEALTHCHECK`: how a container is asked whether it is well.

use serde_json::{Value, json};

use super::json_strings;

/// Go's units of a duration, in nanoseconds.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("h", 3.6e12),
    ("m", 6e10),
    ("s", 1e9),
];

/// `NONE`, or options and `CMD` with a command.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut check = json!({});
    let mut rest = text.trim();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        rest = after.trim_start();
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("--{option} has no value: write --{option}=VALUE"))?;
        let (field, value) = match name {
            "interval" => ("Interval", duration(value)?),
            "timeout" => ("Timeout", duration(value)?),
            "start-period" => ("StartPeriod", duration(value)?),
            "start-interval" => ("StartInterval", duration(value)?),
            "retries" => (
                "Retries",
                value
                    .parse::<u32>()
                    .map_err(|_| format!("--retries={value} is not a number of times"))?
                    .into(),
            ),
            _ => {
                return Err(format!(
                    "--{name} is none of --interval, --timeout, --start-period, --start-interval and --retries"
                ));
            }
        };
        check[field] = value;
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    check["Test"] = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() && check == json!({}) => json!(["NONE"]),
        "CMD" if command.is_empty() => return Err("CMD needs a command".into()),
        "CMD" => match json_strings(command) {
            Some(words) => {
                let words: Vec<String> = std::iter::once("CMD".to_owned()).chain(words).collect();
                json!(words)
            }
            None => json!(["CMD-SHELL", command]),
        },
        _ => return Err("it is neither `NONE` alone nor options and `CMD` with a command".into()),
    };
    Ok(check)
}

/// A duration in Go's way, `1m30s`, as nanoseconds.
fn duration(text: &str) -> Result<Value, String> {
    let broken = || format!("{text:?} is not a duration such as 30s or 1m30s");
    let mut nanoseconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(broken)?;
        let number: f64 = rest[..digits].parse().map_err(|_| broken())?;
        let (unit, factor) = UNITS
            .iter()
            .find(|(unit, _)| {
                rest[digits..]
                    .strip_prefix(unit)
                    .is_some_and(|after| !after.starts_with(char::is_alphabetic))
            })
            .ok_or_else(broken)?;
        nanoseconds += number * factor;
        rest = &rest[digits + unit.len()..];
    }
    // Docker takes no shorter one, and no longer one fits its type.
    if text.is_empty() || !(1e6..9e18).contains(&nanoseconds) && nanoseconds != 0.0 {
        return Err(format!("{text:?} is shorter than 1ms, or longer than 292 years"));
    }
    Ok((nanoseconds as i64).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_options_and_a_command() {
        let check = parse(r#"--interval=1m30s --timeout=1.5s --retries=3 CMD ["true", "x"]"#).unwrap();
        let expected = json!({
            "Interval": 90_000_000_000_i64, "Timeout": 1_500_000_000, "Retries": 3, "Test": ["CMD", "true", "x"],
        });
        assert_eq!(check, expected);
        assert_eq!(
            parse("cmd curl -f x").unwrap(),
            json!({"Test": ["CMD-SHELL", "curl -f x"]})
        );
        assert_eq!(parse("NONE").unwrap(), json!({"Test": ["NONE"]}));
    }

    #[test]
    fn broken_checks_are_refused() {
        for text in [
            "",
            "CMD",
            "NONE x",
            "--interval=1s NONE",
            "--interval CMD x",
            "--interval=1 CMD x",
            "--interval=1ns CMD x",
            "--interval=9999999999999h CMD x",
            "--retries=-1 CMD x",
            "--other=1 CMD x",
            "ls",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
