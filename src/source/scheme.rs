//! Verifies signatures by the [`Description`] of a vendor.
//!
//! The headers come from a stranger. Whatever they hold, an HMAC hashes the body once for each
//! secret. A public key hashes it once for each signature that is tried: see [`is_signed_by_one`].
//! Some schemes need a second hash for one secret, for small bodies alone: see
//! [`CHEAP_BODY_BYTES`]. Entries of other versions and malformed entries are skipped before
//! anything is hashed. A header with more than [`MAX_ENTRIES`] entries of the version that the
//! router verifies is refused.

use std::ops::RangeInclusive;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;

use super::{
    description::{Algorithm, Description, Encoding, KeyForm, Place, Scheme, Signed, StampPlace},
    fetch::{Fetched, P256_POINT_BYTES},
    lenient_base64::{BASE64, BASE64_URL},
    standard_webhooks,
};
use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    json::Document,
    secret::Secret,
};

/// Largest number of signatures of the verified version. A sender needs one for each secret during
/// a rotation.
pub(super) const MAX_ENTRIES: usize = 16;

/// Largest body that may be hashed a few times for one secret, when a public key has several
/// signatures to check, or an address can be written in two ways. This costs less than one hash of
/// the largest body that the router takes.
pub(super) const CHEAP_BODY_BYTES: usize = 16 * 1024;

/// The beginning of a P-256 key as X.509 writes it. The point follows.
const P256_INFO: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// A delivery and everything that its signature is checked against.
pub struct Check<'a> {
    pub delivery: &'a Delivery,
    pub secrets: &'a [Secret],
    /// The address that the vendor called, if it is known.
    pub url: Option<&'a str>,
    /// The value of SIGNATURE_TOLERANCE_SECONDS.
    pub tolerance: TimeDelta,
    pub now: DateTime<Utc>,
    /// The certificate or key that the delivery names, once it is fetched.
    pub fetched: Option<&'a Fetched>,
}

impl Check<'_> {
    /// Checks that a signature was made close enough to now.
    pub(super) fn is_fresh(&self, signed: DateTime<Utc>, tolerance: Option<TimeDelta>) -> bool {
        tolerance.is_none_or(|tolerance| (self.now - signed).abs() <= tolerance)
    }
}

pub(super) fn missing() -> Error {
    Error::Signature(SignatureFault::Missing)
}

pub(super) fn wrong() -> Error {
    Error::Signature(SignatureFault::Wrong)
}

pub(super) fn stale() -> Error {
    Error::Signature(SignatureFault::Stale)
}

/// Checks that one of the secrets signed a delivery.
///
/// # Errors
/// Fails with [`Error::Signature`] if the signature is missing, wrong or stale.
pub(super) fn verify(description: &Description, check: &Check<'_>) -> Result<(), Error> {
    let Some(scheme) = &description.scheme else { return Err(wrong()) };
    // An empty body reports no event, and vendors' own libraries refuse it.
    if check.delivery.body.is_empty() {
        return Err(missing());
    }
    let headers = &check.delivery.headers;
    let has_one = |names: &Vec<_>| names.iter().any(|name| headers.contains_key(name));
    if !description.required.iter().all(has_one) {
        return Err(missing());
    }
    match scheme {
        Scheme::Signed(signed) => verify_signed(signed, check),
        Scheme::StandardWebhooks => {
            standard_webhooks::verify(check, &["webhook", "svix"]).map(|_| ())
        }
        Scheme::SharedSecret { header, prefix } => {
            let claimed = check.delivery.single_header(header).ok_or_else(missing)?;
            let claimed = claimed.strip_prefix(prefix.as_str()).ok_or_else(wrong)?;
            is_a_secret(claimed, check.secrets)
        }
        Scheme::Basic => {
            let claimed = check.delivery.single_header(&AUTHORIZATION).ok_or_else(missing)?;
            let (scheme, credentials) = claimed.split_once(' ').ok_or_else(wrong)?;
            if !scheme.eq_ignore_ascii_case("basic") {
                return Err(wrong());
            }
            let claimed = BASE64_STANDARD.decode(credentials.trim()).map_err(|_| wrong())?;
            is_a_secret(&String::from_utf8(claimed).map_err(|_| wrong())?, check.secrets)
        }
    }
}

/// Checks that a text is one of the secrets. It compares digests in constant time, so that even the
/// length of a secret stays hidden.
pub(super) fn is_a_secret(claimed: &str, secrets: &[Secret]) -> Result<(), Error> {
    let digest = |text: &str| hmac(Algorithm::HmacSha256, b"compare", &[text.as_bytes()]);
    let claimed = digest(claimed);
    let matches = secrets.iter().map(|secret| digest(secret.expose()).ct_eq(&claimed));
    let is_one = matches.fold(subtle::Choice::from(0), |found, one| found | one);
    if is_one.into() { Ok(()) } else { Err(wrong()) }
}

