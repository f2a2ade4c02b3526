//! Any bytes as a D-Bus message, and any text as a property of a unit: an error or a value, never a panic.
#![no_main]
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/error.rs"]
mod error;

#[path = "../../src/cgroup/systemd"]
mod systemd {
    mod dbus {
        pub(super) mod message;
        mod value;

        pub(super) use value::Value;
    }

    mod annotation;

    pub(super) fn read(bytes: &[u8]) {
        if let Ok(message) = dbus::message::Message::decode(bytes) {
            let _ = message.arguments();
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            let annotations = [("org.systemd.property.Some".to_owned(), text.to_owned())].into();
            if let Ok(properties) = annotation::properties(Some(&annotations)) {
                assert_eq!(properties.len(), 1);
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| systemd::read(bytes));
