//! IPv6 where no container has an address of it by us: not on the bridge, and not on either end of a pair.
//!
//! On the bridge the host would take an address, and routes, from any container that claims to be a router
//! (CVE-2020-13401), and serve its neighbours at the link's own address; a container would take them from another one.
//! And a link's own address costs dearly when it comes up: the kernel asks all neighbours whether they have it and tells
//! them of its groups, and the bridge copies each of these packets to every other container. With 500 of them that took
//! 20 ms of the kernel's time a start, as much as all the rest of it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;

const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// Whether this kernel has IPv6. Once it has, it is not asked again: names below `/proc/sys/net` are looked up among
/// those of all network namespaces, so each look is dearer by every container there is.
pub(crate) fn is_there() -> bool {
    static FOUND: AtomicBool = AtomicBool::new(false);
    if !FOUND.load(Ordering::Relaxed) {
        FOUND.store(Path::new(SETTINGS).exists(), Ordering::Relaxed);
    }
    FOUND.load(Ordering::Relaxed)
}

/// Turns it off on the link named `link` in the network namespace of the calling thread. Nothing to do on a kernel
/// without it.
pub(crate) fn turn_off(link: &str) -> Result<(), Error> {
    let setting = format!("{SETTINGS}/{link}/disable_ipv6");
    match fs::read(&setting) {
        Ok(value) if value.trim_ascii() == b"0" => fs::write(&setting, "1\n"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|source| Error::System {
        action: format!("write 1 to {setting}"),
        source,
    })
}
