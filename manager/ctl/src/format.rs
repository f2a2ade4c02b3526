//! `--format`: a table, JSON, or a template as docker's, of which `table TEMPLATE` gives columns with headings.

use serde::Serialize;
use serde_json::{Map, Value};
use template::Template;

use crate::failure::{Failure, Result};
use crate::output::{self, Table, cell};

/// How to print what is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Format {
    Table,
    Json,
    Template(Layout),
}

/// A template, and how to use it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    template: Template,
    /// The template as it was given.
    text: String,
    /// Columns are between tabs, and have headings.
    is_table: bool,
}

impl Format {
    pub(crate) fn parse(text: &str) -> std::result::Result<Format, String> {
        match text {
            "table" => return Ok(Format::Table),
            "json" => return Ok(Format::Json),
            _ => {}
        }
        let columns = text.strip_prefix("table ");
        let written = columns.unwrap_or(text);
        if !written.contains("{{") {
            return Err("is neither table, json, nor a template, as '{{.Name}}'".to_owned());
        }
        // As docker has it: shells hand these on as they are.
        let written = written.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(written.trim_start()).map_err(|error| error.to_string())?;
        Ok(Format::Template(Layout {
            template,
            text: written,
            is_table: columns.is_some(),
        }))
    }

    /// Whether it is a template that may show this field. One that only writes the word somewhere counts too.
    pub(crate) fn names(&self, field: &str) -> bool {
        let Format::Template(layout) = self else {
            return false;
        };
        let text = layout.text.to_ascii_lowercase();
        text.contains(&format!(".{}", field.to_ascii_lowercase()))
    }
}

impl Layout {
    /// A line for each, as JSON promises it. Of a table, the headings are the fields' names.
    pub(crate) fn print(&self, rows: &[impl Serialize]) -> Result<()> {
        let rows: Vec<Value> = rows.iter().map(as_json).collect::<Result<_>>()?;
        self.print_rows(&rows, rows.first().unwrap_or(&Value::Null), &[])
    }

    /// A line for each. `sample` is a row, to know the fields by when there is none; `headings` are those that are not
    /// a field's name in capitals.
    pub(crate) fn print_rows(&self, rows: &[Value], sample: &Value, headings: &[(&str, &str)]) -> Result<()> {
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            lines.push(self.line(row)?);
        }
        if !self.is_table {
            let all: String = lines.iter().map(|line| output::clean_text(line) + "\n").collect();
            return output::print(&all);
        }
        let top = self.line(&heading_of("", sample, headings))?;
        let top: Vec<&str> = top.split('\t').collect();
        let mut table = Table::new(&top);
        for line in &lines {
            table.row(line.split('\t').map(cell).collect::<Vec<_>>());
        }
        table.print()
    }

    fn line(&self, row: &Value) -> Result<String> {
        self.template
            .render(row)
            .map_err(|error| Failure::new(format!("--format: {error}")))
    }
}

/// What docker calls its columns.
const HEADINGS: &[(&str, &str)] = &[
    ("BlockIO", "BLOCK I/O"),
    ("CPUPerc", "CPU %"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("ImageID", "IMAGE ID"),
    ("IsOfficial", "OFFICIAL"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("NetIO", "NET I/O"),
    ("RunningFor", "CREATED"),
    ("StarCount", "STARS"),
];

/// The same fields, with their headings in place of their values.
fn heading_of(name: &str, value: &Value, own: &[(&str, &str)]) -> Value {
    if let Value::Object(map) = value {
        let headings = map
            .iter()
            .map(|(name, value)| (name.clone(), heading_of(name, value, own)));
        return Value::Object(headings.collect());
    }
    let known = own.iter().chain(HEADINGS).find(|(known, _)| *known == name);
    Value::String(known.map_or_else(|| in_words(name), |(_, heading)| (*heading).to_owned()))
}

/// `restartCount`: RESTART COUNT.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    let mut was_small = false;
    for c in name.chars() {
        if c.is_uppercase() && was_small {
            words.push(' ');
        }
        was_small = c.is_lowercase();
        words.extend(c.to_uppercase());
    }
    words
}

/// Docker's fields of a row, and what JSON promises besides.
pub(crate) fn row(dockers: Value, promised: &impl Serialize) -> Result<Value> {
    let mut row = match dockers {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    if let Value::Object(more) = as_json(promised)? {
        for (name, value) in more {
            if !row.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
                row.insert(name, value);
            }
        }
    }
    Ok(Value::Object(row))
}

/// Labels as docker prints them: `a=1,b=2`.
pub(crate) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut all: Vec<String> = labels
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    all.sort();
    all.join(",")
}

pub(crate) fn as_json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Failure::new(format!("write as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_format_is_a_word_or_a_template() {
        assert_eq!(Format::parse("table"), Ok(Format::Table));
        assert_eq!(Format::parse("json"), Ok(Format::Json));
        assert!(Format::parse("yaml").unwrap_err().contains("neither"));
        assert!(Format::parse("{{.Name").unwrap_err().contains("}}"));
        let Ok(Format::Template(columns)) = Format::parse(r"table {{.ID}}\t{{.Names}}") else {
            panic!()
        };
        assert!(columns.is_table);
        assert_eq!(columns.line(&json!({"id": "a", "Names": "b"})).unwrap(), "a\tb");
        let headings = heading_of(
            "",
            &json!({"ID": "a", "Names": "", "restartCount": 1}),
            &[("ID", "CONTAINER ID")],
        );
        assert_eq!(
            headings,
            json!({"ID": "CONTAINER ID", "Names": "NAMES", "restartCount": "RESTART COUNT"})
        );
    }

    #[test]
    fn a_row_has_dockers_fields_first() {
        let row = row(json!({"ID": "short"}), &json!({"id": "long", "pid": 1})).unwrap();
        assert_eq!(row, json!({"ID": "short", "pid": 1}));
    }
}
