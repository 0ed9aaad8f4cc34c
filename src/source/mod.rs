//! Who sends: how a vendor signs, and where its payload says what happened.
//!
//! A new vendor is a file here, its `mod` line, and its row in [`VENDORS`].

mod envelope;
pub(crate) mod loopback;
mod standard_webhooks;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{delivery::Delivery, error::Error, event::Event, secret::Secret};

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
