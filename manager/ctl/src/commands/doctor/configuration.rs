//! Whether the manager works by the configuration that its file has now.

use std::path::Path;

use proto::v1::InfoRequest;

use super::{Finding, Status};
use crate::client::Client;
use crate::views::Info;

const CHECK: &str = "configuration";
/// Where the manager looks, if nobody says otherwise.
const FILE: &str = "/etc/berth/manager.toml";

/// As a manager that runs tells it.
pub(super) async fn of_running(client: &Client) -> Finding {
    let info = match client.system().info(InfoRequest {}).await {
        Ok(reply) => Info::from(reply.into_inner()),
        Err(status) => {
            let failure = client.failure(&status);
            let advice = "a manager of this version tells it";
            return Finding::new(CHECK, Status::Unknown, failure.message, advice);
        }
    };
    let file = match info.configuration.file.as_str() {
        "" => "there is no file, and the command line holds",
        file => file,
    };
    let warnings = info.warnings();
    if warnings.is_empty() {
        return Finding::new(CHECK, Status::Ok, file, "");
    }
    let found = format!("{file}: {}", warnings.join("; "));
    let advice = if info.configuration.error.is_empty() {
        "take out what does not count, or start the manager anew where that is what is missing: containers run on"
    } else {
        "put the file right (`manager --check-config` says whether it is), and send the manager SIGHUP"
    };
    Finding::new(CHECK, Status::Warning, found, advice)
}

/// Of a manager that does not answer; None: it has no file.
pub(super) fn of_file() -> Option<Finding> {
    Path::new(FILE).exists().then(|| {
        let advice = "`manager --check-config` says whether it is right";
        Finding::new(CHECK, Status::Unknown, FILE, advice)
    })
}
