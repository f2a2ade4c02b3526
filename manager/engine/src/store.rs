//! The engine's database: which containers there are, their states, and who has which address.
//!
//! One thread owns the connection. Others send it writes and wait until they are on disk. Writes that arrive
//! while it is busy share its next transaction, so that many at once pay for one fsync; a write that fails is
//! rolled back alone, by its savepoint. What frees space is tried again without the ballast when the disk is full.
//! What the next start would do anyhow after a power cut is not waited for: it is as safe from a kill as the rest.

mod attachments;
mod ballast;
mod leaving;
mod mounts;
mod networks;
mod ports;
mod rows;
mod schema;
mod volumes;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use network::PublishedPort;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;
use crate::container::{Container, Exit};
use crate::networks::{Joined, Joining, Networks, UserNetwork};
use crate::request::CreateRequest;
use crate::restart::Next;
use crate::run::By;
use crate::volumes::Volume;

pub(crate) use attachments::Row as AttachmentRow;
pub(crate) use mounts::PluginMount;
pub(crate) use volumes::VolumeRecord;

pub(crate) use ballast::Ballast;
use leaving::{LeavingSet, StillThere};

/// As many writes share one transaction at most.
const BATCH_MAX: usize = 64;

/// Addresses that containers may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// A handle to the owner thread. The thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writes: mpsc::Sender<Box<dyn Write>>,
    ballast: Arc<Ballast>,
    root_id: Arc<str>,
    leaving: Arc<LeavingSet>,
}

