//! `linux.netDevices`: devices of the host that move into the container's network namespace, with their name (or a
//! new one) and their permanent addresses of global scope, and are up there. When the namespace ends, the kernel
//! gives physical devices back to the host and removes virtual ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Linux;

use crate::error::{Context, Error, Result};
use crate::netlink::{
    NLM_F_CREATE, NLM_F_DUMP, Netlink, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, Request,
    attributes, i32_at, strange, u32_at,
};

/// Of `struct ifinfomsg`: family, padding, type, index, flags, change.
const LINK_BYTES: usize = 16;
/// Of `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const ADDRESS_BYTES: usize = 8;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// No duplicate address detection: the address was in use a moment ago, on this device.
const IFA_F_NODAD: u32 = 0x02;
const SCOPE_GLOBAL: u8 = 0;

/// The kernel's `IFNAMSIZ`, with the byte that ends it.
const NAME_BYTES_MAX: usize = 15;

/// Names on the host, and in the container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NetDevices(BTreeMap<String, String>);

impl NetDevices {
    /// `own_namespace` says whether the container has a network namespace that is not the host's.
    pub(crate) fn from_spec(linux: &Linux, own_namespace: bool) -> Result<Self> {
        let mut devices = BTreeMap::new();
        for (host, device) in linux.net_devices().iter().flatten() {
            let path = format!("linux.netDevices.{host}");
            let name = device
                .name()
                .as_deref()
                .filter(|name| !name.is_empty())
                .unwrap_or(host);
            for (field, name) in [(path.clone(), host.as_str()), (format!("{path}.name"), name)] {
                if !is_name(name) {
                    return Err(Error::spec(
                        field,
                        format!("{name:?} is not the name of a network device"),
                    ));
                }
            }
            if devices.values().any(|taken| taken == name) {
                return Err(Error::spec(
                    path,
                    format!("a second device that is called {name} inside"),
                ));
            }
            devices.insert(host.clone(), name.to_owned());
        }
        if !devices.is_empty() && !own_namespace {
            return Err(Error::spec(
                "linux.netDevices",
                "needs a namespace of type network in linux.namespaces",
            ));
        }
        Ok(Self(devices))
    }

    /// Moves all of them into the namespace behind `path`. If one can't be moved, those before it are moved back.
    /// The caller must have one thread.
    pub(crate) fn move_to(&self, path: &Path) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let open = |path: &Path| File::open(path).context(|| format!("open namespace {}", path.display()));
        let (host, target) = (open(Path::new("/proc/self/ns/net"))?, open(path)?);
        let outside = Netlink::open()?;
        let inside = {
            let enter = |namespace: &File| setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET);
            enter(&target).context(|| "enter the container's network namespace".into())?;
            let socket = Netlink::open();
            enter(&host).context(|| "go back to the own network namespace".into())?;
            socket?
        };
        // The kernel moves a device first and gives it its name then, so that a name that is taken would leave it
        // inside under the old one, without its addresses.
        if let Some((from, to)) = self.0.iter().find(|(_, to)| index_of(&inside, to).is_ok()) {
            return Err(Error::spec(
                format!("linux.netDevices.{from}"),
                format!("the container's network namespace has a device {to} already"),
            ));
        }
        let mut moved = Vec::new();
        for (from, to) in &self.0 {
            if let Err(error) = carry(&outside, &inside, &target, from, to) {
                if index_of(&outside, from).is_err() {
                    moved.push((from, to));
                }
                for (from, to) in moved.into_iter().rev() {
                    let _ = carry(&inside, &outside, &host, to, from);
                }
                return Err(error);
            }
            moved.push((from, to));
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && !name.contains(bad)
}

/// Moves one device, with its addresses, and brings it up.
fn carry(from: &Netlink, to: &Netlink, namespace: &File, old: &str, new: &str) -> Result<()> {
    let index = index_of(from, old)?;
    let addresses = addresses_of(from, index)?;
    let fd = namespace.as_raw_fd();
    let request = Request::new(RTM_NEWLINK, 0, &link(index, 0, libc::IFF_UP as u32))
        .attribute(IFLA_NET_NS_FD, &fd.to_ne_bytes())
        .text(IFLA_IFNAME, new);
    from.change(request, || {
        format!("move network device {old} into the container as {new}")
    })?;
    let index = index_of(to, new)?;
    for address in addresses {
        to.change(address.request(index, new), || {
            format!("give {new} its address again")
        })?;
    }
    let up = libc::IFF_UP as u32;
    to.change(Request::new(RTM_NEWLINK, 0, &link(index, up, up)), || {
        format!("bring up network device {new} in the container")
    })
}

