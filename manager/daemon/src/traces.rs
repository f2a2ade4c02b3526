//! Traces, sent to a collector over OTLP, where one is named. Nothing waits for it: spans go through a bounded queue to a
//! thread of their own, and are lost where the collector does not take them, which is told once.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// A collector that takes longer is as good as none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// At the manager's end, what is still in the queue may be sent for so long.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
const SERVICE: &str = "berth";

/// How OTLP is spoken, by the names of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Grpc,
    Http,
}

impl FromStr for Wire {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Wire, &'static str> {
        match text {
            "grpc" => Ok(Wire::Grpc),
            "http/protobuf" => Ok(Wire::Http),
            _ => Err("of OTLP's protocols this version has grpc and http/protobuf"),
        }
    }
}

/// Whether spans could be sent to this endpoint.
pub(crate) fn check(endpoint: &str) -> anyhow::Result<()> {
    if endpoint.starts_with("https://") {
        bail!(
            "{}: TLS to collectors is not done in this version: name one on this machine (http://127.0.0.1:4317), which can send them on",
            shown(endpoint)
        );
    }
    let rest = endpoint.strip_prefix("http://").unwrap_or_default();
    if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) {
        bail!("{}: it has to be http://HOST:PORT", shown(endpoint));
    }
    Ok(())
}

/// An endpoint for people: without the name and password that it may have.
pub(crate) fn shown(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => endpoint.to_owned(),
    }
}

/// What sends traces, until it is [ended](Traces::end).
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Send to the collector at `endpoint` from now on; it need not be there. To be called within a runtime.
    pub(crate) fn begin(endpoint: &str, wire: Wire) -> anyhow::Result<Traces> {
        check(endpoint)?;
        let exporter = match wire {
            Wire::Grpc => Otlp::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(TIMEOUT)
                .build(),
            Wire::Http => Otlp::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
                .with_timeout(TIMEOUT)
                .build(),
        };
        let exporter =
            exporter.with_context(|| format!("make ready for the collector at {}", shown(endpoint)))?;
        // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count above it.
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(Patient {
                inner: Arc::new(exporter),
                runtime: Handle::current(),
                fails: Arc::default(),
            })
            .build();
        Ok(Traces(provider))
    }

    /// What hands on the spans that are meant for collectors, and nothing else.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_meant = filter_fn(|metadata| metadata.is_span() && metadata.target() == engine::SPANS)
            .with_max_level_hint(LevelFilter::TRACE);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(is_meant)
    }

    /// Send what there is, if the collector takes it at once.
    pub(crate) async fn end(self) {
        let ending = tokio::task::spawn_blocking(move || drop(self.0.shutdown_with_timeout(LAST_TIMEOUT)));
        let _ = tokio::time::timeout(LAST_TIMEOUT * 2, ending).await;
    }
}

/// Sends on the runtime, and says once that it cannot, and once that it can again.
#[derive(Debug)]
struct Patient<E> {
    inner: Arc<E>,
    runtime: Handle,
    fails: Arc<AtomicBool>,
}

impl<E: SpanExporter + 'static> SpanExporter for Patient<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let inner = Arc::clone(&self.inner);
        let sending = async move { tokio::time::timeout(TIMEOUT, inner.export(batch)).await };
        let sent = self.runtime.spawn(sending);
        let fails = Arc::clone(&self.fails);
        async move {
            let error = match sent.await {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(error))) => Some(error.to_string()),
                Ok(Err(_)) => Some("it does not answer in time".to_owned()),
                // The manager ends.
                Err(_) => return Ok(()),
            };
            let failed_before = fails.swap(error.is_some(), Ordering::Relaxed);
            match error {
                Some(error) if !failed_before => {
                    tracing::warn!(
                        error,
                        "the collector does not take traces: they are lost until it does"
                    );
                }
                None if failed_before => tracing::info!("the collector takes traces again"),
                _ => {}
            }
            // It is told, and nobody can do anything about it.
            Ok(())
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is being sent yet.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_shown_an_endpoint_is_not_shown_its_password() {
        assert_eq!(
            shown("http://me:pass@word@here:4317/a@b"),
            "http://***@here:4317/a@b"
        );
        for open in ["http://here:4317", "http://here/a@b", "", "here"] {
            assert_eq!(shown(open), open);
        }
    }

    #[test]
    fn an_endpoint_is_a_url_in_the_clear() {
        check("http://127.0.0.1:4317").unwrap();
        for bad in [
            "",
            "127.0.0.1:4317",
            "http://",
            "http:///v1",
            "https://collector:4317",
            "http://a b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
