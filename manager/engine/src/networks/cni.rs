//! The driver cni: what the host's administrator has written for plugins of the Container Network Interface, which give
//! containers their links and addresses.
//!
//! What plugins are asked for is on record before they are, and until they have undone it, with the configuration as it was:
//! so DEL can be called whatever has become of the manager, the container, the network and the configuration's file. The
//! container's namespace is held by a mount from before ADD until after DEL, as plugins find in it what they are to undo.

mod held;
mod pin;
mod ways;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cni::{Attachment, CAPABILITY_IPS, CAPABILITY_MAC, CAPABILITY_PORT_MAPPINGS, List, Runner};
use serde_json::{Map, Value, json};

use super::{Joined, NetworkRequest, UserNetwork};
use crate::config::Config;
use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::request::Network;
use crate::run::network_namespace;
use crate::store::AttachmentRow;
use crate::{Error, PublishedPort, name_servers};

pub(super) use held::Held;
use ways::{yield_way_out, yielded};

pub(super) const CNI: &str = "cni";
/// The option with a name in the folder of configurations, or a path.
const CONF: &str = "conf";
/// So long the manager's start waits for plugins.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a plugin made of a container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// With the lengths of their prefixes, and their gateways.
    pub addresses: Vec<cni::Ip>,
    /// Of the link inside.
    pub mac: Option<[u8; 6]>,
    /// Inside.
    pub routes: Vec<cni::Route>,
    /// For the resolver.
    pub dns: cni::Dns,
}

impl Told {
    fn of(answer: cni::Answer, inside: &str) -> Told {
        Told {
            addresses: answer.of_container(inside),
            mac: answer.mac(inside),
            routes: answer.routes,
            dns: answer.dns,
        }
    }

    /// Whether what has no better route leaves by it, by IPv4.
    pub(crate) fn leads_out(&self) -> bool {
        self.default_route(true).is_some()
    }

    fn default_route(&self, is_ipv4: bool) -> Option<&cni::Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| route.prefix == 0 && route.destination.is_ipv4() == is_ipv4)
    }

    /// Its first address of IPv6.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|ip| match ip.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }

    /// Its first address of IPv4.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|ip| match ip.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }
}

impl Engine {
    /// What plugins have made of a running container's place on a network of the driver cni.
    pub fn told(&self, container: &str, network: &str) -> Option<Arc<Told>> {
        self.0.networks.cni.told(container, network)
    }
}

/// Whether a network of this driver has this option with this value; `None` if it is none of its options.
pub(super) fn check_option(driver: &str, option: &str, value: &str) -> Option<Result<(), Error>> {
    (driver == CNI && option == CONF).then(|| {
        if value.contains('/') && !value.starts_with('/') {
            let rule = format!("conf={value}: must be the name of a network, or a path from the root");
            return Err(Error::invalid("options", rule));
        }
        Ok(())
    })
}

/// The options of the driver, for who names one that it does not have.
pub(super) fn options(driver: &str) -> Option<&'static str> {
    (driver == CNI).then_some(CONF)
}

/// What stands for the address of a container's place while its plugins have not given it one: of 0.0.0.0/8, which nobody
/// has, and different for each place.
pub(super) fn placeholder(taken: &BTreeSet<u32>) -> Ipv4Addr {
    let free = (1..1 << 24).find(|number| !taken.contains(number));
    Ipv4Addr::from_bits(free.unwrap_or_default())
}

pub(super) fn plan(request: NetworkRequest, id: String, created_unix_nanos: i64) -> UserNetwork {
    UserNetwork {
        id,
        name: request.name,
        driver: CNI.to_owned(),
        subnet: None,
        gateway: None,
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        internal: false,
        labels: request.labels,
        options: request.options,
        created_unix_nanos,
        v6: None,
    }
}

