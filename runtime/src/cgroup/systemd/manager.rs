//! systemd's manager object, as much of it as a container needs: `org.freedesktop.systemd1(5)`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::dbus::{Call, Connection, Failure, Value};
use crate::error::{Context, Error, Result};

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

pub(super) type Property = (String, Value);

#[derive(Debug)]
pub(in super::super) struct Manager {
    connection: Connection,
}

/// A socket behind which systemd can be reached.
#[derive(Debug, Eq, PartialEq)]
struct Socket {
    /// A path, or the name of an abstract socket behind a NUL.
    name: Vec<u8>,
    is_bus: bool,
}

impl Socket {
    fn path(path: impl AsRef<Path>, is_bus: bool) -> Self {
        let name = path.as_ref().as_os_str().as_bytes().to_owned();
        Self { name, is_bus }
    }
}

/// systemd's own socket comes before a bus: it is a hop less, and there in early boot too.
fn sockets(user: bool) -> Vec<Socket> {
    if !user {
        return vec![
            Socket::path("/run/systemd/private", false),
            Socket::path("/run/dbus/system_bus_socket", true),
        ];
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    user_sockets(runtime.as_deref(), variable("DBUS_SESSION_BUS_ADDRESS"))
}

fn user_sockets(runtime: Option<&Path>, session: Option<OsString>) -> Vec<Socket> {
    let mut sockets = Vec::new();
    sockets.extend(runtime.map(|dir| Socket::path(dir.join("systemd/private"), false)));
    sockets.extend(session.into_iter().flat_map(|list| addresses(&list.into_vec())));
    sockets.extend(runtime.map(|dir| Socket::path(dir.join("bus"), true)));
    sockets
}

/// The UNIX sockets of a list such as `unix:path=/run/user/1000/bus,guid=0a;unix:abstract=x`.
fn addresses(list: &[u8]) -> Vec<Socket> {
    let address = |address: &[u8]| {
        let options = address.strip_prefix(b"unix:")?;
        options.split(|byte| *byte == b',').find_map(|option| {
            let name = match option.strip_prefix(b"path=") {
                Some(path) => unescape(path)?,
                None => [b"\0", unescape(option.strip_prefix(b"abstract=")?)?.as_slice()].concat(),
            };
            Some(Socket { name, is_bus: true })
        })
    };
    list.split(|byte| *byte == b';').filter_map(address).collect()
}

/// `%20` stands for a blank.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first != b'%' {
            plain.push(*first);
            continue;
        }
        let (digits, rest) = left.split_at_checked(2)?;
        plain.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        left = rest;
    }
    Some(plain)
}

impl Manager {
    /// Connects to the systemd of the host or of the user.
    pub(super) fn connect(user: bool) -> Result<Self> {
        let whose = if user { "the user's systemd" } else { "systemd" };
        let mut refused = Vec::new();
        for socket in sockets(user) {
            match Connection::open(&socket.name, socket.is_bus) {
                Ok(connection) => return Ok(Self { connection }),
                Err(error) => refused.push(format!("{}: {error}", socket.name.escape_ascii())),
            }
        }
        if refused.is_empty() {
            refused.push("neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set".into());
        }
        Err(Error::Refused(format!(
            "connect to {whose}: {}",
            refused.join("; ")
        )))
    }

    fn call(&mut self, member: &str, arguments: Vec<Value>) -> std::result::Result<Vec<Value>, Failure> {
        self.connection.call(&Call {
            destination: DESTINATION,
            path: OBJECT,
            interface: MANAGER,
            member,
            arguments,
        })
    }

    /// Waits for the end of the job that a call has begun, and gives its result.
    fn finish(&mut self, answer: &[Value]) -> std::result::Result<String, Failure> {
        let job = answer
            .first()
            .and_then(Value::as_text)
            .unwrap_or_default()
            .to_owned();
        // Number, path, unit and result.
        self.connection.wait_for("JobRemoved", |signal| {
            let is_it = signal.get(1).and_then(Value::as_text) == Some(&job);
            is_it.then(|| {
                signal
                    .get(3)
                    .and_then(Value::as_text)
                    .unwrap_or_default()
                    .to_owned()
            })
        })
    }

