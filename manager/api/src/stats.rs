//! Statistics: one answer a second, as long as somebody takes them.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::{STATS_INTERVAL, Sampler, Stats, Usage};
use proto::v1;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// A client that does not read gets what is so when it does.
const QUEUE_MAX: usize = 1;

pub(crate) fn stats(mut sampler: Sampler, once: bool) -> ReceiverStream<Result<v1::StatsResponse, Status>> {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        sampler.look().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let message = message(&sampler.look().await);
            if sender.send(Ok(message)).await.is_err() || once {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn message(stats: &[Stats]) -> v1::StatsResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    v1::StatsResponse {
        containers: stats.iter().map(container).collect(),
        at_unix_nanos: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
    }
}

fn container(stats: &Stats) -> v1::stats_response::Container {
    let usage = |usage: &Usage| v1::stats_response::Usage {
        cpu_nanos: usage.cpu_nanos,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        received_bytes: usage.received_bytes,
        sent_bytes: usage.sent_bytes,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
        pids: usage.pids,
    };
    v1::stats_response::Container {
        id: stats.container.id.clone(),
        name: stats.container.name.clone(),
        usage: stats.usage.as_ref().map(usage),
        cpu_percent: stats.cpu_percent,
    }
}
