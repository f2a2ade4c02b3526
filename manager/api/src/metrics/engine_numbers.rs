//! What the engine and the kernel tell at each reading.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{Engine, Error, Info, Numbers};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::process::Process;

/// All of it, as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct EngineNumbers {
    numbers: Numbers,
    info: Info,
    kernel: String,
    process: Process,
}

/// What the engine told when somebody asked last.
#[derive(Debug)]
pub(super) struct OfEngine(pub(super) Arc<Mutex<EngineNumbers>>);

/// What the kernel told then of this process: it has names without a prefix.
#[derive(Debug)]
pub(super) struct OfProcess(pub(super) Arc<Mutex<EngineNumbers>>);

impl EngineNumbers {
    pub(super) async fn of(engine: &Engine) -> Result<EngineNumbers, Error> {
        Ok(EngineNumbers {
            numbers: engine.numbers().await?,
            info: engine.machine(),
            kernel: engine::kernel(),
            process: Process::now(),
        })
    }

    fn encode(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let numbers = &self.numbers;
        let containers = &numbers.containers;
        out.gauges(
            "container_states_containers",
            "Containers by state; stopped are those that are created, too",
            "state",
            &[
                ("paused", containers.paused as u64),
                ("running", containers.running as u64),
                ("restarting", containers.restarting as u64),
                ("stopped", (containers.created + containers.exited) as u64),
            ],
        )?;
        out.events(numbers)?;
        out.gauge(
            "events_subscribers",
            "Who listens to events",
            numbers.listeners as u64,
        )?;
        out.counter(
            "health_checks",
            "Health checks that have ended",
            numbers.health_checks,
        )?;
        out.counter(
            "health_checks_failed",
            "Health checks that failed, or took too long",
            numbers.health_checks_failed,
        )?;
        out.counter(
            "container_restarts",
            "Starts by restart policies",
            numbers.restarts,
        )?;
        let oom = numbers.events.get(&("container", "oom")).copied().unwrap_or(0);
        out.counter(
            "container_oom_kills",
            "Containers that ended as memory ran out",
            oom,
        )?;
        out.gauge("image_store_images", "Images and artifacts", numbers.images)?;
        out.gauge(
            "image_store_content_bytes",
            "Compressed blobs",
            numbers.content_bytes,
        )?;
        out.gauge(
            "image_store_layers_bytes",
            "Unpacked layers, without what is around files",
            numbers.layers_bytes,
        )?;
        out.gauge("networks", "Networks, with the default one", numbers.networks)?;
        out.gauge("volumes", "Volumes", numbers.volumes)?;
        let dns = &numbers.dns;
        out.counter(
            "dns_questions",
            "Questions of containers to their name servers",
            dns.questions,
        )?;
        out.counter(
            "dns_questions_forwarded",
            "Those that servers of the outside were asked",
            dns.forwarded,
        )?;
        out.counter(
            "dns_questions_refused",
            "Those that were too many at once",
            dns.refused,
        )?;
        let info = &self.info;
        out.gauge("engine_cpus_cpus", "CPUs of this machine", info.cpus as u64)?;
        out.gauge("engine_memory_bytes", "Memory of this machine", info.memory_bytes)?;
        out.info(&[
            ("version", env!("CARGO_PKG_VERSION")),
            ("architecture", std::env::consts::ARCH),
            ("os", info.operating_system.as_str()),
            ("os_type", std::env::consts::OS),
            ("kernel", self.kernel.as_str()),
            ("graphdriver", info.layers),
        ])
    }
}

impl Collector for OfEngine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.encode(&mut Out(&mut encoder))
    }
}

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.process.encode(&mut Out(&mut encoder))
    }
}

/// Where they are written.
pub(super) struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        // Nothing that is counted here comes near 2^63.
        ConstGauge::new(value as i64).encode(encoder)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, kind: MetricType, value: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        match kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(value).encode(encoder),
        }
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, number) in values {
            let labels = [(label, *value)];
            ConstGauge::new(*number as i64).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn events(&mut self, numbers: &Numbers) -> fmt::Result {
        let help = "Events, by what they are about and what has happened";
        let mut encoder = self
            .0
            .encode_descriptor("events", help, None, MetricType::Counter)?;
        for ((kind, action), number) in &numbers.events {
            let labels = [("type", *kind), ("action", *action)];
            ConstCounter::new(*number).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn info(&mut self, labels: &[(&str, &str)]) -> fmt::Result {
        let help = "This manager and its machine";
        let mut encoder = self
            .0
            .encode_descriptor("engine_info", help, None, MetricType::Gauge)?;
        let labels = labels.to_vec();
        ConstGauge::new(1_i64).encode(encoder.encode_family(&labels)?)
    }
}
