//! The rules that the fields of a request must keep. All are checked before the first side effect.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::{CreateRequest, Network, check_links, isolation, resources};
use crate::networks::Joining;
use crate::spec::capabilities;
use crate::{Error, names, signal};

/// Below this the kernel cannot even run the runtime's own init in the group (docker has the same floor).
pub(super) const MEMORY_MIN_BYTES: i64 = 6 << 20;
/// `execve` takes no single string longer than this (`MAX_ARG_STRLEN`).
const ARGUMENT_MAX_BYTES: usize = 128 << 10;
/// All strings of a request together; half of the kernel's usual `ARG_MAX`.
const ARGUMENTS_MAX_BYTES: usize = 1 << 20;
const BINDS_MAX: usize = 1000;
const LABELS_MAX: usize = 1000;
const HOSTNAME_MAX_BYTES: usize = 63;
const CPU_MIN_MILLIS: i64 = 10;

impl CreateRequest {
    /// Check every rule that can be checked without looking at the image or the machine.
    pub fn validate(&self) -> Result<(), Error> {
        if !self.name.is_empty() {
            names::check(&self.name)?;
        }
        if self.image.is_empty() {
            return Err(Error::invalid("image", "no image is named"));
        }
        check_strings("command", &self.command)?;
        check_strings("entrypoint", self.entrypoint.as_deref().unwrap_or_default())?;
        check_env(&self.env)?;
        check_working_dir(&self.working_dir)?;
        check_strings("user", std::slice::from_ref(&self.user))?;
        check_hostname(&self.hostname)?;
        self.check_binds()?;
        self.storage.check()?;
        self.check_limits()?;
        self.ports.check()?;
        self.names.check()?;
        resources::check(self)?;
        isolation::check(self)?;
        self.logging.check()?;
        check_domainname(&self.domainname)?;
        check_labels("labels", &self.labels)?;
        check_labels("annotations", &self.annotations)?;
        self.check_networks()?;
        if !self.stop_signal.is_empty() {
            signal::parse("stop_signal", &self.stop_signal)?;
        }
        if let Some(check) = &self.healthcheck {
            check.check()?;
        }
        self.restart.check(self.auto_remove)?;
        capabilities::effective(&self.cap_add, &self.cap_drop)?;
        Ok(())
    }

    fn check_networks(&self) -> Result<(), Error> {
        if self.network != Network::User && !self.networks.is_empty() {
            let rule = "addresses and aliases are for networks made with `network create`, and those are not combined with bridge, none or host: connect the container afterwards";
            return Err(Error::invalid("network", rule));
        }
        if self.network == Network::User && self.networks.is_empty() {
            return Err(Error::invalid("network", "none is named"));
        }
        check_links(&self.links)?;
        if self.network != Network::Bridge && !self.links.is_empty() {
            let rule = match self.network {
                Network::Host | Network::Container => format!(
                    "conflicting options: {} type networking can't be used with links. This would result in undefined behavior",
                    self.network.name()
                ),
                // Docker takes it there, and does nothing.
                _ => "without a network nobody is reached by any name: leave the link out".to_owned(),
            };
            return Err(Error::invalid("link", rule));
        }
        self.networks.iter().try_for_each(Joining::check)
    }

