//! What holds, of the command line (with the environment) and of the configuration's file: what the command line says
//! counts, what it leaves out is the file's, and what that leaves out is as `--help` has it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use engine::{Defaults, Logging, Names};
use tracing_subscriber::EnvFilter;

use crate::file::{self, File};
use crate::options::Options;
use crate::traces::{self, Traces, Wire};

/// Where the file is, if nobody says otherwise; it need not be there.
fn default_file() -> PathBuf {
    let users = crate::rootless::configuration().map(|folder| folder.join("berth/manager.toml"));
    users.unwrap_or_else(|| PathBuf::from("/etc/berth/manager.toml"))
}

/// What was typed, to be joined with what the file says at each time that it is read.
pub(crate) struct CommandLine(ArgMatches);

/// What holds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    /// For requests that leave them out.
    pub(crate) defaults: Defaults,
    /// Where the file is; None: there is none.
    pub(crate) file: Option<PathBuf>,
    /// What the file says in vain: a sentence each.
    pub(crate) overridden: Vec<String>,
    /// Spans go there; None: nowhere.
    pub(crate) collector: Option<(String, Wire)>,
    /// Options that were typed, or are in the environment.
    given: BTreeSet<String>,
}

impl CommandLine {
    /// Ends the process where clap does: at an error, `--help` and `--version`.
    pub(crate) fn read() -> CommandLine {
        CommandLine(Options::command().get_matches())
    }

    /// With the file as it is now. All that can be checked is.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let options = Options::from_arg_matches(&self.0).map_err(|error| anyhow!(error))?;
        let (path, is_named) = match &options.config {
            Some(path) => (path.clone(), true),
            None => (default_file(), false),
        };
        let file = File::read(&path, is_named)?;
        let path = file.is_some().then_some(path);
        let mut join = Join {
            matches: &self.0,
            overridden: Vec::new(),
        };
        let (options, mut defaults) = join.all(options, file.unwrap_or_default());
        let given = join.given();
        let collector = join.collector(&options, path.as_deref())?;
        let overridden = join.overridden;
        defaults.logging = Logging {
            driver: options.log_driver.clone(),
            options: options.log_opt.iter().cloned().collect(),
        };
        let settings = Settings {
            options,
            defaults,
            file: path,
            overridden,
            collector,
            given,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        let (defaults, remote) = (&self.defaults, &self.options.remote);
        defaults.logging.check().with_context(|| {
            if defaults.logging.options.is_empty() {
                return self.place("log-driver");
            }
            let in_file = self
                .file
                .as_deref()
                .and_then(|path| file::place_of(path, "log-opts"));
            in_file.unwrap_or_else(|| "--log-driver and --log-opt".to_owned())
        })?;
        defaults.check().map_err(|error| {
            let key = match &error {
                engine::Error::Invalid { field, .. } => key_of(field),
                _ => None,
            };
            let place = key.map(|key| self.place(key));
            let place = place.or_else(|| self.file.as_ref().map(|path| path.display().to_string()));
            anyhow!("{}: {error}", place.unwrap_or_default())
        })?;
        remote.check().with_context(|| {
            let keys = ["tcp", "tlscacert", "tlscert", "tlskey"];
            let path = self.file.as_deref();
            let in_file = keys.iter().find_map(|key| file::place_of(path?, key));
            in_file.unwrap_or_else(|| "the command line".to_owned())
        })
    }

    /// Where the value of a key comes from, for what is wrong with it.
    fn place(&self, key: &str) -> String {
        let is_given = self.given.contains(&key.replace('-', "_"));
        place(key, is_given, self.file.as_deref())
    }

    /// How the engine is set up.
    pub(crate) fn engine(&self) -> anyhow::Result<engine::Config> {
        self.options.engine(self.defaults.clone(), |key| self.place(key))
    }

    /// Traces, if somebody collects them; to be called within a runtime.
    pub(crate) fn traces(&self) -> anyhow::Result<Option<Traces>> {
        let collector = self.collector.as_ref();
        collector
            .map(|(endpoint, wire)| Traces::begin(endpoint, *wire))
            .transpose()
    }

    /// What is logged.
    pub(crate) fn log_filter(&self) -> anyhow::Result<EnvFilter> {
        let level = &self.options.log_level;
        EnvFilter::try_new(level).with_context(|| format!("{} {level:?}", self.place("log-level")))
    }

