//! What the kubelet asks of a pod: the parts of CRI's `PodSandboxConfig` that a sandbox on Linux is made of. The crate
//! with containerd's messages does not have CRI's, and of its some fifty fields these are the ones that matter here.

use std::collections::BTreeMap;

use protobuf::CodedInputStream;
use protobuf::rt::WireType;
use protobuf::well_known_types::any::Any;

use crate::status::Status;

const POD_SANDBOX_CONFIG: &str = "runtime.v1.PodSandboxConfig";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub hostname: String,
    /// `None` stands for the node's own.
    pub dns: Option<Dns>,
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// Which namespaces are the node's; the others are the pod's own.
    pub node_network: bool,
    pub node_pid: bool,
    pub node_ipc: bool,
    pub user_namespace: Option<Mappings>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// The ids of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    pub users: Vec<Mapping>,
    pub groups: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mapping {
    pub host: u32,
    pub container: u32,
    pub length: u32,
}

/// `NamespaceMode` of CRI, in which 1 is the container and 3 another container.
const MODE_POD: u64 = 0;
const MODE_NODE: u64 = 2;
const MODE_MAX: u64 = 3;

impl Pod {
    /// Reads the options of `CreateSandbox`; none at all ask for a pod with all defaults.
    pub fn parse(options: Option<&Any>) -> Result<Self, Status> {
        let Some(any) = options.filter(|any| !any.value.is_empty()) else {
            return Ok(Self::default());
        };
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name != POD_SANDBOX_CONFIG {
            return Err(Status::invalid_argument(format!(
                "sandbox options of type {name:?}, known is {POD_SANDBOX_CONFIG}"
            )));
        }
        let mut pod = Self::default();
        pod.read(&any.value).map_err(|error| {
            Status::invalid_argument(format!("{POD_SANDBOX_CONFIG} does not decode: {error}"))
        })?;
        Ok(pod)
    }

