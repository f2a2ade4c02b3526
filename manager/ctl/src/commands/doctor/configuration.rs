//! Whether the manager works by the configuration that its file has now.

use std::ffi::OsString;
use std::path::PathBuf;

use proto::v1::InfoRequest;

use super::{Finding, Status};
use crate::client::Client;
use crate::views::Info;

const CHECK: &str = "configuration";
/// Where root's manager looks, if nobody says otherwise.
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
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = file(variable, rustix::process::geteuid().is_root());
    file.exists().then(|| {
        let advice = "`manager --check-config` says whether it is right";
        Finding::new(CHECK, Status::Unknown, file.to_string_lossy(), advice)
    })
}

/// Where a manager of this user would look, by the same rules as its own.
fn file(variable: impl Fn(&'static str) -> Option<OsString>, is_root: bool) -> PathBuf {
    if let Some(named) = variable("BERTH_CONFIG") {
        return named.into();
    }
    let of_user = || {
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))
    };
    let folder = Some(()).filter(|()| !is_root).and_then(|()| of_user());
    folder.map_or_else(|| FILE.into(), |folder| folder.join("berth/manager.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_is_not_there_would_look_where_its_user_has_it() {
        let with = |set: &[(&str, &str)], is_root| {
            let variable = |name: &'static str| {
                let found = set.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| OsString::from(value))
            };
            file(variable, is_root).to_string_lossy().into_owned()
        };
        assert_eq!(with(&[("HOME", "/root")], true), FILE);
        assert_eq!(
            with(&[("HOME", "/home/a")], false),
            "/home/a/.config/berth/manager.toml"
        );
        let elsewhere = [("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/conf")];
        assert_eq!(with(&elsewhere, false), "/conf/berth/manager.toml");
        assert_eq!(with(&[("BERTH_CONFIG", "/x.toml")], true), "/x.toml");
    }
}
