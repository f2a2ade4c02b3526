//! Timestamp tokens, RFC 3161: the certificates that come with them. Whether they hold is for sigstore's crate to say.

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use sigstore_verify::types::DerCertificate;
use x509_cert::der::{Decode as _, Encode as _, Error};

const CERTIFICATES_MAX: usize = 10;

pub(super) fn certificates(token: &[u8]) -> Result<Vec<DerCertificate>, Error> {
    let content = ContentInfo::from_der(token)?.content;
    let signed: SignedData = content.decode_as()?;
    let choices = signed.certificates.iter().flat_map(|set| set.0.iter());
    choices
        .filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate),
            CertificateChoices::Other(_) => None,
        })
        .take(CERTIFICATES_MAX)
        .map(|certificate| Ok(DerCertificate::new(certificate.to_der()?)))
        .collect()
}
