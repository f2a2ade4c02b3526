//! The manager's own stop, told to those who wait for something that only the next manager can tell them.

use std::pin::Pin;

use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// Knows when the manager stops.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

/// Answers, one after the other.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Stopping {
    /// The manager stops when `stops` becomes true.
    pub fn new(stops: watch::Receiver<bool>) -> Stopping {
        Stopping(stops)
    }

    /// Returns when the manager stops, with what is to be told then.
    pub(crate) async fn status(&mut self) -> Status {
        // Without its sender, this process is at its end as well.
        let _ = self.0.wait_for(|stops| *stops).await;
        Status::unavailable("the manager stops; containers run on")
    }

    /// `answers`, cut off when the manager stops.
    pub(crate) fn cut<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        let begin = Some((Box::pin(answers), self.clone()));
        Box::pin(unfold(begin, |state| async move {
            let (mut answers, mut stopping) = state?;
            tokio::select! {
                biased;
                answer = answers.next() => Some((answer?, Some((answers, stopping)))),
                status = stopping.status() => Some((Err(status), None)),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_go_on_until_the_stop_and_end_with_it() {
        let (stop, stops) = watch::channel(false);
        let (answer, answers) = tokio::sync::mpsc::channel(1);
        let answers = tokio_stream::wrappers::ReceiverStream::new(answers);
        let mut cut = Stopping::new(stops).cut(answers);
        answer.send(Ok(1)).await.unwrap();
        assert_eq!(cut.next().await.unwrap().unwrap(), 1);
        stop.send_replace(true);
        let status = cut.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(cut.next().await.is_none());
    }
}
