//! Taking connections, one after the other. A process that has no descriptor left fails at once at each of them, and so
//! would spin for as long as somebody waits: it pauses instead, and takes them when others have gone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{Stream, stream};
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Between two attempts, while there is no room.
const PAUSE: Duration = Duration::from_millis(200);

/// Who connects to a UNIX socket. It never ends.
pub(crate) fn unix(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => after(&error).await,
            }
        }
    })
}

/// The next one who connects over TCP, and from where.
pub(crate) async fn tcp(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => after(&error).await,
        }
    }
}

/// What accept(2) says of one connection is nothing about the next; where there is no room, a pause may bring it.
async fn after(error: &io::Error) {
    let errno = error.raw_os_error().map(Errno::from_raw);
    if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) = errno {
        tracing::warn!(%error, "there is no room for one more client: who connects waits");
        tokio::time::sleep(PAUSE).await;
    } else {
        tracing::debug!(%error, "a client has gone before it was taken");
        // Should it be none of those that go away by themselves, others have their turn.
        tokio::task::yield_now().await;
    }
}
