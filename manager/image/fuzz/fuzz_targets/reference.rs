//! Image references.
#![no_main]

image_fuzz::target!(text: &str => image::fuzzing::reference(text));
