//! Any command line: a refusal, or values that the table knows; and any id: a refusal, or the name of one folder.
#![no_main]
#![allow(dead_code, unused_imports)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/cli/mod.rs"]
mod cli;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/id.rs"]
mod id;

fuzz_target!(|words: Vec<String>| {
    for word in &words {
        if let Ok(id) = id::Id::parse(word) {
            let place = Path::new("/root").join(id.as_str());
            assert_eq!(place.parent(), Some(Path::new("/root")), "{word:?}");
            assert_eq!(
                place.file_name().and_then(|name| name.to_str()),
                Some(word.as_str())
            );
        }
    }
    let count = words.len();
    match cli::parse::parse(words) {
        cli::parse::Parsed::Run(invocation) => {
            assert!(invocation.arguments.len() < count, "the command itself is none");
        }
        cli::parse::Parsed::Wrong { text, .. } => assert!(!text.is_empty()),
        cli::parse::Parsed::Help(_) | cli::parse::Parsed::Version => {}
    }
});
