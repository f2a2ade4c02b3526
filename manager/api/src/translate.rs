//! Between the API's messages and the engine's types.

mod artifact;
mod isolation;
mod names;
pub(crate) mod networks;
mod ports;
mod resources;
pub(crate) mod storage;
mod upkeep;

pub(crate) use artifact::{inspected, kept};
pub(crate) use upkeep::update;

use engine::{Bind, Container, CreateRequest, Error, Exit, Logging, State};
use image::{Credentials, Lease, LeasedImage, Secret};
use proto::v1;

pub(crate) fn credentials(message: v1::Credentials) -> Credentials {
    let secret = if !message.registry_token.is_empty() {
        Secret::RegistryToken(message.registry_token)
    } else if !message.identity_token.is_empty() {
        Secret::IdentityToken(message.identity_token)
    } else {
        Secret::Password {
            username: message.username,
            password: message.password,
        }
    };
    Credentials::new(&message.registry, secret)
}

pub(crate) fn lease(lease: Lease) -> v1::Lease {
    let image = |LeasedImage { id, names }| v1::lease::Image { id, names };
    v1::Lease {
        id: lease.id,
        images: lease.images.into_iter().map(image).collect(),
        expires_unix_seconds: lease.expires_unix_seconds,
    }
}

pub(crate) fn create_request(message: v1::CreateContainerRequest) -> Result<CreateRequest, Error> {
    let (network, network_of, networks) = networks::wanted(&message.network, message.networks)?;
    Ok(CreateRequest {
        name: message.name,
        image: message.image,
        command: message.command,
        entrypoint: message.entrypoint.map(|entrypoint| entrypoint.args),
        env: message.env,
        working_dir: message.working_dir,
        user: message.user,
        hostname: message.hostname,
        tty: message.tty,
        open_stdin: message.open_stdin,
        stdin_once: message.stdin_once,
        platform: message.platform,
        auto_remove: message.auto_remove,
        binds: message
            .binds
            .into_iter()
            .map(|bind| Bind {
                source: bind.source,
                target: bind.target,
                read_only: bind.read_only,
            })
            .collect(),
        network,
        network_of,
        networks,
        links: networks::links(&message.links)?,
        memory_bytes: message.memory_bytes,
        cpu_quota_millis: message.cpu_quota_millis,
        pids_limit: message.pids_limit,
        labels: message.labels.into_iter().collect(),
        stop_signal: message.stop_signal,
        read_only: message.read_only,
        privileged: message.privileged,
        cap_add: message.cap_add,
        cap_drop: message.cap_drop,
        tty_columns: message.tty_columns,
        tty_rows: message.tty_rows,
        storage: message
            .storage
            .map(storage::storage)
            .transpose()?
            .unwrap_or_default(),
        restart: upkeep::restart(message.restart)?,
        healthcheck: message.healthcheck.map(upkeep::healthcheck),
        ports: ports::ports(message.ports)?,
        names: names::names(message.names),
        resources: message.resources.map(resources::of_message).unwrap_or_default(),
        isolation: message.isolation.map(isolation::of_message).unwrap_or_default(),
        domainname: message.domainname,
        annotations: message.annotations.into_iter().collect(),
        stop_timeout_seconds: message.stop_timeout_seconds,
        init: message.init,
        logging: message.logging.map(logging).unwrap_or_default(),
    })
}

pub(crate) fn create_message(request: &CreateRequest) -> v1::CreateContainerRequest {
    let network = request.network_name();
    let request = request.clone();
    v1::CreateContainerRequest {
        name: request.name,
        image: request.image,
        command: request.command,
        entrypoint: request.entrypoint.map(|args| v1::Entrypoint { args }),
        env: request.env,
        working_dir: request.working_dir,
        user: request.user,
        hostname: request.hostname,
        tty: request.tty,
        open_stdin: request.open_stdin,
        stdin_once: request.stdin_once,
        platform: request.platform,
        auto_remove: request.auto_remove,
        binds: request
            .binds
            .into_iter()
            .map(|bind| v1::Bind {
                source: bind.source,
                target: bind.target,
                read_only: bind.read_only,
            })
            .collect(),
        network,
        networks: request.networks.into_iter().map(networks::place).collect(),
        links: request.links.iter().map(ToString::to_string).collect(),
        memory_bytes: request.memory_bytes,
        cpu_quota_millis: request.cpu_quota_millis,
        pids_limit: request.pids_limit,
        labels: request.labels.into_iter().collect(),
        stop_signal: request.stop_signal,
        read_only: request.read_only,
        privileged: request.privileged,
        cap_add: request.cap_add,
        cap_drop: request.cap_drop,
        tty_columns: request.tty_columns,
        tty_rows: request.tty_rows,
        storage: storage::storage_message(&request.storage),
        restart: upkeep::restart_message(request.restart),
        healthcheck: request.healthcheck.map(upkeep::healthcheck_message),
        ports: ports::message(&request.ports),
        names: names::message(&request.names),
        resources: Some(resources::message(request.resources)),
        isolation: Some(isolation::message(request.isolation)),
        domainname: request.domainname,
        annotations: request.annotations.into_iter().collect(),
        stop_timeout_seconds: request.stop_timeout_seconds,
        init: request.init,
        logging: Some(v1::Logging {
            driver: request.logging.name().to_owned(),
            options: request.logging.options.into_iter().collect(),
        }),
    }
}

fn logging(message: v1::Logging) -> Logging {
    Logging {
        driver: message.driver,
        options: message.options.into_iter().collect(),
    }
}

