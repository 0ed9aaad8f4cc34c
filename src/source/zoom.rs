//! Zoom (<https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events>).
//!
//! The signature covers the time of sending and the body, and so type and time. There is no id. Zoom
//! checks an address when it is saved, and every 72 hours, with a token that must come back with its
//! HMAC. The documentation does not say whether a retry, which may come after an hour, is signed
//! again, so a timestamp may have any age.

use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::{
    Source, Vendor,
    builders::{fields, header, hmac_body, signed, template},
    description::{Algorithm, Description, Fields, Signed, Stamp, StampPlace, Tolerance, Unit},
    scheme::hmac,
};
use crate::{
    delivery::{Delivery, Reply},
    json::Document,
};

const SIGNATURE: HeaderName = HeaderName::from_static("x-zm-signature");

/// Largest body of a validation, in bytes. Zoom's has about a hundred.
const MAX_VALIDATION_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Zoom(Description);

impl Zoom {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "zoom".into(),
            documentation: "https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events",
            scheme: signed(Signed {
                prefix: "v0=".into(),
                stamp: Some(Stamp {
                    place: StampPlace::At(header("x-zm-request-timestamp")),
                    unit: Unit::Seconds,
                    tolerance: Tolerance::Any,
                }),
                template: template("v0:{timestamp}:{body}"),
                ..hmac_body(SIGNATURE.as_str())
            }),
            fields: Fields { unit: Unit::Milliseconds, ..fields("/event", "/event_ts", "") },
            ..Description::default()
        })
    }
}

/// Returns whether an unsigned delivery is small enough for a validation. Its body may arrive later.
fn may_be_validation(delivery: &Delivery) -> bool {
    let length = delivery.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = match delivery.body.len() {
        0 => length.and_then(|text| text.parse().ok()),
        length => Some(length),
    };
    delivery.method == Method::POST && length.is_some_and(|length| length <= MAX_VALIDATION_BYTES)
}

/// Returns the token of a validation. A token has no colons, and the text that an event's signature
/// covers has some. So strangers cannot get the signature of an event.
fn plain_token(body: &[u8]) -> Option<String> {
    let document = Document::parse(body).ok()?;
    let text = |pointer: &[&str]| {
        let found = pointer.iter().try_fold(document.root(), |value, name| value.get(name))?;
        found.as_str()?.ok()
    };
    if text(&["event"])? != "endpoint.url_validation" {
        return None;
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    text(&["payload", "plainToken"])
        .filter(|token| (1..=64).contains(&token.len()) && token.bytes().all(is_allowed))
}

impl Vendor for Zoom {
    fn description(&self) -> &Description {
        &self.0
    }

    fn has_signature(&self, delivery: &Delivery) -> bool {
        delivery.headers.contains_key(SIGNATURE) || may_be_validation(delivery)
    }

    /// Answers the validation of an address, whether it is signed or not.
    fn challenge(&self, delivery: &Delivery, source: &Source) -> Option<Reply> {
        if !may_be_validation(delivery) {
            return None;
        }
        let token = plain_token(&delivery.body)?;
        let key = source.secrets.first()?.expose().as_bytes();
        let encrypted = hex::encode(hmac(Algorithm::HmacSha256, key, &[token.as_bytes()]));
        let answer = format!(r#"{{"plainToken":"{token}","encryptedToken":"{encrypted}"}}"#);
        let json = HeaderValue::from_static("application/json");
        Some(Reply::text(StatusCode::OK, answer).with_header(CONTENT_TYPE, json))
    }
}
