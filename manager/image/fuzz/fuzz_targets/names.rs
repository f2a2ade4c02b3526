//! Names in a layer, and what its links point to.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::names(content));
