//! The command line as containerd calls it: Go's flag syntax (`-id x`, `-id=x`, `--id x`), then at most one verb.

/// What the shim is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make the daemon and print its address.
    Start,
    /// Clean up after a daemon that died.
    Delete,
    /// Print what this shim is.
    Info,
    Version,
    Help,
    /// Be the daemon, on the listening socket that `start` left.
    Serve,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub verb: Verb,
    pub namespace: String,
    pub id: String,
    pub address: String,
    pub publish_binary: String,
    pub bundle: String,
    pub socket: String,
    pub debug: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    #[error("unknown flag {0} (see -help)")]
    UnknownFlag(String),
    #[error("flag {0} needs a value")]
    NoValue(String),
    #[error("flag {0} is true or false, not {1:?}")]
    NoBoolean(String, String),
    #[error("unknown command {0:?}; known are start and delete")]
    UnknownVerb(String),
    #[error("one command at most, and {0:?} is a second one")]
    SecondVerb(String),
    #[error("flag -{0} is required here")]
    Missing(&'static str),
}

pub const HELP: &str = "\
Berth's shim: the parent of a container, for Berth's manager and for containerd (io.containerd.berth.v1).

usage: shim [flags] start     in a bundle: start the shim's daemon and print its address
       shim [flags] delete    clean up after a daemon that died
       shim -info             print what this shim and its runtime can do (protobuf)
       shim -v                print the version

flags:
  -namespace NAME       namespace of the container
  -id ID                the container
  -address PATH         socket of whoever calls
  -publish-binary PATH  program that takes events when TTRPC_ADDRESS is not set
  -bundle PATH          the bundle, where it is not the working directory
  -socket PATH          path of the listening socket (the daemon's own use)
  -debug                more lines in the shim's log
";

impl Arguments {
    /// Parses the arguments without the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut parsed = Self {
            verb: Verb::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            publish_binary: String::new(),
            bundle: String::new(),
            socket: String::new(),
            debug: false,
        };
        let mut verb = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                if verb.is_some() {
                    return Err(ArgumentError::SecondVerb(argument));
                }
                verb = Some(match argument.as_str() {
                    "start" => Verb::Start,
                    "delete" => Verb::Delete,
                    _ => return Err(ArgumentError::UnknownVerb(argument)),
                });
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let boolean = |value: Option<String>| match value.as_deref() {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(other) => Err(ArgumentError::NoBoolean(argument.clone(), other.to_owned())),
            };
            let text = match name {
                "namespace" => &mut parsed.namespace,
                "id" => &mut parsed.id,
                "address" => &mut parsed.address,
                "publish-binary" => &mut parsed.publish_binary,
                "bundle" => &mut parsed.bundle,
                "socket" => &mut parsed.socket,
                "debug" => {
                    parsed.debug = boolean(value)?;
                    continue;
                }
                "info" | "v" | "version" | "h" | "help" => {
                    if boolean(value)? {
                        parsed.verb = match name {
                            "info" => Verb::Info,
                            "h" | "help" => Verb::Help,
                            _ => Verb::Version,
                        };
                    }
                    continue;
                }
                _ => return Err(ArgumentError::UnknownFlag(argument)),
            };
            *text = value
                .or_else(|| arguments.next())
                .ok_or(ArgumentError::NoValue(argument))?;
        }
        if parsed.verb == Verb::Serve {
            parsed.verb = verb.unwrap_or(Verb::Serve);
            for (name, value) in [("namespace", &parsed.namespace), ("id", &parsed.id)] {
                if value.is_empty() {
                    return Err(ArgumentError::Missing(name));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerds_own_call_is_understood() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id c1 -debug start";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.verb, Verb::Start);
        assert_eq!(
            (arguments.namespace.as_str(), arguments.id.as_str()),
            ("k8s.io", "c1")
        );
        assert!(arguments.debug);
        let arguments = parse("--namespace=n --id=c1 -bundle=/b delete").unwrap();
        assert_eq!((arguments.verb, arguments.bundle.as_str()), (Verb::Delete, "/b"));
        assert_eq!(parse("-info").unwrap().verb, Verb::Info);
        assert_eq!(parse("-v").unwrap().verb, Verb::Version);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        assert_eq!(
            parse("-namespace n start").unwrap_err(),
            ArgumentError::Missing("id")
        );
        assert_eq!(parse("-id").unwrap_err(), ArgumentError::NoValue("-id".into()));
        assert_eq!(
            parse("-speed 9 start").unwrap_err(),
            ArgumentError::UnknownFlag("-speed".into())
        );
        assert_eq!(
            parse("stop").unwrap_err(),
            ArgumentError::UnknownVerb("stop".into())
        );
        assert!(parse("-debug=perhaps start").is_err());
    }
}