impl Store {
    /// Open or make the database, bring it to the current schema, and read all containers and networks.
    pub(crate) fn open(path: &Path) -> Result<(Store, Vec<Container>, Networks), Error> {
        let ballast = Arc::new(Ballast::at(path.with_file_name("ballast")));
        let connection = match open(path) {
            // Even that needs room, for the journal.
            Err(Error::DiskFull { .. }) if ballast.throw_off() => open(path),
            other => other,
        }?;
        let mut containers = rows::load(&connection)?;
        ports::load(&connection, &mut containers)?;
        let known = Networks::new(networks::all(&connection)?, networks::joined(&connection)?);
        let root_id = schema::root_id(&connection)?.into();
        ballast.keep();
        let owned = Arc::clone(&ballast);
        let (writes, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("engine-db".to_owned())
            .stack_size(512 << 10)
            .spawn(move || own(&connection, &owned, &inbox))
            .map_err(Error::file("start the thread for", path))?;
        let store = Store {
            writes,
            ballast,
            root_id,
            leaving: Arc::default(),
        };
        Ok((store, containers, known))
    }

    /// The id of this root, made with its database: by it the root knows what is its own elsewhere.
    pub(crate) fn root_id(&self) -> &str {
        &self.root_id
    }

    /// Space was freed: set some aside again, if none is.
    pub(crate) fn keep_ballast(&self) {
        self.ballast.keep();
    }

    /// Give the space that is set aside to what will free more. Whether there was any.
    pub(crate) fn throw_off_ballast(&self) -> bool {
        self.ballast.throw_off()
    }

    /// Until what this returns is dropped, nobody gets the addresses of a container and its places on networks, though
    /// its record may go: its links are there still.
    #[must_use]
    pub(crate) fn keep_addresses(&self, container: &Container, joined: &[Joined]) -> StillThere {
        let on_networks = joined.iter().flat_map(|joined| {
            joined
                .addresses()
                .into_iter()
                .map(|of| (joined.network.clone(), of))
        });
        let on_bridge = container.address.map(|address| (String::new(), address.into()));
        StillThere::new(&self.leaving, on_bridge.into_iter().chain(on_networks))
    }

    /// Remember a new container and give it an address of `subnet`, if it wants one.
    pub(crate) async fn insert(
        &self,
        container: Container,
        subnet: Option<Subnet>,
    ) -> Result<Option<Ipv4Addr>, Error> {
        let leaving = Arc::clone(&self.leaving);
        self.write("insert a container", Room::Needed, move |connection| {
            rows::insert(connection, &container)?;
            let allocate = |subnet| rows::allocate(connection, &container.id, subnet, 0, &leaving.of("").v4);
            subnet.map(allocate).transpose()
        })
        .await
    }

    /// Put a container on the default bridge: its address there, and the slot of its link.
    pub(crate) async fn join_bridge(&self, id: &str, subnet: Subnet) -> Result<(Ipv4Addr, u32), Error> {
        let (id, leaving) = (id.to_owned(), Arc::clone(&self.leaving));
        self.write("connect a container", Room::Needed, move |connection| {
            let slot = networks::next_slot(connection, &id)?;
            let address = rows::allocate(connection, &id, subnet, slot, &leaving.of("").v4)?;
            Ok((address, slot))
        })
        .await
    }

    /// Take a container off the default bridge.
    pub(crate) async fn leave_bridge(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("disconnect a container", Room::SetAside, move |connection| {
            rows::give_up(connection, &id)
        })
        .await
    }

    /// Remember a new container that is on networks, with its places there.
    pub(crate) async fn insert_on_networks(
        &self,
        container: Container,
        places: Vec<(Arc<UserNetwork>, Joining)>,
    ) -> Result<Vec<Joined>, Error> {
        let leaving = Arc::clone(&self.leaving);
        self.write("insert a container", Room::Needed, move |connection| {
            rows::insert(connection, &container)?;
            let join = |(network, wanted): &(Arc<UserNetwork>, Joining)| {
                let leaving = leaving.of(&network.id);
                networks::join(connection, &container.id, network, wanted, leaving)
            };
            places.iter().map(join).collect()
        })
        .await
    }

    /// Remember a network.
    pub(crate) async fn insert_network(&self, network: UserNetwork) -> Result<(), Error> {
        self.write("insert a network", Room::Needed, move |connection| {
            networks::insert(connection, &network)
        })
        .await
    }

    /// Forget a network that no container is on.
    pub(crate) async fn delete_network(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("delete a network", Room::SetAside, move |connection| {
            networks::delete(connection, &id)
        })
        .await
    }

    /// Put a container on a network.
    pub(crate) async fn join_network(
        &self,
        container: &str,
        network: &Arc<UserNetwork>,
        wanted: Joining,
    ) -> Result<Joined, Error> {
        let (container, network) = (container.to_owned(), Arc::clone(network));
        let leaving = Arc::clone(&self.leaving);
        self.write("connect a container", Room::Needed, move |connection| {
            let leaving = leaving.of(&network.id);
            networks::join(connection, &container, &network, &wanted, leaving)
        })
        .await
    }

    /// CNI plugins are about to be asked to attach a container, or have answered.
    pub(crate) async fn put_attachment(&self, row: AttachmentRow) -> Result<(), Error> {
        let work = move |connection: &Connection| attachments::put(connection, &row);
        self.write("put an attachment on record", Room::Needed, work)
            .await
    }

    /// CNI plugins have undone it.
    pub(crate) async fn delete_attachment(&self, container: &str, network: &str) -> Result<(), Error> {
        let (container, network) = (container.to_owned(), network.to_owned());
        let work = move |connection: &Connection| attachments::delete(connection, &container, &network);
        self.write("forget an attachment", Room::SetAside, work).await
    }

    /// What CNI plugins have been asked for, of one container or all.
    pub(crate) async fn attachments(&self, container: Option<&str>) -> Result<Vec<AttachmentRow>, Error> {
        let container = container.map(str::to_owned);
        let work = move |connection: &Connection| attachments::of(connection, container.as_deref());
        self.write("read the attachments", Room::SetAside, work).await
    }

    /// Take a container off a network.
    pub(crate) async fn leave_network(&self, container: &str, network: &str) -> Result<(), Error> {
        let (container, network) = (container.to_owned(), network.to_owned());
        self.write("disconnect a container", Room::SetAside, move |connection| {
            networks::leave(connection, &container, &network)
        })
        .await
    }

    /// Another name, which nobody else may have.
    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.write("rename a container", Room::Needed, move |connection| {
            rows::rename(connection, &id, &name)
        })
        .await
    }

