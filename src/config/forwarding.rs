//! The secrets that sign what is forwarded.

use super::vars::Vars;
use crate::signing::Signer;

const SECRETS: &str = "FORWARD_SECRETS";

impl Vars<'_> {
    pub(super) fn signer(&mut self) -> Option<Signer> {
        let secrets = self.secrets(SECRETS, |_| Ok(()));
        Signer::new(&secrets).unwrap_or_else(|remedy| {
            self.problem(SECRETS, remedy);
            None
        })
    }
}
