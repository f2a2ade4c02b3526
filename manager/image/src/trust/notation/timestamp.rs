//! Timestamps of signatures, RFC 3161: who says that a signature was there, when, and whether they may say so.
//!
//! A token is a CMS message (RFC 5652) of one signer. The crate `cms` takes it apart; that it holds is judged here, for
//! the crates that do so know keys on curves alone, and most public authorities have RSA keys.

use std::ops::RangeInclusive;

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerInfo};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::attr::AttributeValue;
use x509_cert::der::asn1::{AnyRef, ContextSpecific, OctetString};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5911::{ID_CONTENT_TYPE, ID_MESSAGE_DIGEST, ID_SIGNED_DATA};
use x509_cert::der::oid::db::rfc5912::{ID_KP_TIME_STAMPING, ID_SHA_256, ID_SHA_384, ID_SHA_512};
use x509_cert::der::{
    Decode, Encode as _, Error, Reader, Result as DerResult, SliceReader, Tag, TagNumber, Tagged as _,
};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::stores::{Kind, Stores};

const CERTIFICATES_MAX: usize = 10;
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
/// Authorities under this policy are right to the second if they say no more (ETSI EN 319 421).
const BASELINE_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.4.0.2023.1.1");

/// Between which times `signature` was there, by an authority that one in the stores has certified.
pub(super) fn verify(
    token: &[u8],
    signature: &[u8],
    stores: &Stores,
) -> Result<RangeInclusive<Timestamp>, String> {
    let token = Token::parse(token).map_err(|e| format!("its timestamp is not one (RFC 3161): {e}"))?;
    token
        .verify(signature, stores)
        .map_err(|e| format!("its timestamp: {e}"))
}

/// What is in a token. Nothing of it is believed before [`Token::verify`].
struct Token {
    /// What is signed, and the same read.
    content: Vec<u8>,
    info: Info,
    signer: SignerInfo,
    certificates: Vec<Vec<u8>>,
}

/// `TSTInfo`. Of its optional fields, those after the accuracy are not asked for: they are for who has sent a request.
struct Info {
    policy: ObjectIdentifier,
    hash_algorithm: ObjectIdentifier,
    hash: Vec<u8>,
    time: Timestamp,
    accuracy: SignedDuration,
}

impl Token {
    fn parse(token: &[u8]) -> DerResult<Token> {
        let wrong = |tag: Tag| Err(tag.value_error());
        let message = ContentInfo::from_der(token)?;
        if message.content_type != ID_SIGNED_DATA {
            return wrong(Tag::ObjectIdentifier);
        }
        let signed: SignedData = message.content.decode_as()?;
        let content = match (&signed.encap_content_info.econtent, signed.signer_infos.0.len()) {
            (Some(content), 1) if signed.encap_content_info.econtent_type == TST_INFO => {
                content.decode_as::<OctetString>()?.into_bytes()
            }
            _ => return wrong(Tag::Sequence),
        };
        let choices = signed.certificates.iter().flat_map(|set| set.0.iter());
        let certificates = choices.filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate.to_der()),
            CertificateChoices::Other(_) => None,
        });
        Ok(Token {
            info: Info::parse(&content)?,
            content,
            certificates: certificates.take(CERTIFICATES_MAX).collect::<Result<_, _>>()?,
            signer: signed
                .signer_infos
                .0
                .get(0)
                .ok_or_else(|| Tag::Set.value_error())?
                .clone(),
        })
    }

    fn verify(&self, signature: &[u8], stores: &Stores) -> Result<RangeInclusive<Timestamp>, String> {
        if hash(self.info.hash_algorithm, signature)? != self.info.hash {
            return Err("it is for another signature".into());
        }
        let leaf = self.signing_certificate()?;
        self.verify_signature(leaf)?;
        check_usage(leaf)?;
        // Authorities above it need not say so: the check of its own usage is the stricter one.
        let usage = KeyUsage::required_if_present(ID_KP_TIME_STAMPING.as_bytes());
        stores.verify_path(Kind::Tsa, leaf, &self.certificates, usage, self.info.time)?;
        self.info.range()
    }

    /// The certificate that the signer says is theirs, by its hash and in what is signed (RFC 5816): of two
    /// certificates for one key, another could be put in its place otherwise.
    fn signing_certificate(&self) -> Result<&[u8], String> {
        let (algorithm, wanted) = self
            .attribute(SIGNING_CERTIFICATE_V2)
            .and_then(|value| certificate_hash(value).ok())
            .ok_or("it does not say which certificate it is signed with (signingCertificateV2)")?;
        for certificate in &self.certificates {
            if hash(algorithm, certificate)? == wanted {
                return Ok(certificate);
            }
        }
        Err("its signer's certificate is not in it".into())
    }

    /// Source: RFC 5652, section 5.4: the signature is over the attributes, and one of them is the content's hash.
    fn verify_signature(&self, leaf: &[u8]) -> Result<(), String> {
        let content_hash = hash(self.signer.digest_alg.oid, &self.content)?;
        let digest = self
            .attribute(ID_MESSAGE_DIGEST)
            .and_then(|value| value.decode_as::<OctetString>().ok());
        let content_type = self
            .attribute(ID_CONTENT_TYPE)
            .and_then(|value| value.decode_as().ok());
        if content_type != Some(TST_INFO) || digest.is_none_or(|digest| digest.as_bytes() != content_hash) {
            return Err("what is signed is something else".into());
        }
        let attributes = self
            .signer
            .signed_attrs
            .as_ref()
            .ok_or("it has no signed attributes")?;
        let signed = attributes.to_der().map_err(|e| e.to_string())?;
        let certificate = CertificateDer::from(leaf);
        let key = EndEntityCert::try_from(&certificate).map_err(|e| format!("its certificate: {e}"))?;
        let signature = self.signer.signature.as_bytes();
        // The key says which kind of signature it has to be; all hashes that are there are good ones.
        ALL_VERIFICATION_ALGS
            .iter()
            .any(|algorithm| key.verify_signature(*algorithm, &signed, signature).is_ok())
            .then_some(())
            .ok_or_else(|| "it is not a signature by its certificate's key".to_owned())
    }

    /// The one value of a signed attribute.
    fn attribute(&self, wanted: ObjectIdentifier) -> Option<&AttributeValue> {
        let mut all = self
            .signer
            .signed_attrs
            .as_ref()?
            .iter()
            .filter(|attribute| attribute.oid == wanted);
        match (all.next(), all.next()) {
            (Some(attribute), None) if attribute.values.len() == 1 => attribute.values.get(0),
            _ => None,
        }
    }
}

