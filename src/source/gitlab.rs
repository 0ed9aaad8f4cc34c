//! GitLab, which signs as Standard Webhooks, or sends the secret itself
//! (<https://docs.gitlab.com/user/project/integrations/webhooks/>).
//!
//! A `whsec_` secret is a signing token: the signature covers the body, `webhook-id` and the time.
//! Any other secret is the older secret token, which comes in `X-Gitlab-Token`: nothing is signed
//! then. The type is in a header that anybody could change. `Idempotency-Key` equals `webhook-id`.

use http::{HeaderName, header::AUTHORIZATION};

use super::{
    Check, Vendor,
    builders::{header, names, sent},
    description::{Description, Fields, Sent},
    scheme::{is_a_secret, missing, wrong},
    sign::{CannotSign, Signing, insert},
    standard_webhooks,
};
use crate::{delivery::Delivery, error::Error, secret::Secret};

const TOKEN: HeaderName = HeaderName::from_static("x-gitlab-token");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

#[derive(Debug)]
pub(super) struct GitLab(Description);

impl GitLab {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "gitlab".into(),
            documentation: "https://docs.gitlab.com/user/project/integrations/webhooks/",
            fields: Fields {
                event_type: vec![header("x-gitlab-event").into()],
                id: vec![header("webhook-id").into(), header("idempotency-key").into()],
                ..Fields::default()
            },
            signature_headers: names(&[
                "webhook-id",
                "webhook-timestamp",
                "webhook-signature",
                "x-gitlab-event",
            ]),
            sent: vec![sent("x-gitlab-event", Sent::Text("Push Hook"))],
            ..Description::default()
        })
    }
}

fn is_signing_token(secret: &Secret) -> bool {
    secret.expose().starts_with("whsec_")
}

impl Vendor for GitLab {
    fn has_signature(&self, delivery: &Delivery) -> bool {
        delivery.headers.contains_key(SIGNATURE) || delivery.headers.contains_key(TOKEN)
    }

    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        match is_signing_token(secret) {
            true => standard_webhooks::check_secret(secret, 1),
            false if secret.expose().is_empty() => Err("must not be empty"),
            false => Ok(()),
        }
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        if check.delivery.body.is_empty() {
            return Err(missing());
        }
        // A signing token is never sent, so it is not compared with a header.
        let secrets = check.secrets.iter().cloned();
        let (signing, tokens): (Vec<_>, Vec<_>) = secrets.partition(is_signing_token);
        let has = |name: &HeaderName| check.delivery.headers.contains_key(name);
        let mut result = Err(missing());
        if has(&SIGNATURE) && !signing.is_empty() {
            let check = Check { secrets: &signing, ..*check };
            result = standard_webhooks::verify(&check, &["webhook"]).map(|_| ());
        }
        if result.is_err() && has(&TOKEN) {
            let claimed = check.delivery.single_header(&TOKEN).ok_or_else(wrong)?;
            return is_a_secret(claimed, &tokens);
        }
        result
    }

    fn sign(&self, mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        if is_signing_token(signing.secret) {
            return standard_webhooks::sign(delivery, signing);
        }
        insert(&mut delivery.headers, &TOKEN, signing.secret.expose())?;
        Ok(delivery)
    }

    fn secret_headers(&self) -> Vec<HeaderName> {
        vec![TOKEN, AUTHORIZATION]
    }
}
