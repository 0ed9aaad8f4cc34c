//! What is to be done with a delivery: verify, read, derive, choose. No clock, no network, no
//! store; `explain` prints it, and production acts on it.

use chrono::{DateTime, Utc};
use http::Method;

use crate::{
    config::{Intake, Unsigned},
    delivery::Delivery,
    error::{Error, SignatureFault},
    event::{Event, Identity},
    key::{Key, route_byte},
    route::Route,
    source::{VENDORS, Vendor, loopback},
};

/// A verified event with its key and its destination. Only [`plan`] makes one of a delivery, so
/// what is not verified cannot be routed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub event: Event,
    pub key: Key,
    /// The key under the secret before a rotation.
    pub previous_key: Option<Key>,
    pub route: Route,
    _verified: Verified,
}

#[derive(Debug, Clone)]
struct Verified;

impl Plan {
    /// What is to be done with an event that was verified when it first came in, as a store has
    /// kept it.
    pub fn kept(event: Event, key: Key, route: Route) -> Self {
        Self { event, key, previous_key: None, route, _verified: Verified }
    }
}

/// Decides what is to be done with a delivery that came in at `now`.
///
/// # Errors
/// The refusals: 400, 401, 403, 404, 405 and 413.
pub fn plan(delivery: &Delivery, intake: &Intake, now: DateTime<Utc>) -> Result<Plan, Error> {
    let (vendor, cover) = admit(delivery, delivery.body.len() as u64, intake)?;
    if cover == Cover::WebhookId {
        vendor.verify(delivery, intake.secrets(vendor), intake.signature_tolerance, now)?;
    }

    let mut event = vendor.event(delivery)?;
    if intake.trust_idempotency_header && vendor.may_name_events() {
        event.identity = name(delivery, cover)?.map_or(Identity::Content, Identity::Header);
    }
    let logical = event.logical();
    let key = Key::derive(&intake.routing_secret, &logical);
    let previous = intake.previous_routing_secret.as_ref();
    let previous_key = previous.map(|secret| Key::derive(secret, &logical));
    let to_gcp = u16::from(route_byte(&intake.routing_secret, &logical)) < intake.route_threshold;
    let route = if to_gcp { Route::Gcp } else { Route::Aws };
    Ok(Plan { event, key, previous_key, route, _verified: Verified })
}

/// Decides by its head alone whether a delivery can be taken, and what its signature must cover.
/// Its body of `length` bytes may still have to come; a length that is not known yet counts as 0.
///
/// # Errors
/// The refusals that need no body: 403, 404, 405, 413, and 401 for an absent signature.
pub fn admit(
    delivery: &Delivery,
    length: u64,
    intake: &Intake,
) -> Result<(&'static dyn Vendor, Cover), Error> {
    let vendor = VENDORS.iter().find(|vendor| vendor.path() == delivery.path);
    let vendor = *vendor.ok_or(Error::UnknownPath)?;
    if delivery.method != Method::POST {
        return Err(Error::Method { allow: "POST" });
    }
    if length > intake.max_body_bytes as u64 {
        return Err(Error::TooLarge { limit: intake.max_body_bytes });
    }
    if !intake.secrets(vendor).is_empty() {
        let is_there =
            |name: &&str| delivery.headers.get(*name).is_some_and(|value| !value.is_empty());
        if !vendor.signature_headers().iter().all(is_there) {
            return Err(Error::Signature(SignatureFault::Missing));
        }
        return Ok((vendor, Cover::WebhookId));
    }
    match intake.unsigned {
        Unsigned::FromAnyone if vendor.may_be_unsigned() => {}
        Unsigned::FromThisMachine if vendor.may_be_unsigned() => loopback::check(delivery)?,
        _ => {
            let (vendor, variable) = (vendor.name(), vendor.secrets_variable());
            return Err(Error::NotServed { vendor, variable });
        }
    }
    Ok((vendor, Cover::Nothing))
}

/// Whether a delivery's headers are the sender's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// The signature covers `webhook-id`, and no other header that could name an event.
    WebhookId,
    /// Nothing is signed.
    Nothing,
}

/// The name that the sender gave the event
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>). Bytes are read
/// as Latin-1, as Python's WSGI servers do (PEP 3333).
///
/// Where the delivery is signed, only the signed `webhook-id` counts: whoever captured a request
/// could send it again under another `Idempotency-Key`.
fn name(delivery: &Delivery, cover: Cover) -> Result<Option<String>, Error> {
    let names = ["idempotency-key", "x-idempotency-key"];
    let values = names.into_iter().flat_map(|name| delivery.headers.get_all(name));
    let mut values = values.filter(|value| !value.is_empty());
    let value = match cover {
        Cover::Nothing => values.next(),
        Cover::WebhookId => {
            let id = delivery.headers.get("webhook-id");
            if values.any(|value| Some(value) != id) {
                return Err(Error::OtherName);
            }
            id
        }
    };
    Ok(value.map(|value| value.as_bytes().iter().copied().map(char::from).collect()))
}
