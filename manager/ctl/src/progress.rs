//! A pull as it goes on: a bar for each layer on a terminal, a line for each step anywhere else. Always on
//! stderr, so that stdout has only the result.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use proto::v1::LayerProgress;
use proto::v1::layer_progress::Phase;

use crate::size::format_bytes;

/// Digits of a layer's digest that tell it from the others of an image.
const SHORT_DIGEST: usize = 12;

/// Shows the state of layers.
pub(crate) enum Progress {
    Quiet,
    Lines(HashMap<String, Phase>),
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
        match self {
            Self::Quiet => {}
            Self::Lines(phases) => {
                let changed = phases.insert(layer.digest.clone(), layer.phase()) != Some(layer.phase());
                if changed && let Some(words) = describe(layer) {
                    eprintln!("{}: {words}", short_digest(&layer.digest));
                }
            }
            Self::Bars { all, asking, layers } => {
                if !asking.is_finished() {
                    asking.finish_and_clear();
                }
                let bar = layers
                    .entry(layer.digest.clone())
                    .or_insert_with(|| all.add(new_bar(&layer.digest)));
                update_bar(bar, layer);
            }
        }
    }
}

fn new_bar(digest: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_style(style("{prefix}: {msg}"));
    bar.set_prefix(short_digest(digest));
    bar
}

fn update_bar(bar: &ProgressBar, layer: &LayerProgress) {
    match layer.phase() {
        Phase::Downloading => {
            // Before the first byte the size is not known, and a bar without a size is a lie.
            if layer.total_bytes > 0 && bar.length() != Some(layer.total_bytes) {
                bar.set_style(style(
                    "{prefix}: {msg} [{bar:32}] {decimal_bytes}/{decimal_total_bytes}",
                ));
                bar.set_length(layer.total_bytes);
            }
            bar.set_message("downloading");
            bar.set_position(layer.downloaded_bytes);
        }
        Phase::Done | Phase::Present => {
            bar.set_style(style("{prefix}: {msg}"));
            bar.finish_with_message(describe(layer).unwrap_or_default());
        }
        _ => {
            bar.set_style(style("{prefix}: {msg}"));
            bar.set_message(describe(layer).unwrap_or_default());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The phase in words; nothing for a phase this client does not know.
fn describe(layer: &LayerProgress) -> Option<String> {
    let total = |verb: &str| match layer.total_bytes {
        0 => verb.to_owned(),
        bytes => format!("{verb} ({})", format_bytes(bytes)),
    };
    let unpacked = |verb: &str| match layer.unpacked_bytes {
        0 => verb.to_owned(),
        bytes => format!("{verb} ({} unpacked)", format_bytes(bytes)),
    };
    match layer.phase() {
        Phase::Waiting => Some("waiting".to_owned()),
        Phase::Downloading => Some(total("downloading")),
        Phase::Verifying => Some("verifying".to_owned()),
        Phase::Verified => Some(unpacked("verified")),
        Phase::Done => Some(total("done")),
        Phase::Present => Some("already here".to_owned()),
        Phase::Unspecified => None,
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