fn verify_signed(signed: &Signed, check: &Check<'_>) -> Result<(), Error> {
    let Check { delivery, .. } = check;
    let lines = lines(&signed.signature, delivery)?;
    let entries: Vec<&str> = match &signed.separator {
        Some(separator) => lines.iter().flat_map(|line| line.split(separator.as_str())).collect(),
        None => lines.iter().flat_map(|line| line.split(',')).map(str::trim).collect(),
    };
    let timestamp = match &signed.stamp {
        None => None,
        Some(stamp) => {
            let text = match &stamp.place {
                StampPlace::At(Place::Header(name)) => {
                    delivery.single_header(name).map(str::to_owned)
                }
                StampPlace::At(place @ Place::Pointer(_)) => {
                    let document = Document::parse(&delivery.body).map_err(|_| wrong())?;
                    place.text(delivery, Some(document.root()))
                }
                StampPlace::Entry(prefix) => {
                    let mut found = entries.iter().filter_map(|one| one.strip_prefix(prefix));
                    // With two times, it is not clear which one counts.
                    found.next().filter(|_| found.next().is_none()).map(str::to_owned)
                }
            };
            let text = text.ok_or_else(missing)?;
            let time = stamp.unit.read_stamp(&text).ok_or_else(wrong)?;
            if !check.is_fresh(time, stamp.tolerance.or(check.tolerance)) {
                return Err(stale());
            }
            Some(text)
        }
    };
    let claimed = claimed(&entries, signed)?;
    if signed.template.needs_url() && check.url.is_none() {
        return Err(Error::Signature(SignatureFault::NoUrl));
    }
    let pieces = signed.template.pieces(delivery, timestamp.as_deref(), check.url);
    let pieces = pieces.ok_or_else(missing)?;
    let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
    let key_id = match &signed.key_id {
        Some(name) => Some(delivery.single_header(name).ok_or_else(missing)?),
        None => None,
    };
    let keys = check.secrets.iter().filter_map(|secret| key_bytes(signed, secret, key_id));
    let is_genuine = match signed.algorithm {
        Algorithm::Ed25519 => {
            is_signed_by_one(&ED25519, &keys.collect::<Vec<_>>(), &claimed, &pieces)
        }
        Algorithm::EcdsaP256 => {
            let keys: Vec<_> = keys.collect();
            is_signed_by_one(&ECDSA_P256_SHA256_ASN1, &keys, &claimed, &pieces)
        }
        algorithm => keys.into_iter().any(|key| {
            let expected = hmac(algorithm, &key, &pieces);
            claimed.iter().any(|signature| expected.ct_eq(signature).into())
        }),
    };
    // Only a genuine body is worth the parsing.
    let is_accepted = is_genuine && (!signed.is_json || is_json(&delivery.body));
    if is_accepted { Ok(()) } else { Err(wrong()) }
}

/// Returns whether a body is a JSON object or array. It no longer is one when text is cut off or
/// added at its beginning or its end.
pub(super) fn is_json(body: &[u8]) -> bool {
    Document::parse(body)
        .is_ok_and(|document| document.root().is_object() || document.root().elements().is_some())
}

/// Returns every line of the headers, and every value in the body, that may hold signatures.
fn lines(places: &[Place], delivery: &Delivery) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for place in places {
        match place {
            Place::Header(name) => {
                let values = delivery.headers.get_all(name).iter();
                lines.extend(values.filter_map(|value| Some(value.to_str().ok()?.to_owned())));
            }
            Place::Pointer(_) => {
                let document = Document::parse(&delivery.body).map_err(|_| wrong())?;
                lines.extend(place.text(delivery, Some(document.root())));
            }
        }
    }
    if lines.is_empty() { Err(missing()) } else { Ok(lines) }
}

/// Returns the signatures of the verified version, if they have the right length.
fn claimed(entries: &[&str], signed: &Signed) -> Result<Vec<Vec<u8>>, Error> {
    let entries = entries.iter().filter_map(|entry| entry.strip_prefix(signed.prefix.as_str()));
    let entries: Vec<_> = entries.filter(|entry| !entry.is_empty()).collect();
    if entries.is_empty() {
        return Err(missing());
    }
    if entries.len() > MAX_ENTRIES {
        return Err(wrong());
    }
    let lengths = signed.algorithm.signature_bytes();
    let claimed = entries.iter().filter_map(|entry| signed.encoding.decode(entry));
    let claimed: Vec<_> = claimed.filter(|bytes| lengths.contains(&bytes.len())).collect();
    if claimed.is_empty() { Err(wrong()) } else { Ok(claimed) }
}

