//! The header in which a registry asks for credentials.
#![no_main]

image_fuzz::target!(header: &str => image::fuzzing::challenge(header));
