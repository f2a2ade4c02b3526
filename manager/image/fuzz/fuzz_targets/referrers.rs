//! What registries answer about the referrers of a manifest.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::referrers(content));