/// Returns whether one of the public keys made one of the signatures. For a message of more than
/// [`CHEAP_BODY_BYTES`], each key is tried with as many signatures as there are keys, and with two
/// at least: while a sender replaces its key, it signs with both.
pub(super) fn is_signed_by_one(
    algorithm: &'static dyn VerificationAlgorithm,
    keys: &[Vec<u8>],
    claimed: &[Vec<u8>],
    pieces: &[&[u8]],
) -> bool {
    let message = pieces.concat();
    let is_cheap = message.len() <= CHEAP_BODY_BYTES;
    let tried = if is_cheap { claimed.len() } else { keys.len().max(2) };
    let is_by = |key: &Vec<u8>| {
        let key = UnparsedPublicKey::new(algorithm, key);
        claimed.iter().take(tried).any(|signature| key.verify(&message, signature).is_ok())
    };
    keys.iter().any(is_by)
}

/// Returns the key in a secret, or `None` if the delivery names another key.
pub(super) fn key_bytes(signed: &Signed, secret: &Secret, key_id: Option<&str>) -> Option<Vec<u8>> {
    let text = match key_id {
        Some(wanted) => secret.expose().split_once(':').filter(|(id, _)| *id == wanted)?.1,
        None => secret.expose(),
    };
    signed.key.bytes(text)
}

/// Checks the form of a secret.
///
/// # Errors
/// Fails with the form that a secret must have.
pub(super) fn check_secret(description: &Description, secret: &Secret) -> Result<(), &'static str> {
    let text = secret.expose();
    if text.is_empty() {
        return Err("must not be empty");
    }
    match &description.scheme {
        Some(Scheme::Signed(signed)) if signed.key_id.is_some() => {
            let key = text.split_once(':').filter(|(id, key)| !id.is_empty() && !key.is_empty());
            key.map(|_| ()).ok_or("must be `key-id:key`")
        }
        Some(Scheme::Signed(signed)) => {
            let is_key = signed.key.bytes(text).is_some_and(|key| !key.is_empty());
            is_key.then_some(()).ok_or(match signed.key {
                KeyForm::Text => "must not be empty",
                KeyForm::Hex => "must be hex digits",
                KeyForm::Base64 => "must be base64",
                KeyForm::PublicKey => {
                    "must be the 32 bytes of an Ed25519 public key, in hex or base64"
                }
                KeyForm::PublicKeyInfo => "must be the base64 of a P-256 public key",
            })
        }
        Some(Scheme::StandardWebhooks) => standard_webhooks::check_secret(secret, 1),
        Some(Scheme::Basic) if !text.contains(':') => Err("must be `user:password`"),
        _ => Ok(()),
    }
}

impl KeyForm {
    fn bytes(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(text.as_bytes().to_owned()),
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::PublicKey => {
                let key = hex::decode(text).ok().or_else(|| BASE64.decode(text).ok());
                key.filter(|key| key.len() == 32)
            }
            Self::PublicKeyInfo => {
                let key = BASE64.decode(text).ok()?;
                key.strip_prefix(P256_INFO)
                    .filter(|point| point.len() == P256_POINT_BYTES)
                    .map(<[u8]>::to_vec)
            }
        }
    }
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            // Vendors' own libraries compare the text, so upper case does not come from the vendor.
            Self::Hex => {
                let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                is_lower.then(|| hex::decode(text).ok()).flatten()
            }
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64Url => BASE64_URL.decode(text).ok(),
            Self::HexOrBase64 => Self::Hex.decode(text).or_else(|| Self::Base64.decode(text)),
        }
    }
}

impl Algorithm {
    /// Returns how many bytes a signature may have.
    pub(super) fn signature_bytes(self) -> RangeInclusive<usize> {
        match self {
            Self::HmacSha1 => 20..=20,
            Self::HmacSha256 => 32..=32,
            Self::HmacSha384 => 48..=48,
            Self::HmacSha512 | Self::Ed25519 => 64..=64,
            // Two integers, which lose their leading zeros.
            Self::EcdsaP256 => 8..=72,
        }
    }
}

/// Returns the HMAC of the concatenated pieces. Returns no bytes for an algorithm that is not
/// an HMAC.
pub(super) fn hmac(algorithm: Algorithm, key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    fn of<M: Mac + KeyInit>(key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "RFC 2104 defines HMAC for keys of every length")]
        let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length of key is valid");
        pieces.iter().for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().to_vec()
    }
    match algorithm {
        Algorithm::HmacSha1 => of::<Hmac<Sha1>>(key, pieces),
        Algorithm::HmacSha256 => of::<Hmac<Sha256>>(key, pieces),
        Algorithm::HmacSha384 => of::<Hmac<Sha384>>(key, pieces),
        Algorithm::HmacSha512 => of::<Hmac<Sha512>>(key, pieces),
        Algorithm::Ed25519 | Algorithm::EcdsaP256 => Vec::new(),
    }
}
