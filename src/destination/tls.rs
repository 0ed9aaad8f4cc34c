//! The certificate authorities that the router trusts.

use std::path::Path;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::http_client;

/// Creates TLS settings that trust the public roots and, where given, a private CA.
///
/// The public roots are compiled in, so that a cold start reads no bundle.
///
/// # Errors
/// When the CA file (GCP_CA_FILE) cannot be used.
pub fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    if let Some(path) = ca_file {
        let unusable = |error: &dyn std::fmt::Display| {
            format!("GCP_CA_FILE: {} is not a PEM file of a CA: {error}", path.display())
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(&error))?;
        if certificates.is_empty() {
            return Err(unusable(&"it holds no certificate"));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
    }
    http_client::tls(roots).map_err(|error| error.to_string())
}
