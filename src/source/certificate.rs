//! An X.509 certificate that signs deliveries (RFC 5280).

use std::fmt;

use chrono::{DateTime, Utc};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::OID_PKCS1_RSAENCRYPTION,
    pem::parse_x509_pem, prelude::FromDer as _, time::ASN1Time,
};

/// The parts of a certificate that a signature depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key in PKCS#1 form, as DER.
    public_key: Vec<u8>,
    not_before: i64,
    not_after: i64,
    /// The DNS names that the certificate is for.
    names: Vec<String>,
}

/// The hash that an RSA signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// For version 1 of the signatures of Amazon SNS.
    Sha1,
    Sha256,
}

/// Sizes of RSA signatures, for keys of 2048 to 4096 bits.
pub(super) const RSA_SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// A text that holds no certificate with an RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a certificate with an RSA key, in PEM form")]
pub struct NotACertificate;

impl Certificate {
    /// Reads the first certificate of a PEM text. Certificates of its issuers may follow.
    ///
    /// # Errors
    /// Fails if the text has no certificate, or its key is no RSA key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NotACertificate> {
        let (_, pem) = parse_x509_pem(pem).map_err(|_| NotACertificate)?;
        let parsed = X509Certificate::from_der(&pem.contents);
        let (_, certificate) = parsed.map_err(|_| NotACertificate)?;
        if certificate.public_key().algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return Err(NotACertificate);
        }
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
        let names = alternatives.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_ascii_lowercase()),
            _ => None,
        });
        let validity = certificate.validity();
        let seconds = |time: ASN1Time| time.timestamp();
        Ok(Self {
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            names: names.collect(),
        })
    }

    pub fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|one| one == name)
    }

    pub fn is_valid_at(&self, time: DateTime<Utc>) -> bool {
        (self.not_before..=self.not_after).contains(&time.timestamp())
    }

    /// Returns whether the certificate's key made this signature: RSA PKCS#1 v1.5 with that hash.
    pub fn has_signed(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let algorithm = match hash {
            Hash::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.public_key);
        key.verify(message, signature).is_ok()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.names.join(", "))
    }
}
