//! Networks: who reaches whom.

use clap::{Args, Subcommand};

/// On which networks a new container is, and as whom.
#[derive(Debug, Args)]
pub(crate) struct NetworkFlags {
    /// Network: bridge (which it is without this), none, host, or one made with `network create`, of which there may be several
    #[arg(
        long,
        alias = "net",
        value_name = "NETWORK | name=NETWORK[,alias=NAME][,ip=ADDRESS][,ip6=ADDRESS][,mac-address=ADDRESS][,link-local-ip=ADDRESS][,gw-priority=N][,driver-opt=KEY=VALUE]"
    )]
    pub(crate) network: Vec<String>,
    /// Address on the first network
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub(crate) ip: String,
    /// Address of IPv6 on the first network
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub(crate) ip6: String,
    /// One more address on the first network, of 169.254.0.0/16 or `fe80::/10`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) link_local_ip: Vec<String>,
    /// Of the link on the first network
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub(crate) mac_address: String,
    /// One more name by which others on the first network find it
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// A name for another container: on the default bridge with variables that tell of it, else on the first network
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub(crate) link: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network, and print its id
    Create(CreateNetwork),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListNetworks),
    /// Show all that is known of networks, as JSON
    Inspect {
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks that no container is on
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not mind networks that are not there
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove all networks that no container is on
    Prune {
        /// Only some: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME
        #[arg(long = "filter", value_name = "FILTER")]
        filters: Vec<String>,
        /// Do not ask first
        #[arg(short, long)]
        force: bool,
    },
    /// Put a container on one more network
    Connect(ConnectNetwork),
    /// Take a container off a network
    Disconnect {
        /// Do not mind a container that is not there
        #[arg(short, long)]
        force: bool,
        #[arg(value_name = "NETWORK")]
        network: String,
        #[arg(value_name = "CONTAINER")]
        container: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateNetwork {
    /// Driver: bridge, or macvlan or ipvlan, whose containers are on the network of this machine's link parent, or cni, which asks CNI plugins
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub(crate) driver: String,
    /// Have IPv4: all networks have it in this version
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) ipv4: bool,
    /// Have IPv6 besides IPv4. This machine then forwards IPv6, between all of its links
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// All addresses of the network, as 10.1.0.0/16, and with --ipv6 as `fd00:1:2:3::/64`; else some that are free
    #[arg(long, value_name = "SUBNET")]
    pub(crate) subnet: Vec<String>,
    /// Address of this machine on a bridge, or of the router where macvlan or ipvlan lead, one of each family; else the
    /// first one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<String>,
    /// Where in the subnet containers get addresses from, one range of each family
    #[arg(long, value_name = "SUBNET")]
    pub(crate) ip_range: Vec<String>,
    /// An address that no container gets by chance
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS")]
    pub(crate) aux_addresses: Vec<String>,
    /// Without a way out
    #[arg(long)]
    pub(crate) internal: bool,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Option of the driver: com.docker.network.bridge.name, com.docker.network.driver.mtu; of macvlan and ipvlan: parent,
    /// `macvlan_mode`, `ipvlan_mode`, `ipvlan_flag`; of cni: conf, the name of a network in the manager's folder of
    /// configurations (else that of the network), or a file's path
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListNetworks {
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print ids whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only some: dangling=true, driver=DRIVER, id=PART, label=KEY[=VALUE], name=PART, type=custom
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectNetwork {
    /// Address on the network; else one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub(crate) ip: String,
    /// Address of IPv6 on the network; else one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub(crate) ip6: String,
    /// One more name by which others on the network find it
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Vec<String>,
    /// A name that this container alone has for another one on the network
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub(crate) link: Vec<String>,
    /// One more address, of 169.254.0.0/16 or `fe80::/10`
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) link_local_ip: Vec<String>,
    /// Of the container's networks with a way out, the one with the highest priority is it, and of equal ones the first; may
    /// be negative
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) gw_priority: i64,
    /// Option of the driver for this place: com.docker.network.endpoint.ifname, the name of the link inside;
    /// com.docker.network.endpoint.sysctls, as `net.ipv4.conf.IFNAME.log_martians=1`, which stands in quotes if there are
    /// several
    #[arg(long, value_name = "KEY=VALUE[,KEY=VALUE]")]
    pub(crate) driver_opt: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}
