//! What the person reads on stdout: tables, JSON, and colour where it is welcome. What images, registries and
//! containers tell is text of strangers: a terminal shows it, and never obeys it.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Space between columns, as docker's tables have it.
const GAP: usize = 3;

/// Writes text as it is.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::write("stdout", &error))
}

/// One line, of whomsoever's text.
pub(crate) fn print_line(text: &str) -> Result<()> {
    print(&(clean(text) + "\n"))
}

/// A JSON value over several lines.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print_json_text(&serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?)
}

/// A JSON value on one line.
pub(crate) fn print_json_line(value: &impl Serialize) -> Result<()> {
    print_json_text(&serde_json::to_string(value).map_err(|error| unprintable(&error))?)
}

fn print_json_text(json: &str) -> Result<()> {
    // serde_json leaves DEL and C1 as they are. Here they stand in strings only.
    let escaped = escape(json, &['\n'], |c| format!("\\u{:04x}", u32::from(c)));
    print(&(escaped + "\n"))
}

/// Text of others on one line: what a terminal would obey is spelt out.
pub(crate) fn clean(text: &str) -> String {
    escape(text, &[], |c| c.escape_default().to_string())
}

/// Like [`clean`], for text that may have several lines.
pub(crate) fn clean_lines(text: &str) -> String {
    escape(text, &['\n'], |c| c.escape_default().to_string())
}

/// Text of a template: lines and tabs are its own.
pub(crate) fn clean_text(text: &str) -> String {
    escape(text, &['\n', '\t'], |c| c.escape_default().to_string())
}

fn escape(text: &str, kept: &[char], spell: impl Fn(char) -> String) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_command(c) && !kept.contains(&c) {
            escaped.push_str(&spell(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Controls (C0, DEL, C1), and what changes the direction of the text around it (`Bidi_Control` in Unicode).
fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn unprintable(error: &serde_json::Error) -> Failure {
    Failure::new(format!("write as JSON: {error}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    None,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Colour {
    fn escape(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

/// Colour is for terminals, and for people who do not say otherwise (see no-color.org).
pub(crate) fn colour_wanted(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

pub(crate) fn paint(text: &str, colour: Colour, wanted: bool) -> String {
    if wanted && colour != Colour::None {
        format!("{}{text}\x1b[0m", colour.escape())
    } else {
        text.to_owned()
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<(String, Colour)>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|&heading| (heading.to_owned(), Colour::None))
                    .collect(),
            ],
        }
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<(String, Colour)>>) {
        self.rows.push(cells.into());
    }

    pub(crate) fn print(&self) -> Result<()> {
        print(&self.render(colour_wanted(io::stdout().is_terminal())))
    }

    fn render(&self, coloured: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut rendered = String::new();
        for row in &self.rows {
            for (column, (text, colour)) in row.iter().enumerate() {
                rendered.push_str(&paint(text, *colour, coloured));
                if column + 1 < row.len() {
                    let padding = widths[column] - text.chars().count() + GAP;
                    rendered.extend(std::iter::repeat_n(' ', padding));
                }
            }
            rendered.push('\n');
        }
        rendered
    }
}

/// A plain cell, of whomsoever's text.
pub(crate) fn cell(text: impl AsRef<str>) -> (String, Colour) {
    (clean(text.as_ref()), Colour::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATUS", "ID"]);
        table.row([cell("a-long-name"), ("Up".to_owned(), Colour::Green), cell("1")]);
        table.row([cell("ü"), cell(""), cell("22")]);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let expected = "NAME          STATUS   ID\na-long-name   Up       1\nü                      22\n";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        let hostile = "a\x1b]0;title\x07\u{9b}2J\u{202e}b\r\nc ü…";
        let clean_text = r"a\u{1b}]0;title\u{7}\u{9b}2J\u{202e}b\r\nc ü…";
        assert_eq!(clean(hostile), clean_text);
        assert_eq!(cell(hostile).0, clean_text);
        assert_eq!(clean_lines("a\nb\x1bc"), "a\nb\\u{1b}c");
        let json = escape("{\n\"a\": \"\u{9b}2J\"}", &['\n'], |c| {
            format!("\\u{:04x}", u32::from(c))
        });
        assert_eq!(json, "{\n\"a\": \"\\u009b2J\"}");
    }

    #[test]
    fn colour_does_not_move_columns() {
        assert!(
            table()
                .render(true)
                .contains("a-long-name   \x1b[32mUp\x1b[0m       1\n")
        );
    }
}
