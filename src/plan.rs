//! Decides what to do with a delivery: verify, read, derive, choose.
//!
//! Planning uses no clock, no network and no store. `explain` prints the result, and the router
//! acts on it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderName, Method, StatusCode};

use crate::{
    config::{Intake, Unsigned},
    delivery::{Delivery, Reply},
    error::{Error, SignatureFault},
    event::{Event, Identity},
    key::{Key, RouteBytes},
    lowercase::python_lower,
    route::Route,
    source::{
        self, Answer, Body, Check, Fetch, Fetched, Happened, KeyRule, Source, Wish, envelope,
        loopback,
    },
};

/// The decision about a delivery.
#[derive(Debug, Clone)]
pub enum Planned {
    /// The event is to be delivered.
    Deliver(Box<Plan>),
    /// The delivery is a vendor's handshake and carries no event. This is the answer.
    Handshake(Reply),
    /// The delivery asks to confirm a subscription. This is the answer once the confirmation is
    /// made.
    Confirm { fetch: Fetch, reply: Reply },
    /// The rules of the source leave the event out.
    Filtered { event: Box<Event>, reply: Reply },
}

impl Planned {
    /// Returns the plan, if the event is to be delivered.
    pub fn plan(self) -> Option<Plan> {
        match self {
            Self::Deliver(plan) => Some(*plan),
            Self::Handshake(_) | Self::Confirm { .. } | Self::Filtered { .. } => None,
        }
    }
}

/// A verified event with its key and its route. Only [`plan`] turns a delivery into a plan, so no
/// delivery is routed that was not checked. (ALLOW_UNSIGNED can make the check let an envelope
/// pass.) The details that a store or a message has kept restore the plan of an event that was
/// verified earlier ([`Details::plan`](crate::store::Details::plan)).
#[derive(Debug, Clone)]
pub struct Plan {
    pub event: Event,
    pub key: Key,
    /// The key under the previous routing secret, while the secret is being rotated.
    pub previous_key: Option<Key>,
    pub route: Route,
    pub answer: Answer,
    /// The byte that decides whether a mirror gets a copy. `None` if the event is never copied.
    pub mirror_byte: Option<u8>,
    /// The source of the event. `None` for an envelope, and for a source that is no longer
    /// configured.
    source: Option<Arc<Source>>,
    _verified: Verified,
}

#[derive(Debug, Clone)]
struct Verified;

impl Plan {
    /// Restores the plan of an event that was verified when it came in. Outside tests, only
    /// [`Details::plan`](crate::store::Details::plan) calls this. The `answer` is `Delivered`. The
    /// inbox sets `Accepted` for its own events.
    pub(crate) fn kept(event: Event, key: Key, route: Route, source: Option<Arc<Source>>) -> Self {
        let (previous_key, answer, mirror_byte) = (None, Answer::Delivered, None);
        Self { event, key, previous_key, route, answer, mirror_byte, source, _verified: Verified }
    }

    /// Returns the names of the vendor's signature headers. A receiver gets these headers to verify
    /// the signature again.
    pub fn signature_headers(&self) -> Vec<HeaderName> {
        self.source.as_ref().map(|source| source.vendor.signature_headers()).unwrap_or_default()
    }

    /// Returns the names of headers that hold a secret. They are neither forwarded nor stored.
    pub fn secret_headers(&self) -> Vec<HeaderName> {
        self.source.as_ref().map(|source| source.vendor.secret_headers()).unwrap_or_default()
    }

    /// Returns the name of the source. Returns `None` for an envelope, and if the source is no
    /// longer configured.
    pub fn source_name(&self) -> Option<&str> {
        self.source.as_ref().map(|source| source.name.as_str())
    }

    /// Returns the form that the vendor wants answers to have.
    pub fn wish(&self) -> Wish {
        self.source.as_ref().map(|source| source.vendor.description().wish).unwrap_or_default()
    }

    /// Returns how long the vendor may deliver the event again. The result is zero if that is a day
    /// or less, or not known. For an envelope, the vendor's name is looked up among the built-in
    /// vendors.
    pub fn retry_horizon(&self) -> Duration {
        let vendor = match &self.source {
            Some(source) => Some(&source.vendor),
            None => source::vendor(&python_lower(&self.event.vendor)),
        };
        vendor.map_or(Duration::ZERO, |vendor| vendor.description().retry_horizon)
    }
}

