//! Which containers are listed: docker's filters of `ps`. Of one kind, one has to fit (of labels all); of the kinds, all.

use image::{LabelFilter, read_filters};
use regex::bytes::{Regex, RegexBuilder};

use crate::Error;
use crate::container::{Container, State};
use crate::engine::{Engine, blocking};
use crate::health::HealthStatus;
use crate::request::Source;

/// What a pattern may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

const KINDS: &str = "the kinds are ancestor, before, exited, health, id, label, label!, name, network, since, status and volume";
const STATES: &str = "the states are created, running, paused, restarting, exited and removing";

/// Which containers are meant.
#[derive(Debug, Default)]
pub struct ListFilters {
    labels: Vec<LabelFilter>,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    states: Vec<State>,
    exit_codes: Vec<u32>,
    /// None: no health check.
    healths: Vec<Option<HealthStatus>>,
    networks: Vec<String>,
    /// Names of volumes, paths of the host, or places in containers.
    volumes: Vec<String>,
    ancestors: Vec<String>,
    before: Vec<String>,
    since: Vec<String>,
}

impl ListFilters {
    /// Read `kind=value` texts.
    pub fn parse(texts: &[String]) -> Result<ListFilters, Error> {
        let mut filters = ListFilters::default();
        read_filters(texts, |kind, value| {
            match kind {
                "label" => filters.labels.push(LabelFilter::new(value, false)),
                "label!" => filters.labels.push(LabelFilter::new(value, true)),
                // Docker's names begin with a slash.
                "name" => filters.names.push(pattern(&value.replacen("^/", "^", 1))?),
                "id" => filters.ids.push(pattern(value)?),
                "status" => filters.states.push(state(value)?),
                "exited" => {
                    let code = value.parse().map_err(|_| "is no exit code")?;
                    filters.exit_codes.push(code);
                }
                "health" => filters.healths.push(health(value)?),
                "network" => filters.networks.push(value.to_owned()),
                "volume" => filters.volumes.push(value.to_owned()),
                "ancestor" => filters.ancestors.push(value.to_owned()),
                "before" => filters.before.push(value.to_owned()),
                "since" => filters.since.push(value.to_owned()),
                _ => return Err(KINDS.into()),
            }
            Ok(())
        })?;
        Ok(filters)
    }

    /// What a container shows by itself.
    fn pass(&self, container: &Container) -> bool {
        let labels = &container.request.labels;
        let exited = |code: &u32| {
            let exit = container.exit.filter(|_| !container.is_running());
            exit.is_some_and(|exit| exit.code == *code)
        };
        let health = container.health.as_ref().map(|health| health.status);
        self.labels
            .iter()
            .all(|label| label.pass(labels.get(label.key()).map(String::as_str)))
            && one_of(&self.names, |name| name.is_match(container.name.as_bytes()))
            && one_of(&self.ids, |id| id.is_match(container.id.as_bytes()))
            && one_of(&self.states, |state| *state == container.state)
            && one_of(&self.exit_codes, exited)
            && one_of(&self.healths, |wanted| *wanted == health)
            && one_of(&self.volumes, |volume| has_volume(container, volume))
    }
}

/// Whether one fits, or none is asked for.
fn one_of<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

fn has_volume(container: &Container, wanted: &str) -> bool {
    container.mounts.iter().any(|mount| {
        let source = match &mount.source {
            Source::Bind(bind) => bind.path.as_str(),
            Source::Volume(volume) => volume.name.as_str(),
            Source::Image(image) => image.image.as_str(),
            Source::Tmpfs(_) => "",
        };
        mount.target == wanted || source == wanted
    })
}

/// A regular expression, as docker has it.
fn pattern(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(text);
    let compiled = builder.unicode(false).size_limit(PATTERN_BYTES_MAX).build();
    compiled.map_err(|error| format!("is no regular expression: {error}"))
}

fn state(text: &str) -> Result<State, String> {
    Ok(match text {
        "created" => State::Created,
        "running" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "exited" => State::Exited,
        "removing" => State::Removing,
        _ => return Err(STATES.into()),
    })
}

fn health(text: &str) -> Result<Option<HealthStatus>, String> {
    Ok(match text {
        "none" => None,
        "starting" => Some(HealthStatus::Starting),
        "healthy" => Some(HealthStatus::Healthy),
        "unhealthy" => Some(HealthStatus::Unhealthy),
        _ => return Err("it is starting, healthy, unhealthy or none".into()),
    })
}

impl Engine {
    /// The containers that pass, newest first; without `all` and without a state that is asked for, only those that run
    /// or are about to.
    pub async fn list_filtered(
        &self,
        all: bool,
        filters: &ListFilters,
    ) -> Result<Vec<std::sync::Arc<Container>>, Error> {
        let mut containers = self.list(all || !filters.states.is_empty());
        let created = |name: &String| {
            let handle = self.0.containers.find(name)?;
            Ok::<_, Error>(handle.snapshot().container.created_unix_nanos)
        };
        for before in &filters.before {
            let moment = created(before)?;
            containers.retain(|container| container.created_unix_nanos < moment);
        }
        for since in &filters.since {
            let moment = created(since)?;
            containers.retain(|container| container.created_unix_nanos > moment);
        }
        containers.retain(|container| {
            filters.pass(container) && one_of(&filters.networks, |network| self.is_on(container, network))
        });
        if filters.ancestors.is_empty() {
            return Ok(containers);
        }
        let (engine, wanted) = (std::sync::Arc::clone(&self.0), filters.ancestors.clone());
        blocking(move || {
            // One that is not here is no container's.
            let images = wanted.iter().filter_map(|name| engine.images.get(name).ok());
            let ancestors: Vec<image::Image> = images.collect();
            containers.retain(|container| {
                let own = engine.images.get(&container.image_id).ok();
                ancestors.iter().any(|ancestor| {
                    let is_built_on = |own: &image::Image| {
                        // Another image of the same layers is a sibling.
                        !ancestor.diff_ids.is_empty()
                            && own.diff_ids.len() > ancestor.diff_ids.len()
                            && own.diff_ids.starts_with(&ancestor.diff_ids)
                    };
                    ancestor.id == container.image_id || own.as_ref().is_some_and(is_built_on)
                })
            });
            Ok(containers)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_mean_nothing_are_refused_by_name() {
        for text in [
            "name",
            "name=(",
            "status=dead or alive",
            "exited=x",
            "health=good",
            "colour=red",
            "id=(a{1000}){1000}",
        ] {
            let told = ListFilters::parse(&[text.to_owned()]).unwrap_err().to_string();
            assert!(told.contains(text), "{told}");
        }
        assert!(pattern("^web$").unwrap().is_match(b"web"));
        assert!(!pattern("^web$").unwrap().is_match(b"web2"));
    }
}
