//! What happens, told to whoever listens at that moment; the last of it is kept for those who come later. Nothing waits
//! for a listener: one that is too slow is told how much it missed.

mod filter;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::Error;
use crate::container::{Container, now_unix_nanos};

pub use filter::EventFilters;

/// Events that a listener may be behind before it misses some.
const BEHIND_MAX: usize = 1024;
/// Events that are kept, and bytes of what is told with them.
const KEPT_MAX: usize = 1000;
const KEPT_MAX_BYTES: usize = 1 << 20;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In nanoseconds since 1970.
    pub at_unix_nanos: i64,
    /// `container`, `image`, `volume` or `network`.
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

    pub(crate) fn of_network(action: &'static str, id: &str, attributes: Vec<(String, String)>) -> Event {
        Event {
            kind: "network",
            ..Event::of_container(action, id, attributes)
        }
    }

    /// About as many as are kept for it.
    fn bytes(&self) -> usize {
        let pairs = self.attributes.iter();
        self.subject.len() + pairs.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    pub(crate) fn of_image(action: &'static str, id: &str, attributes: Vec<(String, String)>) -> Event {
        Event {
            kind: "image",
            ..Event::of_container(action, id, attributes)
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Default)]
pub struct EventsRequest {
    /// Those from this moment on that are kept, too; 0: none of them, unless there is an `until`.
    pub since_unix_nanos: i64,
    /// End with this moment; 0: with the manager.
    pub until_unix_nanos: i64,
    /// And that pass these.
    pub filters: EventFilters,
}

/// The sending end.
pub(crate) struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    kept: Mutex<Kept>,
}

/// The last events, oldest first.
#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Of all there were, by kind and action.
    totals: BTreeMap<(&'static str, &'static str), u64>,
}

impl Kept {
    fn push(&mut self, event: Arc<Event>) {
        *self.totals.entry((event.kind, event.action)).or_default() += 1;
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > KEPT_MAX || self.bytes > KEPT_MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Events {
    pub(crate) fn new() -> Events {
        Events {
            sender: broadcast::channel(BEHIND_MAX).0,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn send(&self, event: Event) {
        let event = Arc::new(event);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(&event));
        // Fails when nobody listens. Under the lock, so that nobody who comes now sees it twice or never.
        let _ = self.sender.send(event);
    }

    /// How many events there were, by kind and action.
    pub(crate) fn totals(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.totals.clone()
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Tell of a container.
    pub(crate) fn tell(&self, container: &Container, action: &'static str, more: &[(&str, String)]) {
        let mut attributes = container.attributes();
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        attributes.extend(more);
        self.send(Event::of_container(action, &container.id, attributes));
    }

    pub(crate) fn listen(&self, request: EventsRequest) -> Result<Listener, Error> {
        let EventsRequest {
            since_unix_nanos: since,
            until_unix_nanos: until,
            filters,
        } = request;
        if until != 0 && since > until {
            return Err(Error::invalid("since", "is later than until"));
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let live = (until == 0 || until > now_unix_nanos()).then(|| self.sender.subscribe());
        let is_meant = |event: &&Arc<Event>| {
            let at = event.at_unix_nanos;
            at >= since && (until == 0 || at <= until) && filters.pass(event)
        };
        let past = if since == 0 && until == 0 {
            VecDeque::new()
        } else {
            kept.events.iter().filter(is_meant).cloned().collect()
        };
        Ok(Listener {
            past,
            live,
            until,
            filters,
        })
    }
}

/// Some events, from some moment on.
pub struct Listener {
    past: VecDeque<Arc<Event>>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    until: i64,
    filters: EventFilters,
}

impl Listener {
    /// The next event; None at the end of the time that was asked for, or at the manager's. [`Error::Lagged`] if this
    /// listener was too slow; it may go on.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Error>> {
        if let Some(event) = self.past.pop_front() {
            return Some(Ok(event));
        }
        let live = self.live.as_mut()?;
        let end = until(self.until);
        tokio::pin!(end);
        loop {
            let told = tokio::select! {
                told = live.recv() => told,
                () = &mut end => return None,
            };
            match told {
                Ok(event) if self.filters.pass(&event) => return Some(Ok(event)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => return Some(Err(Error::Lagged(missed))),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Wait for a moment of the wall clock; for ever if it is 0.
async fn until(unix_nanos: i64) {
    match unix_nanos {
        0 => std::future::pending().await,
        moment => {
            let left = u64::try_from(moment.saturating_sub(now_unix_nanos())).unwrap_or(0);
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &'static str, at_unix_nanos: i64) -> Event {
        Event {
            at_unix_nanos,
            ..Event::of_container(action, "a", Vec::new())
        }
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let events = Events::new();
        let mut listener = events.listen(EventsRequest::default()).unwrap();
        for _ in 0..BEHIND_MAX + 5 {
            events.send(event("start", 1));
        }
        assert!(matches!(listener.next().await, Some(Err(Error::Lagged(5)))));
        assert_eq!(listener.next().await.unwrap().unwrap().action, "start");
    }

    #[tokio::test]
    async fn the_past_comes_first_and_what_is_over_ends() {
        let events = Events::new();
        for at in 1..=5 {
            events.send(event("start", at));
        }
        let between = |since_unix_nanos, until_unix_nanos| EventsRequest {
            since_unix_nanos,
            until_unix_nanos,
            ..EventsRequest::default()
        };
        let mut past = events.listen(between(2, 4)).unwrap();
        let mut times = Vec::new();
        while let Some(event) = past.next().await {
            times.push(event.unwrap().at_unix_nanos);
        }
        assert_eq!(times, [2, 3, 4]);
        let mut both = events.listen(between(5, 0)).unwrap();
        events.send(event("die", 6));
        assert_eq!(both.next().await.unwrap().unwrap().at_unix_nanos, 5);
        assert_eq!(both.next().await.unwrap().unwrap().action, "die");
        assert!(events.listen(between(2, 1)).is_err());
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_in_size() {
        let events = Events::new();
        for at in 0..2000 {
            events.send(event("start", at));
        }
        let large = vec![("label".to_owned(), "x".repeat(KEPT_MAX_BYTES / 3))];
        assert_eq!(events.kept.lock().unwrap().events.len(), KEPT_MAX);
        for _ in 0..5 {
            events.send(Event::of_container("start", "a", large.clone()));
        }
        assert_eq!(events.kept.lock().unwrap().events.len(), 2);
    }
}
