//! `linux.seccomp` of config.json as a filter for the kernel: checked, compiled to classic BPF, loaded. Pure up to
//! [`Filter::load`], which the init process calls as its last step before the program.
//!
//! Why a compiler of our own: the `seccompiler` crate (0.5.0) knows `x86_64`, aarch64 and riscv64, one a filter, so no
//! 32-bit or x32 calls beside the native ones; one action for all matches; neither notify nor flags. libseccomp is C,
//! knows no call that is newer than itself, and takes 12 ms for Docker's default profile with `x86_64`, x86 and x32
//! (2.5.4, 1,012 instructions), where this takes 0.1 ms (279 instructions): too little to keep compiled filters
//! anywhere. Over all numbers of these architectures the two programs answer the same, but for ENOSYS on calls that
//! are newer than the profile (which runc adds, too) and for unknown architectures, where libseccomp kills the thread
//! and this the process.

mod arch;
mod assemble;
mod conditions;
#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod reading;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::error::{Context as _, Error, Result};
use crate::sys::seccomp::{
    self as sys, INSTRUCTIONS_MAX, Instruction, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};

/// A compiled filter, ready to load. Equal profiles give equal filters.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: libc::c_ulong,
    listener_path: Option<PathBuf>,
    listener_metadata: String,
}

impl Filter {
    /// Checks and compiles a profile. Each error names the field's JSON path and the rule.
    pub(crate) fn from_spec(spec: &LinuxSeccomp) -> Result<Self> {
        let policy = rules::Policy::from_spec(spec)?;
        let listener_path = spec
            .listener_path()
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        let listener_metadata = spec.listener_metadata().clone().unwrap_or_default();
        if policy.notifies && listener_path.is_none() {
            let rule = "is required, since a call has the action SCMP_ACT_NOTIFY";
            return Err(Error::spec("linux.seccomp.listenerPath", rule));
        }
        if listener_path.is_none() && !listener_metadata.is_empty() {
            let rule = "is of no use without listenerPath";
            return Err(Error::spec("linux.seccomp.listenerMetadata", rule));
        }
        let program = assemble::assemble(&policy);
        if program.len() > INSTRUCTIONS_MAX {
            let rule = format!(
                "compiles to {} instructions; the kernel takes no more than {INSTRUCTIONS_MAX}",
                program.len()
            );
            return Err(Error::spec("linux.seccomp", rule));
        }
        let flags = flags(spec.flags().as_deref(), policy.notifies);
        Ok(Self {
            program,
            flags,
            listener_path,
            listener_metadata,
        })
    }

    /// What the kernel will run.
    pub(crate) fn program(&self) -> &[Instruction] {
        &self.program
    }

    /// Puts the calling thread under the filter. With a notifying profile returns the listener's descriptor, which
    /// goes to [`Filter::listener_path`].
    pub(crate) fn load(&self) -> Result<Option<OwnedFd>> {
        sys::set_filter(self.program(), self.flags)
            .context(|| format!("load the seccomp filter ({} instructions)", self.program.len()))
    }

    /// The UNIX socket that wants the listener's descriptor.
    pub(crate) fn listener_path(&self) -> Option<&Path> {
        self.listener_path.as_deref()
    }

    /// Passed to the listener as it is.
    pub(crate) fn listener_metadata(&self) -> &str {
        &self.listener_metadata
    }

    /// Whether [`Filter::load`] returns a listener.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }
}

/// Without the field (not: with an empty one) the speculation mitigation is left off, as in runc: it costs all
/// programs and protects only those that run foreign code in their own process.
fn flags(named: Option<&[LinuxSeccompFilterFlag]>, notifies: bool) -> libc::c_ulong {
    let listener = if notifies {
        SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        0
    };
    let Some(named) = named else {
        return listener | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    };
    named.iter().fold(listener, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                // Only means something to a listener; the kernel refuses it without one.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
                // The init process has one thread: all of them are under the filter anyway.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv
                | LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
    })
}
