//! What is kept of an event, and the one rule of who may claim it.

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

/// How long the details of an event, its route above all, are kept after its owner died.
pub const DETAILS_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Most attempts that a record keeps, the newest.
pub const KEPT_ATTEMPTS: usize = 20;

/// Most characters that a record keeps of a vendor and of a type: no less than a destination is
/// told.
pub const MAX_NAME_CHARS: usize = 256;

/// What does not change over an event's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Cut to [`MAX_NAME_CHARS`], as is the type.
    pub vendor: String,
    pub event_type: String,
    /// Nothing where the vendor tells no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// SHA-256 of the body's canonical JSON, in hex.
    pub digest: String,
    pub route: Route,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub first_seen: DateTime<Utc>,
}

impl From<Details> for Event {
    /// The event that these are of. What it is known by is in its key already.
    fn from(details: Details) -> Self {
        let Details { vendor, event_type, created_at, digest, .. } = details;
        let (source, identity) = (None, Identity::Content);
        Self { vendor, source, event_type, created_at, digest, identity }
    }
}

impl Details {
    /// Those of an event that is claimed for the first time.
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

    /// The answer to a claim of another body by the same name, when its sender chose the name.
    pub(super) fn other_body(&self, plan: &Plan) -> Option<Claim> {
        let is_other =
            matches!(plan.event.identity, Identity::Header(_)) && self.digest != plan.event.digest;
        is_other.then_some(Claim::OtherBody { route: self.route })
    }
}

/// What is known of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    /// None when a Python router delivered it, which keeps nothing.
    pub details: Option<Details>,
    pub attempts: Vec<Attempt>,
    /// The failure that its dead letter tells of, also while it is tried again.
    pub failed: Option<Failed>,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Claimed; past `until`, whoever claims next takes over.
    InFlight {
        owner: String,
        until: DateTime<Utc>,
    },
    Delivered {
        at: Option<DateTime<Utc>>,
        reply: Option<Reply>,
    },
    /// Failed, and free to be claimed again.
    DeadLetter,
}

impl Record {
    /// Decides whether an event may be claimed: returns the answer of a record that stands in the
    /// way, and nothing when whoever claims takes over. SQLite and DynamoDB ask this; the claim
    /// script of Redis says the same in Lua, and the contract test holds them together.
    ///
    /// # Errors
    /// A record without details, which no claim of ours writes.
    pub(super) fn against(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
    ) -> Result<Option<Claim>, StoreError> {
        let details = self.details.as_ref().ok_or_else(|| StoreError::corrupt("no details"))?;
        if let Some(other) = details.other_body(plan) {
            return Ok(Some(other));
        }
        Ok(match &self.state {
            State::Delivered { .. } => Some(Claim::Delivered(self.clone())),
            State::InFlight { until, .. } if *until > now => {
                Some(Claim::InFlight { until: *until, route: details.route })
            }
            State::InFlight { .. } | State::DeadLetter => None,
        })
    }
}

impl State {
    /// That of an event that is not delivered: held by an owner until a time, or free with a dead
    /// letter. An owner that died without leaving a letter still shows.
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

/// When and why an event failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub at: DateTime<Utc>,
    pub failure: Failure,
}

/// What makes an event delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub at: DateTime<Utc>,
    /// How long it is remembered from then on.
    pub ttl: Duration,
    /// The destination's reply, where it is kept.
    pub reply: Option<Reply>,
    /// Of this claim and earlier ones.
    pub attempts: Vec<Attempt>,
}

/// One try to hand an event to its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1 over the event's life. An attempt whose owner died was not stored, and its
    /// number is given again.
    pub number: u32,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub at: DateTime<Utc>,
    /// Who brought the delivery.
    pub by: Trigger,
    pub destination: Route,
    pub outcome: Outcome,
    pub milliseconds: u64,
}

/// Why the last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub outcome: Outcome,
    /// For the operator; it may name addresses.
    pub detail: String,
}

