//! Templates as people know them from `docker ps --format`: the part of Go's text/template that prints fields, with its
//! pipelines, conditions, loops and variables, over JSON values. Own code, as the crates for it are no longer kept up.
//!
//! A field is found by its name, or else by its name in other case: docker's `.ID` is what JSON calls `id`. What is
//! not here (`define`, `template`, `block`) is refused by its name. Source: pkg.go.dev/text/template.

mod functions;
mod lex;
mod parse;
mod printf;
mod render;
mod show;

use serde_json::Value;

/// Longer templates are no templates.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// A template that has been understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What is wrong with a template, or with what it asks of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no template.
    #[error("the template is wrong at its byte {at}: {what}")]
    Syntax {
        /// Bytes before the place.
        at: usize,
        /// What was found there, or is missing.
        what: String,
    },
    /// It does not fit what is printed.
    #[error("the template cannot be carried out: {0}")]
    Render(String),
}

impl Template {
    /// Read a template.
    ///
    /// # Errors
    /// [`Error::Syntax`].
    pub fn parse(text: &str) -> Result<Template, Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::Syntax {
                at: TEXT_BYTES_MAX,
                what: format!("it is longer than {TEXT_BYTES_MAX} bytes"),
            });
        }
        parse::parse(lex::lex(text)?).map(|nodes| Template { nodes })
    }

    /// The text that it makes of a value. A field that the value itself does not have is an error that names those that
    /// there are; one that is missing further in is `<no value>`, as with docker.
    ///
    /// # Errors
    /// [`Error::Render`].
    pub fn render(&self, value: &Value) -> Result<String, Error> {
        render::render(&self.nodes, value)
    }
}

#[cfg(test)]
mod tests;
