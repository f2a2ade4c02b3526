//! Which networks are listed, and which a prune removes.

use image::{LabelFilter, read_filters};

use super::{NetworkInspection, is_built_in};
use crate::Error;
use crate::engine::Engine;
use crate::prune::PruneFilters;

/// Which networks are meant: those that pass all. Of names, ids and drivers one has to fit.
#[derive(Debug, Default)]
pub struct NetworkFilters {
    labels: Vec<LabelFilter>,
    dangling: Option<bool>,
    drivers: Vec<String>,
    names: Vec<String>,
    ids: Vec<String>,
    built_in: Option<bool>,
    for_prune: PruneFilters,
}

impl NetworkFilters {
    /// Read the filters of a list: `dangling=true`, `driver=bridge`, `id=4f66`, `label=key=value`, `name=part`,
    /// `type=custom`, `type=builtin`.
    pub fn parse(texts: &[String]) -> Result<NetworkFilters, Error> {
        let mut filters = NetworkFilters::default();
        read_filters(texts, |kind, value| {
            match (kind, value) {
                ("label", _) => filters.labels.push(LabelFilter::new(value, false)),
                ("dangling", "true" | "1") => filters.dangling = Some(true),
                ("dangling", "false" | "0") => filters.dangling = Some(false),
                ("driver", _) => filters.drivers.push(value.to_owned()),
                ("name", _) => filters.names.push(value.to_owned()),
                ("id", _) => filters.ids.push(value.to_owned()),
                ("type", "custom") => filters.built_in = Some(false),
                ("type", "builtin") => filters.built_in = Some(true),
                ("dangling" | "type", _) => return Err("has no such value".into()),
                _ => return Err("the kinds are dangling, driver, id, label, name and type".into()),
            }
            Ok(())
        })?;
        Ok(filters)
    }

    /// Read the filters of a prune: `label=key`, `label!=key=value`, `until=24h`.
    pub fn parse_for_prune(texts: &[String]) -> Result<NetworkFilters, Error> {
        Ok(NetworkFilters {
            for_prune: PruneFilters::parse(texts)?,
            ..NetworkFilters::default()
        })
    }

    pub(crate) fn pass(&self, found: &NetworkInspection) -> bool {
        let network = &found.network;
        let has = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| fits(wanted))
        };
        let is_dangling = found.members.is_empty() && !is_built_in(&network.name);
        self.labels
            .iter()
            .all(|label| label.pass(network.labels.get(label.key()).map(String::as_str)))
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
            && self
                .built_in
                .is_none_or(|wanted| wanted == is_built_in(&network.name))
            && self
                .for_prune
                .pass_made(&network.labels, network.created_unix_nanos)
            && has(&self.drivers, &|driver| driver == network.driver)
            && has(&self.names, &|part| network.name.contains(part))
            && has(&self.ids, &|part| network.id.starts_with(part))
    }
}

impl Engine {
    /// Remove the networks that pass and no container is on. Their names.
    pub async fn prune_networks(&self, filters: &NetworkFilters) -> Result<Vec<String>, Error> {
        let mut pruned = Vec::new();
        for found in self.networks(filters) {
            if is_built_in(&found.network.name) || !found.members.is_empty() {
                continue;
            }
            match self.remove_network(&found.network.id).await {
                Ok(network) => pruned.push(network.name.clone()),
                // Somebody was quicker.
                Err(Error::NoSuchNetwork(_) | Error::NetworkInUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}
