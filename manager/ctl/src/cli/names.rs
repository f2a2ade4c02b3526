//! Whom a new container asks for names.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct NameFlags {
    /// Ask this name server in place of the host's
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,
    /// Search names in this domain in place of the host's; a dot: in none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Set an option of the resolver in place of the host's
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Add a name to /etc/hosts; the address may be host-gateway, which is this machine's
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
}
