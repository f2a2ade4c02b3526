//! What plugins answer at ADD: untrusted, so it is bounded, and each word of it is what it says to be. Words of DNS go into
//! a file of lines.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// As many of each kind.
const ITEMS_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 255;

/// What a container has got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// All that were made, the host's too.
    pub interfaces: Vec<Interface>,
    /// All that were given.
    pub ips: Vec<Ip>,
    /// That the container has.
    pub routes: Vec<Route>,
    /// For its resolver.
    pub dns: Dns,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// As the kernel has it.
    pub name: String,
    /// None: it has none, or nobody has said.
    pub mac: Option<[u8; 6]>,
    /// Whether it is in the container.
    pub is_inside: bool,
}

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// The address itself.
    pub address: IpAddr,
    /// Of its subnet, in bits.
    pub prefix: u8,
    /// Of its subnet.
    pub gateway: Option<IpAddr>,
    /// Of which of the interfaces it is.
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The lowest address.
    pub destination: IpAddr,
    /// In bits.
    pub prefix: u8,
    /// None: that of the address.
    pub gateway: Option<IpAddr>,
}

/// What resolv.conf is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Whom to ask.
    pub servers: Vec<IpAddr>,
    /// The container's own; may be empty.
    pub domain: String,
    /// Domains to look in.
    pub search: Vec<String>,
    /// Of the resolver.
    pub options: Vec<String>,
}

/// As the specification has it; of the members, those that are used. `null` is what Go writes for a list without items.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    interfaces: Option<Vec<ToldInterface>>,
    ips: Option<Vec<ToldIp>>,
    routes: Option<Vec<ToldRoute>>,
    dns: ToldDns,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ToldInterface {
    name: String,
    mac: String,
    sandbox: String,
}

#[derive(Deserialize)]
struct ToldIp {
    address: String,
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    interface: Option<usize>,
}