    /// What it is asked to be has changed; `pending`: a running container has yet to become that.
    pub(crate) async fn updated(
        &self,
        id: &str,
        request: &Arc<CreateRequest>,
        pending: bool,
    ) -> Result<(), Error> {
        let (id, request) = (id.to_owned(), Arc::clone(request));
        self.write("record an update", Room::Needed, move |connection| {
            rows::updated(connection, &id, &request, pending)
        })
        .await
    }

    /// A run has begun.
    pub(crate) async fn started(
        &self,
        id: &str,
        pid: u32,
        at_unix_nanos: i64,
        by: By,
        ports: Vec<PublishedPort>,
    ) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("record a start", Room::Needed, move |connection| {
            rows::started(connection, &id, pid, at_unix_nanos, by)?;
            ports::insert(connection, &id, &ports)
        })
        .await
    }

    /// A start did not work.
    pub(crate) async fn start_failed(&self, id: &str, error: &str) -> Result<(), Error> {
        let (id, error) = (id.to_owned(), error.to_owned());
        self.write("record a failed start", Room::SetAside, move |connection| {
            rows::start_failed(connection, &id, &error)
        })
        .await
    }

    /// A run has ended.
    pub(crate) async fn exited(&self, id: &str, exit: Exit, error: &str, next: Next) -> Result<(), Error> {
        let (id, error) = (id.to_owned(), error.to_owned());
        self.write("record an exit", Room::SetAside, move |connection| {
            rows::exited(connection, &id, exit, &error, next)?;
            ports::delete(connection, &id)
        })
        .await
    }

    /// A start by the policy did not work, and this follows.
    pub(crate) async fn restart_failed(&self, id: &str, next: Next) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("record a failed restart", Room::SetAside, move |connection| {
            rows::followed(connection, &id, next)
        })
        .await
    }

    /// Somebody has asked run number `run` to end, for good.
    pub(crate) async fn ended_by_hand(&self, id: &str, run: u64) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("record a kill", Room::SetAside, move |connection| {
            rows::ended_by_hand(connection, &id, run)
        })
        .await
    }

    /// One that was about to be started again was stopped by hand.
    pub(crate) async fn held(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("record a stop", Room::SetAside, move |connection| {
            rows::followed(connection, &id, Next::Rest { by_hand: true })
        })
        .await
    }

    /// Forget a container; its name and address are free again. With `volumes`, its anonymous volumes are removed, but
    /// for what is left to `volumes::finish_removals`.
    pub(crate) async fn delete(&self, id: &str, volumes: bool) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("delete a container", Room::SetAside, move |connection| {
            rows::delete(connection, &id, volumes)
        })
        .await
    }

    /// The same for one that ran and removes itself at its end, without volumes. Not on disk yet: after a power cut it
    /// may be on record as running, and the next start of the manager then finds it ended, and removes it.
    pub(crate) async fn delete_ended(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        let work = move |connection: &Connection| rows::delete(connection, &id, false);
        self.write_for("delete a container", Room::SetAside, Lasting::Kills, work)
            .await
    }

    /// Remember a volume. False: there is one of its name already.
    pub(crate) async fn insert_volume(&self, volume: Volume) -> Result<bool, Error> {
        self.write("insert a volume", Room::Needed, move |connection| {
            volumes::insert(connection, &volume)
        })
        .await
    }

    /// All volumes, by name.
    pub(crate) async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.write("read the volumes", Room::SetAside, volumes::all).await
    }

    /// Whose a volume is, and with which options. None: there is none.
    pub(crate) async fn volume_record(&self, name: &str) -> Result<Option<VolumeRecord>, Error> {
        let name = name.to_owned();
        self.write("read a volume", Room::SetAside, move |connection| {
            volumes::record(connection, &name)
        })
        .await
    }

    /// A plugin is about to be asked to mount a volume for a container.
    pub(crate) async fn mounting(&self, volume: &str, container: &str, plugin: &str) -> Result<(), Error> {
        let (volume, container, plugin) = (volume.to_owned(), container.to_owned(), plugin.to_owned());
        let work = move |connection: &Connection| mounts::insert(connection, &volume, &container, &plugin);
        // A power cut takes the mount with it.
        self.write_for("put a mount on record", Room::Needed, Lasting::Kills, work)
            .await
    }

    /// Whether it is mounted is not known from now on, or it is known that it is.
    pub(crate) async fn mount_in_doubt(
        &self,
        volume: &str,
        container: &str,
        in_doubt: bool,
    ) -> Result<(), Error> {
        let (volume, container) = (volume.to_owned(), container.to_owned());
        let work =
            move |connection: &Connection| mounts::set_in_doubt(connection, &volume, &container, in_doubt);
        self.write_for("put a mount on record", Room::SetAside, Lasting::Kills, work)
            .await
    }

    /// It is undone.
    pub(crate) async fn unmounted(&self, volume: &str, container: &str) -> Result<(), Error> {
        let (volume, container) = (volume.to_owned(), container.to_owned());
        let work = move |connection: &Connection| mounts::delete(connection, &volume, &container);
        self.write_for("forget a mount", Room::SetAside, Lasting::Kills, work)
            .await
    }

    /// All mounts of plugins that there may be.
    pub(crate) async fn plugin_mounts(&self) -> Result<Vec<PluginMount>, Error> {
        self.write("read the mounts of plugins", Room::SetAside, mounts::all)
            .await
    }

    /// That of a volume for one container.
    pub(crate) async fn plugin_mount(
        &self,
        volume: &str,
        container: &str,
    ) -> Result<Option<PluginMount>, Error> {
        let all = self.plugin_mounts().await?;
        Ok(all
            .into_iter()
            .find(|mount| mount.volume == volume && mount.container == container))
    }

    /// Begin the removal of a volume that nobody uses.
    pub(crate) async fn mark_volume(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write("remove a volume", Room::SetAside, move |connection| {
            volumes::mark(connection, &name)
        })
        .await
    }

    /// The volume stays, after all.
    pub(crate) async fn unmark_volume(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write("keep a volume", Room::SetAside, move |connection| {
            volumes::unmark(connection, &name)
        })
        .await
    }

    /// Volumes whose removal is not finished: names and drivers.
    pub(crate) async fn marked_volumes(&self) -> Result<Vec<(String, String)>, Error> {
        self.write("read the volumes", Room::SetAside, volumes::marked)
            .await
    }

    /// The removal of a volume is finished.
    pub(crate) async fn forget_volume(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write("forget a volume", Room::SetAside, move |connection| {
            volumes::forget(connection, &name)
        })
        .await
    }

    /// Run `work` in a transaction on the owner thread; returns after its commit, which is on disk.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        room: Room,
        work: impl Fn(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_for(what, room, Lasting::PowerCuts, work).await
    }

    async fn write_for<T: Send + 'static>(
        &self,
        what: &'static str,
        room: Room,
        lasting: Lasting,
        work: impl Fn(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let write = Pending {
            what,
            room,
            lasting,
            work,
            result: None,
            reply,
        };
        self.writes
            .send(Box::new(write))
            .map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

/// Whether a write may have the space that is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It takes space for long: what is free has to do.
    Needed,
    /// It is on the way to freeing some.
    SetAside,
}

