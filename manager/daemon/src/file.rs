//! The configuration's file, `manager.toml`: one key for each option of the command line, named like it, and some that
//! have none. Read to its end before any of it counts: what is not known or not right is told with its line.

mod values;

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use engine::Layers;
use nix::fcntl::OFlag;
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use values::{Folders, LogOptions, Pool, Size, Ulimits};

/// No file of anybody's comes near it.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What can stand in the file. A key that is not there is None.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct File {
    pub(crate) root: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) socket_group: Option<String>,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) tlscacert: Option<PathBuf>,
    pub(crate) tlscert: Option<PathBuf>,
    pub(crate) tlskey: Option<PathBuf>,
    pub(crate) shim: Option<PathBuf>,
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) init_path: Option<PathBuf>,
    pub(crate) trust_policy: Option<PathBuf>,
    pub(crate) bridge_name: Option<String>,
    pub(crate) bridge_subnet: Option<String>,
    pub(crate) registry_config: Option<Folders>,
    pub(crate) plugin_folders: Option<Folders>,
    pub(crate) plugin_timeout: Option<u64>,
    pub(crate) cni_conf_dir: Option<PathBuf>,
    pub(crate) cni_bin_dir: Option<Folders>,
    #[serde(deserialize_with = "values::parsed")]
    pub(crate) layers: Option<Layers>,
    pub(crate) userns_remap: Option<String>,
    pub(crate) log_driver: Option<String>,
    pub(crate) log_opts: LogOptions,
    pub(crate) journal_socket: Option<PathBuf>,
    pub(crate) log_level: Option<String>,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) otlp_protocol: Option<String>,
    pub(crate) default_shm_size: Option<Size>,
    pub(crate) default_ulimits: Ulimits,
    pub(crate) default_address_pools: Vec<Pool>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_opts: Vec<String>,
}

impl File {
    /// What stands in the file at `path`; None: it is not there, and nobody has named it.
    pub(crate) fn read(path: &Path, is_named: bool) -> anyhow::Result<Option<File>> {
        // A pipe would be waited for, until somebody writes to it.
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = match options.open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(None),
            opened => opened.with_context(|| format!("--config {}: open the file", path.display()))?,
        };
        let reading = || format!("read the configuration {}", path.display());
        if !file.metadata().with_context(reading)?.is_file() {
            bail!("--config {}: it is not a regular file", path.display());
        }
        let mut text = String::new();
        let mut bounded = file.take(FILE_MAX_BYTES + 1);
        bounded.read_to_string(&mut text).with_context(reading)?;
        if text.len() as u64 > FILE_MAX_BYTES {
            bail!("{}: it is longer than {FILE_MAX_BYTES} bytes", path.display());
        }
        File::parse(&text, path).map(Some)
    }

    fn parse(text: &str, path: &Path) -> anyhow::Result<File> {
        let told = |line, rest: String| anyhow!("{}:{line}: {rest}", path.display());
        let deserializer = toml::Deserializer::parse(text)
            .map_err(|error| told(line_at(text, error.span()), error.message().to_owned()))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            let error = error.into_inner();
            let mut rest = String::new();
            if key != "." {
                let _ = write!(rest, "{key}: ");
            }
            rest += &error
                .message()
                .replace("unknown field", "unknown key")
                .replace("expected one of", "allowed are");
            told(line_at(text, error.span()), rest)
        })
    }
}

/// Where in the file at `path` the value of `key` is, for what is wrong with it beside its form; None: not there.
pub(crate) fn place_of(path: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let table = DeTable::parse(&text).ok()?;
    let span = table
        .get_ref()
        .keys()
        .find(|found| found.get_ref() == key)
        .map(Spanned::span)?;
    Some(format!(
        "{}:{}: {key}",
        path.display(),
        line_at(&text, Some(span))
    ))
}

