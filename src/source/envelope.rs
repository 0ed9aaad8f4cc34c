//! The envelope: a JSON object with vendor, event_type, created_at and anything else.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Vendor, standard_webhooks};
use crate::{
    delivery::Delivery,
    error::Error,
    event::{Event, Identity},
    json::{Document, Value},
    secret::Secret,
    timestamp::Timestamp,
};

/// The vendor-neutral form, posted to `/webhook` and signed as Standard Webhooks.
pub(super) struct Envelope;

impl Vendor for Envelope {
    fn name(&self) -> &'static str {
        "envelope"
    }

    fn path(&self) -> String {
        "/webhook".into()
    }

    fn may_be_unsigned(&self) -> bool {
        true
    }

    fn may_name_events(&self) -> bool {
        true
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        standard_webhooks::check_secret(secret)
    }

    fn signature_headers(&self) -> &'static [&'static str] {
        standard_webhooks::HEADERS
    }

    fn verify(
        &self,
        delivery: &Delivery,
        secrets: &[Secret],
        tolerance: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        standard_webhooks::verify(delivery, secrets, tolerance, now)
    }

    fn event(&self, delivery: &Delivery) -> Result<Event, Error> {
        let document = Document::parse(&delivery.body).map_err(Error::InvalidJson)?;
        let body = document.root();
        if !body.is_object() {
            return Err(Error::NotAnObject);
        }
        let mut missing = Vec::new();
        let mut field = |name| {
            let text = text(body, name)?;
            if text.is_none() {
                missing.push(name);
            }
            Ok(text.unwrap_or_default())
        };
        let (vendor, event_type, created_at) =
            (field("vendor")?, field("event_type")?, field("created_at")?);
        if !missing.is_empty() {
            return Err(Error::MissingFields(missing));
        }
        let created_at = Timestamp::parse(&created_at).map_err(Error::CreatedAt)?;
        let digest = hex::encode(document.digest());
        let identity = Identity::Content;
        Ok(Event { vendor, event_type, created_at, digest, identity })
    }
}

/// A member that is a string and not empty.
fn text(body: Value<'_>, name: &'static str) -> Result<Option<String>, Error> {
    let text = body.get(name).and_then(Value::as_str);
    let text = text.transpose().map_err(|_| Error::LoneSurrogate(name))?;
    Ok(text.filter(|text| !text.is_empty()))
}
