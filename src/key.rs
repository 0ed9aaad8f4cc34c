//! The idempotency key of an event, and the byte that chooses its destination.
//!
//! Both are HMAC-SHA256 (RFC 2104) of the event's logical identity under the routing secret, so
//! that a sender can neither predict nor steer them.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// The idempotency key of an event.
///
/// The `Display` form is the text in the store and in `X-Webhook-Key`: `webhook:dedup:` and 64
/// lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The text before the digits.
    pub const PREFIX: &str = "webhook:dedup:";

    /// The number of parts into which a store may divide a list of keys, to spread the load.
    pub const SHARDS: u8 = 16;

    /// Returns the part of a list that the key is in: its first hex digit.
    pub fn shard(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Derives the key of the event with this logical identity.
    pub fn derive(secret: &Secret, logical: &str) -> Self {
        Self(hmac_sha256(secret.expose().as_bytes(), &[logical.as_bytes()]))
    }
}

/// Returns the byte, 0 to 255, that is compared with the route threshold.
pub fn route_byte(secret: &Secret, logical: &str) -> u8 {
    hmac_sha256(secret.expose().as_bytes(), &[b"route|", logical.as_bytes()])[0]
}

/// Returns the byte, 0 to 255, that decides whether a mirror gets a copy of the event. It is the
/// neighbour of the route byte, and independent of it.
pub fn mirror_byte(secret: &Secret, logical: &str) -> u8 {
    hmac_sha256(secret.expose().as_bytes(), &[b"route|", logical.as_bytes()])[1]
}

/// Computes the HMAC-SHA256 of the concatenated parts.
pub fn hmac_sha256(secret: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "RFC 2104 defines HMAC for keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length of key is valid");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, hex::encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the `Display` form of a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key: it must be `webhook:dedup:` and 64 hex digits")]
pub struct NotAKey(String);

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let not_a_key = || NotAKey(text.to_owned());
        let digits = text.strip_prefix(Self::PREFIX).ok_or_else(not_a_key)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| not_a_key())?;
        Ok(Self(bytes))
    }
}
