//! What is to be done with a delivery: verify, read, derive, choose. No clock, no network, no
//! store; `explain` prints it, and production acts on it.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    config::Intake,
    delivery::Delivery,
    error::{Error, SignatureFault},
    key::{Key, route_byte},
    secret::Secret,
    vendor::{Event, Identity, VENDORS, Vendor},
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

/// Which destination an event goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// A Cloud Run service, over HTTPS.
    Gcp,
    /// The processor Lambda, through the Invoke API.
    Aws,
}

impl Plan {
    /// What is to be done with an event that was verified when it first came in, as a store has
    /// kept it.
    pub fn kept(event: Event, key: Key, route: Route) -> Self {
        Self { event, key, previous_key: None, route, _verified: Verified }
    }
}

impl Route {
    /// As it stands in the store and in `X-Webhook-Destination`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcp => "gcp",
            Self::Aws => "aws",
        }
    }
}

/// A text that is neither `gcp` nor `aws`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be gcp or aws")]
pub struct NotARoute;

impl FromStr for Route {
    type Err = NotARoute;

    fn from_str(text: &str) -> Result<Self, NotARoute> {
        let route = [Self::Gcp, Self::Aws].into_iter().find(|route| route.as_str() == text);
        route.ok_or(NotARoute)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Decides what is to be done with a delivery that came in at `now`.
///
/// # Errors
/// The refusals: 400, 401, 404, 405 and 413.
pub fn plan(delivery: &Delivery, intake: &Intake, now: DateTime<Utc>) -> Result<Plan, Error> {
    let vendor = admit(delivery, delivery.body.len() as u64, intake)?;
    verify(delivery, vendor, intake, now)?;

    let mut event = vendor.event(delivery)?;
    if intake.trust_idempotency_header && vendor.may_name_events() {
        event.identity = idempotency_header(delivery).map_or(Identity::Content, Identity::Header);
    }
    let logical = event.logical();
    let key = Key::derive(&intake.routing_secret, &logical);
    let previous = intake.previous_routing_secret.as_ref();
    let previous_key = previous.map(|secret| Key::derive(secret, &logical));
    let to_gcp = u16::from(route_byte(&intake.routing_secret, &logical)) < intake.route_threshold;
    let route = if to_gcp { Route::Gcp } else { Route::Aws };
    Ok(Plan { event, key, previous_key, route, _verified: Verified })
}

/// Decides by its head alone whether a delivery can be taken. Its body of `length` bytes may still
/// have to come; a length that is not known yet counts as 0.
///
/// # Errors
/// The refusals that need no body: 404, 405, 413, and 401 for an absent signature.
pub fn admit(
    delivery: &Delivery,
    length: u64,
    intake: &Intake,
) -> Result<&'static dyn Vendor, Error> {
    let vendor = VENDORS.iter().find(|vendor| vendor.path() == delivery.path);
    let vendor = *vendor.ok_or(Error::UnknownPath)?;
    if delivery.method != Method::POST {
        return Err(Error::Method { allow: "POST" });
    }
    if length > intake.max_body_bytes as u64 {
        return Err(Error::TooLarge { limit: intake.max_body_bytes });
    }
    let is_there = |name: &&str| delivery.headers.get(*name).is_some_and(|value| !value.is_empty());
    let must_be_signed = !secrets(vendor, intake)?.is_empty();
    if must_be_signed && !vendor.signature_headers().iter().all(is_there) {
        return Err(Error::Signature(SignatureFault::Missing));
    }
    Ok(vendor)
}

/// The name that the sender gave the event
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>). Bytes are read
/// as Latin-1, as Python's WSGI servers do (PEP 3333).
fn idempotency_header(delivery: &Delivery) -> Option<String> {
    let values = ["idempotency-key", "x-idempotency-key"].map(|name| delivery.headers.get(name));
    let value = values.into_iter().flatten().find(|value| !value.is_empty())?;
    Some(value.as_bytes().iter().copied().map(char::from).collect())
}

fn verify(
    delivery: &Delivery,
    vendor: &dyn Vendor,
    intake: &Intake,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    match secrets(vendor, intake)? {
        [] => Ok(()),
        secrets => vendor.verify(delivery, secrets, intake.signature_tolerance, now),
    }
}

/// The secrets of a vendor that is served; none when its deliveries may be unsigned.
fn secrets<'a>(vendor: &dyn Vendor, intake: &'a Intake) -> Result<&'a [Secret], Error> {
    match intake.secrets(vendor) {
        [] if !(vendor.may_be_unsigned() && intake.allow_unsigned) => {
            Err(Error::NotServed { vendor: vendor.name(), variable: vendor.secrets_variable() })
        }
        secrets => Ok(secrets),
    }
}
