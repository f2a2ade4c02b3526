//! The owner of one container: a task through which every change of its state goes, one after the other. It
//! takes commands, watches the running process, and publishes each new state, on which others wait.

mod health;
mod lend;
mod pause;
mod policy;
mod restart;
mod update;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::{Instrument as _, Span};

pub(crate) use lend::{Loan, Pace};

use crate::commit::Turn;
use crate::container::{Container, Exit, State};
use crate::engine::{Inner, blocking};
use crate::health::Health;
use crate::logs::LogFolder;
use crate::networks::{self, Joining, default_bridge};
use crate::request::UpdateRequest;
use crate::restart::{BackOff, Next};
use crate::run::By;
use crate::shim::{self, Shim};
use crate::signals::{KILL_TIMEOUT, SIGKILL, outlives_sigkill};
use crate::{Error, run, teardown, volumes};

/// An end that could not be put on record is tried again after this long: the disk is full, mostly.
const RECORD_RETRY: Duration = Duration::from_secs(2);
/// Commands wait here while one is carried out; more senders wait outside.
const COMMANDS_MAX: usize = 16;

/// A container at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) container: Arc<Container>,
    /// The shim, while the container runs.
    pub(crate) shim: Option<Shim>,
    /// Its last end is known, and not on record yet.
    pub(crate) is_unrecorded: bool,
    /// It has been removed; nothing follows.
    pub(crate) gone: bool,
}

impl Snapshot {
    /// Has the run with this number ended, for good? What removes itself has ended when it is removed.
    pub(crate) fn has_ended(&self, run: u64) -> bool {
        let past = self.container.runs > run || (self.container.runs == run && !self.container.is_running());
        self.gone || (past && self.container.state != State::Removing)
    }
}

/// How others reach a container.
pub(crate) struct Handle {
    pub(crate) id: String,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Snapshot>,
    pub(crate) logs: Arc<LogFolder>,
    pub(crate) held: Arc<Held>,
}

/// The number of the last run whose end somebody wants for good: no policy starts the container after it. Set before
/// the signal goes out, so that the owner finds it at the end however busy it is meanwhile.
#[derive(Default)]
pub(crate) struct Held(AtomicU64);

impl Held {
    pub(crate) fn set(&self, run: u64) {
        self.0.fetch_max(run, Ordering::SeqCst);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

type Reply = oneshot::Sender<Result<(), Error>>;

/// Small, as each container's owner has room for 32 of them: what is large is boxed.
enum Command {
    /// The span is that of who asks.
    Start(Span, Reply),
    /// By its policy, now that the manager is there.
    ComeBack(Reply),
    /// It is to stay down, should it be between two runs.
    Hold(Reply),
    Restart {
        signal: Option<u32>,
        grace: Duration,
        reply: Reply,
    },
    Pause {
        turn: Turn,
        reply: Reply,
    },
    Unpause {
        /// None: whoever reads the container meanwhile has to put up with it.
        turn: Option<Turn>,
        /// Only during the run of this number.
        run: Option<u64>,
        reply: Reply,
    },
    /// Stand still, if it does not run, until the loan is given back.
    Lend {
        pace: Pace,
        reply: oneshot::Sender<Option<Loan>>,
    },
    Update {
        changes: Box<UpdateRequest>,
        reply: Reply,
    },
    Rename {
        name: String,
        reply: Reply,
    },
    Remove {
        force: bool,
        volumes: bool,
        reply: Reply,
    },
    Connect {
        wanted: Box<Joining>,
        reply: Reply,
    },
    Disconnect {
        network: String,
        reply: Reply,
    },
}

impl Handle {
    /// Start the owner of a container that is on record as it is.
    pub(crate) fn new(engine: &Arc<Inner>, container: Container) -> Arc<Handle> {
        Handle::resume(engine, container, None, None)
    }

    /// Start the owner of a container that was there before this manager. `shim` is that of a running one;
    /// `unrecorded` is an end that the database has yet to learn of.
    pub(crate) fn resume(
        engine: &Arc<Inner>,
        container: Container,
        shim: Option<Shim>,
        unrecorded: Option<(Exit, Next)>,
    ) -> Arc<Handle> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let folder = engine.config.container(&container.id);
        if container.request.logging.packs() {
            engine.log_packer.watch(&folder);
        }
        let logs = Arc::new(LogFolder::new(folder));
        let held = Arc::new(Held::default());
        if shim.is_some() && container.stopped_by_hand {
            // By a `kill` whose end has not come yet.
            held.set(container.runs);
        }
        let container = Arc::new(container);
        let (publish, state) = watch::channel(Snapshot {
            container: Arc::clone(&container),
            shim: shim.clone(),
            is_unrecorded: unrecorded.is_some(),
            gone: false,
        });
        let handle = Handle {
            id: container.id.clone(),
            commands,
            state,
            logs: Arc::clone(&logs),
            held: Arc::clone(&held),
        };
        let mut owner = Owner {
            engine: Arc::clone(engine),
            container,
            shim: None,
            end: never(),
            unrecorded,
            stays: false,
            held,
            back_off: BackOff::default(),
            due: None,
            probes: None,
            reports: mpsc::channel(1),
            gone: false,
            publish,
            logs,
        };
        if let Some(shim) = shim {
            owner.watch(shim);
        }
        tokio::spawn(owner.run(inbox));
        Arc::new(handle)
    }

    /// The container as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state.borrow().clone()
    }

