//! `pull`, `images`, `rmi`.

use proto::v1::pull_progress::Kind;
use proto::v1::{Image, ListImagesRequest, PullRequest, Pulled, RemoveImageRequest};
use tonic::Code;

use serde_json::json;

use super::credentials;
use super::store::ago;
use crate::cli::{Format, Images, Pull, RemoveImages};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::format;
use crate::output::{self, Table, cell};
use crate::progress::{Progress, short_digest};
use crate::{size, views};

const NONE: &str = "<none>";

pub(super) async fn pull(client: &Client, flags: &Pull) -> Result<u8> {
    let request = PullRequest {
        reference: flags.reference.clone(),
        platform: flags.platform.clone(),
        all_platforms: flags.all_platforms,
        ..PullRequest::default()
    };
    let pulled = fetch(client, request, flags.quiet).await?;
    if !flags.quiet {
        output::print_line(&format!("Digest: {}", pulled.digest))?;
    }
    output::print_line(&pulled.name)?;
    Ok(0)
}

/// Pulls what a container is to be made of.
pub(super) async fn fetch_image(client: &Client, reference: &str, platform: &str, quiet: bool) -> Result<()> {
    let request = PullRequest {
        reference: reference.to_owned(),
        platform: platform.to_owned(),
        images_only: true,
        ..PullRequest::default()
    };
    fetch(client, request, quiet).await.map(drop)
}

/// Pulls with the user's credentials, and shows how it goes on stderr.
async fn fetch(client: &Client, mut request: PullRequest, quiet: bool) -> Result<Pulled> {
    let reference = request.reference.clone();
    request.credentials = credentials::of_registry(&reference)?;
    let mut progress = Progress::new(&reference, quiet);
    let reply = client
        .images()
        .pull(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut messages = reply.into_inner();
    let mut pulled = None;
    while let Some(message) = messages
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        match message.kind {
            Some(Kind::Layer(layer)) => progress.update(&layer),
            Some(Kind::Pulled(last)) => pulled = Some(*last),
            None => {}
        }
    }
    pulled.ok_or_else(|| {
        Failure::new(format!(
            "pull {reference}: the manager did not say what it pulled"
        ))
    })
}

pub(super) async fn list(client: &Client, flags: &Images, format: Format) -> Result<u8> {
    let mut filters = flags.filters.clone();
    filters.extend(flags.reference.as_ref().map(|name| format!("reference={name}")));
    let reply = client
        .images()
        .list(ListImagesRequest { filters })
        .await
        .map_err(|status| client.failure(&status))?;
    let mut images = reply.into_inner().images;
    images.sort_by(|a, b| {
        b.created_unix_seconds
            .cmp(&a.created_unix_seconds)
            .then_with(|| a.id.cmp(&b.id))
    });
    let id = |image: &Image| {
        if flags.no_trunc {
            image.id.clone()
        } else {
            short_digest(&image.id)
        }
    };
    if flags.quiet {
        let ids: String = images.iter().map(|image| id(image) + "\n").collect();
        output::print(&ids)?;
    } else if format == Format::Json {
        output::print_json(&images.iter().map(views::Image::from).collect::<Vec<_>>())?;
    } else if let Format::Template(layout) = &format {
        let mut rows = Vec::new();
        for image in &images {
            for name in repositories_and_tags(&image.names) {
                rows.push(row(image, name, &id(image))?);
            }
        }
        let none = (String::new(), String::new());
        let sample = row(&Image::default(), none, "")?;
        layout.print_rows(&rows, &sample, &[("ID", "IMAGE ID")])?;
    } else {
        table(&images, flags.digests, id).print()?;
    }
    Ok(0)
}

/// With docker's fields.
fn row(image: &Image, (repository, tag): (String, String), id: &str) -> Result<serde_json::Value> {
    let dockers = json!({
        "ID": id,
        "Digest": digest_of(image, &repository),
        "Repository": repository,
        "Tag": tag,
        "CreatedSince": ago(image.created_unix_seconds),
        "Size": size::format_bytes(image.size_bytes),
    });
    format::row(dockers, &views::Image::from(image))
}