/// What a write outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// The end of this process: it is with the kernel. It is on disk with the next write that waits for that.
    Kills,
    /// The end of the machine too.
    PowerCuts,
}

fn open(path: &Path) -> Result<Connection, Error> {
    let mut connection = Connection::open(path).map_err(Error::database("open the file"))?;
    schema::prepare(&mut connection)?;
    Ok(connection)
}

/// A write on its way through the owner thread.
trait Write: Send {
    /// Do it, inside the transaction. Whether it may stay.
    fn run(&mut self, connection: &Connection) -> bool;
    fn lasting(&self) -> Lasting;
    /// Whether it was refused, or its transaction was, for want of room, and may have what is set aside.
    fn may_have_ballast(&self, transaction: Result<(), &rusqlite::Error>) -> bool;
    /// Tell the sender what became of it.
    fn finish(self: Box<Self>, transaction: Result<(), &rusqlite::Error>);
}

struct Pending<T, F> {
    what: &'static str,
    room: Room,
    lasting: Lasting,
    work: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: Fn(&Connection) -> Result<T, Error> + Send> Write for Pending<T, F> {
    fn run(&mut self, connection: &Connection) -> bool {
        self.result = Some((self.work)(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn lasting(&self) -> Lasting {
        self.lasting
    }

    fn may_have_ballast(&self, transaction: Result<(), &rusqlite::Error>) -> bool {
        let refused = matches!(self.result, Some(Err(Error::DiskFull { .. })));
        self.room == Room::SetAside && (refused || transaction.is_err_and(image::database_is_full))
    }

    fn finish(self: Box<Self>, transaction: Result<(), &rusqlite::Error>) {
        let answer = match (transaction, self.result) {
            // Its own error says more than that of the transaction around it.
            (_, Some(Err(error))) => Err(error),
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(Error::of_database(self.what, error)),
            (Ok(()), None) => Err(Error::ShuttingDown),
        };
        // The sender may have stopped waiting; what is written is written.
        let _ = self.reply.send(answer);
    }
}

fn own(connection: &Connection, ballast: &Ballast, inbox: &mpsc::Receiver<Box<dyn Write>>) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH_MAX - 1));
        let mut outcome = transact(connection, &mut batch);
        let starved = batch
            .iter()
            .any(|write| write.may_have_ballast(outcome.as_ref().copied()));
        if starved && ballast.throw_off() {
            outcome = transact(connection, &mut batch);
        } else if outcome.is_ok() {
            ballast.keep();
        }
        for write in batch {
            write.finish(outcome.as_ref().copied());
        }
    }
}