/// An event that could not be delivered, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub key: Key,
    pub details: Details,
    pub failed_at: DateTime<Utc>,
    pub failure: Failure,
    pub attempts: Vec<Attempt>,
    /// The delivery that brought it last, byte for byte, with the headers of [`Delivery::kept`].
    pub delivery: Delivery,
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::testing;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn record(plan: &Plan, state: State) -> Record {
        let details = Some(Details::new(plan, at(0)));
        Record { key: plan.key, details, attempts: vec![], failed: None, state }
    }

    fn in_flight(until: i64) -> State {
        State::InFlight { owner: "somebody".into(), until: at(until) }
    }

    #[test]
    fn who_may_claim_a_record() {
        let plan = testing::plan(Identity::Content, "one");
        let held = Claim::InFlight { until: at(100), route: Route::Gcp };
        let done = State::Delivered { at: None, reply: None };
        let duplicate = Claim::Delivered(record(&plan, done.clone()));
        for (state, now, answer) in [
            (in_flight(100), 99, Some(held)),
            // The lease ends at its end.
            (in_flight(100), 100, None),
            (in_flight(100), 101, None),
            (State::DeadLetter, 99, None),
            (done, 9999, Some(duplicate)),
        ] {
            let record = record(&plan, state);
            assert_eq!(record.against(&plan, at(now)).unwrap(), answer, "{:?}", record.state);
        }
        let lost = Record { details: None, ..record(&plan, State::DeadLetter) };
        assert!(matches!(lost.against(&plan, at(0)), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn a_name_that_the_sender_chose_belongs_to_one_body() {
        let chosen = || Identity::Header("order 7".into());
        let first = testing::plan(chosen(), "one");
        let mut other = testing::plan(chosen(), "two");
        other.route = Route::Aws;
        let states =
            [in_flight(100), State::DeadLetter, State::Delivered { at: None, reply: None }];
        for state in states {
            let refused = record(&first, state.clone()).against(&other, at(200)).unwrap();
            assert_eq!(refused, Some(Claim::OtherBody { route: Route::Gcp }), "{state:?}");
        }
        assert_eq!(record(&first, State::DeadLetter).against(&first, at(0)).unwrap(), None);
        // The provider's id names the event, whatever the body says of its delivery.
        let by_id = |digest| testing::plan(Identity::EventId("7".into()), digest);
        let record = record(&by_id("one"), State::DeadLetter);
        assert_eq!(record.against(&by_id("two"), at(0)).unwrap(), None);
    }

    #[test]
    fn details_outlive_the_retries_of_every_vendor() {
        for vendor in crate::source::vendors() {
            assert!(vendor.description().retry_horizon <= DETAILS_TTL, "{}", vendor.name());
        }
    }

    #[test]
    fn an_open_record_is_held_until_its_lease_ends_and_then_shows_its_letter() {
        let held = || Some(("somebody".to_owned(), at(100)));
        for (held, has_letter, now, state) in [
            (held(), false, 99, Some(in_flight(100))),
            (held(), true, 99, Some(in_flight(100))),
            (held(), true, 100, Some(State::DeadLetter)),
            // An owner that died without leaving a letter.
            (held(), false, 100, Some(in_flight(100))),
            (None, true, 0, Some(State::DeadLetter)),
            (None, false, 0, None),
        ] {
            assert_eq!(State::open(held, has_letter, at(now)), state, "{has_letter}, {now}");
        }
    }

    #[test]
    fn details_keep_names_cut_and_make_the_event_again() {
        let mut plan = testing::plan(Identity::Content, "one");
        plan.event.vendor = "é".repeat(MAX_NAME_CHARS + 1);
        plan.event.event_type = "x".repeat(MAX_NAME_CHARS);
        let details = Details::new(&plan, at(7));
        assert_eq!(details.vendor, "é".repeat(MAX_NAME_CHARS));
        assert_eq!(details.event_type, plan.event.event_type);
        assert_eq!((details.first_seen, details.route), (at(7), plan.route));
        let event = Event::from(details);
        assert_eq!((event.digest.as_str(), event.source), ("one", None));
        assert_eq!(event.event_type, plan.event.event_type);
    }
}
