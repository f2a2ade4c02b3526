//! `-info`: what this shim is and what its runtime can do, for containerd's introspection.

use std::io::{self, Write};

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeRequest, RuntimeVersion};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::read_stdin;
use crate::options::{self, Options};
use crate::runtime::Runtime;
use crate::shim_log;

/// The runtime's `features` document, under the name by which containerd knows it.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub fn info() -> io::Result<()> {
    let request = RuntimeRequest::parse_from_bytes(&read_stdin()?).unwrap_or_default();
    let options = options::parse(request.options.as_ref())
        .map_err(|status| io::Error::new(io::ErrorKind::InvalidInput, status.message))?;
    let mut info = RuntimeInfo::new();
    info.name = "io.containerd.berth.v1".into();
    let mut version = RuntimeVersion::new();
    version.version = env!("CARGO_PKG_VERSION").into();
    info.version = Some(version).into();
    info.options = request.options;
    info.features = features(&options).into();
    io::stdout().write_all(&info.write_to_bytes()?)?;
    io::stdout().flush()
}

/// `None` when the runtime has no such command or is not there: the rest of the answer is still true.
fn features(options: &Options) -> Option<Any> {
    let output = Runtime::new(options, "").features().output();
    let json = match output {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            shim_log::warn(format_args!("runtime features: {}", output.status));
            return None;
        }
        Err(error) => {
            shim_log::warn(format_args!("runtime features: {error}"));
            return None;
        }
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(&json).ok()?;
    let mut any = Any::new();
    any.type_url = FEATURES.into();
    any.value = json;
    Some(any)
}
