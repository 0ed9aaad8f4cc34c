//! Standard Webhooks signatures
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! `webhook-signature` is a list, separated by spaces. An entry is one of two kinds: `v1,` and the
//! base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, or `v1a,` and the base64
//! of an Ed25519 signature over the same bytes. A `whsec_` secret verifies the first kind, and a
//! `whpk_` public key the second. Svix's own headers begin with `svix-` instead
//! (<https://docs.svix.com/receiving/verifying-payloads/how-manual>).
//!
//! The list comes from a stranger. However long it is, a `whsec_` secret hashes the body once. A
//! `whpk_` key hashes it once for each `v1a` entry that is tried. No entry is tried if there are
//! more than [`MAX_ENTRIES`] of its kind. With a large body, at most as many entries are tried as
//! there are keys (two if there is one key).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderName, HeaderValue};
use ring::signature::ED25519;
use subtle::ConstantTimeEq as _;

use super::{
    lenient_base64::BASE64,
    private_key::PREFIX as PRIVATE_KEY,
    scheme::{Check, MAX_ENTRIES, is_signed_by_one, missing, stale, wrong},
    sign::{CannotSign, Signing, ed25519, event_id, insert},
};
use crate::{delivery::Delivery, error::Error, key::hmac_sha256, secret::Secret};

/// Base64 as in senders' secrets: with or without padding, and with any value in the unused bits of
/// the last character.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Smallest length of a shared secret that the router's operator makes, in bytes.
pub(super) const MIN_SHARED_BYTES: usize = 16;

