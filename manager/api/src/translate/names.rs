//! Whom a container asks for names, between the API's messages and the engine's types.

use engine::{HostEntry, Names};
use proto::v1;

pub(super) fn names(message: Option<v1::Names>) -> Names {
    let message = message.unwrap_or_default();
    let host = |v1::names::Host { name, address }| HostEntry { name, address };
    Names {
        servers: message.servers,
        search: message.search,
        options: message.options,
        hosts: message.hosts.into_iter().map(host).collect(),
    }
}

/// None, if there is nothing to tell.
pub(super) fn message(names: &Names) -> Option<v1::Names> {
    let host = |HostEntry { name, address }| v1::names::Host { name, address };
    let names = Some(names.clone()).filter(|names| *names != Names::default())?;
    Some(v1::Names {
        servers: names.servers,
        search: names.search,
        options: names.options,
        hosts: names.hosts.into_iter().map(host).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_asked_for() {
        let asked = v1::Names {
            servers: vec!["192.0.2.1".to_owned()],
            search: vec!["example.org".to_owned()],
            options: vec!["rotate".to_owned()],
            hosts: vec![v1::names::Host {
                name: "db".to_owned(),
                address: "host-gateway".to_owned(),
            }],
        };
        assert_eq!(message(&names(Some(asked.clone()))), Some(asked));
        assert_eq!(message(&names(None)), None);
    }
}
