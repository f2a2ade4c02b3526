//! The policy file: which images are accepted, and what their signatures have to show.
//!
//! The format is that of containers-policy.json(5), which podman, skopeo and CRI-O read, so that a file written for
//! them means the same here; [`super::notation`] adds one kind of requirement of its own. As there, parsing is strict:
//! a field that is unknown, given twice or out of place makes the whole file worthless, and nothing is accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use super::notation::Notation;
use super::scope;
use super::sigstore::Sigstore;
use crate::Error;
use crate::reference::Reference;

/// Bound of the file.
const POLICY_BYTES_MAX: u64 = 1 << 20;
/// Images in registries; the other transports of the format are for tools that copy between places.
const REGISTRIES: &str = "docker";
/// What was loaded, imported or committed here.
const LOCAL: &str = "containers-storage";

/// Where the policy is read from, anew for each image that is judged.
#[derive(Debug, Clone, Default)]
pub enum PolicyFile {
    /// There is none: every image is accepted.
    #[default]
    Nowhere,
    /// This file; as long as it was never there since the program began, every image is accepted.
    IfThere(PathBuf),
    /// This file; as long as it is not there, none is.
    At(PathBuf),
}

/// A policy as read.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its file, for messages and for what lies beside it; `None` if there is no policy.
    path: Option<PathBuf>,
    file: File,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Requirements,
    #[serde(default, deserialize_with = "unique")]
    transports: BTreeMap<String, Scopes>,
}

/// By scope: what has to hold of the images in it.
#[derive(Debug, Default)]
struct Scopes(BTreeMap<String, Requirements>);

/// All of them have to hold; never empty.
#[derive(Debug)]
pub(crate) struct Requirements(Vec<Requirement>);

/// One thing that has to hold.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Requirement {
    InsecureAcceptAnything(Nothing),
    Reject(Nothing),
    /// A detached GPG signature, which is understood only so far as to refuse it.
    SignedBy(IgnoredAny),
    SigstoreSigned(Box<Sigstore>),
    NotationSigned(Notation),
}

/// A requirement without fields.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// The requirements for one image, and the words for where they stand.
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) requirements: &'a [Requirement],
    /// `docker "registry.example/team"` or `default`.
    pub(crate) place: String,
}

impl<'de> Deserialize<'de> for Requirements {
    /// By hand, so that an error is found while the parser is still at the line of the requirement.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Requirements, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Requirements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of requirements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Requirements, A::Error> {
                let mut requirements = Vec::new();
                while let Some(requirement) = list.next_element()? {
                    requirements.push(requirement);
                }
                if requirements.is_empty() {
                    return Err(de::Error::custom(
                        "a list of requirements is empty: [{\"type\": \"insecureAcceptAnything\"}] accepts all, \
                         [{\"type\": \"reject\"}] nothing",
                    ));
                }
                Ok(Requirements(requirements))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
        unique(deserializer).map(Scopes)
    }
}

/// A map in which no key comes twice: one reader would take the first, another the last.
fn unique<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, V>, D::Error> {
    struct Visitor<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> de::Visitor<'de> for Visitor<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                if entries.contains_key(&key) {
                    return Err(de::Error::custom(format_args!("{key:?} is there twice")));
                }
                let value = map.next_value()?;
                entries.insert(key, value);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Visitor(PhantomData))
}

impl Policy {
    /// Read the policy as it is now.
    pub(crate) fn read(place: &PolicyFile) -> Result<Policy, Error> {
        let (path, may_be_missing) = match place {
            PolicyFile::Nowhere => return Ok(Policy::accepting()),
            PolicyFile::IfThere(path) => (path, true),
            PolicyFile::At(path) => (path, false),
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if may_be_missing && e.kind() == std::io::ErrorKind::NotFound && is_missing(path) => {
                return Ok(Policy::accepting());
            }
            Err(e) => return Err(broken(path, format!("it cannot be read: {e}"))),
        };
        let mut content = Vec::new();
        file.take(POLICY_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|e| broken(path, format!("it cannot be read: {e}")))?;
        Policy::parse(&content, path)
    }

