//! Traces: a real collector gets the spans of calls and of the parts of a start and a pull; one that is not there, or says
//! nothing, holds nobody.

use integration::{Manager, Sandbox, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use proto::v1::VersionRequest;
use proto::v1::system_client::SystemClient;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

const GRPC: &str = "127.0.0.1:4317";
const LOST: &str = "the collector does not take traces";
const HTTP: &str = "127.0.0.1:4318";

/// What has come.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    fn take(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.0.lock().expect("no panic before");
        for resource in request.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            assert!(format!("{attributes:?}").contains("berth"), "{attributes:?}");
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    /// Wait for a span of this name.
    #[track_caller]
    fn span(&self, name: &str) -> Span {
        eventually(&format!("a span {name}"), || {
            let spans = self.0.lock().expect("no panic before");
            spans.iter().find(|span| span.name == name).cloned()
        })
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no panic before").len()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A socket in the manager's network namespace.
fn listen(manager: &Manager, place: &'static str) -> TcpListener {
    let netns = format!("/proc/{}/ns/net", manager.pid());
    let listening = std::thread::spawn(move || {
        let netns = fs::File::open(netns).expect("open the manager's network namespace");
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter it");
        TcpListener::bind(place).expect("listen")
    });
    listening.join().expect("a socket")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Collect over gRPC, until the test ends.
fn collect(manager: &Manager) -> Collector {
    let listener = listen(manager, GRPC);
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    std::thread::spawn(move || {
        runtime().block_on(async {
            listener.set_nonblocking(true).expect("a socket for tasks");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket for tasks");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let _ = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await;
        });
    });
    collector
}

/// Collect over HTTP, by hand: a POST of a message in protobuf.
fn collect_over_http(manager: &Manager) -> Collector {
    let listener = listen(manager, HTTP);
    let collector = Collector::default();
    let to = collector.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                if head.is_empty() {
                    break;
                }
                let head = head.to_lowercase();
                assert!(head.starts_with("post /v1/traces "), "{head}");
                assert!(head.contains("application/x-protobuf"), "{head}");
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.expect("a length").trim().parse().expect("a number")];
                reader.read_exact(&mut body).expect("a body");
                to.take(ExportTraceServiceRequest::decode(&body[..]).expect("a message"));
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                reader.get_mut().write_all(answer).expect("answer");
            }
        }
    });
    collector
}

fn start(sandbox: &Sandbox, options: &[&str]) -> Manager {
    let mut manager = Manager::start(sandbox);
    manager.stop();
    manager.set_options(options);
    manager.start_again();
    manager
}

#[test]
fn a_collector_gets_calls_and_the_parts_of_starts_and_pulls() {
    let sandbox = Sandbox::new();
    let manager = start(&sandbox, &["--otlp-endpoint", "http://127.0.0.1:4317"]);
    let collector = collect(&manager);
    let image = manager.busybox();
    manager.ctl(&["run", "--rm", &image, "true"]).ok();
    manager.ctl(&["start", "no-such"]).refused();

    let call = collector.span("berth.v1.Containers/Start");
    for part in [
        "start.files",
        "start.shim",
        "start.create",
        "start.network",
        "start.process",
        "start.record",
    ] {
        let span = collector.span(part);
        assert_eq!(span.trace_id, call.trace_id, "{part} is of the call's trace");
        assert_eq!(span.parent_span_id, call.span_id, "{part} is a part of the call");
        assert!(
            call.start_time_unix_nano <= span.start_time_unix_nano
                && span.end_time_unix_nano <= call.end_time_unix_nano,
            "{part} lies within: {span:?} {call:?}"
        );
    }
    let pull = collector.span("berth.v1.Images/Pull");
    for part in ["pull.plan", "pull.layers"] {
        assert_eq!(collector.span(part).parent_span_id, pull.span_id, "{part}");
    }
    let failed = eventually("the call that failed", || {
        let spans = collector.0.lock().expect("no panic before");
        let failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code == 2);
        spans.iter().find(failed).cloned()
    });
    assert_eq!(failed.name, "berth.v1.Containers/Start");

    // Whoever calls may have a trace already.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    runtime().block_on(async {
        let socket = format!("unix:{}", manager.socket().display());
        let endpoint = Endpoint::from_shared(socket).expect("an address");
        let channel = endpoint.connect().await.expect("connect");
        let mut request = Request::new(VersionRequest {});
        let header = format!("00-{trace}-{parent}-01").parse().expect("a header");
        request.metadata_mut().insert("traceparent", header);
        SystemClient::new(channel)
            .version(request)
            .await
            .expect("an answer");
    });
    let child = eventually("the span within the client's trace", || {
        let spans = collector.0.lock().expect("no panic before");
        spans
            .iter()
            .find(|span| hex::encode(&span.trace_id) == trace)
            .cloned()
    });
    assert_eq!(hex::encode(&child.parent_span_id), parent);
    assert_eq!(child.name, "berth.v1.System/Version");
    let told = manager.ctl(&["info", "--format", "json"]).ok();
    assert!(told.contains("http://127.0.0.1:4317"), "{told}");
}

