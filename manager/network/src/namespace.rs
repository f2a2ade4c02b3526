//! Opening sockets inside another network namespace.

use std::os::fd::BorrowedFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::Error;
use crate::netlink::Route;

/// What `open` returns, called inside the network namespace `netns`.
///
/// A socket stays in the namespace it was opened in. So one thread enters, opens it, and ends: no thread that
/// does other work is ever in a foreign namespace, not even after a panic.
///
/// # Errors
/// The thread could not be started or not enter, or `open`'s own.
pub fn within<T: Send>(
    netns: BorrowedFd<'_>,
    open: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
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
                open()
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

/// A route socket that belongs to the namespace `netns`, for use from anywhere.
pub(crate) fn open_route(netns: BorrowedFd<'_>) -> Result<Route, Error> {
    within(netns, Route::open)
}
