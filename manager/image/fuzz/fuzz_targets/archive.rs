//! Archives of images, loaded into a store.
#![no_main]

use std::sync::LazyLock;

static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for the store"));

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::archive(content, ROOT.path()));