/// A row for each name of each image. What is no image tells its type, in a column that docker's table does not have.
fn table(images: &[Image], digests: bool, id: impl Fn(&Image) -> String) -> Table {
    let types = images.iter().any(|image| !image.artifact_type.is_empty());
    let mut header = vec!["REPOSITORY", "TAG"];
    header.extend(digests.then_some("DIGEST"));
    header.extend(["IMAGE ID", "CREATED", "SIZE"]);
    header.extend(types.then_some("TYPE"));
    let mut table = Table::new(&header);
    for image in images {
        for (repository, tag) in repositories_and_tags(&image.names) {
            let digest = digests.then(|| cell(digest_of(image, &repository)));
            let mut row = vec![cell(repository), cell(tag)];
            row.extend(digest);
            row.extend([
                cell(id(image)),
                cell(ago(image.created_unix_seconds)),
                cell(size::format_bytes(image.size_bytes)),
            ]);
            row.extend(types.then(|| {
                cell(match image.artifact_type.as_str() {
                    "" => "image",
                    of_artifact => of_artifact,
                })
            }));
            table.row(row);
        }
    }
    table
}

/// What a registry has of an image under a repository; any, for an image without a name.
fn digest_of(image: &Image, repository: &str) -> String {
    let digest = image.repo_digests.iter().find_map(|known| {
        let (of, digest) = known.split_once('@')?;
        let (of, _) = repository_and_tag(of);
        (of == repository || repository == NONE).then(|| digest.to_owned())
    });
    digest.unwrap_or_else(|| NONE.to_owned())
}

pub(super) async fn remove(client: &Client, flags: RemoveImages) -> Result<u8> {
    let mut code = 0;
    for image in flags.images {
        let request = RemoveImageRequest {
            image,
            force: flags.force,
        };
        match client.images().remove(request).await {
            Ok(reply) => {
                let removed = reply.into_inner();
                let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
                let deleted = removed.deleted.iter().map(|id| format!("Deleted: {id}\n"));
                output::print(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(status) => {
                client.failure(&status).report();
                // With force, what is not there is as wished.
                if !flags.force || status.code() != Code::NotFound {
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

/// A row for each name, as docker shows them; one without names for an image that has none.
fn repositories_and_tags(names: &[String]) -> Vec<(String, String)> {
    if names.is_empty() {
        return vec![(NONE.to_owned(), NONE.to_owned())];
    }
    names.iter().map(|name| repository_and_tag(name)).collect()
}

fn repository_and_tag(name: &str) -> (String, String) {
    let (name, has_digest) = match name.split_once('@') {
        Some((name, _)) => (name, true),
        None => (name, false),
    };
    // A colon before the last slash is a port's.
    let tag_at = name
        .rfind(':')
        .filter(|&colon| name.rfind('/').is_none_or(|slash| slash < colon));
    let (repository, tag) = match tag_at {
        Some(colon) => (&name[..colon], &name[colon + 1..]),
        None if has_digest => (name, NONE),
        None => (name, "latest"),
    };
    (views::familiar(repository).to_owned(), tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_people_type_them() {
        let shown = |name: &str| {
            let (repository, tag) = repository_and_tag(name);
            format!("{repository} {tag}")
        };
        assert_eq!(shown("docker.io/library/debian:12"), "debian 12");
        assert_eq!(shown("docker.io/user/app:latest"), "user/app latest");
        assert_eq!(shown("localhost:5000/a/b:tag"), "localhost:5000/a/b tag");
        assert_eq!(shown("localhost:5000/a/b"), "localhost:5000/a/b latest");
        assert_eq!(shown("quay.io/a@sha256:00"), "quay.io/a <none>");
        assert_eq!(
            repositories_and_tags(&[]),
            [("<none>".to_owned(), "<none>".to_owned())]
        );
    }
}