    fn check_binds(&self) -> Result<(), Error> {
        if self.binds.len() > BINDS_MAX {
            return Err(Error::invalid("binds", format!("more than {BINDS_MAX}")));
        }
        for (index, bind) in self.binds.iter().enumerate() {
            check_absolute("binds.source", &bind.source)?;
            check_absolute("binds.target", &bind.target)?;
            if Path::new(&bind.target)
                .components()
                .all(|part| part == Component::RootDir)
            {
                return Err(Error::invalid(
                    "binds.target",
                    "must not be the root directory of the container",
                ));
            }
            if self.binds[..index]
                .iter()
                .any(|earlier| earlier.target == bind.target)
            {
                return Err(Error::invalid(
                    "binds.target",
                    format!("{:?} is named twice", bind.target),
                ));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        if self.memory_bytes != 0 && self.memory_bytes < MEMORY_MIN_BYTES {
            return Err(Error::invalid(
                "memory_bytes",
                format!(
                    "{} is less than the 6 MiB that a container needs",
                    self.memory_bytes
                ),
            ));
        }
        if self.cpu_quota_millis != 0 && self.cpu_quota_millis < CPU_MIN_MILLIS {
            return Err(Error::invalid(
                "cpu_quota_millis",
                format!(
                    "{} is less than {CPU_MIN_MILLIS}: the kernel's shortest quota is a hundredth of a CPU",
                    self.cpu_quota_millis
                ),
            ));
        }
        let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if usize::try_from(self.cpu_quota_millis / 1000).unwrap_or(0) > online.max(cpus_online()) {
            return Err(Error::invalid(
                "cpu_quota_millis",
                format!(
                    "{} is more than this machine's {online} CPUs",
                    self.cpu_quota_millis
                ),
            ));
        }
        if self.pids_limit < -1 {
            return Err(Error::invalid(
                "pids_limit",
                "must be a positive number, or 0 or -1 for no limit",
            ));
        }
        Ok(())
    }
}

/// The number of CPUs the machine has, even if this process may use fewer.
fn cpus_online() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
        .ok()
        .flatten()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(1)
}

/// Strings that go to `execve` or the kernel: no NUL byte, and not more than it takes.
pub(crate) fn check_strings(field: &'static str, strings: &[String]) -> Result<(), Error> {
    let mut total = 0;
    for string in strings {
        if string.contains('\0') {
            return Err(Error::invalid(field, format!("{string:?} contains a NUL byte")));
        }
        if string.len() >= ARGUMENT_MAX_BYTES {
            return Err(Error::invalid(
                field,
                format!("one string is longer than {ARGUMENT_MAX_BYTES} bytes"),
            ));
        }
        total += string.len() + 1;
    }
    if total > ARGUMENTS_MAX_BYTES {
        return Err(Error::invalid(
            field,
            format!("longer than {ARGUMENTS_MAX_BYTES} bytes together"),
        ));
    }
    Ok(())
}

/// `NAME=value` with a name.
pub(crate) fn check_env(env: &[String]) -> Result<(), Error> {
    check_strings("env", env)?;
    match env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        Some(entry) => Err(Error::invalid("env", format!("{entry:?} must be NAME=value"))),
        None => Ok(()),
    }
}

/// An absolute path, or empty for the default.
pub(crate) fn check_working_dir(path: &str) -> Result<(), Error> {
    if path.is_empty() {
        Ok(())
    } else {
        check_absolute("working_dir", path)
    }
}

pub(super) fn check_absolute(field: &'static str, path: &str) -> Result<(), Error> {
    check_strings(field, &[path.to_owned()])?;
    if !path.starts_with('/') {
        return Err(Error::invalid(
            field,
            format!("{path:?} must be an absolute path"),
        ));
    }
    if path.len() >= 4096 {
        return Err(Error::invalid(field, "longer than 4095 bytes"));
    }
    Ok(())
}

fn check_hostname(hostname: &str) -> Result<(), Error> {
    let well_formed = hostname.len() <= HOSTNAME_MAX_BYTES
        && hostname
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && !hostname.starts_with(['-', '.']);
    if well_formed {
        Ok(())
    } else {
        Err(Error::invalid(
            "hostname",
            format!("{hostname:?} must be up to 63 letters, digits, dots, dashes and underscores"),
        ))
    }
}

/// The kernel's field has 64 bytes, with an end.
fn check_domainname(name: &str) -> Result<(), Error> {
    if name.len() > HOSTNAME_MAX_BYTES || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(Error::invalid(
            "domainname",
            format!("{name:?} must be up to {HOSTNAME_MAX_BYTES} visible characters"),
        ));
    }
    Ok(())
}

