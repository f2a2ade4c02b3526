//! The headers that say how much of an upload has arrived, and where the rest goes.
#![no_main]

image_fuzz::target!(header: &str => image::fuzzing::upload(header));
