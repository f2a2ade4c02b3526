//! SIGHUP: the configuration is read again. All that can change in a running manager does, at once, or none of it if
//! something is not right; what cannot is named, and holds from the next start on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::Setup;
use engine::Engine;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::options::Options;
use crate::settings::{CommandLine, Settings};
use crate::traces;

/// Of the log.
pub(crate) type Level = reload::Handle<EnvFilter, Registry>;

/// What a reading anew needs, and changes.
pub(crate) struct Reload {
    pub(crate) command_line: CommandLine,
    pub(crate) level: Level,
    pub(crate) engine: Engine,
    /// None: there are no clients from elsewhere.
    pub(crate) certificates: Option<watch::Sender<TlsAcceptor>>,
    pub(crate) setup: Setup,
    /// Those that this process was started with.
    pub(crate) settings: Settings,
}

impl Reload {
    /// Read it at each of `hangups`. Never returns.
    pub(crate) async fn at_each(self, mut hangups: Signal) {
        let this = Arc::new(self);
        while hangups.recv().await.is_some() {
            let reading = Arc::clone(&this);
            // Files are read, which may be far away.
            let read = tokio::task::spawn_blocking(move || reading.again()).await;
            match read.map_err(anyhow::Error::from).flatten() {
                Ok(now) => this.tell(&now),
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the configuration is not right: all stays as it was"
                    );
                    this.setup.change(|setup| setup.error = format!("{error:#}"));
                }
            }
        }
    }

    /// Read all of it, and then let it hold.
    fn again(&self) -> anyhow::Result<Settings> {
        let now = self.command_line.settings()?;
        let filter = now.log_filter()?;
        // What holds from the next start on has to be right as well.
        now.engine()?;
        let certificates = match &self.certificates {
            Some(_) if now.options.remote == self.settings.options.remote => {
                Some(now.options.remote.acceptor()?)
            }
            _ => None,
        };
        self.level.reload(filter)?;
        // Checked with the settings: nothing fails between these.
        self.engine.set_defaults(now.defaults.clone())?;
        if let (Some(sender), Some(acceptor)) = (&self.certificates, certificates) {
            sender.send_replace(acceptor);
        }
        tracing::info!("the configuration is read again, and holds");
        Ok(now)
    }

    /// Say what holds, in the log and to clients.
    pub(crate) fn tell(&self, now: &Settings) {
        for sentence in &now.overridden {
            tracing::warn!("{sentence}");
        }
        let pending = differing(&self.settings.options, &now.options);
        if !pending.is_empty() {
            tracing::warn!(
                keys = pending.join(", "),
                "these have changed, and hold from the manager's next start on"
            );
        }
        let file = now.file.as_ref();
        let age = SystemTime::now().duration_since(UNIX_EPOCH);
        self.setup.change(|setup| {
            setup.file = file.map_or_else(String::new, |path| path.to_string_lossy().into_owned());
            setup.loaded_unix_nanos = age.map_or(0, |age| age.as_nanos() as i64);
            setup.overridden.clone_from(&now.overridden);
            setup.pending = pending.iter().map(|key| (*key).to_owned()).collect();
            setup.error.clear();
            let metrics = self.settings.options.metrics_address;
            let traces = self.settings.collector.as_ref();
            setup.traces_endpoint = traces.map_or_else(String::new, |(endpoint, _)| traces::shown(endpoint));
            setup.metrics_address = metrics.map_or_else(String::new, |address| address.to_string());
        });
    }
}

/// The keys of what a running manager cannot change, and that are not the same.
fn differing(before: &Options, now: &Options) -> Vec<&'static str> {
    let keys = [
        ("root", before.root != now.root),
        ("state", before.state != now.state),
        ("socket", before.socket != now.socket),
        ("socket-group", before.socket_group != now.socket_group),
        ("tcp", before.remote.tcp != now.remote.tcp),
        ("tlscacert", before.remote.tlscacert != now.remote.tlscacert),
        ("tlscert", before.remote.tlscert != now.remote.tlscert),
        ("tlskey", before.remote.tlskey != now.remote.tlskey),
        ("shim", before.shim != now.shim),
        ("runtime", before.runtime != now.runtime),
        ("init-path", before.init_path != now.init_path),
        ("trust-policy", before.trust_policy != now.trust_policy),
        ("bridge-name", before.bridge_name != now.bridge_name),
        ("bridge-subnet", before.bridge_subnet != now.bridge_subnet),
        ("registry-config", before.registry_config != now.registry_config),
        ("plugin-folders", before.plugin_folders != now.plugin_folders),
        ("plugin-timeout", before.plugin_timeout != now.plugin_timeout),
        ("cni-conf-dir", before.cni_conf_dir != now.cni_conf_dir),
        ("cni-bin-dir", before.cni_bin_dir != now.cni_bin_dir),
        ("layers", before.layers != now.layers),
        ("userns-remap", before.userns_remap != now.userns_remap),
        ("metrics-address", before.metrics_address != now.metrics_address),
        ("otlp-endpoint", before.otlp_endpoint != now.otlp_endpoint),
        ("otlp-protocol", before.otlp_protocol != now.otlp_protocol),
        ("journal-socket", before.journal_socket != now.journal_socket),
    ];
    let differ = keys.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(key, _)| key).collect()
}