/// `manager --check-config` with this environment.
fn checked(environment: &[(&str, &str)], args: &[&str]) -> integration::Done {
    let mut command = std::process::Command::new(integration::binary("manager"));
    command.arg("--shim").arg(integration::binary("shim"));
    integration::run(
        command
            .arg("--check-config")
            .args(args)
            .envs(environment.iter().copied()),
    )
}

#[test]
fn variables_that_are_empty_or_unknown_do_not_stop_the_manager() {
    let empty = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", ""),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", ""),
        ("OTEL_SERVICE_NAME", ""),
    ];
    let said = checked(&empty, &[]).ok();
    assert!(!said.contains("otlp"), "{said}");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let json = [endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
    let said = checked(&json, &[]).ok();
    assert!(
        said.contains("otlp-protocol") && said.contains("http/json"),
        "{said}"
    );
    let tls = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@collector:4317")];
    let said = checked(&tls, &[]).ok();
    assert!(
        said.contains("otlp-endpoint") && !said.contains("secret"),
        "{said}"
    );
    // Here it is the manager alone that is meant.
    let said = checked(&[endpoint], &["--otlp-protocol", "http/json"]).refused();
    assert!(
        said.contains("--otlp-protocol") && said.contains("http/json"),
        "{said}"
    );
}

#[test]
fn a_collector_over_http_gets_them_too() {
    let sandbox = Sandbox::new();
    let options = [
        "--otlp-endpoint",
        "http://127.0.0.1:4318/",
        "--otlp-protocol",
        "http/protobuf",
    ];
    let manager = start(&sandbox, &options);
    let collector = collect_over_http(&manager);
    manager.ctl(&["version"]).ok();
    collector.span("berth.v1.System/Version");
}

#[test]
fn a_collector_that_is_not_there_or_says_nothing_holds_nobody() {
    let sandbox = Sandbox::new();
    let mut manager = start(&sandbox, &["--otlp-endpoint", "http://127.0.0.1:4317"]);
    for _ in 0..20 {
        manager.ctl(&["ps"]).ok();
    }
    eventually("the log warns", || manager.log().contains(LOST).then_some(()));
    // And now one that takes connections, and nothing else.
    let silent = listen(&manager, GRPC);
    let image = manager.busybox();
    let began = Instant::now();
    for _ in 0..5 {
        manager.ctl(&["run", "--rm", &image, "true"]).ok();
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        manager.log().matches(LOST).count(),
        1,
        "it is told once: {}",
        manager.log()
    );
    drop(silent);
    // Back again, it gets what happens from then on.
    let collector = collect(&manager);
    eventually("spans come again", || {
        manager.ctl(&["version"]).ok();
        (collector.len() > 0).then_some(())
    });
    eventually("the log says so", || {
        manager.log().contains("takes traces again").then_some(())
    });
    // Nor does it hold the manager's end.
    let began = Instant::now();
    manager.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    manager.start_again();
}
