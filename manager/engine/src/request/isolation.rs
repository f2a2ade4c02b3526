//! How far a container is kept from the machine and from others: namespaces that it shares with the host, what
//! confines its processes, and sysctls. The rules, and most of their words, are docker's.

use std::collections::BTreeMap;

use image::Owners;
use serde::{Deserialize, Serialize};

use super::{CreateRequest, Network, check_strings, container_of};
use crate::Error;
use crate::spec::seccomp;
use crate::spec::selinux::Label;

const SYSCTLS_MAX: usize = 256;
const GROUPS_MAX: usize = 1024;
const LABEL: &str =
    "label=disable, or of user, role, type and level one with its value, such as label=type:container_t";
const NO_CONTAINER: &str = "invalid container format container:<name|id>";
/// Of the network's and the IPC namespace's, which are the container's own: `net.` and these.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "fs.mqueue.",
];

/// What is empty or false is as by default: namespaces of its own, and all confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// `private` or `host`, here and in the fields below; `container:` with a name or id, which is an id on record.
    pub pid: String,
    /// And `none`: without /dev/shm; `shareable`: other containers may have it; `container:` as above.
    pub ipc: String,
    /// Host and domain name.
    pub uts: String,
    /// What it sees of the tree of cgroups.
    pub cgroup: String,
    /// User ids: `host`, or none that another container has: `auto`, `auto:size=N`; or another's: `container:` as above.
    /// Empty is as the manager's `userns-remap` says.
    pub userns: String,
    /// The ids of the host that it has; None: they are the host's own. On record alone: nobody asks for it.
    #[serde(with = "as_text")]
    pub owners: Option<Owners>,
    /// `docker run --security-opt`: `no-new-privileges`, `seccomp=unconfined`, ...
    pub security_opts: Vec<String>,
    /// Names and values.
    pub sysctls: BTreeMap<String, String>,
    /// More groups of its main process: ids, or names in the container's /etc/group.
    pub group_add: Vec<String>,
}

/// What [`Isolation::userns`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Userns<'a> {
    Default,
    Host,
    Auto {
        size: Option<u32>,
    },
    /// Name or id, and id on record.
    Of(&'a str),
}

impl Userns<'_> {
    pub(crate) fn parse(mode: &str) -> Result<Userns<'_>, Error> {
        let refuse = |why: &str| Err(Error::invalid("userns", format!("{mode:?}: {why}")));
        let (kind, rest) = mode.split_once(':').unwrap_or((mode, ""));
        match (kind, rest) {
            ("", "") => Ok(Userns::Default),
            ("host", "") => Ok(Userns::Host),
            ("auto", "") => Ok(Userns::Auto { size: None }),
            ("auto", options) => {
                let size = options.strip_prefix("size=").and_then(|size| size.parse().ok());
                match size.filter(|size| *size > 0) {
                    Some(size) => Ok(Userns::Auto { size: Some(size) }),
                    None => refuse("of options there is size=N, the number of its ids, from 1 on"),
                }
            }
            ("container", "") => refuse(NO_CONTAINER),
            ("container", name) => Ok(Userns::Of(name)),
            _ => refuse("invalid mode: there are host, auto, auto:size=N and container:NAME"),
        }
    }
}

