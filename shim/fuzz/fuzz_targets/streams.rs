//! Stream URIs: what parses names an absolute path without steps upwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::stdio::target::Target;

fuzz_target!(|uri: &str| {
    let path = match Target::parse(uri) {
        Ok(Target::Path(path) | Target::File(path)) => path,
        Ok(Target::Log(settings, _)) => settings.path,
        Ok(Target::Logger(logger)) => logger.path,
        Ok(Target::Null) | Err(_) => return,
    };
    assert!(path.is_absolute());
    assert!(path.components().all(|part| part != std::path::Component::ParentDir));
});
