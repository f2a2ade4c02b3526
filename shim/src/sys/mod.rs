//! The only place with `unsafe`: one wrapper a system call, owned or borrowed descriptors in and out, `io::Error`
//! for what the kernel refuses. Nothing above this module sees a raw descriptor or a C string.

mod epoll;
mod fd;
mod idmap;
mod limits;
mod lock;
mod mount;
mod namespace;
mod pause;
mod process;
mod receiver;
mod signals;

pub(crate) use epoll::{Epoll, Interest, Ready};
pub(crate) use fd::{
    bytes_readable, close_inherited, connect_unix, duplicate, eventfd, has_reader, memfd, peer_uid, pipe,
    pipe_capacity, read, receive_descriptor, reopen_for_writing, reserve, reserve_descriptors,
    set_nonblocking, set_pipe_capacity, set_window_size, splice, take_listener, take_stdin, wait_readable,
    write,
};
pub(crate) use idmap::{clone_mapped, user_namespace};
pub(crate) use limits::OpenFiles;
#[cfg(test)]
pub(crate) use lock::try_lock_shared;
pub(crate) use lock::{try_lock, try_lock_folder, unlock};
pub(crate) use mount::{attach, mount, mount_overlay_layers, unmount_all};
pub(crate) use namespace::owning_user_namespace;
pub(crate) use pause::pause_program;
pub(crate) use process::{
    become_subreaper, daemon_command, effective_uid, exit_status, is_child, kill, kill_by_pidfd,
    logger_command, open_pidfd, reap, usual_umask,
};
pub(crate) use receiver::{connect_internet, host_name, local_time, send, unix_datagrams, widen_send_buffer};
pub(crate) use signals::SignalPipe;

use std::io;

/// Turns the C convention of -1 into the error that errno holds.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for calls that return a size.
fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as usize)
    }
}
