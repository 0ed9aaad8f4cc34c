//! The event that a delivery carries.

use crate::{lowercase::python_lower, timestamp::Timestamp};

/// Something that happened at a vendor. Several deliveries may carry the same event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The vendor's name: as written in the envelope, or the name of the source's vendor.
    pub vendor: String,
    /// The source that received it. `None` for an envelope, and for an event read from a store.
    pub source: Option<String>,
    /// Empty if the vendor gives no type.
    pub event_type: String,
    /// `None` if the vendor gives no time. An envelope always has one.
    pub created_at: Option<Timestamp>,
    /// SHA-256 of the body's canonical JSON, or of its bytes if it is not JSON, as 64 lower-case
    /// hex digits.
    pub digest: String,
    pub identity: Identity,
}

/// Decides when two deliveries carry the same event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The sender, type, time and body must be equal.
    Content,
    /// The vendor must be equal, and so must the name of the event in a header: `Idempotency-Key`
    /// or `X-Idempotency-Key`, or in a signed delivery `webhook-id`. The same name with another
    /// body is refused.
    Header(String),
    /// The source and the vendor's id for the event must be equal. The ids of a batch are joined
    /// with commas. The body may differ, because it may describe the delivery itself.
    EventId(String),
}

impl Event {
    /// Returns the text that the key is derived from. It is equal for every delivery of one event.
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

    /// Returns the vendor's id, if the event is identified by it.
    pub fn id(&self) -> Option<&str> {
        match &self.identity {
            Identity::EventId(id) => Some(id),
            Identity::Content | Identity::Header(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: Option<&str>, identity: Identity) -> Event {
        Event {
            vendor: "ACME".into(),
            source: source.map(str::to_owned),
            event_type: "Paid".into(),
            created_at: None,
            digest: "00ff".into(),
            identity,
        }
    }

    #[test]
    fn the_logical_text_names_what_makes_an_event_the_same() {
        let id = || Identity::EventId("evt_1,evt_2".into());
        for (source, identity, logical) in [
            (None, Identity::Content, "acme|Paid||00ff"),
            (Some("Shop"), Identity::Content, "Shop|Paid||00ff"),
            (None, Identity::Header("n|1".into()), "header|acme|n|1"),
            (Some("shop"), id(), "event-id|shop|evt_1,evt_2"),
        ] {
            assert_eq!(event(source, identity).logical(), logical);
        }
        assert_eq!(event(None, id()).id(), Some("evt_1,evt_2"));
        assert_eq!(event(None, Identity::Content).id(), None);
        assert_eq!(event(None, Identity::Header("n".into())).id(), None);
    }

    #[test]
    fn the_time_is_part_of_the_logical_text() {
        let created_at = Timestamp::parse("2026-05-06T12:34:56Z").ok();
        let event = Event { created_at, ..event(None, Identity::Content) };
        assert_eq!(event.logical(), "acme|Paid|2026-05-06T12:34:56Z|00ff");
    }
}