    /// Whether this is its name now.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.state.borrow().container.name == name
    }

    /// Changes from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Snapshot> {
        self.state.clone()
    }

    /// Start it. Nothing happens if it is running.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        let span = Span::current();
        self.command(|reply| Command::Start(span, reply)).await
    }

    /// Start it by its policy, if that is to be.
    pub(crate) async fn come_back(&self) -> Result<(), Error> {
        self.command(Command::ComeBack).await
    }

    /// Keep it down, should it be between two runs.
    pub(crate) async fn hold(&self) -> Result<(), Error> {
        self.command(Command::Hold).await
    }

    /// End it, by `signal` or the one it was made with, and start it. One that is not running is only started.
    pub(crate) async fn restart(&self, signal: Option<u32>, grace: Duration) -> Result<(), Error> {
        self.command(|reply| Command::Restart { signal, grace, reply })
            .await
    }

    /// Stop all its processes where they are. The turn is over when that is done, even if nobody waits for it any more.
    pub(crate) async fn pause(&self, turn: Turn) -> Result<(), Error> {
        self.command(|reply| Command::Pause { turn, reply }).await
    }

    /// Let them run on.
    pub(crate) async fn unpause(&self, turn: Turn) -> Result<(), Error> {
        let (turn, run) = (Some(turn), None);
        self.command(|reply| Command::Unpause { turn, run, reply }).await
    }

    /// Let the processes of the run of this number run on, now: it is to end.
    pub(crate) async fn run_on(&self, run: u64) -> Result<(), Error> {
        let (turn, run) = (None, Some(run));
        self.command(|reply| Command::Unpause { turn, run, reply }).await
    }

    /// Change what it is asked to be.
    pub(crate) async fn update(&self, changes: UpdateRequest) -> Result<(), Error> {
        let changes = Box::new(changes);
        self.command(|reply| Command::Update { changes, reply }).await
    }

    /// Give it another name.
    pub(crate) async fn rename(&self, name: String) -> Result<(), Error> {
        self.command(|reply| Command::Rename { name, reply }).await
    }

    /// Put it on one more network.
    pub(crate) async fn connect(&self, wanted: Joining) -> Result<(), Error> {
        let wanted = Box::new(wanted);
        self.command(|reply| Command::Connect { wanted, reply }).await
    }

    /// Take it off the network with this id.
    pub(crate) async fn disconnect(&self, network: String) -> Result<(), Error> {
        self.command(|reply| Command::Disconnect { network, reply }).await
    }

    /// Remove it, with its anonymous volumes if `volumes` says so; one that is running only if `force` does.
    pub(crate) async fn remove(&self, force: bool, volumes: bool) -> Result<(), Error> {
        self.command(|reply| Command::Remove {
            force,
            volumes,
            reply,
        })
        .await
    }

    async fn command(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), Error> {
        self.ask(command).await?
    }

    /// Send a command, and wait for its answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::NoSuchContainer(self.snapshot().container.name.clone());
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// What probes of the run with this number have told so far.
type Report = (u64, Arc<Health>);

