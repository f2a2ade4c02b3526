//! CPU scheduling policy, I/O priority and CPU affinity of a container's process.

use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler};

use crate::error::{Context, Error, Result};
use crate::sys::scheduling::{SchedAttr, reset_affinity, set_affinity, set_io_priority, set_scheduler};

/// The highest CPU number that a list may name.
const CPU_MAX: u32 = 8191;

/// As in linux/sched.h.
const SCHED_DEADLINE: u32 = 6;

/// What config.json wants, as numbers of the kernel.
#[derive(Debug)]
pub(crate) struct Scheduling {
    scheduler: Option<Policy>,
    io_priority: Option<(u32, u32)>,
    affinity_initial: Option<Vec<u32>>,
    affinity_final: Option<Vec<u32>>,
}

#[derive(Debug)]
struct Policy {
    number: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Scheduling {
    pub(crate) fn from_spec(process: &Process) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let list = |text: Option<&String>, field: &str| {
            text.filter(|text| !text.is_empty())
                .map(|text| cpu_list(text, &format!("process.execCPUAffinity.{field}")))
                .transpose()
        };
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(policy).transpose()?,
            io_priority: process
                .io_priority()
                .as_ref()
                .map(|wanted| {
                    let class = match wanted.class() {
                        IOPriorityClass::IoprioClassRt => 1,
                        IOPriorityClass::IoprioClassBe => 2,
                        IOPriorityClass::IoprioClassIdle => 3,
                    };
                    match u32::try_from(wanted.priority()) {
                        Ok(level @ 0..=7) => Ok((class, level)),
                        _ => Err(Error::spec("process.ioPriority.priority", "must be from 0 to 7")),
                    }
                })
                .transpose()?,
            affinity_initial: list(affinity.and_then(|a| a.initial().as_ref()), "initial")?,
            affinity_final: list(affinity.and_then(|a| a.cpu_affinity_final().as_ref()), "final")?,
        })
    }

    /// Policy and I/O priority; before capabilities are given up.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(policy) = &self.scheduler {
            let attr = SchedAttr {
                policy: policy.number,
                flags: policy.flags,
                nice: policy.nice,
                priority: policy.priority,
                runtime: policy.runtime,
                deadline: policy.deadline,
                period: policy.period,
                ..SchedAttr::default()
            };
            set_scheduler(attr).context(|| {
                let hint = match policy.number {
                    SCHED_DEADLINE => {
                        " (SCHED_DEADLINE needs all CPUs: does linux.resources.cpu.cpus name fewer?)"
                    }
                    _ => "",
                };
                format!("set process.scheduler to {policy:?}{hint}")
            })?;
        }
        if let Some((class, level)) = self.io_priority {
            set_io_priority(class, level)
                .context(|| format!("set I/O priority class {class} level {level}"))?;
        }
        Ok(())
    }

    /// Where an `exec`ed process runs before it is in the container's cgroup.
    pub(crate) fn bind_initially(&self) -> Result<()> {
        bind(self.affinity_initial.as_deref())
    }

    /// Where it runs from then on.
    pub(crate) fn bind_finally(&self) -> Result<()> {
        if self.affinity_initial.is_none() && self.affinity_final.is_none() {
            reset_affinity();
        }
        bind(self.affinity_final.as_deref())
    }
}

fn bind(cpus: Option<&[u32]>) -> Result<()> {
    cpus.map_or(Ok(()), |cpus| {
        set_affinity(cpus).context(|| format!("bind to CPUs {cpus:?}"))
    })
}

fn policy(wanted: &Scheduler) -> Result<Policy> {
    let number = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::spec(
                "process.scheduler.policy",
                "SCHED_ISO is not in the Linux kernel",
            ));
        }
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => SCHED_DEADLINE,
    };
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::spec("process.scheduler.nice", "must be from -20 to 19"));
    }
    let priority = wanted.priority().unwrap_or(0);
    let realtime = matches!(number, 1 | 2);
    let priorities = if realtime { 1..=99 } else { 0..=0 };
    if !priorities.contains(&priority) {
        let rule = format!(
            "must be from {} to {} for this policy",
            priorities.start(),
            priorities.end()
        );
        return Err(Error::spec("process.scheduler.priority", rule));
    }
    let times = [wanted.runtime(), wanted.deadline(), wanted.period()].map(|time| time.unwrap_or(0));
    if number != SCHED_DEADLINE && times.iter().any(|time| *time != 0) {
        return Err(Error::spec(
            "process.scheduler",
            "runtime, deadline and period are for SCHED_DEADLINE only",
        ));
    }
    let mut flags = 0;
    for flag in wanted.flags().as_deref().unwrap_or_default() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    Ok(Policy {
        number,
        flags,
        nice,
        priority: priority as u32,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

/// Numbers from a list such as `0-3,7`.
fn cpu_list(text: &str, path: &str) -> Result<Vec<u32>> {
    let wrong = || Error::spec(path, format!("{text:?} is not a list of CPUs such as 0-3,7"));
    let number = |text: &str| text.parse().ok().filter(|cpu| *cpu <= CPU_MAX).ok_or_else(wrong);
    let mut cpus = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cpus.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong());
                }
                cpus.extend(first..=last);
            }
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-2,7", "x").unwrap(), [0, 1, 2, 7]);
        for bad in ["", "a", "3-1", "1,", "0-99999999", "-1"] {
            assert!(cpu_list(bad, "x").is_err(), "{bad}");
        }
    }

    fn scheduling(json: &str) -> Result<Scheduling> {
        let text = format!(r#"{{"user":{{}},"cwd":"/","args":["x"],{json}}}"#);
        Scheduling::from_spec(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn priorities_fit_their_policy() {
        assert!(scheduling(r#""scheduler":{"policy":"SCHED_FIFO","priority":10}"#).is_ok());
        assert!(scheduling(r#""scheduler":{"policy":"SCHED_FIFO"}"#).is_err());
        assert!(scheduling(r#""scheduler":{"policy":"SCHED_OTHER","priority":10}"#).is_err());
        assert!(scheduling(r#""scheduler":{"policy":"SCHED_OTHER","nice":-21}"#).is_err());
        assert!(scheduling(r#""ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#).is_err());
    }
}
