//! Go's printf, as far as templates use it: %s %v %q %d %t %f %x, with width, precision, and the flags - and 0.

use std::fmt::Write as _;

use serde_json::Value;

use crate::show;

/// Of width and precision.
const NUMBER_MAX: usize = 1000;

pub(crate) fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut output = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        let (mut left, mut zeros) = (false, false);
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0')) {
            left |= flag == '-';
            zeros |= flag == '0';
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                number = Some((number.unwrap_or(0) * 10 + digit as usize).min(NUMBER_MAX));
            }
            number
        };
        let width = number(&mut chars).unwrap_or(0);
        let precision = chars.next_if_eq(&'.').map(|_| number(&mut chars).unwrap_or(0));
        let verb = chars
            .next()
            .ok_or("printf: the format ends in the middle of a verb")?;
        if verb == '%' {
            output.push('%');
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("printf: there is no value for %{verb}"))?;
        let text = verb_text(verb, value, precision)?;
        let missing = width.saturating_sub(text.chars().count());
        if left {
            output.push_str(&text);
            output.extend(std::iter::repeat_n(' ', missing));
        } else if zeros && value.is_number() {
            let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
            output.push_str(sign);
            output.extend(std::iter::repeat_n('0', missing));
            output.push_str(digits);
        } else {
            output.extend(std::iter::repeat_n(' ', missing));
            output.push_str(&text);
        }
    }
    match arguments.next() {
        None => Ok(output),
        Some(_) => Err("printf: there are more values than the format takes".to_owned()),
    }
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>) -> Result<String, String> {
    let wrong = || format!("printf: %{verb} is nothing for {value}");
    let cut = |text: String| match precision {
        Some(most) => text.chars().take(most).collect(),
        None => text,
    };
    Ok(match verb {
        's' | 'v' => cut(show::text(value)),
        // JSON's escapes are Go's, but for what is not printed.
        'q' => Value::String(cut(show::text(value))).to_string(),
        'd' => match value {
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(wrong()),
        },
        't' => value.as_bool().ok_or_else(wrong)?.to_string(),
        'f' => {
            let number = value.as_f64().ok_or_else(wrong)?;
            format!("{number:.*}", precision.unwrap_or(6))
        }
        'x' => match value {
            Value::Number(number) => format!("{:x}", number.as_i64().ok_or_else(wrong)?),
            Value::String(text) => text.bytes().fold(String::new(), |mut text, byte| {
                // A string takes it.
                let _ = write!(text, "{byte:02x}");
                text
            }),
            _ => return Err(wrong()),
        },
        _ => return Err(format!("printf: %{verb} is not supported")),
    })
}
