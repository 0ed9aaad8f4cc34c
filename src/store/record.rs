//! The record of an event, and the one rule of who may claim it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Claim, StoreError};
use crate::{
    delivery::{Delivery, Reply},
    event::{Event, Identity},
    key::Key,
    outcome::{Outcome, Trigger},
    plan::Plan,
    route::Route,
    timestamp::Timestamp,
};

/// Time for which the details of an event, above all its route, are kept after its owner died.
pub const DETAILS_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Most attempts that a record keeps. The newest ones are kept.
pub const KEPT_ATTEMPTS: usize = 20;

/// Most characters of a vendor's name and of a type that a record keeps. A destination gets no more
/// than that.
pub const MAX_NAME_CHARS: usize = 256;

/// The properties of an event that do not change over its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// The vendor's name. It is cut to [`MAX_NAME_CHARS`], as is the type.
    pub vendor: String,
    pub event_type: String,
    /// `None` if the vendor gives no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// SHA-256 of the body's canonical JSON, in hex.
    pub digest: String,
    pub route: Route,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub first_seen: DateTime<Utc>,
}

impl From<Details> for Event {
    /// Restores the event. The key already contains its identity.
    fn from(details: Details) -> Self {
        let Details { vendor, event_type, created_at, digest, .. } = details;
        let (source, identity) = (None, Identity::Content);
        Self { vendor, source, event_type, created_at, digest, identity }
    }
}

impl Details {
    /// Creates the details of an event that is claimed for the first time.
    pub(super) fn new(plan: &Plan, first_seen: DateTime<Utc>) -> Self {
        let cut = |name: &str| name.chars().take(MAX_NAME_CHARS).collect();
        Self {
            vendor: cut(&plan.event.vendor),
            event_type: cut(&plan.event.event_type),
            created_at: plan.event.created_at,
            digest: plan.event.digest.clone(),
            route: plan.route,
            first_seen,
        }
    }

    /// Returns the answer to a claim whose sender uses the same name for another body.
    pub(super) fn other_body(&self, plan: &Plan) -> Option<Claim> {
        let is_other =
            matches!(plan.event.identity, Identity::Header(_)) && self.digest != plan.event.digest;
        is_other.then_some(Claim::OtherBody { route: self.route })
    }
}

/// Everything that a store knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    /// `None` if a Python router delivered the event, because it stores no details.
    pub details: Option<Details>,
    pub attempts: Vec<Attempt>,
    /// The failure in the event's dead letter. It remains while the event is tried again.
    pub failed: Option<Failed>,
    /// Set while the event is in the inbox.
    pub accepted: Option<Acceptance>,
    pub state: State,
}

/// The acceptance of an event that was answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub at: DateTime<Utc>,
    /// The number of attempts since then, each of them an entry of RETRY_SCHEDULE.
    pub tries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In the inbox, under no lease. The next attempt may begin at `due`.
    Waiting {
        due: DateTime<Utc>,
    },
    /// Claimed or taken. After `until`, the next claim or take takes the event over.
    InFlight {
        owner: String,
        until: DateTime<Utc>,
    },
    Delivered {
        at: Option<DateTime<Utc>>,
        reply: Option<Reply>,
    },
    /// Failed. The event may be claimed again.
    DeadLetter,
}

impl Record {
    /// Decides whether an event may be claimed or accepted: returns the answer if this record
    /// prevents it, or `None` if the event is free. SQLite and DynamoDB use this function. Redis has
    /// the same rule in Lua, and the contract test checks that both agree.
    ///
    /// # Errors
    /// When the record has no details. No claim of this router writes such a record.
    pub(super) fn against(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
    ) -> Result<Option<Claim>, StoreError> {
        let details = self.details.as_ref().ok_or_else(|| StoreError::corrupt("no details"))?;
        if let Some(other) = details.other_body(plan) {
            return Ok(Some(other));
        }
        if self.accepted.is_some() {
            return Ok(Some(Claim::Accepted { route: details.route }));
        }
        Ok(match &self.state {
            State::Delivered { .. } => Some(Claim::Delivered(self.clone())),
            State::InFlight { until, .. } if *until > now => {
                Some(Claim::InFlight { until: *until, route: details.route })
            }
            State::InFlight { .. } | State::DeadLetter | State::Waiting { .. } => None,
        })
    }
}

impl State {
    /// Returns the state of an event in the inbox: leased until a time, or waiting for `due`.
    pub(super) fn in_inbox(
        held: Option<(String, DateTime<Utc>)>,
        due: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Self {
        match held {
            Some((owner, until)) if until > now => Self::InFlight { owner, until },
            _ => Self::Waiting { due },
        }
    }

    /// Returns the state of an event that is not delivered: held by an owner until a time, or free
    /// with a dead letter. If the owner died without leaving a letter, the event still shows as in
    /// flight.
    pub(super) fn open(
        held: Option<(String, DateTime<Utc>)>,
        has_letter: bool,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        match held {
            Some((owner, until)) if until > now || !has_letter => {
                Some(Self::InFlight { owner, until })
            }
            _ if has_letter => Some(Self::DeadLetter),
            _ => None,
        }
    }
}

/// The time and the reason of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub at: DateTime<Utc>,
    pub failure: Failure,
}

/// The data that `finish` stores for a delivered event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub at: DateTime<Utc>,
    /// Time for which the event is remembered from `at` on.
    pub ttl: Duration,
    /// The destination's reply, if it is kept.
    pub reply: Option<Reply>,
    /// The attempts of this claim and of earlier ones.
    pub attempts: Vec<Attempt>,
}

/// The data that `postpone` stores for an event that is tried again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postponed {
    pub at: DateTime<Utc>,
    /// The time of the next attempt.
    pub due: DateTime<Utc>,
    pub accepted: Acceptance,
    /// The attempts of this lease and of earlier ones.
    pub attempts: Vec<Attempt>,
}

/// One try to send an event to its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of the attempt, counted from 1 over the event's life. If an owner died, its
    /// attempt was not stored, and the number is used again.
    pub number: u32,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub at: DateTime<Utc>,
    /// The cause of the delivery.
    pub by: Trigger,
    pub destination: Route,
    pub outcome: Outcome,
    pub milliseconds: u64,
}

/// The reason why the last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub outcome: Outcome,
    /// A text for the operator. It may name addresses.
    pub detail: String,
}

/// An event that could not be delivered, with its complete delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: Key,
    pub details: Details,
    pub failed_at: DateTime<Utc>,
    pub failure: Failure,
    pub attempts: Vec<Attempt>,
    /// The last delivery of the event, byte for byte, with the headers of [`Delivery::kept`].
    pub delivery: Delivery,
}