/// What is the plugins' to decide can't be asked of the network.
pub(super) fn check_request(request: &NetworkRequest) -> Result<(), Error> {
    let has_addresses = !request.subnets.is_empty()
        || !request.gateway.is_empty()
        || !request.ip_range.is_empty()
        || !request.aux_addresses.is_empty()
        || !request.gateway6.is_empty()
        || !request.ip_range6.is_empty()
        || request.ipv6;
    if has_addresses || request.internal {
        let what = if request.internal { "internal" } else { "subnet" };
        let rule = "of a network of the driver cni the configuration of its plugins says this";
        return Err(Error::invalid(what, rule));
    }
    Ok(())
}

/// The configuration, as it is now.
pub(super) fn list(config: &Config, network: &UserNetwork) -> Result<List, Error> {
    let conf = network.options.get(CONF).filter(|conf| !conf.is_empty());
    let conf = conf.unwrap_or(&network.name);
    Ok(if conf.starts_with('/') {
        List::read(Path::new(conf))?
    } else {
        List::find(&config.cni.conf_dir, conf)?
    })
}

/// Can containers come to it?
pub(super) fn check(config: &Config, network: &UserNetwork) -> Result<(), Error> {
    Ok(runner(config).find_all(&list(config, network)?)?)
}

fn runner(config: &Config) -> Runner<'_> {
    Runner {
        folders: &config.cni.bin_dirs,
        timeout: config.plugins.timeout,
    }
}

/// Does a plugin publish ports for containers on this network?
pub(crate) fn publishes(engine: &Inner, network: &UserNetwork) -> bool {
    network.driver == CNI
        && list(&engine.config, network).is_ok_and(|list| list.declares(CAPABILITY_PORT_MAPPINGS))
}

