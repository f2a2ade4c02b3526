//! The API's messages in the shape that JSON output promises. Field names are a contract: they are only added.

mod image;
mod info;
mod isolation;
mod names;
mod networks;
mod ports;
mod store;
mod upkeep;
mod volumes;

pub(crate) use image::{ImageDetails, familiar};
pub(crate) use info::Info;
pub(crate) use networks::Network;
use networks::Place;
pub(crate) use store::{Check, DiskUsage, Lease, Step};
use upkeep::{Health, Healthcheck, RestartPolicy};
pub(crate) use upkeep::{Stats, memory_percent};
pub(crate) use volumes::Volume;

use isolation::Isolation;
use names::Names;
use ports::{Ports, PublishedPort};
use std::collections::{BTreeMap, HashMap};

use proto::v1;
use serde::Serialize;
use serde_json::Value;

use crate::time::rfc3339;

/// A map whose order does not change from one call to the next.
fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn unless_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn unless_zero<T: Default + PartialEq>(number: T) -> Option<T> {
    (number != T::default()).then_some(number)
}

/// JSON that others wrote, as it is; a text, should it not be JSON.
fn embedded(json: &str) -> Option<Value> {
    unless_empty(json).map(|json| serde_json::from_str(&json).unwrap_or(Value::String(json)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    id: String,
    names: Vec<String>,
    manifest_digest: String,
    size_bytes: u64,
    created_at: Option<String>,
    architecture: String,
    os: String,
    variant: Option<String>,
    /// What registries have it as.
    repo_digests: Vec<String>,
    /// Files of its layers.
    unpacked_bytes: u64,
    labels: BTreeMap<String, String>,
    /// Null: a container image.
    artifact_type: Option<String>,
}

impl From<&v1::Image> for Image {
    fn from(image: &v1::Image) -> Self {
        Self {
            id: image.id.clone(),
            names: image.names.clone(),
            manifest_digest: image.manifest_digest.clone(),
            size_bytes: image.size_bytes,
            created_at: unless_zero(image.created_unix_seconds)
                .map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000))),
            architecture: image.architecture.clone(),
            os: image.os.clone(),
            variant: unless_empty(&image.variant),
            repo_digests: image.repo_digests.clone(),
            unpacked_bytes: image.unpacked_bytes,
            labels: sorted(&image.labels),
            artifact_type: unless_empty(&image.artifact_type),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exit {
    code: u32,
    at: String,
    oom_killed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    id: String,
    name: String,
    image: String,
    image_id: String,
    command: Vec<String>,
    state: &'static str,
    pid: Option<u32>,
    /// Of the last run.
    exit: Option<Exit>,
    created_at: String,
    started_at: Option<String>,
    address: Option<String>,
    /// While it runs.
    ports: Vec<PublishedPort>,
    network: String,
    /// Those that users made, by name.
    networks: BTreeMap<String, Place>,
    labels: BTreeMap<String, String>,
    tty: bool,
    open_stdin: bool,
    error: Option<String>,
    auto_remove: bool,
    /// By its policy, since it was last started by hand.
    restart_count: u64,
    /// Null: no health check.
    health: Option<Health>,
    /// Bytes of what it has written, by docker's name. Null: not asked for.
    size_rw: Option<u64>,
    /// Those, and bytes of its image's files. Null: not asked for.
    size_root_fs: Option<u64>,
}

impl From<&v1::Container> for Container {
    fn from(container: &v1::Container) -> Self {
        let exit = |exit: &v1::Exit| Exit {
            code: exit.code,
            at: rfc3339(exit.at_unix_nanos),
            oom_killed: exit.oom_killed,
        };
        Self {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            image_id: container.image_id.clone(),
            command: container.command.clone(),
            state: state_name(container.state()),
            pid: unless_zero(container.pid),
            exit: container.exit.as_ref().map(exit),
            created_at: rfc3339(container.created_unix_nanos),
            started_at: unless_zero(container.started_unix_nanos).map(rfc3339),
            address: unless_empty(&container.address),
            ports: container.ports.iter().map(PublishedPort::from).collect(),
            network: container.network.clone(),
            networks: container
                .networks
                .iter()
                .map(|network| (network.name.clone(), Place::from(network)))
                .collect(),
            labels: sorted(&container.labels),
            tty: container.tty,
            open_stdin: container.open_stdin,
            error: unless_empty(&container.error),
            auto_remove: container.auto_remove,
            restart_count: container.restart_count,
            health: container.health.as_ref().map(Health::from),
            size_rw: container.size.map(|size| size.upper_bytes),
            size_root_fs: container.size.map(|size| size.root_bytes),
        }
    }
}

/// A state in one word.
pub(crate) fn state_name(state: v1::container::State) -> &'static str {
    use v1::container::State;
    match state {
        State::Unspecified => "unknown",
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Exited => "exited",
        State::Removing => "removing",
        State::Restarting => "restarting",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerDetails {
    #[serde(flatten)]
    container: Container,
    log_path: Option<String>,
    log_config: Option<LogConfig>,
    /// All of them, with those of the image and of other containers.
    mounts: Vec<volumes::Mount>,
    /// What `create` asked for.
    request: Option<Request>,
    /// config.json of the last start.
    bundle_config: Option<Value>,
}

impl From<&v1::InspectContainerResponse> for ContainerDetails {
    fn from(found: &v1::InspectContainerResponse) -> Self {
        Self {
            container: Container::from(&found.container.clone().unwrap_or_default()),
            log_path: unless_empty(&found.log_path),
            log_config: found
                .request
                .as_ref()
                .and_then(|request| request.logging.as_ref())
                .map(LogConfig::from),
            mounts: found.mounts.iter().map(volumes::Mount::from).collect(),
            request: found.request.as_ref().map(Request::from),
            bundle_config: embedded(&found.bundle_config_json),
        }
    }
}

/// With the manager's defaults in it.
#[derive(Serialize)]
struct LogConfig {
    #[serde(rename = "type")]
    driver: String,
    config: BTreeMap<String, String>,
}

impl From<&v1::Logging> for LogConfig {
    fn from(logging: &v1::Logging) -> Self {
        Self {
            driver: logging.driver.clone(),
            config: logging.options.clone().into_iter().collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    hostname: Option<String>,
    binds: Vec<Bind>,
    network: Option<String>,
    links: Vec<String>,
    ports: Option<Ports>,
    names: Option<Names>,
    memory_bytes: Option<i64>,
    cpu_quota_millis: Option<i64>,
    pids_limit: Option<i64>,
    stop_signal: Option<String>,
    read_only: bool,
    privileged: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    restart: Option<RestartPolicy>,
    healthcheck: Option<Healthcheck>,
    isolation: Option<Isolation>,
    init: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bind {
    source: String,
    target: String,
    read_only: bool,
}

impl From<&v1::CreateContainerRequest> for Request {
    fn from(request: &v1::CreateContainerRequest) -> Self {
        let bind = |bind: &v1::Bind| Bind {
            source: bind.source.clone(),
            target: bind.target.clone(),
            read_only: bind.read_only,
        };
        Self {
            entrypoint: request
                .entrypoint
                .as_ref()
                .map(|entrypoint| entrypoint.args.clone()),
            command: request.command.clone(),
            env: request.env.clone(),
            working_dir: unless_empty(&request.working_dir),
            user: unless_empty(&request.user),
            hostname: unless_empty(&request.hostname),
            binds: request.binds.iter().map(bind).collect(),
            network: unless_empty(&request.network),
            links: request.links.clone(),
            ports: request.ports.as_ref().map(Ports::from),
            names: request.names.as_ref().map(Names::from),
            memory_bytes: unless_zero(request.memory_bytes),
            cpu_quota_millis: unless_zero(request.cpu_quota_millis),
            pids_limit: unless_zero(request.pids_limit),
            stop_signal: unless_empty(&request.stop_signal),
            read_only: request.read_only,
            privileged: request.privileged,
            cap_add: request.cap_add.clone(),
            cap_drop: request.cap_drop.clone(),
            restart: request.restart.as_ref().map(RestartPolicy::from),
            healthcheck: request.healthcheck.as_ref().map(Healthcheck::from),
            isolation: request.isolation.as_ref().map(Isolation::from),
            init: request.init,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    at: String,
    kind: String,
    action: String,
    subject: String,
    attributes: BTreeMap<String, String>,
}

impl From<&v1::Event> for Event {
    fn from(event: &v1::Event) -> Self {
        Self {
            at: rfc3339(event.at_unix_nanos),
            kind: event.kind.clone(),
            action: event.action.clone(),
            subject: event.subject.clone(),
            attributes: sorted(&event.attributes),
        }
    }
}

impl Event {
    /// Docker's line for it: when, what, of which, and what else is known.
    pub(crate) fn line(&self) -> String {
        let attributes: Vec<_> = self
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let attributes = if attributes.is_empty() {
            String::new()
        } else {
            format!(" ({})", attributes.join(", "))
        };
        format!(
            "{} {} {} {}{attributes}",
            self.at, self.kind, self.action, self.subject
        )
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) client: ClientVersion,
    /// Null: no manager answers.
    pub(crate) manager: Option<ManagerVersion>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientVersion {
    pub(crate) version: &'static str,
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManagerVersion {
    pub(crate) version: String,
    pub(crate) api_version: String,
    pub(crate) runtime_version: String,
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) kernel: String,
    pub(crate) cgroups: String,
    pub(crate) root: String,
    pub(crate) log_driver: String,
    pub(crate) log_drivers: Vec<String>,
}

impl From<v1::VersionResponse> for ManagerVersion {
    fn from(version: v1::VersionResponse) -> Self {
        let v1::VersionResponse {
            version,
            api_version,
            runtime_version,
            os,
            architecture,
            kernel,
            cgroups,
            root,
            log_driver,
            log_drivers,
        } = version;
        Self {
            version,
            api_version,
            runtime_version,
            os,
            architecture,
            kernel,
            cgroups,
            root,
            log_driver,
            log_drivers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_stable_field_names() {
        let container = v1::Container {
            id: "c0ffee".to_owned(),
            state: v1::container::State::Exited.into(),
            exit: Some(v1::Exit {
                code: 3,
                at_unix_nanos: 1,
                oom_killed: false,
            }),
            ..Default::default()
        };
        let json = serde_json::to_value(Container::from(&container)).unwrap();
        assert_eq!(json["id"], "c0ffee");
        assert_eq!(json["state"], "exited");
        assert_eq!(json["exit"]["code"], 3);
        assert_eq!(json["exit"]["oomKilled"], false);
        assert_eq!(json["startedAt"], Value::Null);
        assert_eq!(json["address"], Value::Null);
    }

    #[test]
    fn an_event_is_a_line() {
        let event = v1::Event {
            at_unix_nanos: 0,
            kind: "container".to_owned(),
            action: "die".to_owned(),
            subject: "c0ffee".to_owned(),
            attributes: HashMap::from([("exit_code".to_owned(), "1".to_owned())]),
        };
        let expected = "1970-01-01T00:00:00.000000000Z container die c0ffee (exit_code=1)";
        assert_eq!(Event::from(&event).line(), expected);
    }
}
