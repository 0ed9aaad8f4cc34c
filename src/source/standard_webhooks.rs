//! Standard Webhooks signatures
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! `webhook-signature` is a list, separated by spaces, of `v1,` and the base64 of
//! HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.
//!
//! The list comes from a stranger. However long it is, the body is hashed once for each secret.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{DateTime, TimeDelta, Utc};
use subtle::ConstantTimeEq as _;

use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    key::hmac_sha256,
    secret::Secret,
};

/// Most `v1` entries of a `webhook-signature`. A sender needs one for each secret that it rotates.
const MAX_ENTRIES: usize = 16;

/// Secrets come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The headers of a signature.
pub(super) const HEADERS: &[&str] = &["webhook-id", "webhook-timestamp", "webhook-signature"];

pub(super) fn verify(
    delivery: &Delivery,
    secrets: &[Secret],
    tolerance: TimeDelta,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let header = |name| {
        let missing = Error::Signature(SignatureFault::Missing);
        delivery.header(name).filter(|value| !value.is_empty()).ok_or(missing)
    };
    let (id, timestamp, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);

    let sent = timestamp.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let sent = sent.ok_or(Error::Signature(SignatureFault::Wrong))?;
    if (now - sent).abs() > tolerance {
        return Err(Error::Signature(SignatureFault::Stale));
    }

    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
    let entries = signatures.split(' ').filter_map(|entry| entry.strip_prefix("v1,"));
    if entries.clone().count() > MAX_ENTRIES {
        return Err(Error::Signature(SignatureFault::Wrong));
    }
    let claimed: Vec<_> = entries.filter_map(|entry| BASE64.decode(entry).ok()).collect();
    let is_genuine = !claimed.is_empty()
        && secrets.iter().filter_map(key_bytes).any(|key| {
            let expected = hmac_sha256(&key, &signed);
            claimed.iter().any(|signature| expected[..].ct_eq(signature).into())
        });
    if is_genuine { Ok(()) } else { Err(Error::Signature(SignatureFault::Wrong)) }
}

/// Checks that a secret is base64 of at least 16 bytes.
pub(super) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    match key_bytes(secret) {
        Some(bytes) if bytes.len() >= 16 => Ok(()),
        _ => Err("must be `whsec_` and the base64 of at least 16 bytes"),
    }
}

/// The bytes of a secret: base64, mostly behind `whsec_`.
fn key_bytes(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose();
    BASE64.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()
}
