//! Reads private keys, for vendors that sign with one.

use std::fmt;

use base64::Engine as _;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use x509_parser::pem::parse_x509_pem;

use super::lenient_base64::BASE64;

/// The prefix of a private key in Standard Webhooks. The prefix of a public key is `whpk_`.
pub(super) const PREFIX: &str = "whsk_";

/// Bytes of an Ed25519 private key. Some libraries append the public key.
const SEED_BYTES: usize = 32;

/// A private key.
pub enum PrivateKey {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// The error for a text that holds no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a private key in PEM form: RSA of 2048 to 4096 bits, Ed25519, or P-256 in PKCS#8")]
pub struct NotAPrivateKey;

impl PrivateKey {
    /// Reads the first key of a PEM text, in PKCS#8 or, for RSA, in PKCS#1.
    ///
    /// # Errors
    /// Fails if the text holds no key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NotAPrivateKey> {
        let (_, pem) = parse_x509_pem(pem).map_err(|_| NotAPrivateKey)?;
        let der = &pem.contents;
        let rsa = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).map(Self::Rsa);
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::Ed25519);
        let p256 = || {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map(Self::P256)
        };
        rsa.or_else(|_| ed25519()).or_else(|_| p256()).map_err(|_| NotAPrivateKey)
    }

    /// Reads a key in `whsk_` and base64. Returns `None` for every other text.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix(PREFIX)?).ok()?;
        let is_key = [SEED_BYTES, 2 * SEED_BYTES].contains(&bytes.len());
        let seed = bytes.get(..SEED_BYTES).filter(|_| is_key)?;
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self::Ed25519)
    }

    /// Returns an RSA PKCS#1 v1.5 signature with SHA-256, or `None` if this is no RSA key.
    pub(super) fn sign_rsa(&self, message: &[u8]) -> Option<Vec<u8>> {
        let Self::Rsa(key) = self else { return None };
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
        Some(signature)
    }

    /// Returns an Ed25519 signature, or `None` if this is no Ed25519 key.
    pub(crate) fn sign_ed25519(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Self::Rsa(_) | Self::P256(_) => None,
        }
    }

    /// Returns an ECDSA signature with SHA-256, or `None` if this is no P-256 key.
    pub(super) fn sign_p256(&self, message: &[u8]) -> Option<Vec<u8>> {
        let Self::P256(key) = self else { return None };
        Some(key.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}
