//! A pull or push as it goes on: a bar for each layer on a terminal, a line for each step anywhere else. Always on
//! stderr, so that stdout has only the result.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use proto::v1::blob_progress::Phase as BlobPhase;
use proto::v1::layer_progress::Phase;
use proto::v1::{BlobProgress, LayerProgress};

use crate::size::format_bytes;

/// Digits of a layer's digest that tell it from the others of an image.
const SHORT_DIGEST: usize = 12;

/// Shows the state of layers and other blobs.
pub(crate) enum Progress {
    Quiet,
    /// What was last said of each.
    Lines(HashMap<String, String>),
    Bars {
        all: MultiProgress,
        /// Stands there until the registry has said which layers there are.
        asking: ProgressBar,
        layers: HashMap<String, ProgressBar>,
    },
}

impl Progress {
    pub(crate) fn new(reference: &str, quiet: bool) -> Self {
        match () {
            () if quiet => Self::Quiet,
            () if io::stderr().is_terminal() => {
                let all = MultiProgress::new();
                let asking = all.add(ProgressBar::new(0).with_style(style("{msg}")));
                asking.set_message(format!("{reference}: asking the registry"));
                asking.tick();
                Self::Bars {
                    all,
                    asking: asking.with_finish(ProgressFinish::AndClear),
                    layers: HashMap::new(),
                }
            }
            () => Self::Lines(HashMap::new()),
        }
    }

    /// Shows what the manager said of one layer.
    pub(crate) fn update(&mut self, layer: &LayerProgress) {
        let moving = (layer.phase() == Phase::Downloading).then_some(Moving {
            verb: "downloading",
            bytes: layer.downloaded_bytes,
            total_bytes: layer.total_bytes,
        });
        let is_end = matches!(layer.phase(), Phase::Done | Phase::Present);
        self.show(&layer.digest, describe(layer), moving.as_ref(), is_end);
    }

    /// Shows what the manager said of one blob of a push.
    pub(crate) fn update_blob(&mut self, blob: &BlobProgress) {
        let moving = (blob.phase() == BlobPhase::Uploading).then_some(Moving {
            verb: "uploading",
            bytes: blob.uploaded_bytes,
            total_bytes: blob.total_bytes,
        });
        let is_end = matches!(
            blob.phase(),
            BlobPhase::Done | BlobPhase::Present | BlobPhase::Mounted
        );
        self.show(&blob.digest, describe_blob(blob), moving.as_ref(), is_end);
    }

    fn show(&mut self, digest: &str, words: Option<String>, moving: Option<&Moving>, is_end: bool) {
        match self {
            Self::Quiet => {}
            Self::Lines(shown) => {
                if let Some(words) = words
                    && shown.insert(digest.to_owned(), words.clone()).as_ref() != Some(&words)
                {
                    eprintln!("{}: {words}", short_digest(digest));
                }
            }
            Self::Bars { all, asking, layers } => {
                if !asking.is_finished() {
                    asking.finish_and_clear();
                }
                let bar = layers
                    .entry(digest.to_owned())
                    .or_insert_with(|| all.add(new_bar(digest)));
                update_bar(bar, words.unwrap_or_default(), moving, is_end);
            }
        }
    }
}

/// Bytes on their way.
struct Moving {
    verb: &'static str,
    bytes: u64,
    total_bytes: u64,
}

fn new_bar(digest: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_style(style("{prefix}: {msg}"));
    bar.set_prefix(short_digest(digest));
    bar
}

fn update_bar(bar: &ProgressBar, words: String, moving: Option<&Moving>, is_end: bool) {
    let Some(moving) = moving else {
        bar.set_style(style("{prefix}: {msg}"));
        if is_end {
            bar.finish_with_message(words);
        } else {
            bar.set_message(words);
        }
        return;
    };
    // Before the first byte the size is not known, and a bar without a size is a lie.
    if moving.total_bytes > 0 && bar.length() != Some(moving.total_bytes) {
        bar.set_style(style(
            "{prefix}: {msg} [{bar:32}] {decimal_bytes}/{decimal_total_bytes}",
        ));
        bar.set_length(moving.total_bytes);
    }
    bar.set_message(moving.verb);
    bar.set_position(moving.bytes);
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The phase in words; nothing for a phase this client does not know.
fn describe(layer: &LayerProgress) -> Option<String> {
    let unpacked = |verb: &str| match layer.unpacked_bytes {
        0 => verb.to_owned(),
        bytes => format!("{verb} ({} unpacked)", format_bytes(bytes)),
    };
    match layer.phase() {
        Phase::Waiting => Some("waiting".to_owned()),
        Phase::Downloading => Some(with_size("downloading", layer.total_bytes)),
        Phase::Verifying => Some("verifying".to_owned()),
        Phase::Verified => Some(unpacked("verified")),
        Phase::Done => Some(with_size("done", layer.total_bytes)),
        Phase::Present => Some("already here".to_owned()),
        Phase::Unspecified => None,
    }
}

fn describe_blob(blob: &BlobProgress) -> Option<String> {
    match blob.phase() {
        BlobPhase::Waiting => Some("waiting".to_owned()),
        BlobPhase::Uploading => Some(with_size("uploading", blob.total_bytes)),
        BlobPhase::Done => Some(with_size("pushed", blob.total_bytes)),
        BlobPhase::Present => Some("already there".to_owned()),
        BlobPhase::Mounted => Some("mounted from another repository".to_owned()),
        BlobPhase::Unspecified => None,
    }
}

fn with_size(verb: &str, bytes: u64) -> String {
    match bytes {
        0 => verb.to_owned(),
        bytes => format!("{verb} ({})", format_bytes(bytes)),
    }
}

/// The first digits of a digest, without its algorithm.
pub(crate) fn short_digest(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT_DIGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_shortened_without_their_algorithm() {
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_digest("abc"), "abc");
    }

    #[test]
    fn phases_are_words() {
        let layer = |phase: Phase, total_bytes| LayerProgress {
            phase: phase.into(),
            total_bytes,
            ..Default::default()
        };
        assert_eq!(
            describe(&layer(Phase::Done, 1500)).as_deref(),
            Some("done (1.5kB)")
        );
        assert_eq!(
            describe(&layer(Phase::Downloading, 0)).as_deref(),
            Some("downloading")
        );
        assert_eq!(describe(&layer(Phase::Unspecified, 0)), None);
    }
}
