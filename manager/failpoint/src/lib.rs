//! Named places between two durable states at which a test can end the manager: `BERTH_FAILPOINT=name` aborts
//! it there the first time, `BERTH_FAILPOINT=name:3` the third. The variable is read once; without it a
//! failpoint costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Armed {
    name: String,
    left: AtomicU32,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Die here, as by a signal that cannot be caught, if the environment says so.
pub fn reach(name: &str) {
    let armed = ARMED.get_or_init(|| parse(&std::env::var("BERTH_FAILPOINT").ok()?));
    let Some(armed) = armed else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        tracing::error!(failpoint = name, "failpoint reached");
        std::process::abort();
    }
}

fn parse(value: &str) -> Option<Armed> {
    let (name, count) = match value.split_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (value, 1),
    };
    (count > 0).then(|| Armed {
        name: name.to_owned(),
        left: AtomicU32::new(count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_may_say_which_time_it_fires() {
        let armed = parse("start.committed:3").unwrap();
        assert_eq!(
            (armed.name.as_str(), armed.left.into_inner()),
            ("start.committed", 3)
        );
        assert!(parse("x:0").is_none());
        assert!(parse("x:many").is_none());
    }
}