/// Mappings of ids on record: those of users and of groups, as mount options have them.
mod as_text {
    use super::{Deserialize, Owners, Serialize};
    use serde::{Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde gives it so")]
    pub(super) fn serialize<S: Serializer>(owners: &Option<Owners>, to: S) -> Result<S::Ok, S::Error> {
        let text = owners
            .as_ref()
            .map(|owners| [owners.uids.to_string(), owners.gids.to_string()]);
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Owners>, D::Error> {
        let read = |text: String| text.parse().map_err(D::Error::custom);
        let text: Option<[String; 2]> = Option::deserialize(from)?;
        text.map(|[uids, gids]| {
            Ok(Owners {
                uids: read(uids)?,
                gids: read(gids)?,
            })
        })
        .transpose()
    }
}

/// What [`Isolation::security_opts`] says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security<'a> {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp<'a>,
    pub(crate) system_paths_unconfined: bool,
    /// Empty: none.
    pub(crate) apparmor_profile: &'a str,
    pub(crate) label: Label<'a>,
}

/// What of the kernel's calls a container may use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Seccomp<'a> {
    #[default]
    Builtin,
    Unconfined,
    /// A profile as JSON.
    Own(&'a str),
}

impl Isolation {
    /// Read the security options.
    pub(crate) fn security(&self) -> Result<Security<'_>, Error> {
        let mut security = Security::default();
        for option in &self.security_opts {
            let refuse = |why: &str| Err(Error::invalid("security_opts", format!("{option:?}: {why}")));
            // Docker still reads the colon of its first versions.
            let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
            match (name, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin") => security.seccomp = Seccomp::Builtin,
                ("seccomp", profile) if profile.trim_start().starts_with('{') => {
                    security.seccomp = Seccomp::Own(profile);
                }
                ("seccomp", _) => return refuse("a profile as JSON, unconfined or builtin"),
                ("systempaths", "unconfined") => security.system_paths_unconfined = true,
                ("apparmor", "unconfined") => security.apparmor_profile = "",
                ("apparmor", profile) if !profile.is_empty() && !profile.contains('\0') => {
                    security.apparmor_profile = profile;
                }
                // No container has a label that nobody asked for.
                ("label", "disable") => security.label = Label::default(),
                ("label", part) => {
                    let (name, value) = part.split_once([':', '=']).unwrap_or((part, ""));
                    let is_odd =
                        |c: char| c.is_whitespace() || c.is_control() || (c == ':' && name != "level");
                    match name {
                        _ if value.is_empty() || value.contains(is_odd) => return refuse(LABEL),
                        "user" => security.label.user = value,
                        "role" => security.label.role = value,
                        "type" => security.label.kind = value,
                        "level" => security.label.level = value,
                        _ => return refuse(LABEL),
                    }
                }
                _ => return refuse("invalid --security-opt"),
            }
        }
        Ok(security)
    }
}

/// The rules of the fields that say how far `request` is kept apart.
pub(super) fn check(request: &CreateRequest) -> Result<(), Error> {
    let isolation = &request.isolation;
    for (field, mode, more) in [
        ("pid", &isolation.pid, &["private"][..]),
        ("ipc", &isolation.ipc, &["private", "none", "shareable"]),
        ("uts", &isolation.uts, &["private"]),
        ("cgroup", &isolation.cgroup, &["private"]),
    ] {
        let refuse = |why: &str| Err(Error::invalid(field, format!("{mode:?}: {why}")));
        match container_of(mode).filter(|_| matches!(field, "pid" | "ipc")) {
            Some("") => return refuse(NO_CONTAINER),
            Some(_) => check_strings(field, std::slice::from_ref(mode))?,
            None if mode.is_empty() || mode == "host" || more.contains(&mode.as_str()) => {}
            None => return refuse("invalid mode"),
        }
    }
    check_strings("userns", std::slice::from_ref(&isolation.userns))?;
    Userns::parse(&isolation.userns)?;
    check_network_of(request)?;
    if isolation.uts == "host" && !request.hostname.is_empty() {
        return Err(Error::invalid(
            "hostname",
            "conflicting options: hostname and the UTS mode",
        ));
    }
    if let Seccomp::Own(profile) = isolation.security()?.seccomp {
        seccomp::own(profile, &[])?;
    }
    if isolation.group_add.len() > GROUPS_MAX || isolation.sysctls.len() > SYSCTLS_MAX {
        return Err(Error::invalid("group_add or sysctls", "too many"));
    }
    check_strings("group_add", &isolation.group_add)?;
    isolation
        .sysctls
        .iter()
        .try_for_each(|(name, value)| check_sysctl(request, name, value))
}

/// What says something of a network that is another container's. In docker's words.
fn check_network_of(request: &CreateRequest) -> Result<(), Error> {
    if request.network != Network::Container {
        return Ok(());
    }
    if request.network_of.is_empty() {
        return Err(Error::invalid("network", NO_CONTAINER));
    }
    check_strings("network", std::slice::from_ref(&request.network_of))?;
    let (names, ports) = (&request.names, &request.ports);
    let has_dns = [&names.servers, &names.search, &names.options]
        .iter()
        .any(|list| !list.is_empty());
    for (field, asked, what) in [
        (
            "hostname",
            !request.hostname.is_empty(),
            "hostname and the network mode",
        ),
        (
            "domainname",
            !request.domainname.is_empty(),
            "domainname and the network mode",
        ),
        ("dns", has_dns, "dns and the network mode"),
        (
            "names.hosts",
            !names.hosts.is_empty(),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            "ports.publish",
            !ports.publish.is_empty() || ports.publish_all,
            "port publishing and the container type network mode",
        ),
        (
            "ports.expose",
            !ports.expose.is_empty(),
            "port exposing and the container type network mode",
        ),
    ] {
        if asked {
            return Err(Error::invalid(field, format!("conflicting options: {what}")));
        }
    }
    Ok(())
}

