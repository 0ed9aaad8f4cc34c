//! Signatures of forwarded events (FORWARD_SECRETS), in the form of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//! With any library for Standard Webhooks, a receiver can distinguish the router from a stranger.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    key::Key,
    secret::Secret,
    source::{PrivateKey, shared_key},
};

/// The headers of a signature. If the router signs, it forwards none of these from a vendor.
pub const HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Most secrets that sign an event. The client context of an invocation has room for this many
/// signatures.
pub const MAX_SECRETS: usize = 8;

/// Signs events with every configured secret, so that a receiver may have any of them while they
/// are rotated.
#[derive(Clone)]
pub struct Signer {
    keys: Arc<[SigningKey]>,
}

/// A key that is ready to sign.
enum SigningKey {
    /// Holds the hashed key, so that an event costs only the hash of its bytes.
    Hmac(Hmac<Sha256>),
    Ed25519(PrivateKey),
}

impl Signer {
    /// Prepares the keys. Returns `None` if there are no secrets.
    ///
    /// # Errors
    /// Fails with the form that each secret must have, or with the number of secrets.
    pub fn new(secrets: &[Secret]) -> Result<Option<Self>, &'static str> {
        if secrets.len() > MAX_SECRETS {
            return Err("must be at most 8 secrets: remove those that no receiver uses any more");
        }
        let keys = secrets.iter().map(SigningKey::new).collect::<Result<Arc<[_]>, _>>()?;
        Ok(Some(Self { keys }).filter(|_| !secrets.is_empty()))
    }

    /// Returns the names and values of the headers that sign a body at this time.
    pub fn headers(
        &self,
        key: &Key,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> [(&'static str, String); 3] {
        let (id, timestamp) = (key.to_string(), now.timestamp().to_string());
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let entries: Vec<_> = self.keys.iter().map(|key| key.entry(&signed)).collect();
        let [id_name, timestamp_name, signature_name] = HEADERS;
        [(id_name, id), (timestamp_name, timestamp), (signature_name, entries.join(" "))]
    }
}

impl SigningKey {
    fn new(secret: &Secret) -> Result<Self, &'static str> {
        if let Some(key) = PrivateKey::from_text(secret.expose()) {
            return Ok(Self::Ed25519(key));
        }
        let key = shared_key(secret).and_then(|key| Hmac::new_from_slice(&key).ok());
        key.map(Self::Hmac).ok_or(
            "each secret must be `whsec_` and the base64 of at least 16 bytes, or `whsk_` and the \
             base64 of the 32 bytes of an Ed25519 private key",
        )
    }

    /// Returns this key's entry of the signature header, which has one for each key.
    fn entry(&self, signed: &[&[u8]]) -> String {
        match self {
            Self::Hmac(mac) => {
                let mut mac = mac.clone();
                signed.iter().for_each(|part| mac.update(part));
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            }
            Self::Ed25519(key) => {
                let signature = key.sign_ed25519(&signed.concat()).unwrap_or_default();
                format!("v1a,{}", BASE64_STANDARD.encode(signature))
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} keys, redacted)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Identity, testing};

    fn signer(secrets: &[&str]) -> Result<Option<Signer>, &'static str> {
        Signer::new(&secrets.iter().copied().map(Secret::new).collect::<Vec<_>>())
    }

    #[test]
    fn every_secret_signs_the_key_the_time_and_the_exact_bytes() {
        let key = testing::plan(Identity::Content, "one").key;
        let now = DateTime::from_timestamp(1_700_000_000, 999_000_000).unwrap();
        let bytes = b"plainly-a-test-secret";
        let secret = BASE64_STANDARD.encode(bytes);
        let private = format!("whsk_{}", BASE64_STANDARD.encode([7; 32]));
        let signer = signer(&[&secret, &format!("whsec_{secret}"), &private]).unwrap().unwrap();
        let [id, timestamp, signature] = signer.headers(&key, b"\xff\x00", now);
        assert_eq!(id, ("webhook-id", key.to_string()));
        assert_eq!(timestamp, ("webhook-timestamp", "1700000000".to_owned()));
        let signed = [key.to_string().as_bytes(), b".1700000000.\xff\x00"].concat();
        let expected = BASE64_STANDARD.encode(crate::key::hmac_sha256(bytes, &[&signed]));
        let entries: Vec<_> = signature.1.split(' ').collect();
        assert_eq!(entries[..2], [format!("v1,{expected}"), format!("v1,{expected}")]);
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let expected = BASE64_STANDARD.encode(pair.sign(&signed));
        assert_eq!(entries[2..], [format!("v1a,{expected}")]);
        assert!(!format!("{signer:?}").contains(&secret));
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        assert!(signer(&[]).unwrap().is_none());
        let good = format!("whsec_{}", BASE64_STANDARD.encode([1; 16]));
        assert!(signer(&[&*good; MAX_SECRETS]).unwrap().is_some());
        assert!(signer(&[&*good; MAX_SECRETS + 1]).is_err());
        let short = format!("whsec_{}", BASE64_STANDARD.encode([1; 15]));
        let public = format!("whpk_{}", BASE64_STANDARD.encode([1; 32]));
        let no_seed = format!("whsk_{}", BASE64_STANDARD.encode([1; 16]));
        for bad in ["", "whsec_", "not base64!", &short, &public, &no_seed] {
            assert!(signer(&[&good, bad]).is_err(), "{bad}");
        }
    }
}
