//! `system check`.

use proto::v1::CheckRequest;
use proto::v1::check_progress::{Counts, Finding, Kind, NotChecked};

use crate::cli::Format;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::size::format_bytes;
use crate::{output, views};

/// Prints a line for each finding, as it comes, and then what was checked. 1 if there was any.
pub(super) async fn check(client: &Client, images: Vec<String>, format: Format) -> Result<u8> {
    let reply = client.system().check(CheckRequest { images }).await;
    let mut messages = reply.map_err(|status| client.failure(&status))?.into_inner();
    let is_table = format == Format::Table;
    let mut check = views::Check::default();
    let mut done = None;
    while let Some(message) = messages
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        match message.kind {
            Some(Kind::Finding(finding)) => {
                if is_table {
                    output::print_line(&finding_line(&finding))?;
                }
                check.findings.push(finding.into());
            }
            Some(Kind::NotChecked(layer)) => {
                if is_table {
                    output::print_line(&not_checked_line(&layer))?;
                }
                check.not_checked.push(layer.into());
            }
            Some(Kind::Done(counts)) => done = Some(counts),
            Some(Kind::Progress(_)) | None => {}
        }
    }
    let counts = done.ok_or_else(|| Failure::new("the manager ended before the check did"))?;
    if is_table {
        output::print_line(&summary(&counts, check.findings.len()))?;
    } else {
        check.checked = counts.into();
        output::print_json(&check)?;
    }
    Ok(u8::from(!check.findings.is_empty()))
}

fn finding_line(finding: &Finding) -> String {
    let path = String::from_utf8_lossy(&finding.path);
    // One line, whatever a file is called.
    let path = path.escape_debug();
    let place = match finding.kind.as_str() {
        "file" => format!("layer {}: /{path}", finding.digest),
        "leftover" => path.to_string(),
        "record" => "database".to_owned(),
        kind => format!("{kind} {}", finding.digest),
    };
    let image = match finding.image.as_str() {
        "" => String::new(),
        image => format!("{image}: "),
    };
    format!("{image}{place}: {}", finding.what)
}

fn not_checked_line(layer: &NotChecked) -> String {
    let NotChecked { image, layer, reason } = layer;
    format!("{image}: layer {layer}: not checked: {reason}")
}

fn summary(counts: &Counts, findings: usize) -> String {
    let outcome = match findings {
        0 => "all well".to_owned(),
        1 => "1 finding".to_owned(),
        more => format!("{more} findings"),
    };
    format!(
        "Checked: images {}, layers {}, files {}, blobs {}, {}: {outcome}",
        counts.images,
        counts.layers,
        counts.files,
        counts.blobs,
        format_bytes(counts.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_a_file_is_called() {
        let finding = Finding {
            kind: "file".into(),
            image: "a:1".into(),
            digest: "sha256:b".into(),
            path: b"c\nd".to_vec(),
            what: "it is not there".into(),
        };
        let line = finding_line(&finding);
        assert_eq!(line, "a:1: layer sha256:b: /c\\nd: it is not there");
    }
}
