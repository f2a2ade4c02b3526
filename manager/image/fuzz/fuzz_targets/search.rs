//! Answers to searches, pages of catalogs, and the links between them.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::search(content));