/// A key of one of the two kinds.
enum Key {
    Hmac(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Checks a delivery by the first of these header families that has a signature, and returns the
/// signed id.
pub(super) fn verify(check: &Check<'_>, families: &[&str]) -> Result<String, Error> {
    let Check { delivery, .. } = check;
    let family =
        families.iter().find(|family| delivery.headers.contains_key(format!("{family}-signature")));
    let family = family.ok_or_else(missing)?;
    refuse_other_values(check, families, family)?;
    let header = |name| {
        let mut values = delivery.headers.get_all(format!("{family}-{name}")).iter();
        let value = values.next().filter(|_| values.next().is_none());
        let value = value.and_then(|value| value.to_str().ok());
        value.filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let (id, timestamp, signatures) = (header("id")?, header("timestamp")?, header("signature")?);

    let sent = super::description::Unit::Seconds.read_stamp(timestamp).ok_or_else(wrong)?;
    if !check.is_fresh(sent, Some(check.tolerance)) {
        return Err(stale());
    }

    let signed: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
    let keys: Vec<_> = check.secrets.iter().filter_map(key).collect();
    let (mut hmac_keys, mut public_keys) = (Vec::new(), Vec::new());
    for key in keys {
        match key {
            Key::Hmac(key) => hmac_keys.push(key),
            Key::Ed25519(key) => public_keys.push(key),
        }
    }
    let mut is_genuine = false;
    if !hmac_keys.is_empty() {
        let claimed = claimed(signatures, "v1,", 32)?;
        is_genuine |= !claimed.is_empty()
            && hmac_keys.iter().any(|key| {
                let expected = hmac_sha256(key, &signed);
                claimed.iter().any(|signature| expected[..].ct_eq(signature).into())
            });
    }
    if !is_genuine && !public_keys.is_empty() {
        let claimed = claimed(signatures, "v1a,", 64)?;
        is_genuine =
            !claimed.is_empty() && is_signed_by_one(&ED25519, &public_keys, &claimed, &signed);
    }
    if is_genuine { Ok(id.to_owned()) } else { Err(wrong()) }
}

/// Refuses a delivery whose headers of another family differ from those of the verified family.
/// Anybody could add them, and the event's id is read from either family.
fn refuse_other_values(check: &Check<'_>, families: &[&str], family: &str) -> Result<(), Error> {
    let values = |family: &str, name: &str| {
        check.delivery.headers.get_all(format!("{family}-{name}")).iter().collect::<Vec<_>>()
    };
    let is_same = |other: &&str| {
        ["id", "timestamp", "signature"].into_iter().all(|name| {
            let added = values(other, name);
            added.is_empty() || added == values(family, name)
        })
    };
    if families.iter().all(is_same) { Ok(()) } else { Err(wrong()) }
}

/// Signs a delivery with `svix-` headers if it has a `svix-id`, else with `webhook-` headers. A
/// private key, or a `whsk_` secret, makes a `v1a` entry; a `whsec_` secret makes a `v1` entry.
///
/// # Errors
/// Fails if the secret cannot sign.
pub(super) fn sign(mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
    let names = match delivery.headers.contains_key("svix-id") {
        true => ["svix-id", "svix-timestamp", "svix-signature"],
        false => ["webhook-id", "webhook-timestamp", "webhook-signature"],
    };
    let [id, stamp, signature] = names.map(HeaderName::from_static);
    if !delivery.headers.contains_key(&id) {
        let name = event_id(&delivery.body);
        insert(&mut delivery.headers, &id, &name)?;
    }
    let timestamp = signing.now.timestamp().to_string();
    let id = delivery.headers.get(&id).map(HeaderValue::as_bytes).unwrap_or_default();
    let signed: [&[u8]; 5] = [id, b".", timestamp.as_bytes(), b".", &delivery.body];
    let secret = signing.secret.expose();
    let entry = match (signing.key, key(signing.secret)) {
        (None, Some(Key::Hmac(key))) => {
            format!("v1,{}", BASE64.encode(hmac_sha256(&key, &signed)))
        }
        (None, None) if !secret.starts_with(PRIVATE_KEY) => {
            return Err(CannotSign::Secret("must be `whsec_` and base64"));
        }
        _ => format!("v1a,{}", BASE64.encode(ed25519(signing, &signed.concat())?)),
    };
    insert(&mut delivery.headers, &stamp, &timestamp)?;
    insert(&mut delivery.headers, &signature, &entry)?;
    Ok(delivery)
}

/// Returns the entries of a version that have the length of its signatures.
fn claimed(signatures: &str, version: &str, bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
    let entries = signatures.split(' ').filter_map(|entry| entry.strip_prefix(version));
    if entries.clone().count() > MAX_ENTRIES {
        return Err(wrong());
    }
    let claimed = entries.filter_map(|entry| BASE64.decode(entry).ok());
    Ok(claimed.filter(|claimed| claimed.len() == bytes).collect())
}

/// Checks that a secret is a public key, or base64 of at least `least` bytes.
pub(super) fn check_secret(secret: &Secret, least: usize) -> Result<(), &'static str> {
    match key(secret) {
        Some(Key::Hmac(bytes)) if bytes.len() >= least => Ok(()),
        Some(Key::Ed25519(_)) => Ok(()),
        _ if secret.expose().starts_with("whpk_") => {
            Err("must be `whpk_` and the base64 of the 32 bytes of an Ed25519 public key")
        }
        _ if least == MIN_SHARED_BYTES => {
            Err("must be `whsec_` and the base64 of at least 16 bytes")
        }
        _ => Err("must be `whsec_` and base64"),
    }
}

/// Returns the bytes of a secret that both sides have: base64 of at least 16 bytes, usually after
/// `whsec_`.
pub fn shared_key(secret: &Secret) -> Option<Vec<u8>> {
    match key(secret)? {
        Key::Hmac(bytes) if bytes.len() >= MIN_SHARED_BYTES => Some(bytes),
        Key::Hmac(_) | Key::Ed25519(_) => None,
    }
}

/// Reads the key in a secret: base64, usually after `whsec_`.
fn key(secret: &Secret) -> Option<Key> {
    let text = secret.expose();
    if let Some(text) = text.strip_prefix("whpk_") {
        return KEY_BASE64.decode(text).ok().filter(|key| key.len() == 32).map(Key::Ed25519);
    }
    KEY_BASE64.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok().map(Key::Hmac)
}
