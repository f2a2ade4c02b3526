//! The records of a PAX header.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::pax(content));