    /// Makes a unit and waits until it is there. One that has failed and still holds the name makes way.
    pub(super) fn start(&mut self, name: &str, properties: Vec<Property>) -> Result<()> {
        let what = || format!("start systemd unit {name}");
        let arguments = vec![
            Value::text(name),
            // A job that is queued for the unit makes way as well.
            Value::text("replace"),
            list(properties),
            // No further units.
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let mut answer = self.call("StartTransientUnit", arguments.clone());
        if answer.as_ref().is_err_and(|error| error.is("UnitExists")) {
            drop(self.call("ResetFailedUnit", vec![Value::text(name)]));
            answer = self.call("StartTransientUnit", arguments);
        }
        let result = answer.and_then(|answer| self.finish(&answer));
        match named(result, what)?.as_str() {
            "done" => Ok(()),
            other => Err(Error::Refused(format!("{}: its job ended as {other:?}", what()))),
        }
    }

    /// Moves a process into a unit's group, or into one below that.
    pub(in super::super) fn attach(&mut self, name: &str, below: &Path, pid: i32) -> Result<()> {
        let arguments = vec![
            Value::text(name),
            Value::text(below.to_string_lossy()),
            Value::Array("u".into(), vec![Value::Uint32(pid.cast_unsigned())]),
        ];
        let what = || format!("move process {pid} into systemd unit {name}");
        named(self.call("AttachProcessesToUnit", arguments), what).map(drop)
    }

    /// Ends a unit with all of its processes, and waits until it is gone. One that is gone already is no error.
    pub(super) fn stop(&mut self, name: &str) -> Result<()> {
        let what = || format!("stop systemd unit {name}");
        let answer = self.call("StopUnit", vec![Value::text(name), Value::text("replace")]);
        match answer.and_then(|answer| self.finish(&answer)) {
            Err(error) if error.is("NoSuchUnit") => return Ok(()),
            result => drop(named(result, what)?),
        }
        // Only a unit that has failed, and that an annotation keeps from being collected, is still there.
        match self.call("ResetFailedUnit", vec![Value::text(name)]) {
            Err(error) if error.is("NoSuchUnit") => Ok(()),
            result => named(result, || format!("reset systemd unit {name}")).map(drop),
        }
    }

    /// Sets properties until the unit ends, and waits until systemd has carried them out.
    pub(super) fn set(&mut self, name: &str, properties: Vec<Property>) -> Result<()> {
        let what = || format!("set properties of systemd unit {name}");
        let arguments = vec![Value::text(name), Value::Bool(true), list(properties)];
        named(self.call("SetUnitProperties", arguments), what)?;
        // What it has put off it does before it takes the next call.
        self.control_group().map(drop)
    }

    /// The group that this systemd has as its root.
    pub(in super::super) fn control_group(&mut self) -> Result<PathBuf> {
        let call = Call {
            destination: DESTINATION,
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            arguments: vec![Value::text(MANAGER), Value::text("ControlGroup")],
        };
        let what = || "ask systemd for its cgroup".to_owned();
        let answer = named(self.connection.call(&call), what)?;
        let path = answer.first().and_then(Value::as_text).unwrap_or_default();
        Ok(Path::new(path)
            .strip_prefix("/")
            .unwrap_or(Path::new(path))
            .to_owned())
    }
}

fn named<T>(result: std::result::Result<T, Failure>, what: impl Fn() -> String) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(Failure::Io(error)) => Err(error).context(what),
        Err(refused) => Err(Error::Refused(format!("{}: {refused}", what()))),
    }
}

fn list(properties: Vec<Property>) -> Value {
    let pair = |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_sockets_are_tried_in_order() {
        let session = "unix:path=/run/my%20bus,guid=00;tcp:host=x;unix:guid=1,abstract=ab%00c;unix:path=%2";
        let found = user_sockets(Some(Path::new("/run/user/7")), Some(session.into()));
        let expected = [
            ("/run/user/7/systemd/private", false),
            ("/run/my bus", true),
            ("\0ab\0c", true),
            ("/run/user/7/bus", true),
        ];
        let expected = expected.map(|(name, is_bus)| Socket {
            name: name.as_bytes().to_owned(),
            is_bus,
        });
        assert_eq!(found, expected);
        assert_eq!(user_sockets(None, None), []);
    }
}