/// The end of the running process, as the shim tells it.
type End = Pin<Box<dyn Future<Output = Result<Exit, Error>> + Send>>;

fn never() -> End {
    Box::pin(std::future::pending())
}

struct Owner {
    engine: Arc<Inner>,
    container: Arc<Container>,
    shim: Option<Shim>,
    end: End,
    /// How the last run ended and what follows, while only its bundle has the exit on disk.
    unrecorded: Option<(Exit, Next)>,
    /// Even if it was to remove itself at its end: this end is that of a restart.
    stays: bool,
    held: Arc<Held>,
    back_off: BackOff,
    /// When its policy starts it.
    due: Option<Instant>,
    /// Ends the probes of the run.
    probes: Option<DropGuard>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// It has been removed; nothing follows.
    gone: bool,
    publish: watch::Sender<Snapshot>,
    logs: Arc<LogFolder>,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while !self.gone {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => {
                        let mut next = Some(command);
                        while let Some(command) = next {
                            next = self.carry_out(command, &mut inbox).await;
                        }
                    }
                    None => return,
                },
                told = &mut self.end => self.ended(told).await,
                Some((run, health)) = self.reports.1.recv() => self.probed(run, health),
                () = policy::until(self.due) => self.start_by_policy().await,
                () = tokio::time::sleep(RECORD_RETRY), if self.unrecorded.is_some() => {
                    // It is tried again if that did not work.
                    let _ = self.record_end().await;
                }
            }
        }
    }

    /// Gives what is to be carried out next, if that came meanwhile.
    async fn carry_out(&mut self, command: Command, inbox: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let (result, reply) = match command {
            Command::Lend { pace, reply } => return self.lend(&pace, reply, inbox).await,
            Command::Start(span, reply) => (self.start().instrument(span).await, reply),
            Command::ComeBack(reply) => {
                self.come_back();
                (Ok(()), reply)
            }
            Command::Hold(reply) => (self.hold().await, reply),
            Command::Restart { signal, grace, reply } => (self.restart(signal, grace).await, reply),
            Command::Pause { turn, reply } => {
                let paused = self.pause().await;
                drop(turn);
                (paused, reply)
            }
            Command::Unpause { turn, run, reply } => {
                let is_meant = run.is_none_or(|run| run == self.container.runs);
                let unpaused = if is_meant { self.unpause().await } else { Ok(()) };
                drop(turn);
                (unpaused, reply)
            }
            Command::Update { changes, reply } => (self.update(&changes).await, reply),
            Command::Rename { name, reply } => (self.rename(name).await, reply),
            Command::Connect { wanted, reply } => (self.connect(*wanted).await, reply),
            Command::Disconnect { network, reply } => (self.disconnect(&network).await, reply),
            Command::Remove {
                force,
                volumes,
                reply,
            } => (self.remove(force, volumes).await, reply),
        };
        // Who asked may have gone; what is done is done.
        let _ = reply.send(result);
        None
    }

    /// As with docker: what was to go at its end does not stay when it cannot even begin.
    async fn begin_or_forget(&mut self) -> Result<(), Error> {
        let started = self.begin(By::Hand).await;
        if started.is_err() && !self.gone && self.container.request.auto_remove {
            let _ = self.forget(true).await;
        }
        started
    }

    async fn start(&mut self) -> Result<(), Error> {
        match self.container.state {
            // As with docker: one that comes back by itself needs no help.
            State::Running | State::Restarting => return Ok(()),
            State::Paused => return Err(self.wrong_state("start", "it is paused; unpause it")),
            _ => {}
        }
        self.begin_or_forget().await
    }

    /// Begin a run.
    async fn begin(&mut self, by: By) -> Result<(), Error> {
        // Before its bundle makes place for the next run's.
        self.record_end().await?;
        if self.gone {
            return Err(Error::NoSuchContainer(self.container.name.clone()));
        }
        match run::start(&self.engine, &self.container, by).await {
            Ok(started) => {
                let container = Arc::make_mut(&mut self.container);
                container.state = State::Running;
                container.pid = started.pid;
                container.runs += 1;
                container.started_unix_nanos = started.at_unix_nanos;
                container.ports = started.ports;
                container.error.clear();
                container.stopped_by_hand = false;
                container.health = None;
                if by == By::Hand {
                    container.restarts = 0;
                    self.back_off = BackOff::default();
                }
                self.due = None;
                self.watch(started.shim);
                self.publish();
                self.tell("start", &[]);
                Ok(())
            }
            Err(error) => {
                Arc::make_mut(&mut self.container).error = error.to_string();
                if let Err(error) = self
                    .engine
                    .store
                    .start_failed(&self.container.id, &error.to_string())
                    .await
                {
                    tracing::warn!(id = self.container.id, %error, "a failed start is not on record");
                }
                self.publish();
                Err(error)
            }
        }
    }

    async fn rename(&mut self, name: String) -> Result<(), Error> {
        if name == self.container.name {
            return Err(Error::invalid("name", format!("{name:?} is its name already")));
        }
        self.engine.store.rename(&self.container.id, &name).await?;
        failpoint::reach("rename.recorded");
        let old = std::mem::replace(&mut Arc::make_mut(&mut self.container).name, name);
        self.publish();
        self.tell("rename", &[("oldName", old)]);
        Ok(())
    }

    async fn connect(&mut self, wanted: Joining) -> Result<(), Error> {
        if !default_bridge::is_meant(&wanted.network) {
            return networks::connect(&self.engine, &self.container, wanted).await;
        }
        self.container = default_bridge::connect(&self.engine, &self.container, &wanted).await?;
        self.publish();
        default_bridge::follow(&self.engine, &self.container, "connect").await;
        Ok(())
    }

    async fn disconnect(&mut self, network: &str) -> Result<(), Error> {
        if !default_bridge::is_meant(network) {
            return networks::disconnect(&self.engine, &self.container, network).await;
        }
        self.container = default_bridge::disconnect(&self.engine, &self.container).await?;
        self.publish();
        default_bridge::follow(&self.engine, &self.container, "disconnect").await;
        Ok(())
    }

    /// Wait for the end of the process that `shim` watches.
    fn watch(&mut self, shim: Shim) {
        let watched = shim.clone();
        self.end = Box::pin(async move { watched.wait("").await });
        self.shim = Some(shim);
        self.probe();
    }

    /// Put an end on record that could not be before.
    async fn record_end(&mut self) -> Result<(), Error> {
        let Some((exit, next)) = self.unrecorded else {
            return Ok(());
        };
        let container = &self.container;
        teardown::record(&self.engine, container, exit, &container.error, next).await?;
        self.unrecorded = None;
        tracing::info!(id = self.container.id, "the exit is on record now");
        teardown::discard(&self.engine, &self.container.id).await;
        if next == Next::Removal {
            self.vanish().await;
        } else {
            self.publish();
        }
        Ok(())
    }

    /// The process has ended, or the shim is lost.
    async fn ended(&mut self, told: Result<Exit, Error>) {
        self.end = never();
        self.probes = None;
        let (exit, next, error, recorded) = match (told, self.shim.take()) {
            (Ok(told), Some(shim)) => {
                failpoint::reach("exit.told");
                let exit = shim::with_record(&self.engine.config, &self.container.id, told);
                let next = self.next(exit);
                let recorded = teardown::settle(&self.engine, &self.container, &shim, exit, next).await;
                (exit, next, String::new(), recorded)
            }
            (told, _) => {
                let why = told.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(id = self.container.id, why, "lost the shim; ending the container");
                let exit = teardown::end(&self.engine, &self.container.id).await;
                let error = format!("the shim was lost: {why}");
                let next = self.next(exit);
                let recorded = teardown::record(&self.engine, &self.container, exit, &error, next).await;
                (exit, next, error, recorded)
            }
        };
        failpoint::reach("exit.recorded");
        let container = Arc::make_mut(&mut self.container);
        container.pid = 0;
        container.ports.clear();
        container.exit = Some(exit);
        container.error = error;
        self.arrange(exit, next);
        match recorded {
            Ok(()) => teardown::remove_bundle(&self.engine, &self.container.id).await,
            // The bundle is left: in it is the exit, for a later attempt or the next start of the manager.
            Err(error) => {
                tracing::error!(id = self.container.id, %error, "an exit is not on record");
                self.unrecorded = Some((exit, next));
                self.publish();
                self.tell_end(exit);
                return;
            }
        }
        self.tell_end(exit);
        if next == Next::Removal {
            self.vanish().await;
        } else {
            self.publish();
        }
    }

    async fn remove(&mut self, force: bool, volumes: bool) -> Result<(), Error> {
        if self.container.is_running() {
            if !force {
                let why = match self.container.state {
                    State::Paused => "it is paused; unpause and stop it first, or force the removal",
                    _ => "it is running; stop it first, or force the removal",
                };
                return Err(self.wrong_state("remove", why));
            }
            self.kill("remove").await?;
        }
        if self.gone {
            return Ok(());
        }
        if self.container.state == State::Restarting && !force {
            let why = "it is restarting; stop it first, or force the removal";
            return Err(self.wrong_state("remove", why));
        }
        self.forget(volumes).await
    }

    /// Kill the main process and see it out.
    async fn kill(&mut self, action: &'static str) -> Result<(), Error> {
        if let Some(shim) = &self.shim {
            shim.kill("", SIGKILL).await?;
        }
        if self.see_out(KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(outlives_sigkill(action, &self.container, KILL_TIMEOUT))
    }

    /// Wait for the end of the run, and for all that follows from it. Whether it came.
    async fn see_out(&mut self, patience: Duration) -> bool {
        match tokio::time::timeout(patience, &mut self.end).await {
            Ok(told) => {
                self.ended(told).await;
                true
            }
            Err(_) => false,
        }
    }

    /// Delete the record; what else there is of the container has no owner then, and goes.
    async fn forget(&mut self, volumes: bool) -> Result<(), Error> {
        let before = self.container.state;
        Arc::make_mut(&mut self.container).state = State::Removing;
        self.publish();
        let mut deleted = self.engine.store.delete(&self.container.id, volumes).await;
        if let Err(Error::DiskFull { .. }) = deleted {
            // It was not to stay, so what it has may go before its record and make room for that.
            self.remove_files().await;
            let engine = Arc::clone(&self.engine);
            blocking(move || {
                engine.images.settle_removals();
                Ok(())
            })
            .await?;
            deleted = self.engine.store.delete(&self.container.id, volumes).await;
        }
        if let Err(error) = deleted {
            Arc::make_mut(&mut self.container).state = before;
            self.publish();
            return Err(error);
        }
        failpoint::reach("remove.recorded");
        if self.engine.config.bundle(&self.container.id).exists() {
            teardown::discard(&self.engine, &self.container.id).await;
        }
        self.vanish().await;
        Ok(())
    }

    /// The record is deleted: remove the log and the writable layer, and tell everybody.
    async fn vanish(&mut self) {
        self.gone = true;
        self.remove_files().await;
        if self.container.has_volumes() {
            volumes::finish_removals(&self.engine, &self.container).await;
        }
        self.engine.containers.remove(&self.container.id);
        self.engine.networks.forget(&self.container.id);
        self.publish.send_replace(Snapshot {
            container: Arc::clone(&self.container),
            shim: None,
            is_unrecorded: false,
            gone: true,
        });
        self.tell("destroy", &[]);
    }

    /// Remove the log and the writable layer. What is not there is fine.
    async fn remove_files(&mut self) {
        let id = self.container.id.clone();
        let (engine, owned, logs) = (Arc::clone(&self.engine), id.clone(), Arc::clone(&self.logs));
        let removed = blocking(move || {
            let folder = logs.remove();
            engine.images.release(&owned)?;
            engine.store.keep_ballast();
            folder
        });
        if let Err(error) = removed.await {
            tracing::warn!(id, %error, "left behind, until the next start of the manager");
        }
    }

    fn tell_end(&self, exit: Exit) {
        if exit.oom_killed {
            self.tell("oom", &[]);
        }
        self.tell("die", &[("exit_code", exit.code.to_string())]);
    }

    fn publish(&self) {
        let _ = self.publish.send_replace(Snapshot {
            container: Arc::clone(&self.container),
            shim: self.shim.clone(),
            is_unrecorded: self.unrecorded.is_some(),
            gone: false,
        });
    }

    fn tell(&self, action: &'static str, more: &[(&str, String)]) {
        self.engine.events.tell(&self.container, action, more);
    }
}
