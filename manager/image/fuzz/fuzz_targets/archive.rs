//! Archives of images, loaded into a store.
#![no_main]

use std::sync::LazyLock;

static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(image_fuzz::folder);

image_fuzz::target!(content: &[u8] => image::fuzzing::archive(&image_fuzz::with_checksums(content), ROOT.path()));