fn link(index: i32, flags: u32, change: u32) -> [u8; LINK_BYTES] {
    let mut fixed = [0; LINK_BYTES];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn index_of(netlink: &Netlink, name: &str) -> Result<i32> {
    let request = Request::new(RTM_GETLINK, 0, &link(0, 0, 0)).text(IFLA_IFNAME, name);
    let answers = netlink.ask(request, || format!("find network device {name}"))?;
    let index = answers.first().and_then(|answer| i32_at(answer, 4));
    index.ok_or_else(|| strange(&format!("find network device {name}")))
}

/// An address as it was found.
#[derive(Debug)]
struct Address {
    fixed: [u8; ADDRESS_BYTES],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// The permanent ones of global scope; all others come by themselves.
    fn read(message: &[u8], index: i32) -> Option<Self> {
        let fixed: [u8; ADDRESS_BYTES] = message.get(..ADDRESS_BYTES)?.try_into().ok()?;
        let found: Vec<(u16, &[u8])> = attributes(message, ADDRESS_BYTES).collect();
        let flags = found.iter().find(|(kind, _)| *kind == IFA_FLAGS);
        let flags = flags
            .and_then(|(_, value)| u32_at(value, 0))
            .unwrap_or(u32::from(fixed[2]));
        let wanted = i32_at(message, 4)? == index && fixed[3] == SCOPE_GLOBAL && flags & IFA_F_PERMANENT != 0;
        let kept = |kind: u16| matches!(kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST);
        wanted.then(|| Self {
            fixed,
            attributes: found
                .into_iter()
                .filter(|(kind, _)| kept(*kind))
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect(),
        })
    }

    fn request(&self, index: i32, name: &str) -> Request {
        let mut fixed = self.fixed;
        fixed[2] = 0;
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE, &fixed);
        for (kind, value) in &self.attributes {
            request = request.attribute(*kind, value);
        }
        if i32::from(fixed[0]) == libc::AF_INET {
            request.text(IFA_LABEL, name)
        } else {
            request.attribute(IFA_FLAGS, &(IFA_F_PERMANENT | IFA_F_NODAD).to_ne_bytes())
        }
    }
}

fn addresses_of(netlink: &Netlink, index: i32) -> Result<Vec<Address>> {
    let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BYTES]);
    let answers = netlink.ask(request, || "list the addresses of a network device".into())?;
    Ok(answers
        .iter()
        .filter_map(|answer| Address::read(answer, index))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(json: &str, own: bool) -> Result<NetDevices> {
        NetDevices::from_spec(
            &serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap(),
            own,
        )
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let found = devices(r#"{"eth1":{"name":"net0"},"eth2":{}}"#, true).unwrap();
        let wanted = [("eth1", "net0"), ("eth2", "eth2")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(found.0, BTreeMap::from(wanted));
    }

    #[test]
    fn what_the_kernel_could_not_name_is_refused() {
        for json in [
            r#"{"a/b":{}}"#,
            r#"{"eth1":{"name":"0123456789abcdef"}}"#,
            r#"{"eth1":{"name":".."}}"#,
            r#"{"eth1":{"name":"x"},"eth2":{"name":"x"}}"#,
        ] {
            assert!(devices(json, true).is_err(), "{json}");
        }
        let error = devices(r#"{"eth1":{}}"#, false).unwrap_err().to_string();
        assert!(error.contains("linux.netDevices: "), "{error}");
    }

    #[test]
    fn only_permanent_global_addresses_of_the_device_are_kept() {
        let message = |scope: u8, flags: u8, index: u8| {
            let mut bytes = vec![2, 24, flags, scope, index, 0, 0, 0];
            bytes.extend_from_slice(&[8, 0, 2, 0, 10, 0, 0, 1]);
            bytes
        };
        assert!(Address::read(&message(0, 0x80, 3), 3).is_some());
        assert!(Address::read(&message(0, 0x80, 4), 3).is_none());
        assert!(Address::read(&message(253, 0x80, 3), 3).is_none());
        assert!(Address::read(&message(0, 0, 3), 3).is_none());
        assert!(Address::read(&[2, 24], 3).is_none());
    }
}
