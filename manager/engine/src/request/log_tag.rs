//! The `tag` of a log: text with `{{.Name}}` and the like in it.

use super::logging::invalid;
use crate::Error;

/// What a tag can tell of its container.
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image_id: &'a str,
    pub(crate) image_name: &'a str,
    pub(crate) command: &'a str,
    pub(crate) hostname: &'a str,
}

const SHORT_ID: usize = 12;
type Field = (&'static str, for<'a> fn(&Facts<'a>) -> &'a str);
const FIELDS: [Field; 9] = [
    ("ID", |facts| short(facts.id)),
    ("FullID", |facts| facts.id),
    ("Name", |facts| facts.name),
    ("ImageID", |facts| short(facts.image_id)),
    ("ImageFullID", |facts| facts.image_id),
    ("ImageName", |facts| facts.image_name),
    ("Command", |facts| facts.command),
    ("Hostname", |facts| facts.hostname),
    ("DaemonName", |_| "berth"),
];

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..SHORT_ID).unwrap_or(digits)
}

/// A template of a tag.
pub(crate) struct Tag(Vec<Part>);

enum Part {
    Text(String),
    Field(usize),
}

impl Tag {
    pub(crate) fn parse(text: &str) -> Result<Tag, Error> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            parts.push(Part::Text(before.to_owned()));
            let Some((name, behind)) = behind.split_once("}}") else {
                return Err(invalid(format!("tag {text:?}: a {{{{ has no }}}}")));
            };
            let name = name.trim();
            let field = name
                .strip_prefix('.')
                .and_then(|name| FIELDS.iter().position(|field| field.0 == name));
            let Some(field) = field else {
                let known: Vec<_> = FIELDS
                    .iter()
                    .map(|field| format!("{{{{.{}}}}}", field.0))
                    .collect();
                return Err(invalid(format!(
                    "tag {text:?}: {{{{{name}}}}} is not known; there are {}",
                    known.join(", ")
                )));
            };
            parts.push(Part::Field(field));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Tag(parts))
    }

    /// docker's, where none is given.
    pub(crate) fn usual() -> Tag {
        Tag(vec![Part::Field(0)])
    }

    pub(crate) fn render(&self, facts: &Facts<'_>) -> String {
        let texts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Field(field) => FIELDS[*field].1(facts),
        });
        // One line: a receiver would take another one for a message of its own.
        texts.collect::<String>().replace(['\n', '\r', '\0'], " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_tells_of_its_container() {
        let facts = Facts {
            id: "0123456789abcdef",
            name: "web",
            image_id: "sha256:fedcba98765432100",
            image_name: "nginx:1",
            command: "nginx -g",
            hostname: "h",
        };
        let render = |text| Tag::parse(text).unwrap().render(&facts);
        assert_eq!(render("a {{.Name}}/{{ .ImageName }}."), "a web/nginx:1.");
        assert_eq!(render("{{.ID}} {{.ImageID}}"), "0123456789ab fedcba987654");
        assert_eq!(render("plain"), "plain");
        assert_eq!(Tag::usual().render(&facts), "0123456789ab");
        assert!(Tag::parse("{{.Name").is_err());
        assert!(Tag::parse("{{.Nome}}").is_err());
    }
}