fn check_sysctl(request: &CreateRequest, name: &str, value: &str) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::invalid("sysctls", format!("sysctl {name:?} {why}")));
    check_strings("sysctls", &[name.to_owned(), value.to_owned()])?;
    let of_ipc = |known: &str| name == known || (known.ends_with('.') && name.starts_with(known));
    if name.starts_with("net.") {
        if request.network == Network::Host {
            return refuse("not allowed in host network namespace");
        }
    } else if IPC_SYSCTLS.iter().any(|known| of_ipc(known)) {
        if request.isolation.ipc == "host" {
            return refuse("not allowed in host ipc namespace");
        }
    } else {
        return refuse("is not allowed: it is the whole machine's, in no namespace of the container");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(options: &[&str]) -> Result<String, Error> {
        let isolation = Isolation {
            security_opts: options.iter().map(|&option| option.to_owned()).collect(),
            ..Isolation::default()
        };
        isolation.security().map(|security| format!("{security:?}"))
    }

    #[test]
    fn security_options_are_dockers_and_others_are_refused() {
        let told = security(&["no-new-privileges", "seccomp=unconfined", "apparmor:mine"]).unwrap();
        assert!(
            told.contains("no_new_privileges: true, seccomp: Unconfined"),
            "{told}"
        );
        assert!(told.contains("apparmor_profile: \"mine\""), "{told}");
        let told = security(&["seccomp={\"a\":1}", "label=type:web_t", "label:level:s0:c1,c2"]).unwrap();
        assert!(told.contains("Own(\"{\\\"a\\\":1}\")"), "{told}");
        assert!(told.contains("kind: \"web_t\", level: \"s0:c1,c2\""), "{told}");
        let default = security(&[
            "no-new-privileges",
            "no-new-privileges:false",
            "label=user:x",
            "label=disable",
        ]);
        assert_eq!(default.unwrap(), security(&[]).unwrap());
        for odd in [
            "",
            "seccomp",
            "seccomp=/etc/profile.json",
            "label=type:",
            "label=type:a b",
            "label=type:a:b",
            "label=colour:red",
            "apparmor=",
            "systempaths",
            "fly=1",
        ] {
            assert!(security(&[odd]).is_err(), "{odd}");
        }
    }

    #[test]
    fn user_namespaces_are_dockers_and_some_of_podmans() {
        let auto = |size| Userns::Auto { size };
        for (mode, expected) in [
            ("", Userns::Default),
            ("host", Userns::Host),
            ("auto", auto(None)),
            ("auto:size=1024", auto(Some(1024))),
            ("container:web", Userns::Of("web")),
        ] {
            assert_eq!(Userns::parse(mode).unwrap(), expected);
        }
        for odd in [
            "private",
            "keep-id",
            "host:x",
            "container:",
            "auto:size=0",
            "auto:size=x",
            "auto:uidmapping=0:1:1",
        ] {
            assert!(Userns::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_ids_on_record_are_read_back_and_an_older_record_has_none() {
        let isolation = Isolation {
            owners: Some(Owners {
                uids: "0:100000:10,10:5:1".parse().unwrap(),
                gids: "0:7:1".parse().unwrap(),
            }),
            ..Isolation::default()
        };
        let text = serde_json::to_string(&isolation).unwrap();
        assert!(
            text.contains(r#""owners":["0:100000:10,10:5:1","0:7:1"]"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Isolation>(&text).unwrap(), isolation);
        assert_eq!(
            serde_json::from_str::<Isolation>("{}").unwrap(),
            Isolation::default()
        );
    }

    #[test]
    fn sysctls_must_be_of_a_namespace_that_is_the_containers_own() {
        let check = |name: &str, ipc: &str, network| {
            let request = CreateRequest {
                network,
                isolation: Isolation {
                    ipc: ipc.to_owned(),
                    sysctls: [(name.to_owned(), "1".to_owned())].into(),
                    ..Isolation::default()
                },
                ..CreateRequest::default()
            };
            check(&request).map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(check("net.ipv4.ip_forward", "", Network::Bridge), "");
        assert_eq!(check("fs.mqueue.msg_max", "", Network::Host), "");
        assert!(check("net.ipv4.ip_forward", "", Network::Host).contains("host network"));
        assert!(check("kernel.shmmax", "host", Network::None).contains("host ipc"));
        assert!(check("kernel.panic", "", Network::None).contains("not allowed"));
    }
}
