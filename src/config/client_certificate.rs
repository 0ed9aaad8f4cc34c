//! The client certificate that the router shows to Cloud Run, or to a proxy in front of it.

use std::path::Path;

use super::vars::Vars;
use crate::client_certificate::{ClientCertificate, Unusable};

const CERTIFICATE: &str = "GCP_CLIENT_CERT_FILE";
const KEY: &str = "GCP_CLIENT_KEY_FILE";

impl Vars<'_> {
    pub(super) fn client_certificate(&mut self) -> Option<ClientCertificate> {
        let (certificate, key) = match (self.text(CERTIFICATE), self.text(KEY)) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return None,
            (Some(_), None) => {
                self.problem(KEY, format!("must be set together with {CERTIFICATE}"));
                return None;
            }
            (None, Some(_)) => {
                self.problem(CERTIFICATE, format!("must be set together with {KEY}"));
                return None;
            }
        };
        match ClientCertificate::read(Path::new(&certificate), Path::new(&key)) {
            Ok(read) => return Some(read),
            Err(Unusable::Certificate(remedy)) => self.problem(CERTIFICATE, remedy),
            Err(Unusable::Key(remedy)) => self.problem(KEY, remedy),
        }
        None
    }
}
