//! `system dial-stdio`: what runs on the other machine when a manager is reached through ssh.

use tokio::io::{AsyncWriteExt as _, copy, stdin, stdout};
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};
use crate::host::{Host, Target};

/// Stdin to the manager's socket, and the socket to stdout, until the manager closes it.
pub(super) async fn dial_stdio(target: &Target) -> Result<u8> {
    let Host::Unix(path) = &target.host else {
        return Err(Failure::new(format!(
            "{}: only a socket of this machine can be joined",
            target.host
        )));
    };
    let failed = |error: std::io::Error| Failure::new(format!("connect stdin and stdout to {path}: {error}"));
    let (mut answers, mut requests) = UnixStream::connect(path).await.map_err(failed)?.into_split();
    let up = tokio::spawn(async move {
        copy(&mut stdin(), &mut requests).await?;
        requests.shutdown().await
    });
    let mut out = stdout();
    let down = async {
        copy(&mut answers, &mut out).await?;
        out.flush().await
    };
    let ended = down.await;
    up.abort();
    ended.map_err(failed)?;
    Ok(0)
}
