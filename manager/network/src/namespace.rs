//! Speaking to the kernel from inside another network namespace.

use std::os::fd::BorrowedFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::Error;
use crate::netlink::Route;

/// A route socket that belongs to the namespace `netns`, for use from anywhere.
///
/// A socket stays in the namespace it was opened in. So one thread enters, opens it, and ends: no thread that
/// does other work is ever in a foreign namespace, not even after a panic.
pub(crate) fn open_route(netns: BorrowedFd<'_>) -> Result<Route, Error> {
    let system = |action: &str, source| Error::System {
        action: action.to_owned(),
        source,
    };
    thread::scope(|scope| {
        let opener = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                setns(netns, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| system("enter the container's network namespace", errno.into()))?;
                Route::open()
            });
        opener
            .map_err(|source| {
                system(
                    "start a thread to enter the container's network namespace",
                    source,
                )
            })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
