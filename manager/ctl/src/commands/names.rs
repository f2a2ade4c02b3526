//! `--dns` and its like.

use proto::v1::{Names, names::Host};

use crate::cli::NameFlags;
use crate::failure::{Failure, Result};

/// What the flags ask for, if they ask for anything.
pub(super) fn parse(flags: &NameFlags) -> Result<Option<Names>> {
    let names = Names {
        servers: flags.dns.clone(),
        search: flags.dns_search.clone(),
        options: flags.dns_option.clone(),
        hosts: flags
            .add_host
            .iter()
            .map(|argument| host(argument))
            .collect::<Result<_>>()?,
    };
    Ok((names != Names::default()).then_some(names))
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS`; an address of IPv6 may be in brackets.
fn host(argument: &str) -> Result<Host> {
    let parts = argument
        .split_once('=')
        .or_else(|| argument.split_once(':'))
        .filter(|(name, address)| !name.is_empty() && !address.is_empty());
    let Some((name, address)) = parts else {
        return Err(Failure::new(format!(
            "bad format for add-host: {argument:?} is not NAME:ADDRESS"
        )));
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'));
    Ok(Host {
        name: name.to_owned(),
        address: bare.unwrap_or(address).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_for_docker() {
        for (argument, address) in [
            ("db:10.0.0.1", "10.0.0.1"),
            ("db=10.0.0.1", "10.0.0.1"),
            ("db:::1", "::1"),
            ("db=::1", "::1"),
            ("db:[::1]", "::1"),
            ("db:host-gateway", "host-gateway"),
        ] {
            let host = host(argument).unwrap();
            assert_eq!((&*host.name, &*host.address), ("db", address), "{argument}");
        }
        for argument in ["", "db", "db:", ":10.0.0.1", "=1"] {
            assert!(host(argument).is_err(), "{argument}");
        }
    }
}
