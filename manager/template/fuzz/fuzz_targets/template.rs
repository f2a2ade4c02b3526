//! A template of any text, over what `inspect` could tell. It ends, and never panics.
#![no_main]

use serde_json::json;
use template::Template;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(template) = Template::parse(text) {
        let data = json!({"Name": "web", "Labels": {"a": "b"}, "Ports": [1, 2.5, null], "Deep": [[{"X": true}]]});
        let _ = template.render(&data);
    }
});
