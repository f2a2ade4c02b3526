//! Doors for the fuzz targets in `fuzz/`.

use std::path::Path;

use crate::file::File;
use crate::{Secret, helper};

/// A `config.json`: what is set in it is found again, and what is removed is not.
pub fn file(content: &[u8]) {
    let Ok(mut file) = File::parse(Path::new("config.json"), content) else {
        return;
    };
    for host in ["docker.io", "registry.example:5000"] {
        let _ = (file.helper(host), file.entry(host));
        let secret = Secret::IdentityToken("token".into());
        file.set(host, Some(&secret));
        assert!(file.entry(host).is_ok_and(|found| found == Some(secret)));
        file.remove(host);
        assert!(!file.has(host));
    }
}

/// Answers of a credential helper.
pub fn helper(content: &[u8]) {
    if let Ok(Some(Secret::IdentityToken(secret) | Secret::Password { password: secret, .. })) =
        helper::parse_get(content)
    {
        assert!(!secret.is_empty());
    }
    let _ = helper::parse_list(content);
}
