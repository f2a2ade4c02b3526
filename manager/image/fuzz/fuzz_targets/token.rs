//! What a token server answers.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::token(content));
