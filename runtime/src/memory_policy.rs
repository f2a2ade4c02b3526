//! `linux.memoryPolicy`: the NUMA policy that the container's processes begin with.

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

use crate::error::{Context, Error, Result};
use crate::sys::memory::set_policy;

/// The kernel knows at most 1024 nodes.
const NODE_MAX: u32 = 1023;

/// What config.json wants, as numbers of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: i32,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// `None` where config.json has none.
    pub(crate) fn from_spec(linux: &Linux) -> Result<Option<Self>> {
        linux.memory_policy().as_ref().map(read).transpose()
    }

    /// Sets it for the caller; `execve` keeps it.
    pub(crate) fn apply(&self) -> Result<()> {
        set_policy(self.mode, &self.nodes).context(|| format!("set memory policy {:#x}", self.mode))
    }
}

fn read(wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let (mode, takes_nodes, needs_nodes) = match wanted.mode() {
        Mode::MpolDefault => (0, false, false),
        Mode::MpolPreferred => (1, true, false),
        Mode::MpolBind => (2, true, true),
        Mode::MpolInterleave => (3, true, true),
        Mode::MpolLocal => (4, false, false),
        Mode::MpolPreferredMany => (5, true, true),
        Mode::MpolWeightedInterleave => (6, true, true),
    };
    let nodes = match wanted.nodes().as_deref().unwrap_or_default() {
        "" => Vec::new(),
        text => node_mask(text)?,
    };
    if nodes.is_empty() && needs_nodes {
        return Err(Error::spec(
            "linux.memoryPolicy.nodes",
            "is required for this mode",
        ));
    }
    if !nodes.is_empty() && !takes_nodes {
        return Err(Error::spec(
            "linux.memoryPolicy.nodes",
            "must be empty for this mode",
        ));
    }
    let flags = wanted.flags().as_deref().unwrap_or_default();
    let broken = |rule: &str| Err(Error::spec("linux.memoryPolicy.flags", rule));
    let has = |flag: Flag| flags.contains(&flag);
    if has(Flag::MpolFStaticNodes) && has(Flag::MpolFRelativeNodes) {
        return broken("MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    }
    if has(Flag::MpolFNumaBalancing) && !matches!(wanted.mode(), Mode::MpolBind | Mode::MpolPreferredMany) {
        return broken("MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY only");
    }
    if nodes.is_empty() && (has(Flag::MpolFStaticNodes) || has(Flag::MpolFRelativeNodes)) {
        return broken("say how nodes are read, and there are none");
    }
    let bits = flags.iter().fold(0, |bits, flag| {
        bits | match flag {
            Flag::MpolFNumaBalancing => 1 << 13,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFStaticNodes => 1 << 15,
        }
    });
    Ok(MemoryPolicy {
        mode: mode | bits,
        nodes,
    })
}

/// Bits from a list such as `0-1,3`.
fn node_mask(text: &str) -> Result<Vec<u64>> {
    let wrong = || {
        let rule = format!("{text:?} is not a list of memory nodes such as 0-1,3");
        Error::spec("linux.memoryPolicy.nodes", rule)
    };
    let number = |text: &str| {
        let node: u32 = text.trim().parse().map_err(|_| wrong())?;
        if node > NODE_MAX { Err(wrong()) } else { Ok(node) }
    };
    let mut mask = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        for node in first..=last {
            let word = node as usize / 64;
            mask.resize(mask.len().max(word + 1), 0);
            mask[word] |= 1 << (node % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Option<MemoryPolicy>> {
        MemoryPolicy::from_spec(&serde_json::from_str(&format!(r#"{{"memoryPolicy":{json}}}"#)).unwrap())
    }

    #[test]
    fn modes_nodes_and_flags_become_the_kernel_s_numbers() {
        let bind = policy(r#"{"mode":"MPOL_BIND","nodes":"0-1,65","flags":["MPOL_F_STATIC_NODES"]}"#);
        let wanted = MemoryPolicy {
            mode: 2 | 1 << 15,
            nodes: vec![3, 2],
        };
        assert_eq!(bind.unwrap(), Some(wanted));
        assert!(
            policy(r#"{"mode":"MPOL_DEFAULT"}"#)
                .unwrap()
                .unwrap()
                .nodes
                .is_empty()
        );
    }

    #[test]
    fn combinations_that_the_kernel_refuses_are_refused_by_name() {
        for (json, field) in [
            (r#"{"mode":"MPOL_BIND"}"#, "nodes"),
            (r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#, "nodes"),
            (r#"{"mode":"MPOL_BIND","nodes":"1-0"}"#, "nodes"),
            (r#"{"mode":"MPOL_BIND","nodes":"0-9999999"}"#, "nodes"),
            (
                r#"{"mode":"MPOL_DEFAULT","flags":["MPOL_F_STATIC_NODES"]}"#,
                "flags",
            ),
            (
                r#"{"mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#,
                "flags",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
                "flags",
            ),
        ] {
            let error = policy(json).unwrap_err().to_string();
            assert!(
                error.contains(&format!("linux.memoryPolicy.{field}: ")),
                "{json}: {error}"
            );
        }
    }
}