/// The number of the line, from 1.
fn line_at(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    // A span begins at a character, as the parser goes by them.
    let start = text.floor_char_boundary(span.map_or(0, |span| span.start));
    1 + text[..start].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) -> String {
        File::parse(text, Path::new("m.toml")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_its_key_and_what_is_allowed() {
        let unknown = refused("root = \"/r\"\nlog-drvier = \"local\"\n");
        assert!(unknown.starts_with("m.toml:2: "), "{unknown}");
        assert!(
            unknown.contains("unknown key `log-drvier`, allowed are `root`, "),
            "{unknown}"
        );
        for (text, parts) in [
            ("\nroot = 5", ["m.toml:2: root: ", "integer", "string"]),
            ("layers = \"zfs\"", ["m.toml:1: layers: ", "folders", "auto"]),
            ("tcp = \"here\"", ["m.toml:1: tcp: ", "socket address", ""]),
            (
                "dns = [\n\"10.0.0.1\",\n\"here\"]",
                ["m.toml:3: dns[1]: ", "IP address", ""],
            ),
            (
                "default-shm-size = \"much\"",
                ["m.toml:1: default-shm-size: ", "64m", ""],
            ),
            (
                "[log-opts]\nmax-size = []",
                ["m.toml:2: log-opts.max-size: ", "a string", ""],
            ),
            (
                "[default-ulimits]\nnofile = \"a:b\"",
                ["m.toml:2: default-ulimits.nofile: ", "soft", ""],
            ),
            (
                "[default-ulimits]\nnofile = {soft = 1, hrad = 2}",
                ["m.toml:2: ", "unknown key `hrad`", "hard"],
            ),
            (
                "[[default-address-pools]]\nbase = \"10.0.0.1/8\"\nsize = 24",
                ["m.toml:2: ", "base", "10.0.0.0/8"],
            ),
            (
                "[[default-address-pools]]\nbase = \"10.0.0.0/8\"",
                ["m.toml:1: ", "size", ""],
            ),
            ("a b", ["m.toml:1: ", "", ""]),
            ("root = \"/a\"\nroot = \"/b\"", ["m.toml:2: ", "duplicate", ""]),
        ] {
            let error = refused(text);
            assert!(error.starts_with(parts[0]), "{text:?}: {error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{text:?}: {error}");
        }
    }

    #[test]
    fn values_have_the_forms_of_dockers_and_of_tomls() {
        let text = r#"
            registry-config = ["/a", "/b"]
            default-shm-size = "1g"
            dns = ["10.0.0.1", "fd00::1"]
            log-opts = { max-size = "10m", max-file = 3, compress = false }
            default-ulimits = { nofile = "1024:2048", core = 0, nproc = { soft = 5, hard = -1 } }
            [[default-address-pools]]
            base = "10.0.0.0/8"
            size = 24
        "#;
        let file = File::parse(text, Path::new("m.toml")).unwrap();
        assert_eq!(file.registry_config.unwrap().0, "/a:/b");
        assert_eq!(file.default_shm_size.unwrap().0, 1 << 30);
        let options: Vec<_> = file.log_opts.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(options, ["max-size=10m", "max-file=3", "compress=false"]);
        let ulimits: Vec<_> = file
            .default_ulimits
            .0
            .iter()
            .map(|limit| (limit.name.as_str(), limit.soft, limit.hard))
            .collect();
        assert_eq!(
            ulimits,
            [("nofile", 1024, 2048), ("core", 0, 0), ("nproc", 5, -1)]
        );
        assert_eq!(file.default_address_pools.len(), 1);
    }

    #[test]
    fn the_example_has_all_keys_and_is_right() {
        let example = include_str!("../manager.toml");
        let is_key = |line: &str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        let lines = example.lines().filter_map(|line| line.strip_prefix("# "));
        let said = lines.filter(|line| is_key(line)).collect::<Vec<_>>().join("\n");
        let file = File::parse(&said, Path::new("manager.toml")).unwrap();
        assert!(file.otlp_protocol.is_some() && !file.default_address_pools.is_empty());
        let (_, allowed) = refused("x = 1")
            .split_once("allowed are ")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        for key in allowed.split(", ").map(|key| key.trim_matches('`')) {
            assert!(said.contains(&format!("{key} = ")), "{key} is not in the example");
        }
    }
}