#[derive(Deserialize)]
struct ToldRoute {
    dst: String,
    #[serde(default)]
    gw: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ToldDns {
    nameservers: Option<Vec<String>>,
    domain: String,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

impl Answer {
    /// Read what the last plugin of a list has answered.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(answer: &Value) -> Result<Answer, String> {
        // Serde would read a list as an object without names.
        if !answer.is_object() {
            return Err("it is no JSON object".to_owned());
        }
        let told = Told::deserialize(answer).map_err(|error| error.to_string())?;
        let interfaces = each(told.interfaces, "interfaces", read_interface)?;
        let ips = each(told.ips, "ips", |ip| {
            let (address, prefix) = subnet(&ip.address)?;
            let is_known = |index: &usize| *index < interfaces.len();
            if !ip.interface.as_ref().is_none_or(is_known) {
                return Err(format!("{} is of an interface that is not there", ip.address));
            }
            Ok(Ip {
                address,
                prefix,
                gateway: gateway(&ip.gateway)?,
                interface: ip.interface,
            })
        })?;
        let routes = each(told.routes, "routes", |route| {
            let (destination, prefix) = subnet(&route.dst)?;
            Ok(Route {
                destination,
                prefix,
                gateway: gateway(route.gw.as_deref().unwrap_or_default())?,
            })
        })?;
        let dns = Dns {
            servers: each(told.dns.nameservers, "nameservers", |server| address(&server))?,
            domain: word(told.dns.domain)?,
            search: each(told.dns.search, "search", word)?,
            options: each(told.dns.options, "options", word)?,
        };
        Ok(Answer {
            interfaces,
            ips,
            routes,
            dns,
        })
    }

    /// The addresses of the link `inside`, those first that are said to be its.
    pub fn of_container(&self, inside: &str) -> Vec<Ip> {
        let interface = |ip: &Ip| ip.interface.and_then(|index| self.interfaces.get(index));
        let is_its = |ip: &&Ip| interface(ip).is_some_and(|found| found.is_inside && found.name == inside);
        let may_be = |ip: &&Ip| interface(ip).is_none();
        let own = self.ips.iter().filter(is_its);
        own.chain(self.ips.iter().filter(may_be)).copied().collect()
    }

    /// Of the link `inside`.
    pub fn mac(&self, inside: &str) -> Option<[u8; 6]> {
        let mut inside = self
            .interfaces
            .iter()
            .filter(|found| found.is_inside && found.name == inside);
        inside.next()?.mac
    }
}

fn each<T, R>(
    all: Option<Vec<T>>,
    what: &str,
    read: impl FnMut(T) -> Result<R, String>,
) -> Result<Vec<R>, String> {
    let all = all.unwrap_or_default();
    if all.len() > ITEMS_MAX {
        return Err(format!("{} {what}, more than {ITEMS_MAX}", all.len()));
    }
    all.into_iter().map(read).collect()
}

fn read_interface(told: ToldInterface) -> Result<Interface, String> {
    let bytes: Option<Vec<u8>> = told
        .mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    Ok(Interface {
        name: word(told.name)?,
        // InfiniBand's are longer.
        mac: bytes.and_then(|bytes| bytes.try_into().ok()),
        is_inside: !told.sandbox.is_empty(),
    })
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

fn gateway(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        address(text).map(Some)
    }
}

fn subnet(text: &str) -> Result<(IpAddr, u8), String> {
    let malformed = || format!("{text:?} is no address with a prefix, as 10.1.2.3/16");
    let (host, prefix) = text.split_once('/').ok_or_else(malformed)?;
    let (host, prefix): (IpAddr, u8) = (
        host.parse().map_err(|_| malformed())?,
        prefix.parse().map_err(|_| malformed())?,
    );
    let longest = if host.is_ipv4() { 32 } else { 128 };
    (prefix <= longest)
        .then_some((host, prefix))
        .ok_or_else(malformed)
}

/// It may become one of a line of others.
fn word(text: String) -> Result<String, String> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '#' || c == ';';
    if text.len() > WORD_BYTES_MAX || text.contains(is_odd) {
        return Err(format!(
            "{:?} is no plain word",
            text.chars().take(64).collect::<String>()
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_tells_what_the_container_has() {
        let answer = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0", "mac": "0e:00:00:00:00:01"},
                {"name": "veth1", "mac": "0e:00:00:00:00:02"},
                {"name": "eth1", "mac": "0E:00:00:00:00:03", "sandbox": "/proc/1/ns/net", "mtu": 1500},
            ],
            "ips": [
                {"version": "4", "interface": 2, "address": "10.1.0.2/16", "gateway": "10.1.0.1"},
                {"interface": 0, "address": "10.1.0.1/16"},
                {"interface": 2, "address": "fd00::2/64"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.2.0.0/16", "gw": "10.1.0.9"}],
            "dns": {"nameservers": ["10.1.0.1"], "search": ["a.example"], "options": null},
        });
        let answer = Answer::read(&answer).unwrap();
        let own = answer.of_container("eth1");
        let shown: Vec<_> = own.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(shown, ["10.1.0.2", "fd00::2"]);
        assert_eq!(own[0].gateway.unwrap().to_string(), "10.1.0.1");
        assert_eq!(answer.mac("eth1"), Some([0xe, 0, 0, 0, 0, 3]));
        assert_eq!(answer.mac("cni0"), None, "it is the host's");
        assert_eq!(answer.dns.search, ["a.example"]);
        assert_eq!(Answer::read(&json!({})).unwrap(), Answer::default());
    }

    #[test]
    fn hostile_answers_are_refused() {
        for (answer, why) in [
            (json!([]), ""),
            (json!({"ips": [{"address": "10.1.0.2"}]}), "prefix"),
            (json!({"ips": [{"address": "10.1.0.2/33"}]}), "prefix"),
            (
                json!({"ips": [{"address": "10.1.0.2/16", "interface": 0}]}),
                "not there",
            ),
            (
                json!({"ips": [{"address": "10.1.0.2/16", "gateway": "x"}]}),
                "no address",
            ),
            (
                json!({"ips": vec![json!({"address": "10.1.0.2/16"}); 257]}),
                "more than",
            ),
            (
                json!({"dns": {"nameservers": ["10.0.0.1\nnameserver 10.0.0.2"]}}),
                "no address",
            ),
            (
                json!({"dns": {"search": ["a\nnameserver 10.0.0.2"]}}),
                "plain word",
            ),
            (json!({"dns": {"options": ["x".repeat(256)]}}), "plain word"),
            (json!({"interfaces": [{"name": "a b"}]}), "plain word"),
            (json!({"routes": [{"dst": "default"}]}), "prefix"),
        ] {
            let told = Answer::read(&answer).unwrap_err();
            assert!(told.contains(why), "{answer}: {told}");
        }
    }
}
