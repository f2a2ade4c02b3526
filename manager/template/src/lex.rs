//! The words of a template: text between actions, and what is in them.

use crate::Error;

/// What a template is made of, and how many bytes are before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Action(usize, Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: usize,
    /// No space is before it.
    pub(crate) glued: bool,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// `.`
    Dot,
    /// `.Name`
    Field(String),
    /// `$name`, without the sign
    Variable(String),
    Text(String),
    Integer(i64),
    Float(f64),
    /// A function, a keyword, `true`, `false` or `nil`
    Word(String),
    Pipe,
    Open,
    Close,
    Assign,
    Declare,
    Comma,
}

pub(crate) fn syntax(at: usize, what: impl Into<String>) -> Error {
    Error::Syntax {
        at,
        what: what.into(),
    }
}

pub(crate) fn lex(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while at < text.len() {
        let rest = &text[at..];
        let opens = rest.find("{{");
        let mut before = &rest[..opens.unwrap_or(rest.len())];
        if trim_next {
            before = before.trim_start();
        }
        let Some(opens) = opens else {
            push_text(&mut pieces, before);
            break;
        };
        let mut inside = at + opens + 2;
        if trims_before(&text[inside..]) {
            before = before.trim_end();
            inside += 2;
        }
        push_text(&mut pieces, before);
        let start = at + opens;
        let (tokens, end, trims) = action(text, start, inside)?;
        trim_next = trims;
        if let Some(tokens) = tokens {
            pieces.push(Piece::Action(start, tokens));
        }
        at = end;
    }
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// `{{- `: a space has to follow, as `{{-1}}` is a number.
fn trims_before(inside: &str) -> bool {
    let mut chars = inside.chars();
    chars.next() == Some('-') && chars.next().is_some_and(|c| c.is_ascii_whitespace())
}

/// The tokens of one action (None: a comment), where it ends, and whether the space behind it goes.
type Action = (Option<Vec<Token>>, usize, bool);

fn action(text: &str, start: usize, inside: usize) -> Result<Action, Error> {
    let mut at = inside;
    let body = text[at..].trim_start();
    if let Some(comment) = body.strip_prefix("/*") {
        let comment_at = text.len() - comment.len();
        let length = comment
            .find("*/")
            .ok_or_else(|| syntax(start, "the comment has no end"))?;
        at = comment_at + length + 2;
        let (end, trims) = closes(text, at).ok_or_else(|| syntax(at, "a comment is alone in its action"))?;
        return Ok((None, end, trims));
    }
    let mut tokens = Vec::new();
    loop {
        if let Some((end, trims)) = closes(text, at) {
            return Ok((Some(tokens), end, trims));
        }
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            return Err(syntax(start, "the action has no end: }} is missing"));
        };
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (kind, length) = token(rest, first).map_err(|what| syntax(at, what))?;
        let glued = at > inside && !text.as_bytes()[at - 1].is_ascii_whitespace();
        tokens.push(Token { at, glued, kind });
        at += length;
    }
}

/// Whether an action ends here, and if so, where.
fn closes(text: &str, at: usize) -> Option<(usize, bool)> {
    let rest = &text[at..];
    if rest.starts_with("}}") {
        return Some((at + 2, false));
    }
    let trimmed = rest.trim_start();
    if trimmed.len() < rest.len() && trimmed.starts_with("-}}") {
        return Some((text.len() - trimmed.len() + 3, true));
    }
    None
}

fn token(rest: &str, first: char) -> Result<(Kind, usize), String> {
    let name = |from: usize| {
        let name: String = rest[from..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        name
    };
    let single = |kind| Ok((kind, 1));
    match first {
        '|' => single(Kind::Pipe),
        '(' => single(Kind::Open),
        ')' => single(Kind::Close),
        ',' => single(Kind::Comma),
        '=' => single(Kind::Assign),
        ':' if rest.starts_with(":=") => Ok((Kind::Declare, 2)),
        '.' => {
            let name = name(1);
            if name.is_empty() {
                return single(Kind::Dot);
            }
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                return number(rest);
            }
            let length = 1 + name.len();
            Ok((Kind::Field(name), length))
        }
        '$' => {
            let name = name(1);
            let length = 1 + name.len();
            Ok((Kind::Variable(name), length))
        }
        '"' => quoted(rest),
        '`' => {
            let end = rest[1..].find('`').ok_or("the text has no closing `")?;
            Ok((Kind::Text(rest[1..=end].to_owned()), end + 2))
        }
        '0'..='9' | '-' | '+' => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let name = name(0);
            let length = name.len();
            Ok((Kind::Word(name), length))
        }
        c => Err(format!("{c:?} means nothing here")),
    }
}

fn quoted(rest: &str) -> Result<(Kind, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Kind::Text(text), at + 1)),
            '\n' => break,
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => text.push(c),
                Some((_, c)) => {
                    return Err(format!("\\{c} is no known escape: \\n \\t \\r \\\" and \\\\ are"));
                }
                None => break,
            },
            c => text.push(c),
        }
    }
    Err("the text has no closing \"".to_owned())
}

fn number(rest: &str) -> Result<(Kind, usize), String> {
    let signed = usize::from(rest.starts_with(['-', '+']));
    let length = rest[signed..]
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .map_or(rest.len(), |length| signed + length);
    let digits = &rest[..length];
    if let Ok(integer) = digits.parse() {
        return Ok((Kind::Integer(integer), length));
    }
    match digits.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok((Kind::Float(float), length)),
        _ => Err(format!("{digits:?} is no number")),
    }
}
