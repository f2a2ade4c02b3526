//! `push`, `search` and `manifest inspect`.

use std::io::Write as _;

use proto::v1::push_progress::Kind;
use proto::v1::search_response::Result as SearchResult;
use proto::v1::{InspectManifestRequest, PushRequest, Referrer, SearchRequest};
use serde_json::{Value, json};

use super::credentials;
use crate::cli::{Format, InspectManifest, Push, Search};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{self, Table, cell};
use crate::progress::Progress;

/// Characters of a description in a table.
const DESCRIPTION_LENGTH: usize = 45;

pub(super) async fn push(client: &Client, flags: &Push) -> Result<u8> {
    let reference = &flags.reference;
    let request = PushRequest {
        reference: reference.clone(),
        credentials: credentials::of_registry(reference)?,
        all_tags: flags.all_tags,
    };
    let mut progress = Progress::new(reference, flags.quiet);
    let reply = client.images().push(request).await;
    let mut messages = reply.map_err(|status| client.failure(&status))?.into_inner();
    let mut all_pushed = Vec::new();
    let ended = loop {
        match messages.message().await {
            Ok(Some(message)) => match message.kind {
                Some(Kind::Blob(blob)) => progress.update_blob(&blob),
                Some(Kind::Pushed(pushed)) => all_pushed.push(pushed),
                None => {}
            },
            Ok(None) => break Ok(()),
            Err(status) => break Err(client.failure(&status)),
        }
    };
    // Those before one that failed are there.
    drop(progress);
    for pushed in &all_pushed {
        if !flags.quiet {
            output::print_line(&format!("Digest: {}", pushed.digest))?;
        }
        output::print_line(&pushed.name)?;
    }
    ended?;
    if all_pushed.is_empty() {
        return Err(Failure::new(format!(
            "push {reference}: the manager did not say what it pushed"
        )));
    }
    Ok(0)
}

pub(super) async fn search(client: &Client, flags: &Search, format: Format) -> Result<u8> {
    let request = SearchRequest {
        term: flags.term.clone(),
        limit: flags.limit,
        credentials: credentials::of_registry(&flags.term)?,
    };
    let reply = client.images().search(request).await;
    let found = reply
        .map_err(|status| client.failure(&status))?
        .into_inner()
        .results;
    if let Format::Template(layout) = &format {
        let row = |one: &SearchResult| {
            json!({
                "Name": one.name, "Description": one.description, "StarCount": one.stars,
                "IsOfficial": if one.official { "[OK]" } else { "" },
            })
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        layout.print_rows(&rows, &row(&SearchResult::default()), &[])?;
        return Ok(0);
    }
    if format == Format::Json {
        let each = found.into_iter().map(|one| {
            json!({"name": one.name, "description": one.description, "stars": one.stars, "official": one.official})
        });
        output::print_json(&each.collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    for one in found {
        let description = if flags.no_trunc || one.description.chars().count() <= DESCRIPTION_LENGTH {
            one.description
        } else {
            one.description
                .chars()
                .take(DESCRIPTION_LENGTH - 1)
                .chain(['…'])
                .collect()
        };
        table.row([
            cell(one.name),
            cell(description),
            cell(one.stars.to_string()),
            cell(if one.official { "[OK]" } else { "" }),
        ]);
    }
    table.print()?;
    Ok(0)
}

pub(super) async fn inspect_manifest(client: &Client, flags: &InspectManifest) -> Result<u8> {
    let request = InspectManifestRequest {
        reference: flags.reference.clone(),
        credentials: credentials::of_registry(&flags.reference)?,
        referrers: flags.referrers,
    };
    let reply = client.images().inspect_manifest(request).await;
    let found = reply.map_err(|status| client.failure(&status))?.into_inner();
    if flags.raw {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&found.content).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::new(format!("write to stdout: {error}")))?;
        return Ok(0);
    }
    let document: Value = serde_json::from_slice(&found.content).map_err(|error| {
        Failure::new(format!(
            "{}: the registry has no JSON there ({}): {error}",
            flags.reference, found.media_type
        ))
    })?;
    if !flags.referrers {
        output::print_json(&document)?;
        return Ok(0);
    }
    output::print_json(&json!({
        "mediaType": found.media_type,
        "digest": found.digest,
        "manifest": document,
        "referrers": found.referrers.iter().map(referrer).collect::<Vec<_>>(),
    }))?;
    Ok(0)
}

fn referrer(referrer: &Referrer) -> Value {
    json!({
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size_bytes,
        "artifactType": referrer.artifact_type,
        "annotations": referrer.annotations,
    })
}
