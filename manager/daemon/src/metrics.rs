//! Metrics over HTTP, for Prometheus. Whoever connects can only ask; few are served at once, and each for a short time,
//! so that nobody keeps the manager from its work. Who connects and does not ask makes room for the next.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use api::{Form, Metrics};
use engine::Engine;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::accept;

/// So many are served at once; others wait in the kernel's queue while all of these are being answered.
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

/// Somebody who is connected.
struct Client {
    task: JoinHandle<()>,
    /// Its request has come.
    has_asked: Arc<AtomicBool>,
}

/// Serve them to who asks. Never returns.
pub(crate) async fn serve(listener: TcpListener, metrics: Metrics, engine: Engine) {
    // The oldest first.
    let mut clients: VecDeque<Client> = VecDeque::new();
    loop {
        let (stream, from) = accept::tcp(&listener).await;
        make_room(&mut clients).await;
        let (metrics, engine) = (metrics.clone(), engine.clone());
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let task = tokio::spawn(async move {
            let serving = serve_one(stream, &metrics, &engine, &asks);
            match tokio::time::timeout(TIMEOUT, serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%from, %error, "a reader of metrics"),
                Err(_) => tracing::debug!(%from, "a reader of metrics was too slow"),
            }
        });
        clients.push_back(Client { task, has_asked });
    }
}

/// For one more: the oldest of those that have not asked goes; where all have, the first of them is waited for.
async fn make_room(clients: &mut VecDeque<Client>) {
    clients.retain(|client| !client.task.is_finished());
    if clients.len() < CLIENTS_MAX {
        return;
    }
    let silent = |client: &Client| !client.has_asked.load(Ordering::Relaxed);
    if let Some(place) = clients.iter().position(silent)
        && let Some(client) = clients.remove(place)
    {
        client.task.abort();
    } else if let Some(mut oldest) = clients.pop_front() {
        // Within its time it is over.
        let _ = (&mut oldest.task).await;
    }
}

async fn serve_one(
    stream: TcpStream,
    metrics: &Metrics,
    engine: &Engine,
    has_asked: &AtomicBool,
) -> hyper::Result<()> {
    let service = service_fn(|request| async move {
        has_asked.store(true, Ordering::Relaxed);
        Ok::<_, Infallible>(answer(&request, metrics, engine).await)
    });
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
    let accepted = request.headers().get_all(ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let form = Form::wanted(&accepted.join(","));
    match metrics.text(engine, form).await {
        Ok(text) => {
            let mut answer = Response::new(Full::new(Bytes::from(text)));
            let kind = HeaderValue::from_static(form.content_type());
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
                .headers_mut()
                .insert(VARY, HeaderValue::from_static("Accept"));
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