fn transact(connection: &Connection, batch: &mut [Box<dyn Write>]) -> Result<(), rusqlite::Error> {
    let outcome = commit(connection, batch);
    if let Err(error) = &outcome {
        tracing::error!(%error, writes = batch.len(), "transaction failed");
    }
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    if outcome.is_err() {
        // It cannot be set while a transaction is open, and what failed may have been one that waits for nothing.
        let _ = connection.execute_batch("PRAGMA synchronous = FULL");
    }
    outcome
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Write>]) -> Result<(), rusqlite::Error> {
    if batch.iter().any(|write| write.lasting() == Lasting::PowerCuts) {
        return commit_in_journal(connection, batch);
    }
    image::without_waiting_for_the_disk(connection, || commit_in_journal(connection, batch))
}

fn commit_in_journal(connection: &Connection, batch: &mut [Box<dyn Write>]) -> Result<(), rusqlite::Error> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let before = connection.total_changes();
    for write in batch {
        connection.execute_batch("SAVEPOINT one")?;
        if !write.run(connection) {
            connection.execute_batch("ROLLBACK TO one")?;
        }
        connection.execute_batch("RELEASE one")?;
    }
    if connection.total_changes() == before {
        // It was only read: nothing is to become durable.
        return connection.execute_batch("COMMIT");
    }
    failpoint::reach("store.before-commit");
    connection.execute_batch("COMMIT")?;
    failpoint::reach("store.after-commit");
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
