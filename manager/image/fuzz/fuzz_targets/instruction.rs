//! Dockerfile instructions, as `--change` takes them.
#![no_main]

image_fuzz::target!(text: &str => image::fuzzing::instruction(text));
