//! Meta: Facebook, Instagram and WhatsApp
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
//!
//! The signature covers the body. A body reports several changes, and neither it nor they have an
//! id. Meta checks an address with an unsigned GET that holds the verify token.

use http::{Method, StatusCode};

use super::{
    Source, Vendor,
    description::{Description, Fields, Joined, Signed},
    rows::{DAY, hmac_body, joined, signed},
    scheme::is_a_secret,
};
use crate::delivery::{Delivery, Reply};

/// Most fields of the query. Meta sends three.
const MAX_FIELDS: usize = 16;

/// Longest challenge that is sent back, in bytes. Meta's has about ten.
const MAX_CHALLENGE_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Meta(Description);

impl Meta {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "meta".into(),
            documentation: "https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
            scheme: signed(Signed { prefix: "sha256=".into(), ..hmac_body("x-hub-signature-256") }),
            fields: Fields {
                event_type: vec![Joined {
                    needs_all: false,
                    ..joined(&["/object", "/entry/0/changes/0/field"], ".")
                }],
                ..Fields::default()
            },
            // WhatsApp retries for seven days.
            retry_horizon: 7 * DAY,
            ..Description::default()
        })
    }
}

impl Vendor for Meta {
    fn description(&self) -> &Description {
        &self.0
    }

    /// Answers the GET with which Meta checks an address: it must hold the verify token.
    fn challenge(&self, delivery: &Delivery, source: &Source) -> Option<Reply> {
        let token = source.verify_token.as_ref()?;
        if delivery.method != Method::GET || !source.is_served() {
            return None;
        }
        let query = delivery.query.as_deref()?;
        let pairs = form_urlencoded::parse(query.as_bytes()).take(MAX_FIELDS);
        let pairs: Vec<_> = pairs.collect();
        let value = |name| Some(&*pairs.iter().find(|(one, _)| one == name)?.1);
        let is_subscription = value("hub.mode") == Some("subscribe");
        let is_meta = is_a_secret(value("hub.verify_token")?, std::slice::from_ref(token)).is_ok();
        let challenge = value("hub.challenge")?;
        let is_short = (1..=MAX_CHALLENGE_BYTES).contains(&challenge.len());
        (is_subscription && is_meta && is_short).then(|| Reply::text(StatusCode::OK, challenge))
    }
}
