//! Standard Webhooks signatures
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! `webhook-signature` is a list, separated by spaces, of `v1,` and the base64 of
//! HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    key::verify_hmac_sha256,
    secret::Secret,
};

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
    let genuine = signatures
        .split(' ')
        .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
        .any(|signature| {
            let mut keys = secrets.iter().filter_map(key_bytes);
            keys.any(|key| verify_hmac_sha256(&key, &signed, &signature))
        });
    if genuine { Ok(()) } else { Err(Error::Signature(SignatureFault::Wrong)) }
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
