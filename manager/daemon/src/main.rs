//! The `manager` binary: configuration, one instance per root and per state folder, the socket, signals. It dies without taking any
//! container along, and finds them again at its next start.

mod accept;
mod file;
mod handshakes;
mod listen;
mod lock;
mod memory;
mod metrics;
mod options;
mod reload;
mod remote;
mod rootless;
mod settings;
mod sys;
mod traces;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use engine::Engine;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use reload::{Level, Reload};
use remote::Remote;
use settings::{CommandLine, Settings};
use traces::Traces;

/// Threads for waiting; what waits for the kernel has its own.
const WORKER_THREADS: usize = 2;
/// Threads for kernel work. Each is there only while it is needed, and shortly after. Who waits for a peer has a thread
/// of its own (archives of clients), or is one of few (downloads): the others are for work that ends by itself.
const BLOCKING_THREADS_MAX: usize = 64;
const BLOCKING_THREAD_KEEP_ALIVE: std::time::Duration = std::time::Duration::from_millis(500);
/// A manager before this one, that is ending, gets this long to be gone.
const PREDECESSOR: std::time::Duration = std::time::Duration::from_secs(5);
/// At a stop, what clients wait for is told off at once; what is being done may end within this.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

fn main() -> ExitCode {
    sys::forget_empty_variables("OTEL_");
    let done = match rootless::helper() {
        Some(helped) => helped,
        None => run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manager: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let command_line = CommandLine::read();
    let settings = command_line.settings()?;
    let filter = settings.log_filter()?;
    if settings.options.check_config {
        settings.engine()?;
        settings.print_checked();
        return Ok(());
    }
    rootless::enter(&settings.options)?;
    sys::few_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE)
        .on_thread_unpark(memory::work_begins)
        .enable_all()
        .build()
        .context("start the runtime of tasks")?;
    let traces = {
        let _within = runtime.enter();
        settings.traces()
    };
    let (filter, level) = tracing_subscriber::reload::Layer::new(filter);
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(to_stderr)
        .with(traces.as_ref().ok().and_then(Option::as_ref).map(Traces::layer))
        .init();
    // What has been checked was right. The rest is of the environment, which may be meant for another program.
    if let Err(error) = &traces {
        tracing::warn!(error = format!("{error:#}"), "traces are not sent");
    }
    many_descriptors();
    let served = runtime.block_on(serve(command_line, settings, level));
    if let Ok(Some(traces)) = traces {
        runtime.block_on(traces.end());
    }
    // Work that outlasts the grace, as of a commit of many files, ends with the process: it leaves what a kill leaves.
    runtime.shutdown_background();
    served
}

async fn serve(command_line: CommandLine, settings: Settings, level: Level) -> anyhow::Result<()> {
    // From now on, as it would end this process else.
    let hangups = signal(SignalKind::hangup()).context("watch SIGHUP")?;
    let config = settings.engine()?;
    let options = &settings.options;
    make_folder(&options.root, 0o711)?;
    make_folder(&options.state, 0o711)?;
    // All else is nobody else's; what others are to reach gets its mode explicitly.
    umask(Mode::from_bits_truncate(0o077));
    // Before anything is put right there: what has no record in this root may be another manager's.
    let locks = (
        lock::take(&options.root, "manager.lock", PREDECESSOR)?,
        lock::take(&options.state, "state.lock", PREDECESSOR)?,
    );
    let socket = options.socket();
    let asked = listen::Asked {
        socket: options.asked_socket(),
        group: options.socket_group.as_deref(),
    };
    let group = asked.group.map(listen::group).transpose()?;
    let handed_over = listen::handed_over(&asked)?;
    let mut remote = options.remote.listen().await?;
    let metrics = match options.metrics_address {
        Some(address) => Some(metrics::listen(address).await?),
        None => None,
    };
    let engine = Engine::open(config).await.context("open the engine")?;
    let listen::Listener {
        socket: listener,
        made,
    } = listen::Listener::open(handed_over, &socket, group)?;
    engine.bring_back();
    let setup = api::Setup::default();
    let metrics = metrics.map(|listener| {
        let metrics = api::Metrics::new();
        tokio::spawn(metrics::serve(listener, metrics.clone(), engine.clone()));
        metrics
    });
    let reload = Reload {
        command_line,
        level,
        engine: engine.clone(),
        certificates: remote.as_mut().map(|remote| remote.certificates.clone()),
        setup: setup.clone(),
        settings: settings.clone(),
    };
    reload.tell(&settings);
    tokio::spawn(reload.at_each(hangups));
    tokio::spawn(memory::give_back_when_idle());
    rootless::keep_name_server();
    if let engine::Groups::Nowhere(why) = rootless::groups() {
        tracing::warn!(
            why,
            "no cgroups: containers have no limits, and can not be paused"
        );
    }
    tracing::info!(socket = %socket.display(), root = %options.root.display(), "ready");
    tell_systemd(&[NotifyState::Ready]);

    let mut stops = [
        signal(SignalKind::terminate()).context("watch SIGTERM")?,
        signal(SignalKind::interrupt()).context("watch SIGINT")?,
    ];
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let stopping = api::Stopping::new(stopped.clone());
    let at_signal = async {
        let [terminate, interrupt] = &mut stops;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; containers run on");
        tell_systemd(&[NotifyState::Stopping]);
        stop.send_replace(true);
    };
    let local = api::grpc(Server::builder(), &engine, &stopping, &setup, metrics.as_ref())
        .await
        .serve_with_incoming_shutdown(accept::unix(listener), at_signal);
    let mut stopped_too = stopped.clone();
    let far = async {
        let Some(Remote { server, incoming, .. }) = remote else {
            return Ok(());
        };
        let at_stop = async { drop(stopped_too.wait_for(|stops| *stops).await) };
        let router = api::grpc(server, &engine, &stopping, &setup, metrics.as_ref()).await;
        router.serve_with_incoming_shutdown(incoming, at_stop).await
    };
    let served = async { tokio::try_join!(local, far) };
    tokio::select! {
        served = served => drop(served.context("serve the API")?),
        () = async {
            let _ = stopped.wait_for(|stops| *stops).await;
            tokio::time::sleep(GRACE).await;
        } => {}
    }
    // A commit that has not ended within the grace ends with us: its container must not stay paused.
    engine.end_pauses().await;
    listen::remove(made.as_deref());
    // Given up by the process's end, with which the last thread stops to write.
    std::mem::forget(locks);
    Ok(())
}

/// Nothing happens where systemd has not started this process as a service of Type=notify.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told how far this service is");
    }
}

fn make_folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("make the folder {}", path.display()))
}

/// Each running container, each log that is followed and each client needs one.
fn many_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}
