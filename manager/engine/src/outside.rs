//! Ports of the host for a manager without root's rights, whose network is not the host's: slirp4netns listens on them,
//! and sends what comes to its end of the manager's network, where the rules of published ports take it on.
//!
//! It is spoken to by one JSON request a connection (slirp4netns(1), "API socket"), and forgets all it was told when it
//! ends, together with the network.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use network::{Protocol, PublishedPort};
use serde::Deserialize;
use serde_json::{Value, json};

/// The address that slirp4netns gives to the network inside.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

const PATIENCE: Duration = Duration::from_secs(5);
/// All ports of the host in one answer are less.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// A port that is listened on.
#[derive(Debug, Clone, Deserialize)]
struct Forward {
    id: u64,
    proto: String,
    host_addr: Ipv4Addr,
    host_port: u16,
    guest_port: u16,
}

/// A port of the host, and that of [`INSIDE`] to which it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) port: PublishedPort,
    pub(crate) inside: u16,
}

impl Forward {
    fn is(&self, Wanted { port, inside }: &Wanted) -> bool {
        (
            &*self.proto,
            self.host_addr.into(),
            self.host_port,
            self.guest_port,
        ) == (port.protocol.name(), port.host_address, port.host_port, *inside)
    }
}

/// Listen on the host's ports: on all of them, or on none.
pub(crate) fn publish(socket: &Path, ports: &[Wanted]) -> Result<(), (PublishedPort, String)> {
    for (done, port) in ports.iter().enumerate() {
        if let Err(error) = add(socket, port) {
            if let Err(error) = withdraw(socket, &ports[..done]) {
                tracing::warn!(%error, "ports of the host stay taken");
            }
            return Err((port.port, error.to_string()));
        }
    }
    Ok(())
}

/// Listen no more; fine where nobody listens.
pub(crate) fn withdraw(socket: &Path, ports: &[Wanted]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let there = list(socket)?;
    let is_gone = |forward: &&Forward| ports.iter().any(|port| forward.is(port));
    let gone = there.iter().filter(is_gone);
    all(gone.map(|forward| remove(socket, forward.id)))
}

/// Listen on these ports and no others.
pub(crate) fn restore(socket: &Path, ports: &[Wanted]) -> io::Result<()> {
    let there = list(socket)?;
    let is_wanted = |forward: &Forward| ports.iter().any(|port| forward.is(port));
    let gone = there.iter().filter(|forward| !is_wanted(forward));
    let removed = all(gone.map(|forward| remove(socket, forward.id)));
    let is_missing = |port: &&Wanted| !there.iter().any(|forward| forward.is(port));
    removed.and(all(ports.iter().filter(is_missing).map(|port| add(socket, port))))
}

/// Do each of them, whatever becomes of the others; the first error.
fn all(done: impl Iterator<Item = io::Result<()>>) -> io::Result<()> {
    done.fold(Ok(()), io::Result::and)
}

fn add(socket: &Path, Wanted { port, inside }: &Wanted) -> io::Result<()> {
    if port.protocol == Protocol::Sctp {
        return Err(io::Error::other(
            "without root's rights ports of SCTP can't be published: slirp4netns does not know it",
        ));
    }
    let arguments = json!({
        "proto": port.protocol.name(), "host_addr": port.host_address, "host_port": port.host_port,
        "guest_addr": INSIDE, "guest_port": inside,
    });
    let added = call(socket, &json!({"execute": "add_hostfwd", "arguments": arguments}));
    added.map(drop).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "{error}: either a program of the host has this port, or the host does not have this address, or ports \
                 below net.ipv4.ip_unprivileged_port_start are for root"
            ),
        )
    })
}

fn remove(socket: &Path, id: u64) -> io::Result<()> {
    call(
        socket,
        &json!({"execute": "remove_hostfwd", "arguments": {"id": id}}),
    )
    .map(drop)
}

fn list(socket: &Path) -> io::Result<Vec<Forward>> {
    let mut answer = call(socket, &json!({"execute": "list_hostfwd"}))?;
    Ok(serde_json::from_value(answer["entries"].take())?)
}

fn call(socket: &Path, request: &Value) -> io::Result<Value> {
    let said = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("slirp4netns at {}: {error}", socket.display()),
        )
    };
    let mut stream = UnixStream::connect(socket).map_err(said)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.to_string().as_bytes()).map_err(said)?;
    stream.shutdown(Shutdown::Write).map_err(said)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .map_err(said)?;
    read(&answer).map_err(said)
}

/// `{"return": …}`, `{"error": {"desc": …}}`, or (of lists) what is documented as the value of `return` alone.
fn read(answer: &[u8]) -> io::Result<Value> {
    let mut answer: Value = serde_json::from_slice(answer)?;
    match answer["error"]["desc"].as_str() {
        Some(why) => Err(io::Error::other(why.to_owned())),
        None => Ok(match answer.get_mut("return") {
            Some(returned) => returned.take(),
            None => answer,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_documented() {
        let error =
            read(br#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#).unwrap_err();
        assert!(error.to_string().contains("slirp_add_hostfwd failed"), "{error}");
        assert_eq!(read(br#"{"return":{"id":42}}"#).unwrap(), json!({"id": 42}));
        assert!(read(b"").is_err() && read(b"{").is_err());
        assert_eq!(read(br#"{"entries":[]}"#).unwrap(), json!({"entries": []}));
        let mut listed = read(
            br#"{"return":{"entries":[{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":8080}]}}"#,
        )
        .unwrap();
        let entries: Vec<Forward> = serde_json::from_value(listed["entries"].take()).unwrap();
        let wanted = |host_port, inside| Wanted {
            port: PublishedPort {
                host_address: Ipv4Addr::UNSPECIFIED.into(),
                host_port,
                protocol: Protocol::Tcp,
                container_port: 80,
            },
            inside,
        };
        assert!(entries[0].is(&wanted(8080, 8080)));
        assert!(!entries[0].is(&wanted(8081, 8080)) && !entries[0].is(&wanted(8080, 8081)));
    }
}
