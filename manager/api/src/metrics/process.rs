//! What the kernel tells of this process, by the names that Prometheus's own clients give it.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::MetricType;

use super::engine_numbers::Out;

/// `USER_HZ`: what the kernel tells times in to programs, on every architecture that this is built for.
const TICKS_A_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Default)]
pub(super) struct Process {
    cpu_seconds: f64,
    threads: u64,
    started_unix_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_fds: u64,
}

impl Process {
    pub(super) fn now() -> Process {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let uptime = read("/proc/uptime");
        let up_seconds: f64 = word(&uptime, 0).unwrap_or(0.0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let booted = now.as_secs_f64() - up_seconds;
        Process {
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            ..Process::read(&read("/proc/self/stat"), booted)
        }
    }

    /// From `proc_pid_stat(5)`, whose second field is in brackets and can have anything in it.
    fn read(stat: &str, booted_unix_seconds: f64) -> Process {
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // The first word is field 3.
        let field = |number: usize| word::<u64>(rest, number - 3).unwrap_or(0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "ticks of a process's life are far below 2^52"
        )]
        let seconds = |ticks: u64| ticks as f64 / TICKS_A_SECOND;
        Process {
            cpu_seconds: seconds(field(14) + field(15)),
            threads: field(20),
            started_unix_seconds: booted_unix_seconds + seconds(field(22)),
            virtual_bytes: field(23),
            resident_bytes: field(24) * PAGE_BYTES,
            open_fds: 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.seconds(
            "process_cpu_seconds",
            "CPU time",
            MetricType::Counter,
            self.cpu_seconds,
        )?;
        out.gauge("process_threads", "Threads", self.threads)?;
        out.seconds(
            "process_start_time_seconds",
            "When it began, since 1970",
            MetricType::Gauge,
            self.started_unix_seconds,
        )?;
        out.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory",
            self.virtual_bytes,
        )?;
        out.gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            self.resident_bytes,
        )?;
        out.gauge("process_open_fds", "Open files", self.open_fds)
    }
}

fn word<T: std::str::FromStr>(text: &str, number: usize) -> Option<T> {
    text.split_ascii_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let stat = "7 (a) S 9) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 5 0 1000 8192 3 0";
        let process = Process::read(stat, 100.0);
        assert!((process.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((process.started_unix_seconds - 110.0).abs() < 1e-9);
        assert_eq!(
            (process.threads, process.virtual_bytes, process.resident_bytes),
            (5, 8192, 3 * PAGE_BYTES)
        );
        assert_eq!(Process::read("", 0.0).threads, 0);
    }
}
