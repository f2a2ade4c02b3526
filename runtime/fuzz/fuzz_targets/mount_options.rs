//! Any words as the options of a mount: an error or a reading that stays the same however often the words are said.
#![no_main]
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/mounts/options.rs"]
mod options;
#[path = "../../src/sys"]
mod sys {
    pub(crate) mod mount;
}

fuzz_target!(|text: &str| {
    let words: Vec<&str> = text.split(',').collect();
    let Ok(once) = options::Options::parse(&words) else {
        return;
    };
    // Nothing is set and cleared at once, but for the access time, which is cleared to be set.
    for attributes in [once.attributes, once.recursive] {
        assert_eq!(attributes.set & attributes.clear & !libc::MOUNT_ATTR__ATIME, 0);
    }
    let data: Vec<String> = once.data.iter().map(ToString::to_string).collect();
    assert_eq!(once.data_line(), data.join(","));
    // What was kept as data is still data when it is read again, and nothing else.
    let again = options::Options::parse(&data).expect("data reads as data");
    assert_eq!(again.data, once.data);
    assert!(again.attributes.is_empty() && again.recursive.is_empty() && again.propagation.is_empty());
});