pub(crate) fn check_labels(field: &'static str, labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > LABELS_MAX {
        return Err(Error::invalid(field, format!("more than {LABELS_MAX}")));
    }
    if labels.keys().any(String::is_empty) {
        return Err(Error::invalid(field, "one has an empty name"));
    }
    for (key, value) in labels {
        check_strings(field, &[key.clone(), value.clone()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Bind;

    fn request() -> CreateRequest {
        CreateRequest {
            image: "busybox".to_owned(),
            ..CreateRequest::default()
        }
    }

    fn refused(request: &CreateRequest) -> String {
        request.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_plainest_request_is_allowed() {
        request().validate().unwrap();
    }

    #[test]
    fn each_field_has_its_rule() {
        let bind = |source: &str, target: &str| Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
        };
        let cases: Vec<(CreateRequest, &str)> = vec![
            (
                CreateRequest {
                    image: String::new(),
                    ..request()
                },
                "image",
            ),
            (
                CreateRequest {
                    name: "a/b".into(),
                    ..request()
                },
                "name",
            ),
            (
                CreateRequest {
                    env: vec!["A".into()],
                    ..request()
                },
                "env",
            ),
            (
                CreateRequest {
                    env: vec!["=b".into()],
                    ..request()
                },
                "env",
            ),
            (
                CreateRequest {
                    command: vec!["a\0b".into()],
                    ..request()
                },
                "command",
            ),
            (
                CreateRequest {
                    working_dir: "tmp".into(),
                    ..request()
                },
                "working_dir",
            ),
            (
                CreateRequest {
                    hostname: "a b".into(),
                    ..request()
                },
                "hostname",
            ),
            (
                CreateRequest {
                    binds: vec![bind("data", "/data")],
                    ..request()
                },
                "binds.source",
            ),
            (
                CreateRequest {
                    binds: vec![bind("/data", "data")],
                    ..request()
                },
                "binds.target",
            ),
            (
                CreateRequest {
                    binds: vec![bind("/data", "/")],
                    ..request()
                },
                "binds.target",
            ),
            (
                CreateRequest {
                    binds: vec![bind("/a", "/d"), bind("/b", "/d")],
                    ..request()
                },
                "named twice",
            ),
            (
                CreateRequest {
                    memory_bytes: 1 << 20,
                    ..request()
                },
                "memory_bytes",
            ),
            (
                CreateRequest {
                    memory_bytes: -1,
                    ..request()
                },
                "memory_bytes",
            ),
            (
                CreateRequest {
                    cpu_quota_millis: -5,
                    ..request()
                },
                "cpu_quota_millis",
            ),
            (
                CreateRequest {
                    cpu_quota_millis: i64::MAX,
                    ..request()
                },
                "cpu_quota_millis",
            ),
            (
                CreateRequest {
                    pids_limit: -2,
                    ..request()
                },
                "pids_limit",
            ),
            (
                CreateRequest {
                    cap_add: vec!["FLY".into()],
                    ..request()
                },
                "FLY",
            ),
            (
                CreateRequest {
                    stop_signal: "SIGNOTHING".into(),
                    ..request()
                },
                "SIGNOTHING",
            ),
            (
                CreateRequest {
                    labels: [(String::new(), "x".to_owned())].into(),
                    ..request()
                },
                "labels",
            ),
        ];
        for (request, named) in cases {
            assert!(refused(&request).contains(named), "{}", refused(&request));
        }
    }

    #[test]
    fn unknown_networks_are_refused_by_name() {
        assert_eq!(Network::parse("").unwrap().0, Network::Bridge);
        assert_eq!(Network::parse("mynet").unwrap().0, Network::User);
        let of_other = (Network::Container, "web".to_owned());
        assert_eq!(Network::parse("container:web").unwrap(), of_other);
        let refused = Network::parse("ns:/proc/1/ns/net").unwrap_err();
        assert!(refused.to_string().contains("ns:/proc/1/ns/net"));
    }
}
