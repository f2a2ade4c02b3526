//! What can go wrong, for a reader who may have to mend it: what was tried on what, what the system said, and
//! where it is known, what to do.

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;

/// An error of this crate. After each of them the host is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value given by the caller breaks a rule.
    #[error("{field} {value}: {rule}")]
    Invalid {
        /// What the value is for: `bridge name`, `gateway`, `address`, …
        field: &'static str,
        /// The value as given.
        value: String,
        /// The rule it breaks.
        rule: String,
    },

    /// The subnet is already in use on this host.
    #[error(
        "subnet {subnet} of bridge {bridge} overlaps {found}; choose another subnet for the containers' network"
    )]
    Overlap {
        /// The subnet asked for.
        subnet: String,
        /// The bridge that should have it.
        bridge: String,
        /// The route or address found, with its link.
        found: String,
    },

    /// A link of the bridge's name is there, but is not the bridge that was asked for.
    #[error(
        "link {name} exists, but {difference}; remove it with `ip link delete {name}` or choose another name"
    )]
    ForeignLink {
        /// The link's name.
        name: String,
        /// How it differs.
        difference: String,
    },

    /// The bridge is there, and containers of another manager are on it.
    #[error(
        "bridge {name} belongs to another manager (the root with id {owner}), whose containers have {ports} links on it: give this manager a bridge of its own with --bridge-name and --bridge-subnet"
    )]
    OthersBridge {
        /// The bridge's name.
        name: String,
        /// Whose it is.
        owner: String,
        /// How many links are on it.
        ports: usize,
    },

    /// The container has its link already.
    #[error("container {container_id} is attached already: link {link} exists")]
    AlreadyAttached {
        /// The container.
        container_id: String,
        /// The link on the host.
        link: String,
    },

    /// A port is published already, by somebody who shares this network namespace.
    #[error(
        "publish port {port}: it leads to {holder} already (nftables table inet berth, comment {comment:?}); take it away there or choose another port"
    )]
    PortTaken {
        /// The host's address, port and protocol.
        port: String,
        /// The address and port of who has it.
        holder: String,
        /// Whose it is: `berth:<root>:<container>`, if a manager published it.
        comment: String,
    },

    /// The kernel lacks a kind of links.
    #[error(
        "this kernel has no links of kind {kind}: load its module with `modprobe {module}`, or take a kernel built with CONFIG_{option}"
    )]
    NoModule {
        /// As the kernel names it.
        kind: String,
        /// Of the kernel.
        module: String,
        /// Of the kernel's configuration.
        option: String,
    },

    /// A link of the host cannot have a container's link on it.
    #[error("parent {parent}: {why} ({source})")]
    Parent {
        /// The link of the host.
        parent: String,
        /// And what to do.
        why: String,
        /// What the kernel said.
        source: Box<Error>,
    },

    /// The kernel refused a netlink request.
    #[error("{action}: {}", kernel_says(.source, .message.as_deref()))]
    Kernel {
        /// What was tried, on what.
        action: String,
        /// The kernel's own words, if it had any (`NLMSGERR_ATTR_MSG`).
        message: Option<String>,
        /// The error number.
        source: io::Error,
    },

    /// A system call other than a netlink request went wrong.
    #[error("{action}: {source}{}", hint(.source))]
    System {
        /// What was tried, on what.
        action: String,
        /// The error number.
        source: io::Error,
    },

    /// The kernel's answer could not be understood.
    #[error("{action}: the kernel's answer is malformed: {reason}")]
    Malformed {
        /// What was asked.
        action: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: &impl ToString, rule: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            value: value.to_string(),
            rule: rule.into(),
        }
    }

    pub(crate) fn address(value: Ipv4Addr, rule: impl Into<String>) -> Self {
        Self::invalid("address", &value, rule)
    }

    /// What was to be changed is not there: somebody has flushed the host's rules. [`crate::Bridge::ensure`] and
    /// [`crate::Publisher::restore`] put them back.
    pub fn rules_are_gone(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// The number the kernel gave, if this error came from it.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } | Self::System { source, .. } => source.raw_os_error(),
            Self::Parent { source, .. } => source.errno(),
            _ => None,
        }
    }
}

fn kernel_says(source: &io::Error, message: Option<&str>) -> String {
    let mut text = source.to_string();
    if let Some(message) = message {
        // Writing to a String cannot fail.
        let _ = write!(text, ", \"{}\"", message.trim_end_matches('.'));
    }
    text.push_str(hint(source));
    text
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (CAP_NET_ADMIN and CAP_SYS_ADMIN are needed)",
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            " (are the kernel's modules bridge, veth, nf_tables, nft_chain_nat, nft_masq and nft_ct there?)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_names_action_errno_words_and_remedy() {
        let error = Error::Kernel {
            action: "create bridge berth0".into(),
            message: Some("No such thing.".into()),
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(
            error.to_string(),
            "create bridge berth0: Operation not permitted (os error 1), \"No such thing\" \
             (CAP_NET_ADMIN and CAP_SYS_ADMIN are needed)"
        );
    }
}
