//! Filters of lists and prunes, in docker's words: `dangling=true`, `label=key=value`, `until=24h`, …

use glob::{MatchOptions, Pattern};
use rusqlite::Connection;

use super::{Kept, find};
use crate::Error;

/// In one request. More are a mistake.
const FILTERS_MAX: usize = 100;

/// Filters that were read. An image has to pass each kind that was given.
#[derive(Debug, Default)]
pub struct Filters {
    dangling: Option<bool>,
    labels: Vec<LabelFilter>,
    /// Images whose build has to be later, or earlier.
    since: Vec<String>,
    before: Vec<String>,
    references: Vec<Pattern>,
    until_unix_seconds: Option<i64>,
}

/// A label that has to be there, or must not be.
#[derive(Debug)]
pub struct LabelFilter {
    key: String,
    /// None: whatever it is.
    value: Option<String>,
    is_unwanted: bool,
}

/// Read `kind=value` texts, whatever they are for: `add` takes each, or tells the rule that it breaks.
///
/// # Errors
///
/// The first that breaks one, or that there are too many.
pub fn read_filters(
    texts: &[String],
    mut add: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), Error> {
    if texts.len() > FILTERS_MAX {
        return Err(wrong("", format!("there are more than {FILTERS_MAX} of them")));
    }
    for text in texts {
        let parts = text.split_once('=').ok_or("it has to be a kind, = and a value");
        parts
            .map_err(str::to_owned)
            .and_then(|(kind, value)| add(kind, value))
            .map_err(|rule| wrong(text, rule))?;
    }
    Ok(())
}

/// Filters with the images that they name looked up.
pub(super) struct Ready<'a> {
    filters: &'a Filters,
    since: Vec<i64>,
    before: Vec<i64>,
}

impl Filters {
    /// Read `kind=value` texts.
    pub fn parse(texts: &[String]) -> Result<Filters, Error> {
        let mut filters = Filters::default();
        read_filters(texts, |kind, value| filters.add(kind, value))?;
        Ok(filters)
    }

    pub(super) fn is_empty(&self) -> bool {
        let Filters {
            dangling,
            labels,
            since,
            before,
            references,
            until_unix_seconds,
        } = self;
        dangling.is_none()
            && labels.is_empty()
            && since.is_empty()
            && before.is_empty()
            && references.is_empty()
            && until_unix_seconds.is_none()
    }

    fn add(&mut self, kind: &str, value: &str) -> Result<(), String> {
        match kind {
            "dangling" => self.dangling = Some(truth(value)?),
            "label" => self.labels.push(LabelFilter::new(value, false)),
            "label!" => self.labels.push(LabelFilter::new(value, true)),
            "since" => self.since.push(value.to_owned()),
            "before" => self.before.push(value.to_owned()),
            "reference" => self
                .references
                .push(Pattern::new(value).map_err(|e| e.to_string())?),
            "until" => self.until_unix_seconds = Some(moment(value)?),
            _ => {
                return Err(
                    "the kinds are dangling, label, label!, since, before, reference and until".into(),
                );
            }
        }
        Ok(())
    }

    pub(super) fn ready(&self, connection: &Connection) -> Result<Ready<'_>, Error> {
        let created = |names: &[String]| -> Result<Vec<i64>, Error> {
            names
                .iter()
                .map(|name| {
                    let id = find::image_id(connection, name)?;
                    Ok(Kept::read(connection, &id)?.created_unix_seconds())
                })
                .collect()
        };
        Ok(Ready {
            filters: self,
            since: created(&self.since)?,
            before: created(&self.before)?,
        })
    }
}

impl Ready<'_> {
    /// Whether an image or artifact passes. Its names are cut down to those that were asked for.
    pub(super) fn pass(&self, kept: &mut Kept) -> bool {
        let filters = self.filters;
        let created = kept.created_unix_seconds();
        let passes = filters
            .dangling
            .is_none_or(|dangling| dangling == kept.names().is_empty())
            && filters.until_unix_seconds.is_none_or(|until| created < until)
            && self.since.iter().all(|since| created > *since)
            && self.before.iter().all(|before| created < *before)
            && filters
                .labels
                .iter()
                .all(|label| label.pass(kept.label(label.key())));
        if !passes || filters.references.is_empty() {
            return passes;
        }
        let names = kept.names_mut();
        names.retain(|name| filters.references.iter().any(|pattern| matches(pattern, name)));
        !names.is_empty()
    }
}

impl LabelFilter {
    /// Of `key` or `key=value`.
    pub fn new(text: &str, is_unwanted: bool) -> LabelFilter {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        LabelFilter {
            key: key.to_owned(),
            value,
            is_unwanted,
        }
    }

    /// Which label it is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether what has this value under the key passes.
    pub fn pass(&self, value: Option<&str>) -> bool {
        let found = value.is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value));
        found != self.is_unwanted
    }
}

/// A pattern may leave out the tag, and what people leave out of names of docker's own registry.
fn matches(pattern: &Pattern, name: &str) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::default()
    };
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    [name, short].iter().any(|name| {
        let repository = name
            .rsplit_once(['@', ':'])
            .map_or(*name, |(repository, _)| repository);
        pattern.matches_with(name, options) || pattern.matches_with(repository, options)
    })
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("it has to be true or false".into()),
    }
}

/// A time, or how long ago it was, in seconds since 1970.
///
/// # Errors
///
/// The rule that it breaks.
pub fn moment(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_second());
    }
    if let Ok(ago) = text.parse::<jiff::SignedDuration>()
        && let Ok(time) = jiff::Timestamp::now().checked_sub(ago)
    {
        return Ok(time.as_second());
    }
    Err("it has to be a duration such as 24h or 1h30m, a time as in RFC 3339, or seconds since 1970".into())
}

fn wrong(filter: &str, rule: impl Into<String>) -> Error {
    Error::Filter {
        filter: filter.chars().take(200).collect(),
        rule: rule.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_as_people_write_them() {
        let hit = |pattern: &str, name: &str| matches(&Pattern::new(pattern).unwrap(), name);
        for pattern in [
            "debian",
            "deb*",
            "debian:12",
            "debian:*",
            "docker.io/library/debian",
        ] {
            assert!(hit(pattern, "docker.io/library/debian:12"), "{pattern}");
        }
        for pattern in ["debian:13", "*/debian", "deb"] {
            assert!(!hit(pattern, "docker.io/library/debian:12"), "{pattern}");
        }
        assert!(hit("localhost:5000/*/app", "localhost:5000/team/app:v1"));
        assert!(!hit("localhost:5000/*", "localhost:5000/team/app:v1"));
    }

    #[test]
    fn moments_are_times_or_ages() {
        let now = jiff::Timestamp::now().as_second();
        assert_eq!(moment("1700000000").unwrap(), 1_700_000_000);
        assert_eq!(moment("2023-11-14T22:13:20Z").unwrap(), 1_700_000_000);
        assert!((now - 5400 - moment("1h30m").unwrap()).abs() <= 1);
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn unknown_filters_are_refused_by_name() {
        for text in [
            "dangling",
            "dangling=perhaps",
            "colour=red",
            "until=never",
            "reference=[a",
        ] {
            let error = Filters::parse(&[text.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
