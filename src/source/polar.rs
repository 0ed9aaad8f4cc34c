//! Polar, which signs as Standard Webhooks, with the text of the secret as the key
//! (<https://polar.sh/docs/integrate/webhooks/delivery>).
//!
//! The signature covers type, time and id. Polar's own libraries write the text as base64 before
//! they hand it to a library of Standard Webhooks. A secret that begins with `whsec_` is base64
//! already.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    Check, Vendor,
    description::Description,
    rows::{fields, standard},
    scheme,
    sign::{CannotSign, Signing},
    standard_webhooks,
};
use crate::{delivery::Delivery, error::Error, secret::Secret};

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
    match secret.expose() {
        text if text.starts_with("whsec_") => secret.clone(),
        text => Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(text))),
    }
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
        scheme::verify(&self.0, &Check { secrets: &secrets, ..*check })
    }

    fn sign(&self, delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let secret = standard_secret(signing.secret);
        standard_webhooks::sign(delivery, &Signing { secret: &secret, ..*signing })
    }
}
