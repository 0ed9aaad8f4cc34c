//! The envelope: a JSON object with vendor, event_type, created_at and any other members, posted to
//! `/webhook` and signed as Standard Webhooks.

use http::HeaderMap;

use super::{scheme::Check, standard_webhooks};
use crate::{
    delivery::Delivery,
    error::{Error, MissingField},
    event::{Event, Identity},
    hex_digits::hex,
    json::{Document, Value},
    secret::Secret,
    timestamp::Timestamp,
};

pub const PATH: &str = "/webhook";
pub const SECRETS: &str = "ENVELOPE_SECRETS";

/// Checks the form of a secret when the process starts.
///
/// # Errors
/// Fails with the form that the secret must have.
pub fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    standard_webhooks::check_secret(secret, standard_webhooks::MIN_SHARED_BYTES)
}

/// Returns whether a request has the headers of a signature.
pub fn has_signature(headers: &HeaderMap) -> bool {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    names.iter().all(|name| headers.get(*name).is_some_and(|value| !value.is_empty()))
}

/// Checks that one of the secrets signed the envelope.
///
/// # Errors
/// Fails with [`Error::Signature`] if the signature is missing, wrong or stale.
pub fn verify(check: &Check<'_>) -> Result<(), Error> {
    standard_webhooks::verify(check, &["webhook"]).map(|_| ())
}

/// Reads what happened from the body.
///
/// # Errors
/// Fails with a refusal that is answered with 400.
pub fn event(delivery: &Delivery) -> Result<Event, Error> {
    let document = Document::parse(&delivery.body).map_err(Error::InvalidJson)?;
    let body = document.root();
    if !body.is_object() {
        return Err(Error::NotAnObject);
    }
    let mut missing = Vec::new();
    let mut field = |name| {
        let text = text(body, name)?;
        Ok(text.unwrap_or_else(|field| {
            missing.push(field);
            String::new()
        }))
    };
    let (vendor, event_type, created_at) =
        (field("vendor")?, field("event_type")?, field("created_at")?);
    if !missing.is_empty() {
        return Err(Error::MissingFields(missing));
    }
    let created_at = Some(Timestamp::parse(&created_at).map_err(Error::CreatedAt)?);
    let digest = hex(&document.digest());
    let identity = Identity::Content;
    Ok(Event { vendor, source: None, event_type, created_at, digest, identity })
}

/// Returns a member that is a string and not empty, or the reason why it is not.
fn text(body: Value<'_>, name: &'static str) -> Result<Result<String, MissingField>, Error> {
    let Some(value) = body.get(name) else { return Ok(Err(MissingField::Absent(name))) };
    let Some(text) = value.as_str() else {
        return Ok(Err(MissingField::NoString { name, found: value.type_name() }));
    };
    let text = text.map_err(|_| Error::LoneSurrogate(name))?;
    Ok(if text.is_empty() { Err(MissingField::Empty(name)) } else { Ok(text) })
}
