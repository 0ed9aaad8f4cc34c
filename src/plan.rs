//! What is to be done with a delivery: verify, read, derive, choose. No clock, no network, no
//! store; `explain` prints it, and production acts on it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderName, Method, StatusCode};

use crate::{
    config::{Intake, Unsigned},
    delivery::{Delivery, Reply},
    error::{Error, SignatureFault},
    event::{Event, Identity},
    key::{Key, route_byte},
    lowercase::python_lower,
    route::Route,
    source::{self, Body, Certificate, Check, Happened, KeyRule, Source, Wish, envelope, loopback},
};

/// What is to be done with a delivery.
#[derive(Debug, Clone)]
pub enum Planned {
    /// Its event is to be delivered.
    Deliver(Box<Plan>),
    /// It is no event but a question of the vendor's, and this is the answer.
    Handshake(Reply),
    /// The rules of its source leave its event out.
    Filtered { event: Box<Event>, reply: Reply },
}

impl Planned {
    /// The plan, when the event is to be delivered.
    pub fn plan(self) -> Option<Plan> {
        match self {
            Self::Deliver(plan) => Some(*plan),
            Self::Handshake(_) | Self::Filtered { .. } => None,
        }
    }
}

/// A verified event with its key and its destination. Only [`plan`] makes one of a delivery, so
/// what is not verified cannot be routed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub event: Event,
    pub key: Key,
    /// The key under the secret before a rotation.
    pub previous_key: Option<Key>,
    pub route: Route,
    /// Where it came from; none for an envelope, and when the source is no longer configured.
    source: Option<Arc<Source>>,
    _verified: Verified,
}

#[derive(Debug, Clone)]
struct Verified;

impl Plan {
    /// What is to be done with an event that was verified when it first came in, as a store has
    /// kept it.
    pub fn kept(event: Event, key: Key, route: Route, source: Option<Arc<Source>>) -> Self {
        Self { event, key, previous_key: None, route, source, _verified: Verified }
    }

    /// The vendor's own headers about its signature, which a receiver gets to verify it again.
    pub fn signature_headers(&self) -> Vec<HeaderName> {
        self.source.as_ref().map(|source| source.vendor.signature_headers()).unwrap_or_default()
    }

    /// Headers that hold a secret: they are neither forwarded nor stored.
    pub fn secret_headers(&self) -> Vec<HeaderName> {
        self.source.as_ref().map(|source| source.vendor.secret_headers()).unwrap_or_default()
    }

    /// What its vendor wants to hear.
    pub fn wish(&self) -> Wish {
        self.source.as_ref().map(|source| source.vendor.description().wish).unwrap_or_default()
    }

    /// For how long its vendor may deliver it again; nothing when that is a day or less, or not
    /// known. An envelope's vendor may be one of those that are built in.
    pub fn retry_horizon(&self) -> Duration {
        let vendor = match &self.source {
            Some(source) => Some(&source.vendor),
            None => source::vendor(&python_lower(&self.event.vendor)),
        };
        vendor.map_or(Duration::ZERO, |vendor| vendor.description().retry_horizon)
    }
}

/// Decides what is to be done with a delivery that came in at `now`. `certificate` is the one that
/// [`certificate_address`] leads to.
///
/// # Errors
/// The refusals: 400, 401, 403, 404, 405 and 413.
pub fn plan(
    delivery: &Delivery,
    intake: &Intake,
    certificate: Option<&Certificate>,
    now: DateTime<Utc>,
) -> Result<Planned, Error> {
    let source = match admit(delivery, delivery.body.len() as u64, intake)? {
        Admitted::Envelope(cover) => {
            let plan = envelope(delivery, cover, intake, now)?;
            return Ok(Planned::Deliver(Box::new(plan)));
        }
        Admitted::Challenge(reply) => return Ok(Planned::Handshake(reply)),
        Admitted::Source(source) => source,
    };
    let certificate = certificate.or(intake.paypal_certificate.as_deref());
    source.verify(delivery, certificate, intake.signature_tolerance, now)?;

    let body = Body::new(&delivery.body);
    if let Some(reply) = source.vendor.handshake(&body) {
        return Ok(Planned::Handshake(reply));
    }
    let happened = source.vendor.happened(delivery, &body);
    let event = event(source, &happened, &body);
    if !source.rules.take(&happened, &body) {
        let reply = Reply::text(StatusCode::OK, "filtered");
        let reply = source.vendor.description().wish.apply(reply);
        return Ok(Planned::Filtered { event: Box::new(event), reply });
    }
    Ok(Planned::Deliver(Box::new(derive(event, intake, Some(source)))))
}

/// The address of the certificate that a delivery is signed with, when it is signed with one and
/// all is checked that can be checked without it.
///
/// # Errors
/// [`Error::Signature`] when the delivery cannot be genuine.
pub fn certificate_address(
    delivery: &Delivery,
    intake: &Intake,
) -> Result<Option<url::Url>, Error> {
    match admit(delivery, delivery.body.len() as u64, intake) {
        Ok(Admitted::Source(source)) if intake.paypal_certificate.is_none() => {
            source.vendor.certificate_address(delivery)
        }
        // The plan says what is wrong.
        _ => Ok(None),
    }
}

