//! Which volumes are listed, and which a prune removes.

use std::sync::Arc;

use image::{LabelFilter, read_filters};

use super::{Volume, empty_trash, remove_locked};
use crate::Error;
use crate::engine::{Engine, blocking};
use crate::prune::Pruned;
use crate::request::storage::LOCAL;

/// Which volumes are meant: those that pass all. Of names and drivers one has to fit.
#[derive(Debug, Default)]
pub struct VolumeFilters {
    labels: Vec<LabelFilter>,
    dangling: Option<bool>,
    drivers: Vec<String>,
    names: Vec<String>,
}

impl VolumeFilters {
    /// Read the filters of a list: `dangling=true`, `driver=local`, `label=key=value`, `name=part`.
    pub fn parse(texts: &[String]) -> Result<VolumeFilters, Error> {
        let mut filters = VolumeFilters::default();
        read_filters(texts, |kind, value| {
            match kind {
                "label" => filters.labels.push(LabelFilter::new(value, false)),
                "dangling" => filters.dangling = Some(truth(value)?),
                "driver" => filters.drivers.push(value.to_owned()),
                "name" => filters.names.push(value.to_owned()),
                _ => return Err("the kinds are dangling, driver, label and name".into()),
            }
            Ok(())
        })?;
        Ok(filters)
    }

    /// Read the filters of a prune: `label=key`, `label!=key=value`.
    pub fn parse_for_prune(texts: &[String]) -> Result<VolumeFilters, Error> {
        let mut filters = VolumeFilters::default();
        read_filters(texts, |kind, value| {
            match kind {
                "label" => filters.labels.push(LabelFilter::new(value, false)),
                "label!" => filters.labels.push(LabelFilter::new(value, true)),
                _ => return Err("the kinds are label and label!".into()),
            }
            Ok(())
        })?;
        Ok(filters)
    }

    pub(crate) fn pass(&self, volume: &Volume) -> bool {
        let has = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| fits(wanted))
        };
        self.labels
            .iter()
            .all(|label| label.pass(volume.labels.get(label.key()).map(String::as_str)))
            && self
                .dangling
                .is_none_or(|dangling| dangling == volume.containers.is_empty())
            && has(&self.drivers, &|driver| driver == volume.driver)
            && has(&self.names, &|part| volume.name.contains(part))
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

impl Engine {
    /// Remove the volumes that pass and no container uses; without `all` only anonymous ones. Those of plugins stay, as
    /// with docker: what other machines do with them is not known here.
    pub async fn prune_volumes(&self, all: bool, filters: &VolumeFilters) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for volume in self.recorded_volumes(filters).await? {
            if volume.driver != LOCAL || !volume.containers.is_empty() || !(all || volume.anonymous) {
                continue;
            }
            let bytes = self.volume_bytes(&volume.name).await?;
            let changes = self.0.volumes.lock().await;
            match remove_locked(&self.0, &volume.name).await {
                Ok(()) => {
                    pruned.deleted.push(volume.name);
                    pruned.freed_bytes += bytes;
                }
                // It has been removed meanwhile, or found a user.
                Err(Error::NoSuchVolume(_) | Error::VolumeInUse { .. }) => {}
                Err(error) => return Err(error),
            }
            drop(changes);
        }
        empty_trash(&self.0).await;
        Ok(pruned)
    }

    /// What the files of a volume take. One that goes meanwhile takes nothing.
    async fn volume_bytes(&self, name: &str) -> Result<u64, Error> {
        let (engine, name) = (Arc::clone(&self.0), name.to_owned());
        blocking(move || Ok(image::tree_bytes(&engine.config.volume_data(&name)).unwrap_or(0))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filters: &[&str], volume: &Volume) -> bool {
        let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        VolumeFilters::parse(&texts).unwrap().pass(volume)
    }

    #[test]
    fn a_volume_passes_all_kinds_and_one_of_each() {
        let volume = Volume {
            name: "web-data".into(),
            driver: "local".into(),
            labels: [("tier".to_owned(), "one".to_owned())].into(),
            containers: vec!["a".into()],
            ..Volume::default()
        };
        for (filters, expected) in [
            (&["name=data", "name=else"][..], true),
            (&["name=else"], false),
            (&["dangling=false", "driver=local", "label=tier=one"], true),
            (&["dangling=true"], false),
            (&["driver=nfs"], false),
            (&["label=tier", "label=other"], false),
        ] {
            assert_eq!(passes(filters, &volume), expected, "{filters:?}");
        }
    }

    #[test]
    fn filters_that_mean_nothing_are_refused_by_name() {
        for text in ["until=1h", "dangling=maybe", "label"] {
            let refused = VolumeFilters::parse(&[text.to_owned()]).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        assert!(VolumeFilters::parse_for_prune(&["dangling=true".into()]).is_err());
    }
}
