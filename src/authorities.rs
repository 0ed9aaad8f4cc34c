//! The operator's own certificate authorities, from a PEM file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// The certificates in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    pub path: PathBuf,
    pub pem: Vec<u8>,
    /// The certificates, at least one.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads a file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or is not a PEM file of certificates. The error names the
    /// file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let unusable = |error: &dyn fmt::Display| {
            format!("{} cannot be used as a PEM file of a CA: {error}", path.display())
        };
        let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| unusable(&error))?;
        if certificates.is_empty() {
            return Err(unusable(&"it contains no certificate"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| unusable(&error))?;
        }
        Ok(Self { path: path.to_owned(), pem, certificates })
    }

    /// Returns the earliest time at which one of the certificates expires.
    pub fn valid_until(&self) -> Option<DateTime<Utc>> {
        earliest_end(&self.certificates)
    }
}

/// Returns the earliest time at which one of the certificates expires.
pub(crate) fn earliest_end(certificates: &[CertificateDer<'_>]) -> Option<DateTime<Utc>> {
    let ends = certificates.iter().filter_map(|certificate| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
    });
    ends.min()
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorities").field(&self.path).finish()
    }
}