/// Have plugins attach a container, of which nothing is left from before.
pub(super) async fn attach(
    engine: &Arc<Inner>,
    container: &Container,
    (network, joined): (&Arc<UserNetwork>, &Joined),
    pid: u32,
) -> Result<(), Error> {
    let id = &container.id;
    if engine.networks.cni.has(id, &network.id) {
        undo_now(engine, id, Some(&network.id)).await?;
    }
    let reached = engine.networks.reached(id, container.on_bridge());
    let leads_out = reached.is_some_and(|reached| reached.network == network.id);
    let (of, network_of, joined_of, owned) = (
        Arc::clone(engine),
        Arc::clone(network),
        joined.clone(),
        id.clone(),
    );
    let attachment = blocking(move || {
        let ports = if leads_out {
            of.ports.of(&owned)
        } else {
            Vec::new()
        };
        let list = list(&of.config, &network_of)?;
        // Else nobody could undo what the others had done.
        runner(&of.config).find_all(&list)?;
        let attachment = attachment(&list, &owned, &joined_of, &ports);
        pin::make(&of.config, &owned, &network_namespace(&owned, pid)?)?;
        Ok(attachment)
    })
    .await?;
    failpoint::reach("cni.pinned");
    let mut row = AttachmentRow {
        container: id.clone(),
        network: network.id.clone(),
        attachment,
    };
    engine.networks.cni.begin(id, &network.id);
    engine.store.put_attachment(row.clone()).await?;
    failpoint::reach("cni.recorded");
    let mut added = add(engine, &row, joined).await;
    failpoint::reach("cni.added");
    // Before the answer is on record: after a kill in between it is all undone.
    if let Ok((_, told)) = &added
        && let Err(error) = yield_way_out(engine, container, joined, pid, told.clone()).await
    {
        added = Err(error);
    }
    let recorded = match added {
        Ok((result, told)) => {
            row.attachment.result = Some(result);
            engine.networks.set_addresses(id, &network.id, Some(&told));
            engine.networks.cni.tell(id, &network.id, told);
            engine.store.put_attachment(row).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = recorded {
        // The first error is the one to tell.
        report(id, undo_now(engine, id, Some(&network.id)).await);
        return Err(error);
    }
    failpoint::reach("cni.attached");
    Ok(())
}

async fn add(engine: &Arc<Inner>, row: &AttachmentRow, joined: &Joined) -> Result<(Value, Told), Error> {
    let (of, row, wanted) = (Arc::clone(engine), row.clone(), joined.wanted.clone());
    blocking(move || {
        let netns = pin::path(&of.config, &row.container);
        let (result, answer) = runner(&of.config).add(&row.attachment, &netns)?;
        let told = Told::of(answer, &row.attachment.inside);
        let has = |address: &Ipv4Addr| told.addresses.iter().any(|ip| ip.address == IpAddr::V4(*address));
        if let Some(address) = wanted.address.filter(|address| !has(address)) {
            let rule = format!("{address}: the plugins of the network gave it another address");
            return Err(Error::invalid("ip", rule));
        }
        if let (Some(mac), Some(other)) = (wanted.mac, told.mac)
            && mac != other
        {
            return Err(Error::invalid(
                "mac-address",
                "the plugins of the network gave it another one",
            ));
        }
        Ok((result, told))
    })
    .await
}

/// What plugins are told: by a capability where one declares it, else by the arguments that go to all.
fn attachment(list: &List, id: &str, joined: &Joined, ports: &[PublishedPort]) -> Attachment {
    let mut runtime = Map::new();
    // Arguments that a plugin does not know are no error then.
    let mut arguments = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
    if let Some(address) = joined.wanted.address {
        if list.declares(CAPABILITY_IPS) {
            runtime.insert(CAPABILITY_IPS.to_owned(), json!([address.to_string()]));
        } else {
            arguments.push(("IP".to_owned(), address.to_string()));
        }
    }
    if let Some(mac) = joined.wanted.mac {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        if list.declares(CAPABILITY_MAC) {
            runtime.insert(CAPABILITY_MAC.to_owned(), json!(mac));
        } else {
            arguments.push(("MAC".to_owned(), mac));
        }
    }
    let mapping = |port: &PublishedPort| {
        let mut mapping = json!({
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.to_string(),
        });
        if !port.host_address.is_unspecified() {
            mapping["hostIP"] = json!(port.host_address.to_string());
        }
        mapping
    };
    if !ports.is_empty() {
        let mappings = ports.iter().map(mapping).collect();
        runtime.insert(CAPABILITY_PORT_MAPPINGS.to_owned(), Value::Array(mappings));
    }
    Attachment {
        list: list.to_json().clone(),
        container_id: id.to_owned(),
        inside: joined.inside(),
        runtime,
        arguments,
        result: None,
        undoing: false,
    }
}

/// Have plugins undo what they have made for a run that is over.
pub(crate) async fn release(engine: &Arc<Inner>, id: &str) {
    if engine.networks.cni.has_any(id) {
        report(id, undo(engine, id, None).await);
    }
}

/// Have plugins undo what they have made for a container, on one network or all. What one of them cannot undo stays on
/// record, and is tried again before the next start of the container and at that of the manager.
pub(super) async fn undo(engine: &Arc<Inner>, id: &str, network: Option<&str>) -> Result<(), Error> {
    let _turn = engine.networks.cni.turn(id).await;
    undo_now(engine, id, network).await
}

/// The same for who has the container's turn.
async fn undo_now(engine: &Arc<Inner>, id: &str, network: Option<&str>) -> Result<(), Error> {
    let mut rows = engine.store.attachments(Some(id)).await?;
    rows.retain(|row| network.is_none_or(|network| row.network == network));
    let mut result = Ok(());
    for mut row in rows {
        // After a kill in between nobody takes it for whole.
        if !row.attachment.undoing {
            row.attachment.undoing = true;
            engine.store.put_attachment(row.clone()).await?;
        }
        let (of, attachment) = (Arc::clone(engine), row.attachment);
        let undone = blocking(move || {
            let netns = pin::of(&of.config, &attachment.container_id);
            Ok(runner(&of.config).del(&attachment, netns.as_deref())?)
        });
        match undone.await {
            Ok(()) => {
                failpoint::reach("cni.deleted");
                engine.store.delete_attachment(id, &row.network).await?;
                engine.networks.cni.end(id, &row.network);
                engine.networks.set_addresses(id, &row.network, None);
            }
            Err(error) => {
                // What they told holds no longer: the next start attaches anew, when this is undone.
                engine.networks.cni.begin(id, &row.network);
                engine.networks.set_addresses(id, &row.network, None);
                result = Err(error);
            }
        }
    }
    // One that was begun and is not on record was not begun.
    if result.is_ok() {
        match network {
            Some(network) => engine.networks.cni.end(id, network),
            None => engine.networks.cni.forget(id),
        }
    }
    if !engine.networks.cni.has_any(id) {
        let (of, id) = (Arc::clone(engine), id.to_owned());
        blocking(move || pin::remove(&of.config, &id)).await?;
    }
    result
}

/// At the manager's start, before anything else: what is on record.
pub(crate) async fn load(engine: &Arc<Inner>) -> Result<(), Error> {
    for row in engine.store.attachments(None).await? {
        let AttachmentRow {
            container,
            network,
            attachment,
        } = row;
        engine.networks.cni.begin(&container, &network);
        let answer = attachment.standing().map(cni::Answer::read);
        if let Some(Ok(answer)) = answer {
            let told = Told::of(answer, &attachment.inside);
            engine.networks.set_addresses(&container, &network, Some(&told));
            engine.networks.cni.tell(&container, &network, told);
        }
    }
    Ok(())
}

/// At the manager's start: undo what is of no run, complete what was begun, and look whether the rest is as it was left.
/// Plugins may take their time; the manager does not wait for them longer than a moment.
pub(crate) async fn reconcile(engine: &Arc<Inner>, running: BTreeSet<String>) {
    let of = Arc::clone(engine);
    let mut mending = tokio::spawn(async move {
        if let Err(error) = mend(&of, &running).await {
            tracing::error!(%error, "networks of CNI plugins may not be as they should be");
        }
    });
    if tokio::time::timeout(PATIENCE, &mut mending).await.is_err() {
        tracing::warn!("CNI plugins are slow: the manager goes on, and they are seen to beside it");
    }
}

async fn mend(engine: &Arc<Inner>, running: &BTreeSet<String>) -> Result<(), Error> {
    for row in engine.store.attachments(None).await? {
        let (id, network) = (&row.container, &row.network);
        let _turn = engine.networks.cni.turn(id).await;
        // Somebody may have done it meanwhile, and more.
        let now = engine.store.attachments(Some(id)).await?;
        if !now
            .iter()
            .any(|now| now.network == *network && now.attachment == row.attachment)
        {
            continue;
        }
        let joined = engine
            .networks
            .of(id)
            .into_iter()
            .find(|joined| joined.network == *network);
        if joined.is_none() || !running.contains(id) || row.attachment.standing().is_none() {
            tracing::info!(id, network, "CNI plugins undo what is of no run");
            report(id, undo_now(engine, id, Some(network)).await);
            continue;
        }
        // Plugins would miss the routes that another network has in their place.
        let told = engine.networks.cni.told(id, network);
        let yields = joined.zip(told).is_some_and(|(joined, told)| {
            let container = engine.containers.find(id);
            let on_bridge = container
                .ok()
                .and_then(|handle| handle.snapshot().container.on_bridge());
            !yielded(engine, id, on_bridge, &joined, &told).is_empty()
        });
        if yields {
            continue;
        }
        let (of, owned) = (Arc::clone(engine), row.clone());
        let checked = blocking(move || {
            let netns = pin::path(&of.config, &owned.container);
            Ok(runner(&of.config).check(&owned.attachment, &netns)?)
        });
        if let Err(error) = checked.await {
            tracing::warn!(id, network, %error, "its network is not as CNI plugins have left it: restart the container");
        }
    }
    for id in running {
        let Ok(handle) = engine.containers.find(id) else {
            continue;
        };
        let container = handle.snapshot().container;
        let before = engine.networks.cni.all_of(id).len();
        if let Err(error) = attach_missing(engine, &container, container.pid).await {
            tracing::error!(id, %error, "it is not on a network that it should be on");
        }
        // Its files were written without what these have told.
        if engine.networks.cni.all_of(id).len() != before
            && let Err(error) = name_servers::follow(engine, &container).await
        {
            tracing::warn!(id, %error, "its files may not tell of all its networks");
        }
    }
    let of = Arc::clone(engine);
    blocking(move || {
        pin::remove_orphans(&of.config, |id| of.networks.cni.has_any(id));
        Ok(())
    })
    .await
}

/// Have plugins attach a container to those of its networks on which it is not yet.
pub(super) async fn attach_missing(
    engine: &Arc<Inner>,
    container: &Container,
    pid: u32,
) -> Result<(), Error> {
    let is_on_any = |joined: &Joined| {
        let network = engine.networks.get(&joined.network);
        network.is_some_and(|network| network.driver == CNI)
    };
    if !engine.networks.of(&container.id).iter().any(is_on_any) {
        return Ok(());
    }
    let _turn = engine.networks.cni.turn(&container.id).await;
    for joined in engine.networks.of(&container.id) {
        let network = engine.networks.get(&joined.network);
        let Some(network) = network.filter(|network| network.driver == CNI) else {
            continue;
        };
        if engine.networks.cni.told(&container.id, &network.id).is_none() {
            attach(engine, container, (&network, &joined), pid).await?;
        }
    }
    Ok(())
}

/// It is about to be taken off a network, and runs on. What plugins do not undo it stays on.
pub(super) async fn leave(engine: &Arc<Inner>, id: &str, network: &str) -> Result<(), Error> {
    if engine.networks.cni.has(id, network) {
        undo(engine, id, Some(network)).await?;
    }
    Ok(())
}

/// Have plugins made anything for it?
pub(super) fn has_any(engine: &Inner, id: &str) -> bool {
    engine.networks.cni.has_any(id)
}

/// A run is about to get its links: what plugins could not undo of one before has to be gone, else they would look for it in
/// the namespace of this one.
pub(super) async fn forget_former(engine: &Arc<Inner>, id: &str) -> Result<(), Error> {
    if engine.networks.cni.has_any(id) {
        undo(engine, id, None).await?;
    }
    Ok(())
}

/// The container as its files in /etc and its name server are to see it: with the servers of plugins where it has none of
/// its own. Borrowed, if no plugin has said anything.
pub(crate) fn informed<'a>(engine: &Inner, container: &'a Container) -> Cow<'a, Container> {
    let is_alone = matches!(container.request.network, Network::Bridge | Network::User);
    let told = engine.networks.cni.all_of(&container.id);
    if told.is_empty() || !is_alone {
        return Cow::Borrowed(container);
    }
    let mut informed = container.clone();
    let names = &mut Arc::make_mut(&mut informed.request).names;
    for told in told {
        if names.servers.is_empty() {
            names.servers = told.dns.servers.iter().map(IpAddr::to_string).collect();
        }
        if names.search.is_empty() {
            names.search.clone_from(&told.dns.search);
        }
        if names.options.is_empty() {
            names.options.clone_from(&told.dns.options);
        }
    }
    Cow::Owned(informed)
}

fn report(id: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(id, %error, "left behind, until the next start of the container or of the manager");
    }
}

/// Where the manager finds configurations and plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// With `.conflist`, `.conf` and `.json`.
    pub conf_dir: PathBuf,
    /// With programs; the first that has one counts.
    pub bin_dirs: Vec<PathBuf>,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
        }
    }
}
