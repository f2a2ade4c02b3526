//! The trust policy.
#![no_main]

image_fuzz::target!(content: &[u8] => image::fuzzing::policy(content));
