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
    pub fn derive(secret: &RoutingSecret, logical: &str) -> Self {
        Self(secret.hmac(&[logical.as_bytes()]))
    }
}

/// Two bytes, each 0 to 255, that decide where an event goes. They are neighbours in one HMAC, and
/// independent of each other.
#[derive(Debug, Clone, Copy)]
pub struct RouteBytes {
    /// The byte that chooses the destination, by the shares of the destinations or by a source's
    /// threshold.
    pub route: u8,
    /// The byte that decides whether a mirror gets a copy.
    pub mirror: u8,
}

impl RouteBytes {
    /// Derives the bytes of the event with this logical identity.
    pub fn derive(secret: &RoutingSecret, logical: &str) -> Self {
        let [route, mirror, ..] = secret.hmac(&[b"route|", logical.as_bytes()]);
        Self { route, mirror }
    }
}

/// The secret that keys and routes are derived under. HMAC begins with two blocks that depend on the
/// secret only. They are hashed once.
#[derive(Clone)]
pub struct RoutingSecret {
    secret: Secret,
    begun: Hmac<Sha256>,
}

impl RoutingSecret {
    pub fn new(secret: impl Into<String>) -> Self {
        let secret = Secret::new(secret);
        let begun = begin(secret.expose().as_bytes());
        Self { secret, begun }
    }

    /// Returns the secret itself, to judge its strength.
    pub fn expose(&self) -> &str {
        self.secret.expose()
    }

    fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        end(self.begun.clone(), parts)
    }
}

impl fmt::Debug for RoutingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

/// Computes the HMAC-SHA256 of the concatenated parts.
pub fn hmac_sha256(secret: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    end(begin(secret), parts)
}

fn begin(secret: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "RFC 2104 defines HMAC for keys of every length")]
    Hmac::new_from_slice(secret).expect("any length of key is valid")
}

fn end(mut begun: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().for_each(|part| begun.update(part));
    begun.finalize().into_bytes().into()
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written in one piece, so that `to_string` allocates once.
        const PREFIX: usize = Key::PREFIX.len();
        let mut text = [0; PREFIX + 64];
        text[..PREFIX].copy_from_slice(Self::PREFIX.as_bytes());
        hex::encode_to_slice(self.0, &mut text[PREFIX..]).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python: hmac.new(b"secret", text, "sha256").hexdigest()
    const KEY: &str = "be1eb3ef35b5866b1d19a069428ee5c22ba86dc98c7981740fda988ec925a163";

    #[test]
    fn key_and_route_are_hmacs_under_the_routing_secret() {
        let secret = RoutingSecret::new("secret");
        let key = Key::derive(&secret, "acme|paid||00ff");
        assert_eq!(key.to_string(), format!("webhook:dedup:{KEY}"));
        assert_eq!(format!("{key:?}"), key.to_string());
        assert_eq!(format!("{:x}", key.shard()), KEY[..1]);
        assert_eq!(key, Key(hmac_sha256(b"secret", &[b"acme|paid", b"||00ff"])));
        assert_ne!(key, Key::derive(&RoutingSecret::new("other"), "acme|paid||00ff"));
        let RouteBytes { route, mirror } = RouteBytes::derive(&secret, "acme|paid||00ff");
        assert_eq!((route, mirror), (216, 73));
    }

    #[test]
    fn a_key_is_read_from_its_text_and_from_no_other() {
        let text = format!("webhook:dedup:{KEY}");
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        for wrong in ["", KEY, &text[..text.len() - 1], &format!("{text}0"), "webhook:dedup:"] {
            let error = wrong.parse::<Key>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{wrong}` is not a key")), "{error}");
        }
    }

    #[test]
    fn a_routing_secret_is_not_printed() {
        let secret = RoutingSecret::new("plainly-secret");
        assert_eq!(format!("{secret:?}"), format!("{:?}", Secret::new("another")));
        assert_eq!(secret.expose(), "plainly-secret");
    }
}
