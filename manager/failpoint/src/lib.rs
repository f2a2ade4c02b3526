//! Named places between two durable states at which a test can end the manager: `BERTH_FAILPOINT=name` aborts
//! it there the first time, `BERTH_FAILPOINT=name:3` the third. With `BERTH_FAILPOINT=name@/path/of/a/file` whoever comes by
//! stands still there as long as the file exists, so that a test can look at what others do meanwhile. The variable is read
//! once; without it a failpoint costs one load.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Armed {
    name: String,
    action: Action,
}

enum Action {
    /// Die when it is reached for the last of so many times.
    Abort(AtomicU32),
    /// Stand still while this file is there.
    Pause(PathBuf),
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Die here, as by a signal that cannot be caught, or stand still, if the environment says so.
pub fn reach(name: &str) {
    let armed = ARMED.get_or_init(|| parse(&std::env::var("BERTH_FAILPOINT").ok()?));
    let Some(armed) = armed.as_ref().filter(|armed| armed.name == name) else {
        return;
    };
    match &armed.action {
        Action::Abort(left) => {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                tracing::error!(failpoint = name, "failpoint reached");
                std::process::abort();
            }
        }
        Action::Pause(file) => pause(name, file),
    }
}

/// Blocks the thread, on purpose: what is asked here is what all other threads do.
fn pause(name: &str, file: &Path) {
    if file.exists() {
        tracing::error!(failpoint = name, "standing still");
    }
    while file.exists() {
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn parse(value: &str) -> Option<Armed> {
    if let Some((name, file)) = value.split_once('@') {
        return Some(Armed {
            name: name.to_owned(),
            action: Action::Pause(file.into()),
        });
    }
    let (name, count) = match value.split_once(':') {
        Some((name, count)) => (name, count.parse().ok()?),
        None => (value, 1),
    };
    (count > 0).then(|| Armed {
        name: name.to_owned(),
        action: Action::Abort(AtomicU32::new(count)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_may_say_which_time_it_fires() {
        let armed = parse("start.committed:3").unwrap();
        assert_eq!(armed.name, "start.committed");
        assert!(matches!(&armed.action, Action::Abort(left) if left.load(Ordering::Relaxed) == 3));
        assert!(parse("x:0").is_none());
        assert!(parse("x:many").is_none());
    }

    #[test]
    fn a_failpoint_may_wait_for_a_file_to_go() {
        let armed = parse("start.committed@/tmp/a:b").unwrap();
        assert_eq!(armed.name, "start.committed");
        assert!(matches!(armed.action, Action::Pause(file) if file == Path::new("/tmp/a:b")));
    }
}
