//! Who sends: how a vendor signs, and where its payload says what happened.
//!
//! A new vendor is a file here, its `mod` line, and its row in [`VENDORS`].

mod envelope;
mod standard_webhooks;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    delivery::Delivery, error::Error, lowercase::python_lower, secret::Secret, timestamp::Timestamp,
};

/// Every vendor that the router knows. A vendor is served when it has secrets.
pub const VENDORS: &[&dyn Vendor] = &[&envelope::Envelope];

/// How to read one sender's deliveries. Pure: no clock, no network, no store.
pub trait Vendor: Sync {
    /// The name in lower case. `<NAME>_SECRETS` holds the secrets.
    fn name(&self) -> &'static str;

    /// The variable that holds its secrets, separated by commas; any of them may match.
    fn secrets_variable(&self) -> String {
        format!("{}_SECRETS", self.name().to_ascii_uppercase())
    }

    /// The path that its deliveries are posted to.
    fn path(&self) -> String {
        format!("/webhook/{}", self.name())
    }

    /// Whether it may be served without secrets, when the operator says so outright.
    fn may_be_unsigned(&self) -> bool {
        false
    }

    /// Whether its senders may name their events in an `Idempotency-Key` header.
    fn may_name_events(&self) -> bool {
        false
    }

    /// Checks the form of a secret when the process starts.
    ///
    /// # Errors
    /// What the secret must look like.
    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str>;

    /// The headers that every signature of its needs, so that a delivery without them is refused
    /// before its body is read.
    fn signature_headers(&self) -> &'static [&'static str];

    /// Checks that one of the secrets signed the delivery, `now` or less than `tolerance` away
    /// from it.
    ///
    /// # Errors
    /// [`Error::Signature`] when the signature is missing, wrong or stale.
    fn verify(
        &self,
        delivery: &Delivery,
        secrets: &[Secret],
        tolerance: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<(), Error>;

    /// Reads what happened from the body.
    ///
    /// # Errors
    /// The refusals that are answered with 400.
    fn event(&self, delivery: &Delivery) -> Result<Event, Error>;
}

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
    /// Vendor and the value of its `Idempotency-Key` header. The body must be the same, too.
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
