//! What stands around each call of the API, and measures it: from its request to the end of its answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Metrics, UNTIL_FIRST_ANSWER};
use crate::trace;

/// Puts a measure around a service; nothing where there are neither metrics nor traces.
#[derive(Clone)]
pub struct Measure(pub(crate) Option<Metrics>);

/// A service whose calls are measured.
#[derive(Clone)]
pub struct Measured<S> {
    inner: S,
    metrics: Option<Metrics>,
}

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured {
            inner,
            metrics: self.0.clone(),
        }
    }
}

impl<S> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let span = trace::call(path, request.headers());
        if self.metrics.is_none() && span.is_disabled() {
            return Box::pin(self.inner.call(request));
        }
        let call = Call::begin(self.metrics.clone(), path, span.clone());
        let answering = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        let answering = tracing::Instrument::instrument(answering, span);
        Box::pin(async move {
            // Dropped by a client that goes away, it ends as cancelled.
            let mut call = call;
            let answer = answering.await?;
            // An error alone has no body, and its code among the headers.
            if let Some(code) = code_in(answer.headers()) {
                call.end(code);
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(Watched { body, call })))
        })
    }
}

/// One call, from its beginning to its end.
struct Call {
    metrics: Option<Metrics>,
    method: String,
    began: Instant,
    span: tracing::Span,
    has_answered: bool,
    has_ended: bool,
}

impl Call {
    fn begin(metrics: Option<Metrics>, path: &str, span: tracing::Span) -> Call {
        if let Some(metrics) = &metrics {
            metrics.0.in_flight.inc();
        }
        Call {
            metrics,
            method: path.strip_prefix("/berth.v1.").unwrap_or(path).to_owned(),
            began: Instant::now(),
            span,
            has_answered: false,
            has_ended: false,
        }
    }

    fn answers(&mut self) {
        if !self.has_answered && self.method == UNTIL_FIRST_ANSWER {
            self.took(Code::Ok);
        }
        self.has_answered = true;
    }

    fn took(&self, code: Code) {
        if let Some(metrics) = &self.metrics {
            metrics.took(&self.method, code, self.began.elapsed());
        }
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        if self.method != UNTIL_FIRST_ANSWER {
            self.took(code);
        }
        if let Some(metrics) = &self.metrics {
            metrics.ended(&self.method, code);
            metrics.0.in_flight.dec();
        }
        trace::ended(&self.span, code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// An answer on its way.
struct Watched {
    body: Body,
    call: Call,
}

impl HttpBody for Watched {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => self.call.end(code_in(trailers).unwrap_or(Code::Unknown)),
                None => self.call.answers(),
            },
            Some(Err(_)) => self.call.end(Code::Unknown),
            None => self.call.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()))
}
