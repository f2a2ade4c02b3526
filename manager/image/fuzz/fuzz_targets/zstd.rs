//! zstd streams, frame by frame.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::zstd(content));