/// Decides what to do with a delivery that came in at `now`. `fetched` is the answer to the request
/// that [`needs`] returns.
///
/// # Errors
/// Fails with a refusal: 400, 401, 403, 404, 405 or 413, or 503 without the needed `fetched`.
pub fn plan(
    delivery: &Delivery,
    intake: &Intake,
    fetched: Option<&Fetched>,
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
    let fetched = fetched.or_else(|| intake.certificate_of(source));
    source.verify(delivery, fetched, intake.signature_tolerance, now)?;

    let body = Body::new(&delivery.body);
    if let Some(reply) = source.vendor.handshake(&body) {
        return Ok(Planned::Handshake(reply));
    }
    if let Some(fetch) = source.vendor.confirmation(&body)? {
        return Ok(Planned::Confirm { fetch, reply: Reply::text(StatusCode::OK, "confirmed") });
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

/// Returns the request for the certificate or key that a delivery is signed with, if it must be
/// fetched. Everything that can be checked without it is checked first.
///
/// # Errors
/// Fails with [`Error::Signature`] if the delivery cannot be genuine.
pub fn needs(
    delivery: &Delivery,
    intake: &Intake,
    now: DateTime<Utc>,
) -> Result<Option<Fetch>, Error> {
    match admit(delivery, delivery.body.len() as u64, intake) {
        Ok(Admitted::Source(source)) if intake.certificate_of(source).is_none() => {
            source.needs(delivery, intake.signature_tolerance, now)
        }
        // Nothing to fetch. If `admit` has failed, `plan` fails in the same way.
        _ => Ok(None),
    }
}

/// Creates the event of a source's delivery. A batch becomes one event.
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

/// Derives the plan of a verified event.
fn derive(event: Event, intake: &Intake, source: Option<&Arc<Source>>) -> Plan {
    let logical = event.logical();
    let key = Key::derive(&intake.routing_secret, &logical);
    let previous = intake.previous_routing_secret.as_ref();
    let previous_key = previous.map(|secret| Key::derive(secret, &logical));
    let bytes = RouteBytes::derive(&intake.routing_secret, &logical);
    let rules = source.map(|source| &source.rules);
    let threshold = rules.and_then(|rules| rules.threshold);
    let route = rules.and_then(|rules| rules.destination).unwrap_or_else(|| {
        let byte = bytes.route;
        threshold.map_or_else(|| intake.shares.of(byte), |least| Route::by_threshold(byte, least))
    });
    let answer = rules.and_then(|rules| rules.answer).unwrap_or(intake.answer);
    let mirror_byte = Some(bytes.mirror);
    let source = source.cloned();
    Plan { event, key, previous_key, route, answer, mirror_byte, source, _verified: Verified }
}

/// The kind of a delivery, as its head shows it.
#[derive(Debug)]
pub enum Admitted<'a> {
    Envelope(Cover),
    /// A vendor's handshake that comes unsigned. This is the answer.
    Challenge(Reply),
    Source(&'a Arc<Source>),
}

/// Decides from the head alone whether to accept a delivery. The body of `length` bytes may arrive
/// later. A length that is not known yet counts as 0.
///
/// # Errors
/// Fails with a refusal that needs no body: 403, 404, 405, 413, or 401 for an absent signature.
pub fn admit<'a>(
    delivery: &Delivery,
    length: u64,
    intake: &'a Intake,
) -> Result<Admitted<'a>, Error> {
    let is_envelope = delivery.path == envelope::PATH;
    let source = if is_envelope { None } else { Some(intake.sources.at(&delivery.path)?) };
    if let Some(source) = source
        && let Some(reply) = source.vendor.challenge(delivery, source)
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
        let (url, fetched) = (None, None);
        envelope::verify(&Check { delivery, secrets, url, tolerance, now, fetched })?;
    }
    let mut event = envelope::event(delivery)?;
    if intake.trust_idempotency_header {
        event.identity = name(delivery, cover)?.map_or(Identity::Content, Identity::Header);
    }
    Ok(derive(event, intake, None))
}

/// The part of an envelope's headers that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// The signature covers `webhook-id`, and no other header that could name an event.
    WebhookId,
    /// Nothing is signed.
    Nothing,
}

/// Returns the name that the sender gave the event
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>). Bytes are read
/// as Latin-1, as Python's WSGI servers do (PEP 3333).
///
/// In a signed delivery, only the signed `webhook-id` counts. Otherwise, a captured request could
/// be sent again under another `Idempotency-Key`.
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
