//! Metrics over HTTP, for Prometheus. Whoever connects can only ask; few are served at once, and each for a short time,
//! so that nobody keeps the manager from its work.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Metrics;
use engine::Engine;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::accept;

/// So many are served at once; others wait in the kernel's queue.
const CLIENTS_MAX: usize = 16;
/// A request has to come within this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// And all of it has to be over, the answer taken.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The smallest that hyper takes. No request of Prometheus's is as long.
const BUFFER_BYTES: usize = 8 << 10;
const PATH: &str = "/metrics";

type Answer = Response<Full<Bytes>>;

/// Listen. That others than this machine's can connect is told, as nobody is asked who they are.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--metrics-address {address}: listen there"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "metrics are served in the clear to everybody who reaches this address; 127.0.0.1 is for this machine alone"
        );
    }
    tracing::info!(%address, "serves metrics");
    Ok(listener)
}

/// Serve them to who asks. Never returns.
pub(crate) async fn serve(listener: TcpListener, metrics: Metrics, engine: Engine) {
    let turns = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        // It is never closed.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        let (stream, from) = accept::tcp(&listener).await;
        let (metrics, engine) = (metrics.clone(), engine.clone());
        tokio::spawn(async move {
            let served = tokio::time::timeout(TIMEOUT, serve_one(stream, &metrics, &engine)).await;
            drop(turn);
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%from, %error, "a reader of metrics"),
                Err(_) => tracing::debug!(%from, "a reader of metrics was too slow"),
            }
        });
    }
}

async fn serve_one(stream: TcpStream, metrics: &Metrics, engine: &Engine) -> hyper::Result<()> {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, metrics, engine).await) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, metrics: &Metrics, engine: &Engine) -> Answer {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match metrics.text(engine).await {
        Ok(text) => {
            let mut answer = Response::new(Full::new(Bytes::from(text)));
            let kind = HeaderValue::from_static(api::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => {
            tracing::warn!(%error, "metrics could not be gathered");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the manager's log tells why\n")
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}