/// The event of a source's delivery, or the one that a batch makes up.
fn event(source: &Source, happened: &[Happened], body: &Body<'_>) -> Event {
    let ids: Option<Vec<_>> = happened.iter().map(|one| one.id.as_deref()).collect();
    let identity = match (source.rules.key, ids) {
        (KeyRule::Id, Some(ids)) => Identity::EventId(ids.join(",")),
        _ => Identity::Content,
    };
    let mut types: Vec<_> = happened.iter().filter_map(|one| one.event_type.as_deref()).collect();
    types.dedup();
    Event {
        vendor: source.vendor.name().to_owned(),
        source: Some(source.name.clone()),
        event_type: types.join(","),
        created_at: happened.first().and_then(|first| first.created_at),
        digest: body.digest(&source.rules.ignore),
        identity,
    }
}

/// The plan of an event that is genuine.
fn derive(event: Event, intake: &Intake, source: Option<&Arc<Source>>) -> Plan {
    let logical = event.logical();
    let key = Key::derive(&intake.routing_secret, &logical);
    let previous = intake.previous_routing_secret.as_ref();
    let previous_key = previous.map(|secret| Key::derive(secret, &logical));
    let rules = source.map(|source| &source.rules);
    let threshold = rules.and_then(|rules| rules.threshold).unwrap_or(intake.route_threshold);
    let route = rules.and_then(|rules| rules.destination).unwrap_or_else(|| {
        let byte = route_byte(&intake.routing_secret, &logical);
        if u16::from(byte) < threshold { Route::Gcp } else { Route::Aws }
    });
    Plan { event, key, previous_key, route, source: source.cloned(), _verified: Verified }
}

/// What a delivery is, as far as its head tells.
#[derive(Debug)]
pub enum Admitted<'a> {
    Envelope(Cover),
    /// A vendor's question that comes unsigned, and its answer.
    Challenge(Reply),
    Source(&'a Arc<Source>),
}

/// Decides by its head alone whether a delivery can be taken. Its body of `length` bytes may still
/// have to come; a length that is not known yet counts as 0.
///
/// # Errors
/// The refusals that need no body: 403, 404, 405, 413, and 401 for an absent signature.
pub fn admit<'a>(
    delivery: &Delivery,
    length: u64,
    intake: &'a Intake,
) -> Result<Admitted<'a>, Error> {
    let is_envelope = delivery.path == envelope::PATH;
    let source = if is_envelope { None } else { Some(intake.sources.at(&delivery.path)?) };
    if let Some(source) = source
        && let Some(reply) = source.vendor.challenge(delivery, &source.secrets)
    {
        return Ok(Admitted::Challenge(reply));
    }
    if delivery.method != Method::POST {
        return Err(Error::Method { allow: "POST" });
    }
    if length > intake.max_body_bytes as u64 {
        return Err(Error::TooLarge { limit: intake.max_body_bytes });
    }
    match source {
        None => admit_envelope(delivery, intake).map(Admitted::Envelope),
        Some(source) if source.has_signature(delivery) => Ok(Admitted::Source(source)),
        Some(_) => Err(Error::Signature(SignatureFault::Missing)),
    }
}

fn admit_envelope(delivery: &Delivery, intake: &Intake) -> Result<Cover, Error> {
    if !intake.envelope_secrets.is_empty() {
        return match envelope::has_signature(&delivery.headers) {
            true => Ok(Cover::WebhookId),
            false => Err(Error::Signature(SignatureFault::Missing)),
        };
    }
    match intake.unsigned {
        Unsigned::FromAnyone => {}
        Unsigned::FromThisMachine => loopback::check(delivery)?,
        Unsigned::Refused => {
            let (vendor, variable) = ("envelope".into(), envelope::SECRETS.into());
            return Err(Error::NotServed { vendor, variable });
        }
    }
    Ok(Cover::Nothing)
}

fn envelope(
    delivery: &Delivery,
    cover: Cover,
    intake: &Intake,
    now: DateTime<Utc>,
) -> Result<Plan, Error> {
    if cover == Cover::WebhookId {
        let (secrets, tolerance) = (&intake.envelope_secrets[..], intake.signature_tolerance);
        let (url, certificate) = (None, None);
        envelope::verify(&Check { delivery, secrets, url, tolerance, now, certificate })?;
    }
    let mut event = envelope::event(delivery)?;
    if intake.trust_idempotency_header {
        event.identity = name(delivery, cover)?.map_or(Identity::Content, Identity::Header);
    }
    Ok(derive(event, intake, None))
}

/// Whether an envelope's headers are the sender's own.
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

#[cfg(test)]
mod tests;
