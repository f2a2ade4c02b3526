//! `system doctor`: whether this machine has what containers need, and what to do where it has not. It changes nothing,
//! and speaks to the manager only to see whether it answers.

mod configuration;
mod machine;
mod subordinate;

use proto::v1::VersionRequest;
use serde::Serialize;

use crate::cli::Format;
use crate::client::Client;
use crate::failure::Result;
use crate::host::{Host, Target};
use crate::output::{self, Colour, Table, cell};

/// Where the manager keeps what lasts, if none says otherwise.
const ROOT: &str = "/var/lib/berth";

/// What one look has found.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    /// What to do; empty where nothing is.
    advice: String,
}

#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    /// Some of it does not work, or will soon not.
    Warning,
    /// Containers do not run.
    Broken,
    /// The machine does not tell.
    Unknown,
}

impl Finding {
    fn new(check: &'static str, status: Status, found: impl Into<String>, advice: &str) -> Finding {
        Finding {
            check,
            status,
            found: found.into(),
            advice: if status == Status::Ok {
                String::new()
            } else {
                advice.to_owned()
            },
        }
    }
}

/// Exit code 1: something is broken.
pub(super) async fn doctor(client: &Client, target: &Target, format: Format) -> Result<u8> {
    let mut findings = Vec::new();
    let mut root = ROOT.to_owned();
    match client.system().version(VersionRequest {}).await {
        Ok(reply) => {
            let version = reply.into_inner();
            root = version.root;
            let found = format!("{} answers at {}", version.version, target.host);
            findings.push(Finding::new("manager", Status::Ok, found, ""));
            findings.push(configuration::of_running(client).await);
        }
        Err(status) => {
            let failure = client.failure(&status);
            let advice = failure.hint.unwrap_or_default();
            findings.push(Finding::new("manager", Status::Broken, failure.message, &advice));
            if let Host::Unix(_) = target.host {
                findings.extend(configuration::of_file());
            }
        }
    }
    if let Host::Unix(_) = target.host {
        machine::look(&root, &mut findings);
        findings.push(subordinate::look());
    } else {
        let advice = "run `managerctl system doctor` there";
        let found = format!("{} is another machine", target.host);
        findings.push(Finding::new("machine", Status::Unknown, found, advice));
    }
    if format == Format::Json {
        output::print_json(&findings)?;
    } else {
        print(&findings)?;
    }
    let is_broken = findings.iter().any(|finding| finding.status == Status::Broken);
    Ok(u8::from(is_broken))
}

fn print(findings: &[Finding]) -> Result<()> {
    let mut table = Table::new(&["CHECK", "STATUS", "FOUND"]);
    for finding in findings {
        let (word, colour) = match finding.status {
            Status::Ok => ("ok", Colour::Green),
            Status::Warning => ("warning", Colour::Yellow),
            Status::Broken => ("broken", Colour::Red),
            Status::Unknown => ("unknown", Colour::None),
        };
        table.row([
            cell(finding.check),
            (word.to_owned(), colour),
            cell(&finding.found),
        ]);
    }
    table.print()?;
    for finding in findings.iter().filter(|finding| !finding.advice.is_empty()) {
        output::print_line(&format!("{}: {}", finding.check, finding.advice))?;
    }
    Ok(())
}
