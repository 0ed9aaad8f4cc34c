//! The certificate authorities that the router trusts.

use rustls::{ClientConfig, RootCertStore};

use crate::{authorities::Authorities, http_client};

/// Creates TLS settings that trust the public roots and, where given, a private CA.
///
/// The public roots are compiled in, so that a cold start reads no bundle.
///
/// # Errors
/// Fails if the CA cannot be used.
pub fn tls_config(ca: Option<&Authorities>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    for certificate in ca.iter().flat_map(|ca| &ca.certificates) {
        roots.add(certificate.clone()).map_err(|error| format!("the CA: {error}"))?;
    }
    http_client::tls(roots).map_err(|error| error.to_string())
}
