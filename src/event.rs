//! The logical thing that happened, whichever delivery brings it.

use std::time::Duration;

use crate::{lowercase::python_lower, timestamp::Timestamp};

/// The logical thing that happened, whichever delivery brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sender's name as the payload spells it.
    pub vendor: String,
    pub event_type: String,
    pub created_at: Timestamp,
    /// SHA-256 of the body's canonical JSON, as 64 lower-case hex digits.
    pub digest: String,
    pub identity: Identity,
}

/// What makes two deliveries the same event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Vendor, type, time and body.
    Content,
    /// Vendor and the name that the sender gave the event in a header: `Idempotency-Key`, or
    /// `webhook-id` where that is signed. The body must be the same, too.
    Header(String),
}

/// For how long vendors go on delivering an event that was not answered with 2xx, in hours, as far
/// as that is more than a day. Adyen: <https://docs.adyen.com/development-resources/webhooks/>;
/// GitHub redelivers on demand: <https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks>;
/// Mollie: <https://docs.mollie.com/reference/webhooks>;
/// Paddle: <https://developer.paddle.com/webhooks/respond-to-webhooks>;
/// PayPal: <https://developer.paypal.com/api/rest/webhooks/>;
/// Razorpay: replayed on demand, <https://razorpay.com/docs/webhooks/>;
/// Stripe: <https://docs.stripe.com/webhooks>.
const RETRY_HOURS: &[(&str, u32)] = &[
    ("adyen", 30 * 24),
    ("github", 3 * 24),
    ("mollie", 26),
    ("paddle", 3 * 24),
    ("paypal", 3 * 24),
    ("razorpay", 7 * 24),
    ("stripe", 3 * 24),
];

impl Event {
    /// What the key is derived from: equal for every delivery of one event.
    pub fn logical(&self) -> String {
        let Self { vendor, event_type, created_at, digest, identity } = self;
        let vendor = python_lower(vendor);
        match identity {
            Identity::Content => format!("{vendor}|{event_type}|{created_at}|{digest}"),
            Identity::Header(value) => format!("header|{vendor}|{value}"),
        }
    }

    /// For how long its vendor may deliver it again; nothing when that is a day or less, or not
    /// known.
    pub fn retry_horizon(&self) -> Duration {
        let vendor = python_lower(&self.vendor);
        let hours = RETRY_HOURS.iter().find(|(name, _)| *name == vendor);
        Duration::from_secs(hours.map_or(0, |(_, hours)| u64::from(*hours) * 3600))
    }
}
