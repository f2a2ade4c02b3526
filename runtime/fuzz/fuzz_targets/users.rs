//! Any text as an image's /etc/passwd: whose home is found has a line that says so.
#![no_main]
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/sys/mod.rs"]
mod sys;
#[path = "../../src/user.rs"]
mod user;

/// What the runtime's `main` would call, which is not the fuzzer's.
fn begin() -> i32 {
    0
}

fuzz_target!(|input: (u32, &[u8])| {
    let (uid, text) = input;
    let home = user::find_home(text, uid);
    let text = String::from_utf8_lossy(text);
    let says = |line: &str, home: &str| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        fields.get(2).and_then(|field| field.parse().ok()) == Some(uid) && fields.get(5) == Some(&home)
    };
    match home {
        Some(home) => {
            assert!(home.starts_with('/'), "{home:?}");
            assert!(text.split('\n').any(|line| says(line, &home)), "{home:?}");
        }
        None => assert!(
            !text
                .split('\n')
                .any(|line| !line.starts_with(['#', ':']) && says(line, "/"))
        ),
    }
});
