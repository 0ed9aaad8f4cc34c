//! The logical thing that happened, whichever delivery brings it.

use crate::{lowercase::python_lower, timestamp::Timestamp};

/// The logical thing that happened, whichever delivery brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sender's name: as the envelope spells it, or that of the source's vendor.
    pub vendor: String,
    /// The source that it came from; none for an envelope, and for an event that a store kept.
    pub source: Option<String>,
    /// Empty where the vendor names no type.
    pub event_type: String,
    /// Nothing where the vendor tells no time. An envelope always does.
    pub created_at: Option<Timestamp>,
    /// SHA-256 of the body's canonical JSON, as 64 lower-case hex digits.
    pub digest: String,
    pub identity: Identity,
}

/// What makes two deliveries the same event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Sender, type, time and body.
    Content,
    /// Vendor and the name that the sender gave the event in a header: `Idempotency-Key`, or
    /// `webhook-id` where that is signed. The body must be the same, too.
    Header(String),
    /// Source and the provider's id for the event, or those of a batch, joined with commas. The
    /// body may differ: it may tell of the delivery itself.
    EventId(String),
}

impl Event {
    /// What the key is derived from: equal for every delivery of one event.
    pub fn logical(&self) -> String {
        let Self { vendor, source, event_type, created_at, digest, identity } = self;
        let sender = source.clone().unwrap_or_else(|| python_lower(vendor));
        let created_at = created_at.map_or_else(String::new, |time| time.to_string());
        match identity {
            Identity::Content => format!("{sender}|{event_type}|{created_at}|{digest}"),
            Identity::Header(value) => format!("header|{sender}|{value}"),
            Identity::EventId(id) => format!("event-id|{sender}|{id}"),
        }
    }

    /// The provider's id; nothing when the event is known by something else.
    pub fn id(&self) -> Option<&str> {
        match &self.identity {
            Identity::EventId(id) => Some(id),
            Identity::Content | Identity::Header(_) => None,
        }
    }
}
