//! `ContainerIsolation`.

use engine::Isolation;
use proto::v1::ContainerIsolation;

pub(super) fn of_message(message: ContainerIsolation) -> Isolation {
    Isolation {
        pid: message.pid,
        ipc: message.ipc,
        uts: message.uts,
        cgroup: message.cgroup,
        userns: message.userns,
        // The engine decides.
        owners: None,
        security_opts: message.security_opts,
        group_add: message.group_add,
        sysctls: message.sysctls.into_iter().collect(),
    }
}

pub(super) fn message(isolation: Isolation) -> ContainerIsolation {
    let owners = isolation.owners.as_ref();
    ContainerIsolation {
        pid: isolation.pid,
        ipc: isolation.ipc,
        uts: isolation.uts,
        cgroup: isolation.cgroup,
        userns: isolation.userns,
        security_opts: isolation.security_opts,
        group_add: isolation.group_add,
        sysctls: isolation.sysctls.into_iter().collect(),
        uid_map: owners.map(|owners| owners.uids.to_string()).unwrap_or_default(),
        gid_map: owners.map(|owners| owners.gids.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_comes_back_as_it_was_asked_for() {
        let asked = ContainerIsolation {
            pid: "1".to_owned(),
            ipc: "2".to_owned(),
            uts: "3".to_owned(),
            cgroup: "4".to_owned(),
            userns: "5".to_owned(),
            security_opts: vec!["6".to_owned()],
            sysctls: [("7".to_owned(), "8".to_owned())].into(),
            group_add: vec!["9".to_owned()],
            ..ContainerIsolation::default()
        };
        assert_eq!(message(of_message(asked.clone())), asked);
        let presumptuous = ContainerIsolation {
            uid_map: "0:0:1".to_owned(),
            gid_map: "0:0:1".to_owned(),
            ..asked.clone()
        };
        assert_eq!(message(of_message(presumptuous)), asked, "nobody chooses ids");
    }
}