    fn read(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        fields(bytes, |number, value| {
            match number {
                2 => self.hostname = value.text()?,
                4 => self.dns = Some(Dns::read(value.bytes()?)?),
                8 => self.read_linux(value.bytes()?)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// `LinuxPodSandboxConfig`.
    fn read_linux(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        fields(bytes, |number, value| {
            match number {
                1 => self.cgroup_parent = value.text()?,
                2 => self.read_security(value.bytes()?)?,
                3 => {
                    let (mut key, mut text) = (String::new(), String::new());
                    fields(value.bytes()?, |number, value| {
                        match number {
                            1 => key = value.text()?,
                            2 => text = value.text()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    self.sysctls.insert(key, text);
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// `LinuxSandboxSecurityContext`.
    fn read_security(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        fields(bytes, |number, value| {
            match number {
                1 => self.read_namespaces(value.bytes()?)?,
                3 => self.user = Some(wrapped(&value)?),
                8 => self.group = Some(wrapped(&value)?),
                5 => match value {
                    Value::Number(group) => self.supplemental_groups.push(id(group)?),
                    Value::Bytes(packed) => {
                        let mut input = CodedInputStream::from_bytes(packed);
                        while !input.eof()? {
                            self.supplemental_groups.push(id(input.read_uint64()?)?);
                        }
                    }
                },
                _ => {}
            }
            Ok(())
        })
    }

    /// `NamespaceOption`.
    fn read_namespaces(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        fields(bytes, |number, value| {
            match number {
                1 => self.node_network = is_node(&value)?,
                2 => self.node_pid = is_node(&value)?,
                3 => self.node_ipc = is_node(&value)?,
                5 => self.user_namespace = read_user_namespace(value.bytes()?)?,
                _ => {}
            }
            Ok(())
        })
    }
}

impl Dns {
    fn read(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut dns = Self::default();
        fields(bytes, |number, value| {
            let list = match number {
                1 => &mut dns.servers,
                2 => &mut dns.searches,
                3 => &mut dns.options,
                _ => return Ok(()),
            };
            list.push(value.text()?);
            Ok(())
        })?;
        Ok(dns)
    }
}

/// `None` where the node's user namespace is asked for.
fn read_user_namespace(bytes: &[u8]) -> protobuf::Result<Option<Mappings>> {
    let mut mode = MODE_POD;
    let mut mappings = Mappings::default();
    fields(bytes, |number, value| {
        match number {
            1 => mode = value.number()?,
            2 => mappings.users.push(read_mapping(value.bytes()?)?),
            3 => mappings.groups.push(read_mapping(value.bytes()?)?),
            _ => {}
        }
        Ok(())
    })?;
    match mode {
        MODE_POD => Ok(Some(mappings)),
        MODE_NODE => Ok(None),
        _ => Err(unexpected("a user namespace of the pod or the node")),
    }
}

fn read_mapping(bytes: &[u8]) -> protobuf::Result<Mapping> {
    let mut mapping = Mapping::default();
    fields(bytes, |number, value| {
        let field = match number {
            1 => &mut mapping.host,
            2 => &mut mapping.container,
            3 => &mut mapping.length,
            _ => return Ok(()),
        };
        *field = id(value.number()?)?;
        Ok(())
    })?;
    Ok(mapping)
}

/// `Int64Value`, an id.
fn wrapped(value: &Value) -> protobuf::Result<u32> {
    let mut wrapped = 0;
    fields(value.bytes()?, |number, value| {
        if number == 1 {
            wrapped = id(value.number()?)?;
        }
        Ok(())
    })?;
    Ok(wrapped)
}

/// Of a user or group. CRI has 64 bits for one, with a sign.
fn id(number: u64) -> protobuf::Result<u32> {
    u32::try_from(number).map_err(|_| unexpected("an id of 32 bits"))
}

fn is_node(mode: &Value) -> protobuf::Result<bool> {
    match mode.number()? {
        mode if mode > MODE_MAX => Err(unexpected("a known namespace mode")),
        mode => Ok(mode == MODE_NODE),
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(&self) -> protobuf::Result<u64> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Bytes(_) => Err(unexpected("a number")),
        }
    }

    fn bytes(&self) -> protobuf::Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(unexpected("a message or text")),
        }
    }

    fn text(&self) -> protobuf::Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| unexpected("text in UTF-8"))
    }
}

fn unexpected(what: &'static str) -> protobuf::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a field is not {what}")).into()
}

/// Calls `on_field` with each field of a message that is a number or has a length; CRI has no others.
fn fields<'a>(
    bytes: &'a [u8],
    mut on_field: impl FnMut(u32, Value<'a>) -> protobuf::Result<()>,
) -> protobuf::Result<()> {
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let number = tag >> 3;
        match WireType::new(tag & 7) {
            Some(WireType::Varint) => on_field(number, Value::Number(input.read_uint64()?))?,
            Some(WireType::LengthDelimited) => {
                let length = input.read_uint64()?;
                let start = input.pos();
                let field = start
                    .checked_add(length)
                    .and_then(|end| bytes.get(start as usize..end as usize))
                    .ok_or_else(|| unexpected("as long as it says"))?;
                input.skip_raw_bytes(field.len() as u32)?;
                on_field(number, Value::Bytes(field))?;
            }
            _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::CodedOutputStream;

    /// One field: a number, or bytes with their length.
    fn number(field: u32, value: u64) -> Vec<u8> {
        encode(|out| out.write_uint64(field, value))
    }

    fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
        encode(|out| out.write_bytes(field, value))
    }

    fn encode(write: impl FnOnce(&mut CodedOutputStream) -> protobuf::Result<()>) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut out = CodedOutputStream::vec(&mut buffer);
        write(&mut out).unwrap();
        out.flush().unwrap();
        drop(out);
        buffer
    }

    fn parse(value: Vec<u8>) -> Result<Pod, Status> {
        Pod::parse(Some(&Any {
            type_url: POD_SANDBOX_CONFIG.into(),
            value,
            ..Any::default()
        }))
    }

    #[test]
    fn a_pod_is_read_as_the_kubelet_writes_it() {
        let mapping = [number(1, 100_000), number(3, 65_536)].concat();
        let user_namespace = [bytes(2, &mapping), bytes(3, &mapping)].concat();
        let namespaces = [number(1, 2), number(2, 1), bytes(5, &user_namespace)].concat();
        let security = [
            bytes(1, &namespaces),
            bytes(3, &number(1, 1000)),
            number(4, 1),
            bytes(5, &[7, 0x80, 1]),
            bytes(8, &[]),
        ]
        .concat();
        let sysctl = [bytes(1, b"net.core.somaxconn"), bytes(2, b"9")].concat();
        let linux = [bytes(1, b"/pods/x"), bytes(2, &security), bytes(3, &sysctl)].concat();
        let dns = [
            bytes(1, b"10.0.0.2"),
            bytes(2, b"example.org"),
            bytes(3, b"ndots:5"),
        ]
        .concat();
        let pod = parse([bytes(2, b"web"), bytes(4, &dns), bytes(8, &linux)].concat()).unwrap();
        let mapping = Mapping {
            host: 100_000,
            container: 0,
            length: 65_536,
        };
        assert_eq!(
            pod,
            Pod {
                hostname: "web".into(),
                dns: Some(Dns {
                    servers: vec!["10.0.0.2".into()],
                    searches: vec!["example.org".into()],
                    options: vec!["ndots:5".into()],
                }),
                cgroup_parent: "/pods/x".into(),
                sysctls: [("net.core.somaxconn".to_owned(), "9".to_owned())].into(),
                user: Some(1000),
                group: Some(0),
                supplemental_groups: vec![7, 128],
                node_network: true,
                node_pid: false,
                node_ipc: false,
                user_namespace: Some(Mappings {
                    users: vec![mapping],
                    groups: vec![mapping],
                }),
            }
        );
    }

    /// A pod with this `LinuxSandboxSecurityContext`.
    fn security(context: &[u8]) -> Vec<u8> {
        bytes(8, &bytes(2, context))
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        assert_eq!(Pod::parse(None).unwrap(), Pod::default());
        for broken in [
            bytes(2, b"\xff"),
            number(2, 1),
            vec![0x12, 0x7f, 0],
            vec![0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            bytes(8, &bytes(2, &bytes(1, &[8]))),
            security(&bytes(3, &number(1, 1 << 32))),
            security(&bytes(3, &number(1, -1_i64 as u64))),
            security(&bytes(8, &number(1, 1 << 32))),
            security(&number(5, 1 << 32)),
            security(&bytes(5, &[0x80, 0x80, 0x80, 0x80, 0x10])),
            security(&bytes(1, &number(1, 4))),
            security(&bytes(1, &bytes(5, &number(1, 1)))),
            security(&bytes(1, &bytes(5, &number(1, 3)))),
            security(&bytes(1, &bytes(5, &bytes(2, &number(3, 1 << 32))))),
        ] {
            assert!(parse(broken.clone()).is_err(), "{broken:?}");
        }
        let other = Any {
            type_url: "x.Y".into(),
            value: vec![1],
            ..Any::default()
        };
        assert!(Pod::parse(Some(&other)).unwrap_err().message.contains("\"x.Y\""));
    }
}
