//! The side of the Container Network Interface that runs plugins, as its specification has it in versions 0.3.0 to 1.1.0:
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>.
//!
//! A [`List`] is what the host's administrator has written of a network; an [`Attachment`] is one container's part of it,
//! which the caller keeps on disk before plugins act and until they have undone it; a [`Runner`] calls the plugins one after
//! the other. What they answer is untrusted: it is bounded and checked, and becomes an [`Answer`]. Everything is synchronous;
//! each call of a plugin is bounded in time and ends with its process group.

mod answer;
mod chain;
mod error;
mod list;
mod program;
mod sys;

pub use answer::{Answer, Dns, Interface, Ip, Route};
pub use chain::{Attachment, Runner};
pub use error::Error;
pub use list::{CAPABILITY_IPS, CAPABILITY_MAC, CAPABILITY_PORT_MAPPINGS, List};

/// What the fuzz target calls: a configuration, an answer, and the complaint of a plugin.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    let _ = List::parse(bytes);
    let _ = program::complaint(bytes);
    let Ok(value) = serde_json::from_slice(bytes) else {
        return;
    };
    if let Ok(answer) = Answer::read(&value) {
        let words = answer.dns.search.iter().chain(&answer.dns.options);
        assert!(
            words
                .chain([&answer.dns.domain])
                .all(|word| !word.contains(char::is_whitespace))
        );
        let _ = (answer.of_container("eth0"), answer.mac("eth0"));
    }
}
