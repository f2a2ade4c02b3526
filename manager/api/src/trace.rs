//! Spans of calls, for whoever collects traces. They are of a target of their own: where nobody collects, none is made.

use http::HeaderMap;
use opentelemetry::propagation::Extractor;
use tonic::Code;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The span of a call, within the trace that the client's `traceparent` names
/// ([Trace Context](https://www.w3.org/TR/trace-context/)).
pub(crate) fn call(path: &str, headers: &HeaderMap) -> Span {
    let span = tracing::trace_span!(
        target: engine::SPANS,
        "call",
        otel.name = path.trim_start_matches('/'),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    if !span.is_disabled() && headers.contains_key("traceparent") {
        let parent = opentelemetry::global::get_text_map_propagator(|from| from.extract(&Metadata(headers)));
        // It has not been entered yet, which is all that could be wrong.
        let _ = span.set_parent(parent);
    }
    span
}

/// Its end is that of the span's last clone; this says how it ended.
pub(crate) fn ended(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i32);
    if !matches!(code, Code::Ok | Code::Cancelled) {
        span.record("otel.status_code", "ERROR");
    }
}

struct Metadata<'a>(&'a HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
