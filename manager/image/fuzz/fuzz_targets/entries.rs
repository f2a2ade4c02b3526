//! The entries of a tar stream, in memory.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::entries(&image_fuzz::with_checksums(content)));