    /// For `--check-config`.
    pub(crate) fn print_checked(&self) {
        match &self.file {
            Some(file) => println!("{}: the configuration is valid", file.display()),
            None => println!(
                "there is no {}, and the options are valid",
                default_file().display()
            ),
        }
        for sentence in &self.overridden {
            println!("{sentence}");
        }
    }
}

/// The joining of both.
struct Join<'a> {
    matches: &'a ArgMatches,
    overridden: Vec<String>,
}

impl Join<'_> {
    fn all(&mut self, mut options: Options, file: File) -> (Options, Defaults) {
        let is_of_files_driver = !self.is_given("log_driver")
            || file
                .log_driver
                .as_ref()
                .is_none_or(|driver| *driver == options.log_driver);
        self.one("root", file.root, &mut options.root);
        self.one("state", file.state, &mut options.state);
        self.maybe("socket", file.socket, &mut options.socket);
        self.maybe("socket_group", file.socket_group, &mut options.socket_group);
        self.maybe("tcp", file.tcp, &mut options.remote.tcp);
        self.maybe("tlscacert", file.tlscacert, &mut options.remote.tlscacert);
        self.maybe("tlscert", file.tlscert, &mut options.remote.tlscert);
        self.maybe("tlskey", file.tlskey, &mut options.remote.tlskey);
        self.maybe("shim", file.shim, &mut options.shim);
        self.maybe("runtime", file.runtime, &mut options.runtime);
        self.maybe("init_path", file.init_path, &mut options.init_path);
        self.maybe("trust_policy", file.trust_policy, &mut options.trust_policy);
        self.one("bridge_name", file.bridge_name, &mut options.bridge_name);
        self.one("bridge_subnet", file.bridge_subnet, &mut options.bridge_subnet);
        let folders = file.registry_config.map(|folders| folders.0);
        self.one("registry_config", folders, &mut options.registry_config);
        let folders = file.plugin_folders.map(|folders| folders.0);
        self.one("plugin_folders", folders, &mut options.plugin_folders);
        self.one("plugin_timeout", file.plugin_timeout, &mut options.plugin_timeout);
        self.one("cni_conf_dir", file.cni_conf_dir, &mut options.cni_conf_dir);
        let folders = file.cni_bin_dir.map(|folders| folders.0);
        self.one("cni_bin_dir", folders, &mut options.cni_bin_dir);
        self.one("layers", file.layers, &mut options.layers);
        self.maybe("userns_remap", file.userns_remap, &mut options.userns_remap);
        self.one("log_driver", file.log_driver, &mut options.log_driver);
        // Those of another driver mean nothing to the one that holds.
        if is_of_files_driver {
            self.log_options(file.log_opts.0, &mut options.log_opt);
        } else if !file.log_opts.0.is_empty() {
            self.overridden.push(format!(
                "log-opts: they are for the log-driver of the file, and {:?} of the {} holds",
                options.log_driver,
                self.side("log_driver")
            ));
        }
        self.one("journal_socket", file.journal_socket, &mut options.journal_socket);
        self.one("log_level", file.log_level, &mut options.log_level);
        self.maybe(
            "metrics_address",
            file.metrics_address,
            &mut options.metrics_address,
        );
        self.endpoint(file.otlp_endpoint, &mut options.otlp_endpoint);
        self.one("otlp_protocol", file.otlp_protocol, &mut options.otlp_protocol);
        let defaults = Defaults {
            logging: Logging::default(),
            shm_bytes: file.default_shm_size.map_or(0, |size| size.0),
            ulimits: file.default_ulimits.0,
            names: Names {
                servers: file.dns.iter().map(ToString::to_string).collect(),
                search: file.dns_search,
                options: file.dns_opts,
                hosts: Vec::new(),
            },
            address_pools: file.default_address_pools.iter().map(Into::into).collect(),
        };
        (options, defaults)
    }

    /// It may have a password in it.
    fn endpoint(&mut self, of_file: Option<String>, option: &mut Option<String>) {
        let Some(of_file) = of_file else { return };
        match option {
            Some(given) if *given == of_file => {}
            Some(given) => {
                let (given, of_file) = (traces::shown(given), traces::shown(&of_file));
                let sentence = sentence("otlp-endpoint", self.side("otlp_endpoint"), &given, &of_file);
                self.overridden.push(sentence);
            }
            None => *option = Some(of_file),
        }
    }

    /// Option by option: each of them may be on either side.
    fn log_options(&mut self, of_file: Vec<(String, String)>, options: &mut Vec<(String, String)>) {
        for (name, value) in of_file {
            match options.iter().find(|(given, _)| *given == name) {
                Some((_, given)) if *given == value => {}
                Some((_, given)) => {
                    let sentence = sentence(&format!("log-opts.{name}"), "command line", given, &value);
                    self.overridden.push(sentence);
                }
                None => options.push((name, value)),
            }
        }
    }

    fn one<T: PartialEq + Debug>(&mut self, id: &str, of_file: Option<T>, option: &mut T) {
        let Some(value) = of_file else { return };
        if !self.is_given(id) {
            *option = value;
        } else if *option != value {
            let key = id.replace('_', "-");
            let sentence = sentence(&key, self.side(id), option, &value);
            self.overridden.push(sentence);
        }
    }

    /// Where spans go, and how. As the specification of OpenTelemetry has it, what is not known in the environment, which
    /// is every program's, is told and does not count.
    fn collector(
        &mut self,
        options: &Options,
        file: Option<&Path>,
    ) -> anyhow::Result<Option<(String, Wire)>> {
        let wire = options.otlp_protocol.parse::<Wire>();
        let wire = wire.map_err(|rule| anyhow!("{:?}: {rule}", options.otlp_protocol));
        let wire = self
            .of_anybody("otlp_protocol", wire, file)?
            .unwrap_or(Wire::Grpc);
        let Some(endpoint) = options.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let checked = traces::check(endpoint);
        let endpoint = self
            .of_anybody("otlp_endpoint", checked, file)?
            .map(|()| endpoint);
        Ok(endpoint.map(|endpoint| (endpoint.to_owned(), wire)))
    }

    fn of_anybody<T>(
        &mut self,
        id: &str,
        read: anyhow::Result<T>,
        file: Option<&Path>,
    ) -> anyhow::Result<Option<T>> {
        let key = id.replace('_', "-");
        match read {
            Err(error) if self.matches.value_source(id) == Some(ValueSource::EnvVariable) => {
                self.overridden
                    .push(format!("{key}: that of the environment does not count: {error}"));
                Ok(None)
            }
            read => read
                .map(Some)
                .with_context(|| place(&key, self.is_given(id), file)),
        }
    }

    /// Who says so above the file.
    fn side(&self, id: &str) -> &'static str {
        match self.matches.value_source(id) {
            Some(ValueSource::EnvVariable) => "environment",
            _ => "command line",
        }
    }

    fn given(&self) -> BTreeSet<String> {
        let ids = self.matches.ids().map(clap::Id::as_str);
        ids.filter(|id| self.is_given(id)).map(str::to_owned).collect()
    }

    fn maybe<T: PartialEq + Debug + Clone>(&mut self, id: &str, of_file: Option<T>, option: &mut Option<T>) {
        match option {
            Some(given) => self.one(id, of_file, given),
            None => *option = of_file,
        }
    }

    /// Whether it was typed, or is in the environment.
    fn is_given(&self, id: &str) -> bool {
        let source = self.matches.value_source(id);
        source.is_some_and(|source| source != ValueSource::DefaultValue)
    }
}

