//! Trello, which signs the body and the called address
//! (<https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/>).
//!
//! The signature, an HMAC-SHA1, covers type, time and id. Trello checks an address with an unsigned
//! HEAD before it creates a webhook.

use http::{Method, StatusCode};

use super::{
    Source, Vendor,
    builders::{fields, hmac_body, signed, template},
    description::{Algorithm, Description, Encoding, Signed},
};
use crate::delivery::{Delivery, Reply};

#[derive(Debug)]
pub(super) struct Trello(Description);

impl Trello {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "trello".into(),
            documentation: "https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/",
            scheme: signed(Signed {
                algorithm: Algorithm::HmacSha1,
                encoding: Encoding::Base64,
                template: template("{body}{url}"),
                is_json: true,
                ..hmac_body("x-trello-webhook")
            }),
            fields: fields("/action/type", "/action/date", "/action/id"),
            ..Description::default()
        })
    }
}

impl Vendor for Trello {
    fn description(&self) -> &Description {
        &self.0
    }

    /// Answers the HEAD with which Trello checks an address.
    fn challenge(&self, delivery: &Delivery, source: &Source) -> Option<Reply> {
        let is_check = delivery.method == Method::HEAD && source.is_served();
        is_check.then(|| Reply::text(StatusCode::OK, ""))
    }
}