    /// `path` is named in errors, and files that the policy names without a leading slash lie beside it.
    pub(crate) fn parse(content: &[u8], path: &Path) -> Result<Policy, Error> {
        if content.len() as u64 > POLICY_BYTES_MAX {
            return Err(broken(
                path,
                format!("it is longer than {POLICY_BYTES_MAX} bytes"),
            ));
        }
        let file: File = serde_json::from_slice(content).map_err(|e| broken(path, e.to_string()))?;
        for name in file.transports.get(REGISTRIES).iter().flat_map(|s| s.0.keys()) {
            scope::check(name).map_err(|rule| {
                // The key's own line: the parser has gone on by the time that scopes are looked at.
                let line = line_of(content, name);
                broken(path, format!("scope {name:?} {rule} at line {line}"))
            })?;
        }
        Ok(Policy {
            path: Some(path.to_owned()),
            file,
        })
    }

    /// Whether there is a file that says something.
    pub(crate) fn is_there(&self) -> bool {
        self.path.is_some()
    }

    fn accepting() -> Policy {
        let anything = Requirement::InsecureAcceptAnything(Nothing {});
        Policy {
            path: None,
            file: File {
                default: Requirements(vec![anything]),
                transports: BTreeMap::new(),
            },
        }
    }

    /// The requirements for an image of a registry: those of the longest scope that it is in.
    pub(crate) fn of_registry(&self, reference: &Reference) -> Rule<'_> {
        self.rule(REGISTRIES, scope::of(reference))
    }

    /// The requirements for an image that came from no registry.
    pub(crate) fn of_local(&self) -> Rule<'_> {
        self.rule(LOCAL, vec![String::new()])
    }

    /// Whether the policy says of itself what becomes of images that came from no registry.
    pub(crate) fn has_local_rule(&self) -> bool {
        let given = self.file.transports.get(LOCAL);
        given.is_some_and(|scopes| scopes.0.contains_key(""))
    }

    fn rule(&self, transport: &str, scopes: Vec<String>) -> Rule<'_> {
        let given = self.file.transports.get(transport);
        let found = scopes
            .into_iter()
            .find_map(|scope| Some((given?.0.get(&scope)?, scope)));
        match found {
            Some((requirements, scope)) => Rule {
                requirements: &requirements.0,
                place: format!("{transport} {scope:?}"),
            },
            None => Rule {
                requirements: &self.file.default.0,
                place: if self.path.is_some() {
                    "default"
                } else {
                    "no policy"
                }
                .to_owned(),
            },
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// A file that the policy names.
    pub(crate) fn beside(&self, path: &Path) -> PathBuf {
        self.path().parent().unwrap_or(Path::new("/")).join(path)
    }
}

/// Whether nothing is there. A link that leads nowhere, be it the file or a folder on its way, is a policy that somebody
/// means to be there.
fn is_missing(path: &Path) -> bool {
    let nearest = path.ancestors().find(|part| part.symlink_metadata().is_ok());
    nearest.is_none_or(|found| found.metadata().is_ok())
}

fn broken(path: &Path, rule: String) -> Error {
    Error::Policy {
        path: path.to_owned(),
        rule,
    }
}

fn line_of(content: &[u8], name: &str) -> usize {
    let quoted = serde_json::to_string(name).unwrap_or_default();
    let at = content
        .windows(quoted.len().max(1))
        .position(|window| window == quoted.as_bytes());
    content[..at.unwrap_or(0)].split(|b| *b == b'\n').count()
}

impl<'a> Rule<'a> {
    /// The first requirement that not every image meets.
    pub(crate) fn asks_for(&self) -> Option<&'a Requirement> {
        self.requirements
            .iter()
            .find(|requirement| !matches!(requirement, Requirement::InsecureAcceptAnything(_)))
    }
}

