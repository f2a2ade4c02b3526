//! What `start` is told on stdin, and how it answers. Three generations of containerd are alive:
//!
//! - up to 2.2 stdin has the runtime options (a protobuf `Any`) or nothing, and everything else comes by flags and
//!   environment; the answer is the address as text (version 2), or JSON when `MAX_SHIM_VERSION` asks for version 3;
//! - from 2.3 on stdin has `BootstrapParams`, and the answer is a `BootstrapResult`, both protobuf.
//!
//! An `Any` also decodes as `BootstrapParams`, so these are believed only when they name the same container and
//! namespace as the flags do.

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, LogLevel};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::options;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    pub protocol: Protocol,
    /// Where the socket should lie; empty for the usual place.
    pub socket_folder: String,
    pub ttrpc_address: String,
    pub debug: bool,
    /// The runtime options, a protobuf `Any`; empty when there are none.
    pub options: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The address alone; the client speaks version 2 of the task API.
    #[default]
    Text,
    /// `{"version":3,…}`.
    Json,
    /// `BootstrapResult`.
    Protobuf,
}

impl Params {
    /// `max_version` is the value of `MAX_SHIM_VERSION`.
    pub fn parse(input: &[u8], id: &str, namespace: &str, max_version: Option<&str>) -> Self {
        if let Ok(params) = BootstrapParams::parse_from_bytes(input)
            && !input.is_empty()
            && params.instance_id == id
            && params.namespace == namespace
        {
            let level = params.log_level.value();
            // Of all that a later containerd may extend the parameters by, the options are known by their type.
            let options = params
                .extensions
                .iter()
                .filter_map(|extension| extension.value.as_ref())
                .find(|any| options::is_known(any))
                .and_then(|any| any.write_to_bytes().ok());
            return Self {
                options: options.unwrap_or_default(),
                protocol: Protocol::Protobuf,
                socket_folder: params.socket_dir.unwrap_or_default(),
                ttrpc_address: params.containerd_ttrpc_address,
                debug: level <= LogLevel::LOG_LEVEL_DEBUG as i32,
            };
        }
        let asks_for_json = max_version
            .and_then(|version| version.parse::<u32>().ok())
            .is_some_and(|max| max >= 3);
        Self {
            protocol: if asks_for_json {
                Protocol::Json
            } else {
                Protocol::Text
            },
            options: Any::parse_from_bytes(input)
                .ok()
                .filter(options::is_known)
                .map_or_else(Vec::new, |_| input.to_vec()),
            ..Self::default()
        }
    }
}

/// The answer to `start`, byte for byte.
pub fn answer(protocol: Protocol, address: &str) -> Vec<u8> {
    match protocol {
        Protocol::Text => address.as_bytes().to_vec(),
        Protocol::Json => serde_json::json!({"version": 3, "address": address, "protocol": "ttrpc"})
            .to_string()
            .into_bytes(),
        Protocol::Protobuf => {
            let mut result = BootstrapResult::new();
            result.version = 3;
            address.clone_into(&mut result.address);
            result.protocol = "ttrpc".into();
            result.write_to_bytes().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;

    fn options() -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: b"x".to_vec(),
            ..Any::default()
        }
    }

    #[test]
    fn params_are_believed_only_for_this_container() {
        let mut params = BootstrapParams::new();
        params.instance_id = "c1".into();
        params.namespace = "n".into();
        params.socket_dir = Some("/run/s".into());
        params.log_level = LogLevel::LOG_LEVEL_DEBUG.into();
        for any in [Any::new(), options()] {
            let mut extension = Extension::new();
            extension.value = Some(any).into();
            params.extensions.push(extension);
        }
        let input = params.write_to_bytes().unwrap();
        let parsed = Params::parse(&input, "c1", "n", Some("2"));
        assert_eq!(
            (parsed.protocol, parsed.socket_folder.as_str(), parsed.debug),
            (Protocol::Protobuf, "/run/s", true)
        );
        assert_eq!(parsed.options, options().write_to_bytes().unwrap());
        assert_eq!(Params::parse(&input, "c2", "n", None), Params::default());
    }

    #[test]
    fn options_of_older_callers_are_no_params() {
        let input = options().write_to_bytes().unwrap();
        let parsed = Params::parse(&input, "c1", "n", None);
        assert_eq!((parsed.protocol, parsed.options), (Protocol::Text, input.clone()));
        assert_eq!(
            Params::parse(&input, "c1", "n", Some("3")).protocol,
            Protocol::Json
        );
        assert_eq!(Params::parse(&[], "", "", None).protocol, Protocol::Text);
        assert_eq!(
            Params::parse(&[0xff, 0xff], "c1", "n", Some("2")).protocol,
            Protocol::Text
        );
    }

    #[test]
    fn answers_have_the_form_that_was_asked_for() {
        assert_eq!(answer(Protocol::Text, "unix:///s"), b"unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&answer(Protocol::Json, "unix:///s")).unwrap();
        assert_eq!(
            (json["version"].as_i64(), json["address"].as_str()),
            (Some(3), Some("unix:///s"))
        );
        let result = BootstrapResult::parse_from_bytes(&answer(Protocol::Protobuf, "unix:///s")).unwrap();
        assert_eq!((result.version, result.address.as_str()), (3, "unix:///s"));
    }
}