/// Where the value of a key comes from: the file, if nobody has given it above that.
fn place(key: &str, is_given: bool, file: Option<&Path>) -> String {
    let in_file = file
        .filter(|_| !is_given)
        .and_then(|path| file::place_of(path, key));
    in_file.unwrap_or_else(|| format!("--{key}"))
}

/// The key of the file by which a request's field gets its default.
fn key_of(field: &str) -> Option<&'static str> {
    Some(match field {
        "dns" => "dns",
        "dns_search" => "dns-search",
        "dns_options" => "dns-opts",
        "ulimits" => "default-ulimits",
        "default_shm_size" => "default-shm-size",
        "default_address_pools" => "default-address-pools",
        _ => return None,
    })
}

fn sentence(key: &str, side: &str, given: &impl Debug, of_file: &impl Debug) -> String {
    format!("{key}: {given:?} of the {side} holds, and not {of_file:?} of the file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(file: &str, arguments: &[&str]) -> anyhow::Result<Settings> {
        joined_in(tempfile::tempdir().unwrap().path(), file, arguments)
    }

    fn joined_in(folder: &Path, file: &str, arguments: &[&str]) -> anyhow::Result<Settings> {
        let path = folder.join("manager.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let all = ["manager", "--config", path]
            .into_iter()
            .chain(arguments.iter().copied());
        CommandLine(Options::command().try_get_matches_from(all).unwrap()).settings()
    }

    #[test]
    fn the_command_line_beats_the_file_and_what_differs_is_told() {
        let file = "root = '/file'\nstate = '/file'\nsocket-group = '7'\n[log-opts]\nmax-size = '1m'\nmax-file = 3\n";
        let arguments = [
            "--root",
            "/typed",
            "--log-opt",
            "max-size=2m",
            "--socket-group",
            "7",
        ];
        let settings = joined(file, &arguments).unwrap();
        let options = &settings.options;
        assert_eq!(options.root.to_str(), Some("/typed"));
        assert_eq!(options.state.to_str(), Some("/file"));
        let logging = &settings.defaults.logging;
        assert_eq!(logging.options["max-size"], "2m");
        assert_eq!(logging.options["max-file"], "3");
        assert_eq!(
            settings.overridden,
            [
                "root: \"/typed\" of the command line holds, and not \"/file\" of the file",
                "log-opts.max-size: \"2m\" of the command line holds, and not \"1m\" of the file",
            ]
        );
    }

    #[test]
    fn endpoints_are_told_without_passwords() {
        let settings = joined(
            "otlp-endpoint = 'http://me:secret@x'\n",
            &[
                "--otlp-endpoint",
                "http://me:other@y",
                "--otlp-protocol",
                "http/protobuf",
            ],
        );
        let settings = settings.unwrap();
        let expected =
            "otlp-endpoint: \"http://***@y\" of the command line holds, and not \"http://***@x\" of the file";
        assert_eq!(settings.overridden, [expected]);
        assert_eq!(
            settings.collector,
            Some(("http://me:other@y".to_owned(), Wire::Http))
        );
    }

    #[test]
    fn options_of_the_files_driver_are_not_another_drivers() {
        let file = "log-driver = 'json-file'\n[log-opts]\nmax-size = '1m'\n";
        let settings = joined(file, &["--log-driver", "journald"]).unwrap();
        assert_eq!(settings.defaults.logging.driver, "journald");
        assert!(settings.defaults.logging.options.is_empty());
        assert!(
            settings.overridden[1].starts_with("log-opts: "),
            "{:?}",
            settings.overridden
        );
        assert_eq!(
            joined(file, &[]).unwrap().defaults.logging.options["max-size"],
            "1m"
        );
    }

    #[test]
    fn what_is_wrong_beside_its_form_is_told_with_its_line_too() {
        let error = joined("\nlog-driver = 'splunk'\n", &[]).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("manager.toml:2: log-driver: "), "{error}");
        let error = joined("tcp = '127.0.0.1:1'\n", &[]).unwrap_err().to_string();
        assert!(error.contains("manager.toml:1: tcp"), "{error}");
        for (file, place) in [
            ("\ndns-search = ['a b']\n", "manager.toml:2: dns-search: "),
            (
                "\n[default-ulimits]\nflies = 1\n",
                "manager.toml:2: default-ulimits: ",
            ),
            (
                "\notlp-endpoint = 'https://me:secret@x'\n",
                "manager.toml:2: otlp-endpoint: ",
            ),
            (
                "\notlp-protocol = 'http/json'\notlp-endpoint = 'http://x'\n",
                "manager.toml:2: otlp-protocol: ",
            ),
        ] {
            let error = format!("{:#}", joined(file, &[]).unwrap_err());
            assert!(error.contains(place) && !error.contains("secret"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        for (file, place) in [
            ("\nbridge-subnet = 'x'\n", "manager.toml:2: bridge-subnet "),
            ("\nbridge-name = 'a b'\n", "manager.toml:2: bridge-name "),
            ("\nplugin-timeout = 0\n", "manager.toml:2: plugin-timeout "),
            ("\nshim = '/no/such'\n", "manager.toml:2: shim "),
        ] {
            let error = format!(
                "{:#}",
                joined_in(folder.path(), file, &[]).unwrap().engine().unwrap_err()
            );
            assert!(error.contains(place), "{error}");
        }
        let typed = joined("bridge-name = 'x'\n", &["--bridge-name", "a b"]).unwrap();
        let error = typed.engine().unwrap_err().to_string();
        assert!(error.contains("--bridge-name"), "{error}");
    }
}