impl Requirement {
    /// Its `type`, as the file has it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Requirement::InsecureAcceptAnything(_) => "insecureAcceptAnything",
            Requirement::Reject(_) => "reject",
            Requirement::SignedBy(_) => "signedBy",
            Requirement::SigstoreSigned(_) => "sigstoreSigned",
            Requirement::NotationSigned(_) => "notationSigned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_policy_is_one() {
        let page = include_str!("../../POLICY.md");
        let example = page.split("```json").nth(1).unwrap().split("```").next().unwrap();
        let policy = parse(example).unwrap();
        assert!(policy.has_local_rule());
    }

    fn parse(text: &str) -> Result<Policy, String> {
        Policy::parse(text.as_bytes(), Path::new("/p/policy.json")).map_err(|e| e.to_string())
    }

    fn place(policy: &Policy, reference: &str) -> String {
        policy.of_registry(&Reference::parse(reference).unwrap()).place
    }

    #[test]
    fn the_longest_scope_decides() {
        let policy = parse(
            r#"{"default": [{"type": "reject"}], "transports": {
                "docker": {
                    "": [{"type": "reject"}],
                    "r.example": [{"type": "reject"}],
                    "r.example/team": [{"type": "insecureAcceptAnything"}],
                    "r.example/team/app:v1": [{"type": "reject"}],
                    "*.example.org": [{"type": "reject"}]
                },
                "dir": {"": [{"type": "reject"}]}
            }}"#,
        )
        .unwrap();
        for (reference, expected) in [
            ("r.example/team/app:v1", r#"docker "r.example/team/app:v1""#),
            ("r.example/team/app:v2", r#"docker "r.example/team""#),
            ("r.example/teams/app", r#"docker "r.example""#),
            ("a.b.example.org/x", r#"docker "*.example.org""#),
            ("example.org/x", r#"docker """#),
        ] {
            assert_eq!(place(&policy, reference), expected, "{reference}");
        }
        assert_eq!(policy.of_local().place, "default");
        assert_eq!(
            place(&parse(r#"{"default": [{"type": "reject"}]}"#).unwrap(), "debian"),
            "default"
        );
    }

    #[test]
    fn a_broken_policy_is_refused_with_the_line() {
        for (text, part) in [
            ("", "line 1"),
            ("{}", "missing field `default`"),
            ("{\n\"default\": []\n}", "empty: "),
            ("{\n\"default\": []\n}", "line 2"),
            (
                "{\"default\": [\n{\"type\": \"accept\"}]}",
                "unknown variant `accept`",
            ),
            ("{\"default\": [\n{\"type\": \"accept\"}]}", "line 2"),
            (
                r#"{"default": [{"type": "reject", "x": 1}]}"#,
                "unknown field `x`",
            ),
            (
                r#"{"default": [{"type": "reject"}], "deafult": []}"#,
                "unknown field `deafult`",
            ),
            (
                "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\n\"r.io\": [{\"type\": \"reject\"}],\n\"r.io\": [{\"type\": \"insecureAcceptAnything\"}]}}}",
                "\"r.io\" is there twice at line 3",
            ),
            (
                "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\n\"busybox\": [{\"type\": \"reject\"}]}}}",
                "line 2",
            ),
            (r#"{"default": [{"type": "sigstoreSigned"}]}"#, "exactly one of"),
            (
                r#"{"default": [{"type": "sigstoreSigned", "keyPath": "a", "keyPaths": ["b"]}]}"#,
                "exactly one of",
            ),
            (
                r#"{"default": [{"type": "sigstoreSigned", "keyPaths": []}]}"#,
                "empty",
            ),
            (
                r#"{"default": [{"type": "notationSigned", "trustStores": ["ca:a"], "trustedIdentities": []}]}"#,
                "trustedIdentities",
            ),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with("trust policy /p/policy.json: "), "{error}");
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_policy_that_has_to_be_there_and_is_not_accepts_nothing() {
        let missing = PathBuf::from("/nonexistent/policy.json");
        assert!(Policy::read(&PolicyFile::At(missing.clone())).is_err());
        let policy = Policy::read(&PolicyFile::IfThere(missing)).unwrap();
        assert_eq!(place(&policy, "debian"), "no policy");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_missing_policy() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| PolicyFile::IfThere(folder.path().join(name));
        let link =
            |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        link("gone.json", "policy.json");
        link("gone", "etc");
        std::fs::create_dir(folder.path().join("real")).unwrap();
        link("real", "good");
        for name in ["policy.json", "etc/policy.json", "etc/berth/policy.json"] {
            let error = Policy::read(&at(name)).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("it cannot be read"), "{name}: {error}");
        }
        for name in [
            "policy.yaml",
            "real/policy.json",
            "good/policy.json",
            "none/policy.json",
        ] {
            assert!(!Policy::read(&at(name)).unwrap().is_there(), "{name}");
        }
    }
}
