//! Manifests, indexes and image configs.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::manifest(content));
