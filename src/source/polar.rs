//! Polar, which signs as Standard Webhooks, with the text of the secret as the key
//! (<https://polar.sh/docs/integrate/webhooks/delivery>).
//!
//! The signature covers type, time and id. The key of an older secret is its text, with its prefix.
//! Since 8 September 2026, Polar creates secrets as Standard Webhooks writes them: `whsec_` and the
//! base64 of the key (<https://github.com/polarsource/polar/pull/14117>). Some older secrets begin
//! with `whsec_`, too, so Polar's own libraries try both keys.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Check, Vendor,
    description::Description,
    rows::{fields, standard},
    scheme::{self, CHEAP_BODY_BYTES},
    sign::{CannotSign, Signing},
    standard_webhooks,
};
use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    secret::Secret,
};

const PREFIX: &str = "whsec_";

#[derive(Debug)]
pub(super) struct Polar(Description);

impl Polar {
    pub(super) fn new() -> Self {
        let documentation = "https://polar.sh/docs/integrate/webhooks/delivery";
        Self(standard("polar", documentation, fields("/type", "/timestamp", "")))
    }
}

/// Returns the secret as Standard Webhooks writes it.
fn standard_secret(secret: &Secret) -> Secret {
    if is_standard(secret) { secret.clone() } else { text_secret(secret) }
}

fn is_standard(secret: &Secret) -> bool {
    secret.expose().starts_with(PREFIX) && standard_webhooks::check_secret(secret, 1).is_ok()
}

/// Returns the secret whose key is the whole text, as Standard Webhooks writes it.
fn text_secret(secret: &Secret) -> Secret {
    Secret::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(secret.expose())))
}

impl Vendor for Polar {
    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        standard_webhooks::check_secret(&standard_secret(secret), 1)
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let secrets: Vec<_> = check.secrets.iter().map(standard_secret).collect();
        let first = scheme::verify(&self.0, &Check { secrets: &secrets, ..*check });
        // The text of a secret is tried as the key, too, if a second hash is cheap.
        let both = check.secrets.iter().filter(|secret| is_standard(secret));
        let secrets: Vec<_> = both.map(text_secret).collect();
        let is_worth_it = matches!(first, Err(Error::Signature(SignatureFault::Wrong)))
            && !secrets.is_empty()
            && check.delivery.body.len() <= CHEAP_BODY_BYTES;
        if !is_worth_it {
            return first;
        }
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
    fn the_key_of_a_secret_with_the_prefix_is_its_base64_or_its_text() {
        let polar = Polar::new();
        let now = DateTime::from_timestamp(1_778_070_900, 0).unwrap();
        let check = |signed_with: &Secret, body: Bytes, secret: &str| {
            let delivery = Delivery {
                method: Method::POST,
                path: "/webhook/polar".into(),
                query: None,
                headers: HeaderMap::new(),
                body,
            };
            let signing = Signing { secret: signed_with, key: None, url: None, now };
            let delivery = &standard_webhooks::sign(delivery, &signing).unwrap();
            let (secrets, tolerance) = (&[Secret::new(secret)][..], TimeDelta::seconds(300));
            let check = Check { delivery, secrets, url: None, tolerance, now, fetched: None };
            polar.verify(&check).is_ok()
        };
        let small = || Bytes::from_static(b"{}");
        let new = "whsec_cGxhaW5seSBmYWtlIGtleQ==";
        let (base64, text) = (Secret::new(new), text_secret(&Secret::new(new)));
        assert!(check(&base64, small(), new) && check(&text, small(), new));
        for old in ["polar_whs_plainly", "whsec_not_base64"] {
            assert_eq!(polar.check_secret(&Secret::new(old)), Ok(()));
            assert!(check(&text_secret(&Secret::new(old)), small(), old));
            assert!(!check(&base64, small(), old) && !check(&text, small(), old));
        }
        // A large body is hashed once.
        let large = || Bytes::from(vec![b'1'; CHEAP_BODY_BYTES + 1]);
        assert!(check(&base64, large(), new) && !check(&text, large(), new));
    }
}
