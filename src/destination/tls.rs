//! TLS of the HTTP client: rustls with ring, as in all of this binary.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// TLS with certificate checks against the public roots, and a private CA beside them.
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}
