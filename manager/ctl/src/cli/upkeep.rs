//! What becomes of a container once it runs.
#![allow(rustdoc::broken_intra_doc_links, reason = "help that is read at a terminal")]

use clap::Args;
use proto::v1::{Healthcheck, RestartPolicy};

use super::resources::LimitFlags;
use crate::time;

#[derive(Debug, Args)]
pub(crate) struct UpkeepFlags {
    /// When to start the container again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = parse_restart)]
    pub(crate) restart: Option<RestartPolicy>,
    /// Command that tells by its exit code whether the container is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two of them, such as 1m30s; else 30s
    #[arg(long, value_name = "DURATION", value_parser = time::parse_nanos)]
    health_interval: Option<i64>,
    /// Time that one may take; else 30s
    #[arg(long, value_name = "DURATION", value_parser = time::parse_nanos)]
    health_timeout: Option<i64>,
    /// So many failures in a row make it unhealthy; else 3
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = time::parse_nanos)]
    health_start_period: Option<i64>,
    /// Time between two of them meanwhile; else 5s
    #[arg(long, value_name = "DURATION", value_parser = time::parse_nanos)]
    health_start_interval: Option<i64>,
    /// Do not check the container's health, whatever the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
}

impl UpkeepFlags {
    /// None: the image's.
    pub(crate) fn healthcheck(&self) -> Option<Healthcheck> {
        let test = match &self.health_cmd {
            _ if self.no_healthcheck => vec!["NONE".to_owned()],
            Some(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
            None => Vec::new(),
        };
        let check = Healthcheck {
            test,
            interval_nanos: self.health_interval.unwrap_or(0),
            timeout_nanos: self.health_timeout.unwrap_or(0),
            start_period_nanos: self.health_start_period.unwrap_or(0),
            start_interval_nanos: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
        };
        (check != Healthcheck::default()).then_some(check)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Begin at a time, or so long ago (10m), with what is kept of that
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    pub(crate) since: Option<i64>,
    /// End at a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    pub(crate) until: Option<i64>,
    /// Only some: type=container, event=start, container=NAME, image=NAME, label=KEY[=VALUE]
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// End after the first look
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Print IDs whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// What is not given stays as it is.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// When to start the container again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = parse_restart)]
    pub(crate) restart: Option<RestartPolicy>,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// The name is the manager's to judge; a count goes with on-failure alone.
fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "0"));
    let maximum_retry_count = count
        .parse()
        .map_err(|_| format!("{count:?} is no number of times, as in on-failure:3"))?;
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_name_and_may_have_a_count() {
        let parsed = |text| parse_restart(text).map(|policy| (policy.name, policy.maximum_retry_count));
        assert_eq!(parsed("always"), Ok(("always".to_owned(), 0)));
        assert_eq!(parsed("on-failure:3"), Ok(("on-failure".to_owned(), 3)));
        for text in ["on-failure:", "on-failure:-1", "on-failure:x"] {
            assert!(parse_restart(text).is_err(), "{text}");
        }
    }
}
