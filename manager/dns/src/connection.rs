//! A connection from a container: any number of questions, answered in their order.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::answer::{Outcome, Transport, outcome};
use crate::forward::Forwarder;
use crate::upstream::framed;

/// Whoever says nothing for so long is not waited for (RFC 7766, 6.2.3: in the order of seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A message that has begun is to come, or to be taken, within this.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answer until the container closes the connection, is silent or says what is no question.
pub(crate) async fn serve(mut stream: TcpStream, forwarder: &Forwarder) {
    while let Some(message) = read(&mut stream).await {
        let answer = match outcome(&message, Transport::Tcp, &*forwarder.view) {
            Outcome::Ignore => return,
            Outcome::Answer(answer) => answer,
            Outcome::Forward(question) => forwarder.ask(&message, &question, Transport::Tcp).await,
        };
        let written = timeout(MESSAGE_TIMEOUT, stream.write_all(&framed(&answer))).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = timeout(IDLE_TIMEOUT, stream.read_u16()).await.ok()?.ok()?;
    let mut message = vec![0; usize::from(length)];
    timeout(MESSAGE_TIMEOUT, stream.read_exact(&mut message))
        .await
        .ok()?
        .ok()?;
    Some(message)
}
