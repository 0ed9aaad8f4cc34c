//! The operator's client certificate and its private key, from PEM files.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::authorities::earliest_end;

/// A certificate, with the certificates that lead to its CA, and its private key.
#[derive(Clone)]
pub struct ClientCertificate {
    pub path: PathBuf,
    key: Arc<CertifiedKey>,
}

/// The file that cannot be used, and the reason. The reason names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    Certificate(String),
    Key(String),
}

impl ClientCertificate {
    /// Reads a certificate and its private key.
    ///
    /// # Errors
    /// Fails if a file cannot be read, is not what it must be, or does not match the other one.
    pub fn read(path: &Path, key_path: &Path) -> Result<Self, Unusable> {
        let no_certificate = |error: &dyn fmt::Display| {
            let path = path.display();
            Unusable::Certificate(format!(
                "{path} cannot be used as a PEM file of a certificate: {error}"
            ))
        };
        let pem = std::fs::read(path).map_err(|error| no_certificate(&error))?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| no_certificate(&error))?;
        if certificates.is_empty() {
            return Err(no_certificate(&"it contains no certificate"));
        }

        let no_key = |error: &dyn fmt::Display| {
            let path = key_path.display();
            Unusable::Key(format!("{path} cannot be used as a PEM file of a private key: {error}"))
        };
        let pem = std::fs::read(key_path).map_err(|error| no_key(&error))?;
        // The parser's own error could quote the file.
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            no_key(&"it contains no key in PKCS#8, PKCS#1 or SEC1 without a password")
        })?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| no_key(&"it must be an RSA key, an ECDSA key or an Ed25519 key"))?;
        let certified = CertifiedKey::new(certificates, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { path: path.to_owned(), key: Arc::new(certified) }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let (path, key_path) = (path.display(), key_path.display());
                Err(Unusable::Key(format!(
                    "{key_path} is not the key of the certificate in {path}"
                )))
            }
            Err(error) => Err(no_certificate(&error)),
        }
    }

    /// Lets a client show the certificate to a server that asks for one.
    pub fn add_to(&self, config: &mut ClientConfig) {
        let resolver = SingleCertAndKey::from(Arc::clone(&self.key));
        config.client_auth_cert_resolver = Arc::new(resolver);
    }

    /// Returns the number of certificates in the file.
    pub fn count(&self) -> usize {
        self.key.cert.len()
    }

    /// Returns the earliest time at which one of the certificates expires.
    pub fn valid_until(&self) -> Option<DateTime<Utc>> {
        earliest_end(&self.key.cert)
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.path).finish()
    }
}
