//! The runtime options that a client may send with Create: containerd's `containerd.runc.v1.Options`, or the wrapper
//! `runtimeoptions.v1.Options` in which containerd's CRI plugin sends the TOML of a runtime it has no type for.

use std::path::Path;

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::OPTIONS_FILE;
use crate::status::Status;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Name in PATH or path of the OCI runtime; empty for ours.
    pub binary_name: String,
    /// The runtime's state root, to which the namespace is added; empty for the default.
    pub root: String,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub io_uid: u32,
    pub io_gid: u32,
    /// Cgroup that the shim itself joins.
    pub shim_cgroup: String,
    pub criu_work_path: String,
}

const RUNC: &str = "containerd.runc.v1.Options";
const WRAPPER: &str = "runtimeoptions.v1.Options";

/// Whether these are runtime options at all.
pub(crate) fn is_known(any: &Any) -> bool {
    [RUNC, WRAPPER].contains(&any.type_url.rsplit('/').next().unwrap_or_default())
}

/// Reads options of a known type; none at all are the default ones.
pub fn parse(any: Option<&Any>) -> Result<Options, Status> {
    let Some(any) = any else {
        return Ok(Options::default());
    };
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "" if any.value.is_empty() => Ok(Options::default()),
        RUNC => parse_runc(&any.value),
        WRAPPER => parse_wrapper(&any.value),
        other => Err(Status::invalid_argument(format!(
            "runtime options of type {other:?}, known are {RUNC}, {WRAPPER}"
        ))),
    }
}

/// Reads the options that `start` left in a sandbox's bundle.
pub(crate) fn read(bundle: &Path) -> Result<Options, Status> {
    let path = bundle.join(OPTIONS_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let any = Any::parse_from_bytes(&bytes).map_err(|error| {
                Status::invalid_argument(format!("{} does not decode: {error}", path.display()))
            })?;
            parse(Some(&any))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Options::default()),
        Err(error) => Err(Status::unknown(format!("read {}: {error}", path.display()))),
    }
}

fn parse_runc(bytes: &[u8]) -> Result<Options, Status> {
    let options = RuncOptions::parse_from_bytes(bytes)
        .map_err(|error| Status::invalid_argument(format!("runtime options do not decode: {error}")))?;
    Ok(Options {
        binary_name: options.binary_name,
        root: options.root,
        systemd_cgroup: options.systemd_cgroup,
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        io_uid: options.io_uid,
        io_gid: options.io_gid,
        shim_cgroup: options.shim_cgroup,
        criu_work_path: options.criu_work_path,
    })
}

/// The wrapper has three fields, all strings: the type (1), a path (2) and a body (3) of configuration.
fn parse_wrapper(bytes: &[u8]) -> Result<Options, Status> {
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), String::new());
    let broken =
        |error: protobuf::Error| Status::invalid_argument(format!("runtime options do not decode: {error}"));
    while let Some(tag) = input.read_raw_tag_or_eof().map_err(broken)? {
        match tag {
            18 => path = input.read_string().map_err(broken)?,
            26 => body = input.read_string().map_err(broken)?,
            _ => protobuf::rt::skip_field_for_tag(tag, &mut input).map_err(broken)?,
        }
    }
    if body.is_empty() && !path.is_empty() {
        const CONFIG_BYTES_MAX: u64 = 64 << 10;
        let size = std::fs::metadata(&path).map(|file| file.len());
        if !matches!(size, Ok(0..=CONFIG_BYTES_MAX)) {
            return Err(Status::invalid_argument(format!(
                "runtime options file {path}: not readable or longer than {CONFIG_BYTES_MAX} bytes"
            )));
        }
        body = std::fs::read_to_string(&path)
            .map_err(|error| Status::invalid_argument(format!("runtime options file {path}: {error}")))?;
    }
    parse_toml(&body)
}

/// The flat `Key = value` lines of a CRI `options` table, with the keys that containerd documents for runc.
fn parse_toml(body: &str) -> Result<Options, Status> {
    let mut options = Options::default();
    for line in body.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.starts_with('[') {
            continue;
        }
        let bad = || {
            Status::invalid_argument(format!(
                "runtime option {line:?} is not `Key = value` of a known key"
            ))
        };
        let (key, value) = line.split_once('=').ok_or_else(bad)?;
        let value = value.trim();
        let text = || {
            let quoted = |quote| {
                value
                    .strip_prefix(quote)
                    .and_then(|rest| rest.strip_suffix(quote))
            };
            quoted('"')
                .or_else(|| quoted('\''))
                .map(str::to_owned)
                .ok_or_else(bad)
        };
        let flag = || value.parse::<bool>().map_err(|_| bad());
        let number = || value.parse::<u32>().map_err(|_| bad());
        match key.trim() {
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => options.systemd_cgroup = flag()?,
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            // containerd makes the checkpoint of a Create from it.
            "CriuImagePath" => drop(text()?),
            "CriuPath" if text()?.is_empty() => {}
            "CriuPath" => {
                return Err(Status::invalid_argument(format!(
                    "runtime option {line:?}: containerd has none of that name since 2.0; the CRIU that runs is the one in PATH"
                )));
            }
            _ => return Err(bad()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: type_url.into(),
            value,
            ..Any::default()
        }
    }

    #[test]
    fn runc_options_are_read_with_or_without_a_type_prefix() {
        let mut message = RuncOptions::new();
        message.binary_name = "crun".into();
        message.root = "/run/x".into();
        let bytes = message.write_to_bytes().unwrap();
        for prefix in ["", "types.containerd.io/"] {
            let options = parse(Some(&any(&format!("{prefix}{RUNC}"), bytes.clone()))).unwrap();
            assert_eq!(
                (options.binary_name.as_str(), options.root.as_str()),
                ("crun", "/run/x")
            );
        }
    }

    #[test]
    fn cri_options_are_read_from_their_toml() {
        let body = b"BinaryName = \"crun\"\nSystemdCgroup = true\n# a comment\nIoUid = 7\n";
        let mut bytes = vec![26, body.len() as u8];
        bytes.extend_from_slice(body);
        let options = parse(Some(&any(WRAPPER, bytes))).unwrap();
        assert_eq!(options.binary_name, "crun");
        assert!(options.systemd_cgroup);
        assert_eq!(options.io_uid, 7);
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        let error = parse(Some(&any("example/kata.Options", vec![1]))).unwrap_err();
        assert!(error.message.contains("kata.Options"), "{error}");
        assert!(parse_toml("Speed = 9").unwrap_err().message.contains("Speed"));
        // Default configurations name it.
        assert!(parse_toml("CriuPath = ''").is_ok());
        let error = parse_toml("CriuPath = '/opt/criu'").unwrap_err();
        assert!(error.message.contains("in PATH"), "{error}");
        assert!(parse(Some(&any(RUNC, vec![0xff; 4]))).is_err());
    }
}