pub(crate) fn container(container: &Container, subnet_prefix: u8) -> v1::Container {
    let request = &container.request;
    v1::Container {
        id: container.id.clone(),
        name: container.name.clone(),
        image: request.image.clone(),
        image_id: container.image_id.clone(),
        command: container.command.clone(),
        state: state(container.state).into(),
        pid: container.pid,
        exit: container.exit.map(exit),
        created_unix_nanos: container.created_unix_nanos,
        started_unix_nanos: container.started_unix_nanos,
        address: container
            .address
            .map(|address| format!("{address}/{subnet_prefix}"))
            .unwrap_or_default(),
        network: container.network_name(),
        networks: Vec::new(),
        labels: request.labels.clone().into_iter().collect(),
        tty: request.tty,
        open_stdin: request.open_stdin,
        error: container.error.clone(),
        auto_remove: request.auto_remove,
        restart_count: container.restarts,
        health: container.health.as_deref().map(upkeep::health),
        ports: container.ports.iter().map(ports::published).collect(),
        size: None,
    }
}

pub(crate) fn size(size: engine::ContainerSize) -> v1::ContainerSize {
    v1::ContainerSize {
        upper_bytes: size.upper_bytes,
        root_bytes: size.root_bytes,
    }
}

fn state(state: State) -> v1::container::State {
    match state {
        State::Created => v1::container::State::Created,
        State::Running => v1::container::State::Running,
        State::Paused => v1::container::State::Paused,
        State::Exited => v1::container::State::Exited,
        State::Restarting => v1::container::State::Restarting,
        State::Removing => v1::container::State::Removing,
    }
}

pub(crate) fn exit(exit: Exit) -> v1::Exit {
    v1::Exit {
        code: exit.code,
        at_unix_nanos: exit.at_unix_nanos,
        oom_killed: exit.oom_killed,
    }
}

pub(crate) fn image(image: &image::Image) -> v1::Image {
    let config = image.config.config().as_ref();
    let labels = config.and_then(|config| config.labels().as_ref());
    v1::Image {
        id: image.id.clone(),
        names: image.names.clone(),
        manifest_digest: image.manifest_digest.clone(),
        size_bytes: image.size_bytes,
        created_unix_seconds: image.created_unix_seconds,
        architecture: image.architecture.clone(),
        os: image.os.clone(),
        variant: image.config.variant().clone().unwrap_or_default(),
        repo_digests: image.repo_digests.clone(),
        unpacked_bytes: image.unpacked_bytes,
        labels: labels.cloned().unwrap_or_default(),
        artifact_type: String::new(),
    }
}

pub(crate) fn pulled(pulled: image::Pulled) -> v1::PullProgress {
    let pulled = v1::Pulled {
        image: Some(kept(&pulled.kept)),
        name: pulled.name,
        digest: pulled.digest,
    };
    v1::PullProgress {
        kind: Some(v1::pull_progress::Kind::Pulled(Box::new(pulled))),
    }
}

pub(crate) fn layer(progress: image::LayerProgress) -> v1::PullProgress {
    let phase = match progress.phase {
        image::Phase::Waiting => v1::layer_progress::Phase::Waiting,
        image::Phase::Downloading => v1::layer_progress::Phase::Downloading,
        image::Phase::Verifying => v1::layer_progress::Phase::Verifying,
        image::Phase::Verified => v1::layer_progress::Phase::Verified,
        image::Phase::Done => v1::layer_progress::Phase::Done,
        image::Phase::Present => v1::layer_progress::Phase::Present,
    };
    let layer = v1::LayerProgress {
        digest: progress.digest,
        phase: phase.into(),
        downloaded_bytes: progress.downloaded_bytes,
        total_bytes: progress.total_bytes,
        unpacked_bytes: progress.unpacked_bytes,
    };
    v1::PullProgress {
        kind: Some(v1::pull_progress::Kind::Layer(layer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_request_comes_back_as_it_was_asked_for() {
        let message = v1::CreateContainerRequest {
            name: "one".to_owned(),
            image: "busybox".to_owned(),
            command: vec!["sh".to_owned()],
            entrypoint: Some(v1::Entrypoint {
                args: vec!["/init".to_owned()],
            }),
            env: vec!["A=b".to_owned()],
            working_dir: "/srv".to_owned(),
            user: "1:2".to_owned(),
            hostname: "h".to_owned(),
            tty: true,
            open_stdin: true,
            auto_remove: true,
            binds: vec![v1::Bind {
                source: "/a".to_owned(),
                target: "/b".to_owned(),
                read_only: true,
            }],
            network: "none".to_owned(),
            memory_bytes: 1,
            cpu_quota_millis: 2,
            pids_limit: 3,
            labels: [("k".to_owned(), "v".to_owned())].into(),
            stop_signal: "INT".to_owned(),
            read_only: true,
            privileged: true,
            cap_add: vec!["NET_ADMIN".to_owned()],
            cap_drop: vec!["CHOWN".to_owned()],
            tty_columns: 80,
            tty_rows: 24,
            stdin_once: true,
            networks: Vec::new(),
            links: vec!["db:store".to_owned()],
            platform: "linux/arm64".to_owned(),
            resources: Some(v1::ContainerResources::default()),
            isolation: Some(v1::ContainerIsolation::default()),
            domainname: "d".to_owned(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            stop_timeout_seconds: Some(0),
            init: true,
            logging: Some(v1::Logging {
                driver: "local".to_owned(),
                options: [("max-size".to_owned(), "1m".to_owned())].into(),
            }),
            ..v1::CreateContainerRequest::default()
        };
        assert_eq!(create_message(&create_request(message.clone()).unwrap()), message);
    }
}