impl Info {
    fn parse(content: &[u8]) -> DerResult<Info> {
        let mut reader = SliceReader::new(content)?;
        let info = reader.sequence(|reader| {
            let version = u8::decode(reader)?;
            if version != 1 {
                return Err(Tag::Integer.value_error());
            }
            let policy = ObjectIdentifier::decode(reader)?;
            let (algorithm, hash) = reader.sequence(|imprint| {
                Ok((
                    AlgorithmIdentifierOwned::decode(imprint)?,
                    OctetString::decode(imprint)?,
                ))
            })?;
            let _serial_number = AnyRef::decode(reader)?;
            let time = time(AnyRef::decode(reader)?)?;
            let accuracy = if !reader.is_finished() && reader.peek_tag()? == Tag::Sequence {
                reader.sequence(accuracy)?
            } else {
                SignedDuration::ZERO
            };
            rest(reader)?;
            Ok(Info {
                policy,
                hash_algorithm: algorithm.oid,
                hash: hash.into_bytes(),
                time,
                accuracy,
            })
        })?;
        reader.finish(info)
    }

    fn range(&self) -> Result<RangeInclusive<Timestamp>, String> {
        let accuracy = if self.accuracy.is_zero() && self.policy == BASELINE_POLICY {
            SignedDuration::from_secs(1)
        } else {
            self.accuracy
        };
        let edge = |time: Result<Timestamp, jiff::Error>| time.map_err(|e| e.to_string());
        Ok(edge(self.time.checked_sub(accuracy))?..=edge(self.time.checked_add(accuracy))?)
    }
}

/// The one purpose that the key may have, and that who does not know it has to refuse (RFC 3161, section 2.3).
fn check_usage(certificate: &[u8]) -> Result<(), String> {
    let refuse = |e: Error| format!("its certificate: {e}");
    let certificate = Certificate::from_der(certificate).map_err(refuse)?;
    match certificate
        .tbs_certificate
        .get::<ExtendedKeyUsage>()
        .map_err(refuse)?
    {
        Some((true, usage)) if usage.0 == [ID_KP_TIME_STAMPING] => Ok(()),
        _ => Err("its certificate is not one for timestamps alone (extendedKeyUsage)".into()),
    }
}

