//! The documents of an archive of images: index.json, manifest.json, repositories, and what they point to.
#![no_main]

use std::sync::LazyLock;

static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(image_fuzz::folder);

image_fuzz::target!(content: &[u8] => image::fuzzing::documents(content, ROOT.path()));
