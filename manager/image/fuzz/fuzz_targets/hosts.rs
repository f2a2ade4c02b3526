//! The file hosts.toml.
#![no_main]

image_fuzz::target!(text: &str => image::fuzzing::hosts(text));
