//! Certificates in PEM, in files that the policy names.

use x509_cert::Certificate;

/// At least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    // Of nothing but ends of lines the library computes a length below zero.
    if pem.trim_ascii().is_empty() {
        return Err("there is no certificate in it".into());
    }
    let found = Certificate::load_pem_chain(pem).map_err(|e| e.to_string())?;
    if found.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        for text in ["", "\n", "\r\n \n", "\n\n\n", "x", "-----BEGIN CERTIFICATE-----"] {
            assert!(certificates(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
