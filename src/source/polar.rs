//! Polar, which signs as Standard Webhooks, with the text of the secret as the key
//! (<https://polar.sh/docs/integrate/webhooks/delivery>).
//!
//! The signature covers type, time and id. Since 8 September 2026, Polar creates secrets as Standard
//! Webhooks writes them: `whsec_` and the base64 of the key
//! (<https://github.com/polarsource/polar/pull/14117>). The key of an older secret is its text, with
//! its prefix.
//!
//! A few older secrets look like new ones. Polar's own libraries try both keys for them. The router
//! does not, because a stranger's delivery would then cost two hashes. The operator must write such
//! a secret as `whsec_` and the base64 of its whole text (docs/sources.md).

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Check, Vendor,
    builders::{fields, standard},
    description::Description,
    scheme,
    sign::{CannotSign, Signing},
    standard_webhooks,
};
use crate::{delivery::Delivery, error::Error, secret::Secret};

const PREFIX: &str = "whsec_";

#[derive(Debug)]
pub(super) struct Polar(Description);

impl Polar {
    pub(super) fn new() -> Self {
        let documentation = "https://polar.sh/docs/integrate/webhooks/delivery";
        let fields = fields("/type", "/timestamp", "");
        Self(Description { name: "polar".into(), ..standard(documentation, fields) })
    }
}

/// Returns the secret as Standard Webhooks writes it: as it is, or with its whole text as the key.
fn standard_secret(secret: &Secret) -> Secret {
    let is_standard =
        secret.expose().starts_with(PREFIX) && standard_webhooks::check_secret(secret, 1).is_ok();
    if is_standard { secret.clone() } else { text_secret(secret) }
}

fn text_secret(secret: &Secret) -> Secret {
    Secret::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(secret.expose())))
}

impl Vendor for Polar {
    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        // The key of such a secret would be its prefix, which everybody knows.
        if ["", PREFIX].contains(&secret.expose()) {
            return Err("must be the endpoint's secret, not only its prefix");
        }
        Ok(())
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let secrets: Vec<_> = check.secrets.iter().map(standard_secret).collect();
        scheme::verify(&self.0, &Check { secrets: &secrets, ..*check })
    }

    fn sign(&self, delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let secret = standard_secret(signing.secret);
        standard_webhooks::sign(delivery, &Signing { secret: &secret, ..*signing })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::{DateTime, TimeDelta};
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn the_key_of_a_secret_is_its_base64_or_its_text() {
        let polar = Polar::new();
        let now = DateTime::from_timestamp(1_778_070_900, 0).unwrap();
        let is_genuine = |signed_with: &Secret, secret: &str| {
            let delivery = Delivery {
                method: Method::POST,
                path: "/webhook/polar".into(),
                query: None,
                headers: HeaderMap::new(),
                body: Bytes::from_static(b"{}"),
            };
            let signing = Signing { secret: signed_with, key: None, url: None, now };
            let delivery = &standard_webhooks::sign(delivery, &signing).unwrap();
            let (secrets, tolerance) = (&[Secret::new(secret)][..], TimeDelta::seconds(300));
            let check = Check { delivery, secrets, url: None, tolerance, now, fetched: None };
            polar.verify(&check).is_ok()
        };
        let new = "whsec_cGxhaW5seSBmYWtlIGtleQ==";
        let (base64, text) = (Secret::new(new), text_secret(&Secret::new(new)));
        assert!(is_genuine(&base64, new) && !is_genuine(&text, new));
        for old in ["polar_whs_plainly", "whsec_not_base64"] {
            assert_eq!(polar.check_secret(&Secret::new(old)), Ok(()));
            assert!(is_genuine(&text_secret(&Secret::new(old)), old));
            assert!(!is_genuine(&base64, old) && !is_genuine(&text, old));
        }
        // An older secret that looks like a new one, as the documentation says to configure it.
        assert!(is_genuine(&text, "whsec_d2hzZWNfY0d4aGFXNXNlU0JtWVd0bElHdGxlUT09"));
    }

    #[test]
    fn a_prefix_is_no_secret() {
        for bad in ["", "whsec_"] {
            assert!(Polar::new().check_secret(&Secret::new(bad)).is_err(), "{bad}");
        }
    }
}
