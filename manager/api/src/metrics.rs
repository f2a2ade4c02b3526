//! Metrics, as Prometheus reads them. Where dockerd has the same, names and labels are its own with `berth_` in the place
//! of `engine_daemon_`. No label has a container's name or id: their number is bounded, however many there are.
//!
//! What calls of the API take is measured around them (`layer`); what has happened in the engine it counts itself; the
//! rest is read when somebody asks.

mod engine_numbers;
mod form;
mod layer;
mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Engine;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};

pub use form::Form;
pub use layer::Measure;

use crate::status::status;
use engine_numbers::EngineNumbers;

/// From the milliseconds of a start to the minutes of a pull.
const BUCKETS_SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The calls that do something to a thing, the thing, and docker's word for what is done.
const ACTIONS: [(&str, Thing, &str); 30] = [
    ("Containers/Create", Thing::Container, "create"),
    ("Containers/Start", Thing::Container, "start"),
    ("Containers/Stop", Thing::Container, "stop"),
    ("Containers/Restart", Thing::Container, "restart"),
    ("Containers/Kill", Thing::Container, "kill"),
    ("Containers/Pause", Thing::Container, "pause"),
    ("Containers/Unpause", Thing::Container, "unpause"),
    ("Containers/Rename", Thing::Container, "rename"),
    ("Containers/Update", Thing::Container, "update"),
    ("Containers/Remove", Thing::Container, "delete"),
    ("Containers/Prune", Thing::Container, "prune"),
    ("Containers/Exec", Thing::Container, "exec"),
    ("Containers/Commit", Thing::Container, "commit"),
    ("Containers/Diff", Thing::Container, "changes"),
    ("Images/Pull", Thing::Image, "pull"),
    ("Images/Push", Thing::Image, "push"),
    ("Images/Load", Thing::Image, "load"),
    ("Images/Save", Thing::Image, "save"),
    ("Images/Import", Thing::Image, "import"),
    ("Images/Remove", Thing::Image, "delete"),
    ("Images/Prune", Thing::Image, "prune"),
    ("Images/Verify", Thing::Image, "verify"),
    ("Networks/Create", Thing::Network, "create"),
    ("Networks/Remove", Thing::Network, "delete"),
    ("Networks/Prune", Thing::Network, "prune"),
    ("Networks/ConnectContainer", Thing::Network, "connect"),
    ("Networks/DisconnectContainer", Thing::Network, "disconnect"),
    ("Volumes/Create", Thing::Volume, "create"),
    ("Volumes/Remove", Thing::Volume, "delete"),
    ("Volumes/Prune", Thing::Volume, "prune"),
];

/// This one is measured until its process runs, and not until that ends.
const UNTIL_FIRST_ANSWER: &str = "Containers/Exec";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Container,
    Image,
    Network,
    Volume,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: String,
}

type Durations = Family<ActionLabels, Histogram, fn() -> Histogram>;

/// All metrics of this manager. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    in_flight: Gauge,
    durations: [(Thing, Durations); 4],
    /// As they were when somebody asked last.
    numbers: Arc<Mutex<EngineNumbers>>,
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new() -> Metrics {
        let mut root = Registry::default();
        let registry = root.sub_registry_with_prefix("berth");
        let calls = Family::default();
        registry.register(
            "api_requests",
            "Calls of the API that have ended, by method and code of gRPC",
            calls.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "api_requests_in_flight",
            "Calls of the API that have not ended",
            in_flight.clone(),
        );
        let mut durations = |thing, name: &str, help: &str| {
            let family: Durations = Family::new_with_constructor(|| Histogram::new(BUCKETS_SECONDS));
            registry.register(name, help, family.clone());
            (thing, family)
        };
        let durations = [
            durations(
                Thing::Container,
                "container_actions_seconds",
                "Seconds that it took to do something to a container; of exec, until its process ran",
            ),
            durations(
                Thing::Image,
                "image_actions_seconds",
                "Seconds that it took to do something to an image",
            ),
            durations(
                Thing::Network,
                "network_actions_seconds",
                "Seconds that it took to do something to a network",
            ),
            durations(
                Thing::Volume,
                "volume_actions_seconds",
                "Seconds that it took to do something to a volume",
            ),
        ];
        let numbers = Arc::default();
        registry.register_collector(Box::new(engine_numbers::OfEngine(Arc::clone(&numbers))));
        root.register_collector(Box::new(engine_numbers::OfProcess(Arc::clone(&numbers))));
        Metrics(Arc::new(Inner {
            registry: root,
            calls,
            in_flight,
            durations,
            numbers,
        }))
    }

    /// All of them, as [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) has it. Databases are asked;
    /// no file of an image or a container is.
    pub async fn text(&self, engine: &Engine, form: Form) -> Result<String, Status> {
        let numbers = EngineNumbers::of(engine).await.map_err(status)?;
        *self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner) = numbers;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(form.of(text))
    }

    /// A call has ended, or with `exec`, has got its first answer.
    fn took(&self, method: &str, code: Code, duration: Duration) {
        let action = ACTIONS.iter().find(|(name, ..)| *name == method);
        if let Some((_, thing, action)) = action
            && code == Code::Ok
            && let Some((_, family)) = self.0.durations.iter().find(|(of, _)| of == thing)
        {
            let labels = ActionLabels { action };
            family.get_or_create(&labels).observe(duration.as_secs_f64());
        }
    }

    fn ended(&self, method: &str, code: Code) {
        // Whoever makes up names makes up labels else.
        let method = if code == Code::Unimplemented {
            "unknown"
        } else {
            method
        };
        let labels = CallLabels {
            method: method.to_owned(),
            code: format!("{code:?}"),
        };
        self.0.calls.get_or_create(&labels).inc();
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
