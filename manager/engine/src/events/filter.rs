//! Which events a listener wants, in docker's terms: of several filters of one kind one has to pass, of labels all.

use image::{LabelFilter, read_filters};

use super::Event;
use crate::Error;

/// What an event has to be.
#[derive(Debug, Default)]
pub struct EventFilters {
    kinds: Vec<String>,
    actions: Vec<String>,
    containers: Vec<String>,
    images: Vec<String>,
    labels: Vec<LabelFilter>,
}

impl EventFilters {
    /// Read `kind=value` texts: `type=container`, `event=start`, `container=name`, `image=name`, `label=key=value`.
    pub fn parse(texts: &[String]) -> Result<EventFilters, Error> {
        let mut filters = EventFilters::default();
        read_filters(texts, |kind, value| {
            let values = match kind {
                "type" => &mut filters.kinds,
                "event" => &mut filters.actions,
                "container" => &mut filters.containers,
                "image" => &mut filters.images,
                "label" => {
                    filters.labels.push(LabelFilter::new(value, false));
                    return Ok(());
                }
                _ => return Err("the kinds are type, event, container, image and label".into()),
            };
            values.push(value.to_owned());
            Ok(())
        })?;
        Ok(filters)
    }

    pub(super) fn pass(&self, event: &Event) -> bool {
        any(&self.kinds, |kind| kind == event.kind)
            && any(&self.actions, |action| is_action(event.action, action))
            && any(&self.containers, |name| is_container(event, name))
            && any(&self.images, |name| is_image(event, name))
            && self
                .labels
                .iter()
                .all(|label| label.pass(attribute(event, label.key())))
    }
}

fn any(wanted: &[String], pass: impl Fn(&str) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| pass(wanted))
}

/// By its whole word, or by what stands before its colon.
fn is_action(action: &str, wanted: &str) -> bool {
    action == wanted || action.split_once(": ").is_some_and(|(word, _)| word == wanted)
}

/// By the beginning of its id or its name.
fn is_container(event: &Event, wanted: &str) -> bool {
    let begins = |text: &str| !wanted.is_empty() && text.starts_with(wanted);
    event.kind == "container" && (begins(&event.subject) || attribute(event, "name").is_some_and(begins))
}

/// By its id or its name, with or without the tag; of a container, by what that was made of.
fn is_image(event: &Event, wanted: &str) -> bool {
    let of = if event.kind == "image" { "name" } else { "image" };
    let names = [Some(event.subject.as_str()), attribute(event, of)];
    names
        .into_iter()
        .flatten()
        .any(|name| name == wanted || without_tag(name) == wanted)
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        // A port of a registry is no tag.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

fn attribute<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    // The last counts: a label may have the name of one of ours.
    let mut pairs = event.attributes.iter().rev();
    pairs
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(filters: &[&str], event: &Event) -> bool {
        let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        EventFilters::parse(&texts).unwrap().pass(event)
    }

    #[test]
    fn kinds_are_alternatives_and_all_have_to_pass() {
        let pairs = [("a", "1"), ("name", "web"), ("image", "reg:5000/busy:1")];
        let attributes = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let event = Event::of_container("health_status: healthy", "c0ffee", attributes);
        for filters in [
            &[][..],
            &["type=image", "type=container"],
            &["event=health_status"],
            &["event=health_status: healthy", "container=web"],
            &["container=c0f"],
            &["image=reg:5000/busy:1"],
            &["image=reg:5000/busy"],
            &["label=a", "label=a=1"],
        ] {
            assert!(pass(filters, &event), "{filters:?}");
        }
        for filters in [
            &["type=image"][..],
            &["event=health"],
            &["container=other", "event=health_status"],
            &["container="],
            &["image=reg"],
            &["label=a", "label=b"],
            &["label=a=2"],
        ] {
            assert!(!pass(filters, &event), "{filters:?}");
        }
        assert!(EventFilters::parse(&["colour=red".to_owned()]).is_err());
        let pulled = Event::of_image("pull", "sha256:1", vec![("name".to_owned(), "busy:1".to_owned())]);
        assert!(pass(&["image=busy"], &pulled) && pass(&["image=sha256:1"], &pulled));
        assert!(!pass(&["container=sha"], &pulled));
    }
}
