//! Lines of CSV, as docker's flags take them (RFC 4180).

/// The fields of a line of CSV: one in quotes may have commas, and quotes by two of them.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("something follows the end of a quoted field"),
        }
    }
}

/// A field to its closing quote, and what follows.
fn unquote(mut text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    loop {
        let end = text.find('"').ok_or("a quoted field has no end")?;
        field.push_str(&text[..end]);
        text = &text[end + 1..];
        match text.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                text = more;
            }
            None => return Ok((field, text)),
        }
    }
}
