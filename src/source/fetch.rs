//! Requests of the router to a vendor, and the vendor's answers: certificates, keys, and
//! confirmations of a subscription.
//!
//! A stranger's request can name what is fetched. So a [`Fetch`] is made only for an address that
//! the vendor's module allows, and only after everything else about the request is checked.

use std::fmt;

use base64::Engine as _;
use chrono::{DateTime, Utc};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use url::Url;

use super::{certificate::Certificate, lenient_base64::BASE64_URL};
use crate::{json::Document, secret::Secret};

/// Size of an uncompressed point of P-256.
pub(super) const P256_POINT_BYTES: usize = 65;

/// A request to a vendor.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// Gets a certificate in PEM form.
    Certificate(Url),
    /// Gets a JSON Web Key (RFC 7517) by asking one question after the other until one has an
    /// answer.
    Key { first: Question, others: Vec<Question> },
    /// Confirms a subscription by a GET.
    Confirmation(Url),
}

/// JSON that is posted to an address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub address: Url,
    pub json: Secret,
}

impl Fetch {
    /// Returns the address, or that of the first question. All questions go to one vendor.
    pub fn address(&self) -> &Url {
        match self {
            Self::Certificate(address) | Self::Confirmation(address) => address,
            Self::Key { first, .. } => &first.address,
        }
    }

    /// Reads the body of a vendor's answer.
    ///
    /// # Errors
    /// Fails with the form that the body must have.
    pub fn read(&self, body: &[u8]) -> Result<Fetched, &'static str> {
        match self {
            Self::Certificate(_) => Certificate::from_pem(body)
                .map(Fetched::Certificate)
                .map_err(|_| "must be a certificate with an RSA key, in PEM form"),
            Self::Key { .. } => {
                P256Key::from_json(body).map(Fetched::Key).ok_or("must have a P-256 key for ES256")
            }
            Self::Confirmation(_) => Ok(Fetched::Confirmed),
        }
    }
}

// The question holds credentials, and an address may hold a token.
impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetch({})", self.address().host_str().unwrap_or_default())
    }
}

/// A vendor's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    Certificate(Certificate),
    Key(P256Key),
    Confirmed,
}

impl Fetched {
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }

    pub fn key(&self) -> Option<&P256Key> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }
}

/// A public key for ES256 (RFC 7518).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P256Key {
    /// The uncompressed point.
    point: Vec<u8>,
    /// The Unix time at which its owner stopped using it.
    expired_at: Option<i64>,
}

impl P256Key {
    /// Reads the key in the member `key` of a JSON object.
    fn from_json(body: &[u8]) -> Option<Self> {
        let document = Document::parse(body).ok()?;
        let key = document.root().get("key")?;
        let text = |name| key.get(name)?.as_str()?.ok();
        let is_for_es256 =
            text("kty")? == "EC" && text("crv")? == "P-256" && text("alg")? == "ES256";
        let coordinate = |name| {
            let bytes = BASE64_URL.decode(text(name)?).ok()?;
            (bytes.len() == 32).then_some(bytes)
        };
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let expired_at = key.get("expired_at").and_then(|value| value.as_f64()).map(|at| at as i64);
        let is_point = point.len() == P256_POINT_BYTES;
        (is_for_es256 && is_point).then_some(Self { point, expired_at })
    }

    pub fn is_valid_at(&self, time: DateTime<Utc>) -> bool {
        self.expired_at.is_none_or(|expired_at| time.timestamp() < expired_at)
    }

    /// Returns whether the key made this signature: ECDSA with SHA-256, as two integers of 32
    /// bytes.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        key.verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fetch, P256Key, Question};
    use crate::secret::Secret;

    const KEY: &str = r#"{"key":{"alg":"ES256","crv":"P-256","kid":"k","kty":"EC","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","expired_at":null}}"#;

    #[test]
    fn keys_of_other_kinds_are_refused() {
        assert!(P256Key::from_json(KEY.as_bytes()).is_some());
        for (part, other) in [
            ("ES256", "HS256"),
            ("P-256", "P-384"),
            ("\"EC\"", "\"oct\""),
            ("MKBC", "MK"),
            ("\"y\"", "\"z\""),
            ("\"key\"", "\"keys\""),
        ] {
            assert!(
                P256Key::from_json(KEY.replacen(part, other, 1).as_bytes()).is_none(),
                "{part}"
            );
        }
        assert!(P256Key::from_json(b"[]").is_none() && P256Key::from_json(b"no").is_none());
    }

    #[test]
    fn an_expired_key_is_not_valid() {
        let expired = KEY.replace("\"expired_at\":null", "\"expired_at\":1700000000");
        let key = P256Key::from_json(expired.as_bytes()).unwrap();
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        assert!(key.is_valid_at(at(1_699_999_999)) && !key.is_valid_at(at(1_700_000_000)));
        assert!(P256Key::from_json(KEY.as_bytes()).unwrap().is_valid_at(at(1_700_000_000)));
    }

    #[test]
    fn credentials_and_tokens_are_not_shown() {
        let address: url::Url = "https://example.com/?Token=shown".parse().unwrap();
        let first = Question { address, json: Secret::new("shown") };
        let fetch = Fetch::Key { first, others: Vec::new() };
        assert_eq!(format!("{fetch:?}"), "Fetch(example.com)");
    }
}
