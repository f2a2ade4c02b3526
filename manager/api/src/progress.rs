//! How far pulls and pushes are, told to clients that may be slow: work never waits for them, and of each layer it is
//! the newest state that they get, the last one always.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages on their way to a client.
const QUEUE_MAX: usize = 64;

/// The sending end of one call's answers.
pub(crate) struct Progress<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    /// By layer or the like: states that the queue had no place for, each in the place of an older one.
    waiting: Mutex<BTreeMap<String, T>>,
}

impl<T> Progress<T> {
    pub(crate) fn new() -> (Progress<T>, ReceiverStream<Result<T, Status>>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let waiting = Mutex::default();
        (Progress { sender, waiting }, ReceiverStream::new(receiver))
    }

    /// Tell the newest state of `part`. Does not wait.
    pub(crate) fn report(&self, part: String, state: T) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(part, state);
        while !waiting.is_empty()
            && let Ok(place) = self.sender.try_reserve()
            && let Some((_, state)) = waiting.pop_first()
        {
            place.send(Ok(state));
        }
    }

    /// Ends when the client has gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Tell what still waits, and then how it ended; `None`: that has been told as the state of a part.
    pub(crate) async fn finish(self, last: Option<Result<T, Status>>) {
        let waiting = self.waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        for message in waiting.into_values().map(Ok).chain(last) {
            if self.sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_late_gets_the_last_state_of_each_layer() {
        let (progress, messages) = Progress::new();
        for state in 0..3 {
            for layer in 0..100 {
                progress.report(format!("layer {layer}"), Some((layer, state)));
            }
        }
        let told = tokio::spawn(progress.finish(Some(Ok(None))));
        let mut messages: Vec<_> = messages.map(Result::unwrap).collect().await;
        told.await.unwrap();
        assert_eq!(messages.pop(), Some(None), "the end comes last");
        let mut last = BTreeMap::new();
        last.extend(messages.into_iter().flatten());
        assert_eq!(last, (0..100).map(|layer| (layer, 2)).collect());
    }
}