/// `GeneralizedTime` with fractions of seconds, which certificates must not have and tokens may.
fn time(value: AnyRef<'_>) -> DerResult<Timestamp> {
    let wrong = || Tag::GeneralizedTime.value_error();
    let text = std::str::from_utf8(value.value()).map_err(|_| wrong())?;
    if value.tag() != Tag::GeneralizedTime {
        return Err(wrong());
    }
    DateTime::strptime("%Y%m%d%H%M%S%.fZ", text)
        .and_then(|time| Offset::UTC.to_timestamp(time))
        .map_err(|_| wrong())
}

fn accuracy<'a>(reader: &mut impl Reader<'a>) -> DerResult<SignedDuration> {
    let seconds = if !reader.is_finished() && reader.peek_tag()? == Tag::Integer {
        u32::decode(reader)?
    } else {
        0
    };
    let mut part = |number| {
        ContextSpecific::<u16>::decode_implicit(reader, number)
            .map(|part| part.map_or(0, |part| i64::from(part.value)))
    };
    let millis = part(TagNumber::N0)?;
    let micros = part(TagNumber::N1)?;
    Ok(SignedDuration::from_secs(i64::from(seconds))
        + SignedDuration::from_millis(millis)
        + SignedDuration::from_micros(micros))
}

/// Of the first certificate that a `SigningCertificateV2` names (RFC 5035): the signer's.
fn certificate_hash(value: &AttributeValue) -> DerResult<(ObjectIdentifier, Vec<u8>)> {
    value.sequence(|reader| {
        let first = reader.sequence(|list| {
            let first = list.sequence(|id| {
                let algorithm = match id.peek_tag()? {
                    Tag::Sequence => AlgorithmIdentifierOwned::decode(id)?.oid,
                    _ => ID_SHA_256,
                };
                let hash = OctetString::decode(id)?.into_bytes();
                rest(id)?;
                Ok((algorithm, hash))
            })?;
            rest(list)?;
            Ok(first)
        })?;
        rest(reader)?;
        Ok(first)
    })
}

/// Pass over what is not asked for.
fn rest<'a>(reader: &mut impl Reader<'a>) -> DerResult<()> {
    reader.read_slice(reader.remaining_len()).map(|_| ())
}

fn hash(algorithm: ObjectIdentifier, data: &[u8]) -> Result<Vec<u8>, String> {
    match algorithm {
        ID_SHA_256 => Ok(Sha256::digest(data).to_vec()),
        ID_SHA_384 => Ok(Sha384::digest(data).to_vec()),
        ID_SHA_512 => Ok(Sha512::digest(data).to_vec()),
        other => Err(format!("its hash function is not supported here ({other})")),
    }
}

/// The parser of what is signed and unsigned in it.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(content: &[u8]) {
    if let Ok(token) = Token::parse(content) {
        let _ = token.info.range();
        let _ = token
            .signing_certificate()
            .and_then(|leaf| token.verify_signature(leaf));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::asn1::Any;

    #[test]
    fn times_are_read_with_and_without_fractions_and_only_in_utc() {
        let read = |tag, text: &str| {
            let value = Any::new(tag, text.as_bytes()).unwrap();
            time(AnyRef::from(&value)).map(|time| time.to_string()).ok()
        };
        for (text, expected) in [
            ("20260101120000Z", Some("2026-01-01T12:00:00Z")),
            ("20260101120000.25Z", Some("2026-01-01T12:00:00.25Z")),
            ("20260101120000", None),
            ("20260101120000+0100", None),
            ("20260230120000Z", None),
            ("20260101120000Z ", None),
            ("", None),
        ] {
            assert_eq!(read(Tag::GeneralizedTime, text).as_deref(), expected, "{text}");
        }
        assert_eq!(read(Tag::Utf8String, "20260101120000Z"), None);
    }

    #[test]
    fn an_accuracy_is_the_sum_of_the_parts_that_are_there() {
        let read = |der: &[u8]| {
            SliceReader::new(der)
                .and_then(|mut reader| reader.sequence(accuracy))
                .ok()
        };
        assert_eq!(read(&[0x30, 0]), Some(SignedDuration::ZERO));
        let all = [0x30, 9, 2, 1, 2, 0x80, 1, 3, 0x81, 1, 4];
        assert_eq!(read(&all), Some(SignedDuration::from_micros(2_003_004)));
        assert_eq!(read(&[0x30, 3, 0x81, 1, 4]), Some(SignedDuration::from_micros(4)));
        assert_eq!(read(&[0x30, 3, 0x82, 1, 4]), None);
    }
}
