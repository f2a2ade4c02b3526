//! What happens, told to whoever listens at that moment. Nothing waits for a listener: one that is too slow is
//! told how much it missed.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::Error;
use crate::container::now_unix_nanos;

/// Events that a listener may be behind before it misses some.
const BEHIND_MAX: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In nanoseconds since 1970.
    pub at_unix_nanos: i64,
    /// `container`, `image` or `volume`.
    pub kind: &'static str,
    /// `create`, `start`, `die`, `destroy`, `exec_start`, `pull`, `untag`, …
    pub action: &'static str,
    /// The id of the container or image, the name of the volume.
    pub subject: String,
    /// Name, image, exit code and labels.
    pub attributes: Vec<(String, String)>,
}

impl Event {
    pub(crate) fn of_container(action: &'static str, id: &str, attributes: Vec<(String, String)>) -> Event {
        Event {
            at_unix_nanos: now_unix_nanos(),
            kind: "container",
            action,
            subject: id.to_owned(),
            attributes,
        }
    }

    pub(crate) fn of_volume(action: &'static str, name: &str, attributes: Vec<(String, String)>) -> Event {
        Event {
            kind: "volume",
            ..Event::of_container(action, name, attributes)
        }
    }

    pub(crate) fn of_image(action: &'static str, id: &str, attributes: Vec<(String, String)>) -> Event {
        Event {
            kind: "image",
            ..Event::of_container(action, id, attributes)
        }
    }
}

/// The sending end.
pub(crate) struct Events(broadcast::Sender<Arc<Event>>);

impl Events {
    pub(crate) fn new() -> Events {
        Events(broadcast::channel(BEHIND_MAX).0)
    }

    pub(crate) fn send(&self, event: Event) {
        // Fails when nobody listens.
        let _ = self.0.send(Arc::new(event));
    }

    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// Events from the moment it was made.
pub struct Listener(broadcast::Receiver<Arc<Event>>);

impl Listener {
    /// The next event; None at the manager's end. [`Error::Lagged`] if this listener was too slow; it may go on.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Error>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Error::Lagged(missed))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let events = Events::new();
        let mut listener = events.listen();
        for _ in 0..BEHIND_MAX + 5 {
            events.send(Event::of_container("start", "a", Vec::new()));
        }
        assert!(matches!(listener.next().await, Some(Err(Error::Lagged(5)))));
        assert_eq!(listener.next().await.unwrap().unwrap().action, "start");
    }
}
