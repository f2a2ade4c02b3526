//! Descriptors: pipes, splice, terminals, sockets, memfd, eventfd.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::{check, check_size};

/// A pipe, close-on-exec, both ends blocking: (read end, write end).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just made both; nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// A second descriptor for the same open file, close-on-exec, numbered 10 or more.
pub(crate) fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is alive.
    let raw = check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

pub(crate) fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers; the descriptor is alive.
    let flags = check(unsafe { libc::fcntl(raw, libc::F_GETFL) })?;
    let wanted = if nonblocking {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    // SAFETY: as above.
    check(unsafe { libc::fcntl(raw, libc::F_SETFL, wanted) }).map(drop)
}

pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its whole length.
    check_size(unsafe { libc::read(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are readable for their whole length.
    check_size(unsafe { libc::write(fd.as_fd().as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Returns when there is something to read (of a pidfd: its process has ended), the time is over, or a signal came.
pub(crate) fn wait_readable(fd: impl AsFd, time: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = time.as_millis().try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: `poll` is one entry and lives through the call.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Moves up to `length` bytes from one pipe to another without copying them; never blocks.
pub(crate) fn splice(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    // SAFETY: null offsets are what pipes ask for; both descriptors are alive.
    check_size(unsafe {
        libc::splice(
            from.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            to.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            length,
            libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
        )
    })
}

/// How many bytes a read would give now.
pub(crate) fn bytes_readable(fd: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(count as usize)
}

/// Another descriptor for the fifo behind this one, non-blocking and without a read end.
pub(crate) fn reopen_for_writing(fifo: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fifo.as_fd().as_raw_fd());
    let mut options = std::fs::OpenOptions::new();
    let writer = options.write(true).custom_flags(libc::O_NONBLOCK).open(path);
    writer.map(OwnedFd::from)
}

/// Whether anybody has a read end of the pipe that this is a write end of.
pub(crate) fn has_reader(writer: BorrowedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: writer.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: `poll` is one entry and lives through the call.
    let result = unsafe { libc::poll(&raw mut poll, 1, 0) };
    result >= 0 && poll.revents & libc::POLLERR == 0
}

/// How many bytes a pipe holds at most.
pub(crate) fn pipe_capacity(fd: impl AsFd) -> io::Result<usize> {
    // SAFETY: no pointers; the descriptor is alive.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETPIPE_SZ) }).map(|size| size as usize)
}

/// The kernel rounds up to a power of two.
pub(crate) fn set_pipe_capacity(fd: impl AsFd, bytes: usize) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is alive.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) }).map(drop)
}

/// Has the disk keep room for so many bytes at `offset`, without making the file longer. A file system that can't is no
/// error.
pub(crate) fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let [offset, length] =
        [offset, length].map(|number| libc::off_t::try_from(number).unwrap_or(libc::off_t::MAX));
    loop {
        // SAFETY: no pointers.
        let done =
            check(unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, length) });
        match done {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
            done => return done.map(drop),
        }
    }
}

pub(crate) fn set_window_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// An anonymous file in memory, for the input or output of a command.
pub(crate) fn memfd(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a C string that lives through the call.
    let raw = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(raw) })
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Connects to a UNIX socket without ever waiting: a listener whose queue is full is an error. The result is
/// non-blocking.
pub(crate) fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    connect_unix_of_type(path, libc::SOCK_STREAM)
}

/// The same for a socket of another type.
pub(super) fn connect_unix_of_type(path: &Path, kind: libc::c_int) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: sockaddr_un is plain data, all zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path too long for a UNIX socket",
        ));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
        *slot = byte.cast_signed();
    }
    // SAFETY: no pointers.
    let raw =
        check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: `address` lives through the call and has the size that is told.
    check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_un>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

/// The user who connected to the other end of a UNIX socket.
pub(crate) fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers live through the call, `length` tells the room.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    })?;
    Ok(credentials.uid)
}

fn is_listening_socket(fd: impl AsFd) -> bool {
    let mut listening: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers live through the call, `length` tells the room.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listening).cast(),
            &raw mut length,
        )
    };
    result == 0 && listening == 1
}

/// Takes over descriptor 3, which `start` leaves for its daemon half. To be called once, before anything else opens
/// a descriptor.
pub(crate) fn take_listener() -> io::Result<UnixListener> {
    const LISTENER: libc::c_int = 3;
    // SAFETY: only a check of flags; fails cleanly when 3 is not open.
    check(unsafe { libc::fcntl(LISTENER, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: 3 is open (checked) and was left for us by the parent.
    let listens = is_listening_socket(unsafe { BorrowedFd::borrow_raw(LISTENER) });
    if !listens {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptor 3 is not a listening socket",
        ));
    }
    // SAFETY: as above; from here on the listener owns it.
    let listener = unsafe { UnixListener::from_raw_fd(LISTENER) };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes one descriptor that was sent over a UNIX socket with `SCM_RIGHTS`; never blocks.
pub(crate) fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    // u64 for the alignment that cmsghdr needs.
    let mut control = [0u64; 3];
    // SAFETY: only arithmetic.
    let one = unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as u32) } as usize;
    let mut iov = libc::iovec {
        iov_base: name.as_mut_ptr().cast(),
        iov_len: name.len(),
    };
    // SAFETY: msghdr is plain data, all zero is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // The kernel closes what finds no room: a second descriptor would stay open here for ever.
    message.msg_controllen = one as _;
    // SAFETY: all that `message` points to lives through the call.
    check_size(unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT,
        )
    })?;
    // SAFETY: the kernel filled `message`; the macros walk within msg_controllen.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize >= one
        {
            let raw: libc::c_int = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
            return Ok(OwnedFd::from_raw_fd(raw));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "no descriptor came with the message",
    ))
}

/// Takes what is stdin, and leaves /dev/null in its place.
pub(crate) fn take_stdin() -> io::Result<File> {
    // SAFETY: only a call that fails cleanly when 0 is not open.
    let stdin = duplicate(unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) })?;
    let null = File::open("/dev/null")?;
    // SAFETY: no pointers; nobody owns the number 0, which stays open.
    check(unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) })?;
    Ok(stdin.into())
}

/// Occupies the lowest free descriptor numbers up to 5, so that nothing else gets them.
pub(crate) fn reserve_descriptors() -> io::Result<Vec<File>> {
    const LAST: libc::c_int = 5;
    let mut reserved = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        if file.as_raw_fd() > LAST {
            return Ok(reserved);
        }
        reserved.push(file);
    }
}

/// Closes every descriptor above the listening socket that the caller's caller leaked to us: a pipe held open by a
/// daemon keeps its reader waiting for ever. To be called before anything else opens a descriptor.
pub(crate) fn close_inherited() -> io::Result<()> {
    const FIRST: libc::c_uint = 4;
    // SAFETY: nothing in this process owns a descriptor beyond 3 yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0 as libc::c_uint) };
    check(result as libc::c_int).map(drop)
}
