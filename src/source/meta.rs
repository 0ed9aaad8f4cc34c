//! Meta: Facebook, Instagram and WhatsApp
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
//!
//! The signature covers the body. A body may report several changes of several objects. Neither the
//! body nor a change has an id. Meta checks an address with an unsigned GET that holds the verify
//! token.

use http::{Method, StatusCode};

use super::{
    Body, Happened, Source, Vendor,
    builders::{DAY, hmac_body, signed},
    description::{Description, Signed},
    scheme::is_a_secret,
};
use crate::{
    delivery::{Delivery, Reply},
    json::Value,
};

/// Largest number of fields in the query. Meta sends three.
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
            // WhatsApp retries for seven days.
            retry_horizon: 7 * DAY,
            ..Description::default()
        })
    }
}

/// Returns the elements of an array, or nothing.
fn elements<'d>(value: Value<'d>, name: &str) -> Vec<Value<'d>> {
    value.get(name).and_then(Value::elements).unwrap_or_default()
}

/// Returns the names of the fields that changed. `changes` has names and values, and
/// `changed_fields` has only names. Messages of a page have neither, so the result is one `None`.
fn changed_fields(entry: Value<'_>) -> Vec<Option<String>> {
    let changes = elements(entry, "changes").into_iter().map(|change| change.get("field"));
    let names = elements(entry, "changed_fields").into_iter().map(Some);
    let fields: Vec<_> = changes.chain(names).map(|field| field?.as_text()).collect();
    if fields.is_empty() { vec![None] } else { fields }
}

impl Vendor for Meta {
    fn description(&self) -> &Description {
        &self.0
    }

    /// Reads one event for each change. Its type is the kind of the object, and the field.
    fn happened(&self, _delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
        let object = body.root().and_then(|root| root.get("object")?.as_text());
        let entries = body.root().map(|root| elements(root, "entry")).unwrap_or_default();
        let mut fields: Vec<_> = entries.into_iter().flat_map(changed_fields).collect();
        if fields.is_empty() {
            fields.push(None);
        }
        let event_type = |field: Option<String>| match (&object, field) {
            (Some(object), Some(field)) => Some(format!("{object}.{field}")),
            (object, _) => object.clone(),
        };
        let one = |field| Happened { event_type: event_type(field), ..Happened::default() };
        fields.into_iter().map(one).collect()
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
