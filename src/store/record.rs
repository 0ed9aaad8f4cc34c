//! The record of an event, and the one rule of who may claim it.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Claim, StoreError, stored};
use crate::{
    delivery::{Delivery, Reply},
    event::{Event, Identity},
    key::Key,
    outcome::{Outcome, Trigger},
    plan::Plan,
    route::Route,
    source::{Answer, Source},
    timestamp::Timestamp,
};

/// Time for which the details of an event are kept after a claim whose owner stores no result. The
/// details include the route. Each claim starts this time again. In DynamoDB, the table's TTL
/// deletes them, so they may stay longer.
pub const DETAILS_TTL: Duration = Duration::from_secs(30 * 86_400);

/// Time after which somebody looks again at an accepted event that cannot be read.
pub(super) const UNREADABLE_PAUSE: Duration = Duration::from_secs(3600);

/// Most attempts that a record keeps. The newest ones are kept.
pub const KEPT_ATTEMPTS: usize = 20;

/// Most bytes of a destination's answer that a dead letter keeps.
pub const MAX_EXCERPT_BYTES: usize = 2048;

/// Most characters of a vendor's name and of a type that a record keeps. A destination gets no more
/// than that.
pub const MAX_NAME_CHARS: usize = 256;

/// The properties of an event that do not change over its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// The vendor's name. It is cut to [`MAX_NAME_CHARS`], as is the type.
    pub vendor: String,
    /// The source that received the event. `None` for an envelope, and for an event that an earlier
    /// version stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub event_type: String,
    /// `None` if the vendor gives no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// SHA-256 of the body's canonical JSON, or of its bytes if it is not JSON, in hex.
    pub digest: String,
    pub route: Route,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub first_seen: DateTime<Utc>,
    /// The time of the acceptance, if the event was answered at once when it was first seen.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "chrono::serde::ts_milliseconds_option"
    )]
    pub accepted_at: Option<DateTime<Utc>>,
}

impl Details {
    /// Restores the plan of the event with these details. `source` is the one that the event came
    /// from, if it is still configured. The key already contains the event's identity.
    pub fn plan(self, key: Key, source: Option<Arc<Source>>) -> Plan {
        let Self { vendor, event_type, created_at, digest, route, .. } = self;
        let identity = Identity::Content;
        let event = Event { vendor, source: None, event_type, created_at, digest, identity };
        Plan::kept(event, key, route, source)
    }

    /// Creates the details of an event that is claimed or accepted for the first time.
    pub fn new(plan: &Plan, first_seen: DateTime<Utc>) -> Self {
        let cut = |name: &str| {
            let end = name.char_indices().nth(MAX_NAME_CHARS);
            end.map_or(name, |(end, _)| &name[..end]).to_owned()
        };
        Self {
            vendor: cut(&plan.event.vendor),
            source: plan.event.source.clone(),
            event_type: cut(&plan.event.event_type),
            created_at: plan.event.created_at,
            digest: plan.event.digest.clone(),
            route: plan.route,
            first_seen,
            accepted_at: (plan.answer == Answer::Accepted).then_some(first_seen),
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
    /// The number of attempts since then that count. Each of them uses up an entry of RETRY_SCHEDULE.
    /// An attempt whose result was not stored, because its owner died, does not count. So an event
    /// that kills its owners is tried without end.
    pub tries: u32,
    /// The length of the body. It is zero if an earlier version accepted the event.
    #[serde(default)]
    pub bytes: usize,
    /// The byte that decides whether a mirror gets a copy. It is stored here, because the details
    /// may be those of an earlier claim, from before the event was accepted, which have no such
    /// byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_byte: Option<u8>,
}

impl Acceptance {
    pub(super) fn new(at: DateTime<Utc>, plan: &Plan, delivery: &Delivery) -> Self {
        Self { at, tries: 0, bytes: delivery.body.len(), mirror_byte: plan.mirror_byte }
    }
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
    /// Fails if the record has no details. No claim of this router writes such a record.
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
    /// flight. Returns `None` if there is neither an owner nor a letter.
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
    /// The time at which the event is listed: `due`, or later if a message brings the event.
    pub look: DateTime<Utc>,
    pub accepted: Acceptance,
    /// The attempts of this lease and of earlier ones.
    pub attempts: Vec<Attempt>,
}

/// One try to send an event to its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of the attempt, counted from 1 over the event's life. The attempts of an
    /// owner that died are not stored, so their numbers come again.
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
    /// Absent when the destination gave no answer, and in a letter of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Box<Excerpt>>,
}

/// The beginning of a destination's answer, for the operator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Cut to [`MAX_NAME_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Length of the whole answer in bytes.
    pub length: u64,
    /// At most [`MAX_EXCERPT_BYTES`].
    #[serde(with = "stored::base64")]
    pub body: Vec<u8>,
}

impl Excerpt {
    pub fn of(answer: &Reply) -> Self {
        let mut body = &answer.body[..answer.body.len().min(MAX_EXCERPT_BYTES)];
        // The cut must not split a character of a text.
        if let Err(error) = std::str::from_utf8(body)
            && error.error_len().is_none()
        {
            body = &body[..error.valid_up_to()];
        }
        let content_type = answer.content_type();
        Self {
            content_type: content_type.map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
            length: answer.body.len() as u64,
            body: body.to_owned(),
        }
    }
}

// An answer may quote the event.
impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Excerpt({} of {} bytes)", self.body.len(), self.length)
    }
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use http::StatusCode;

    use super::{super::stored, *};
    use crate::testing;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn record(plan: &Plan, state: State) -> Record {
        let details = Some(Details::new(plan, at(0)));
        Record { key: plan.key, details, attempts: vec![], failed: None, accepted: None, state }
    }

    fn in_flight(until: i64) -> State {
        State::InFlight { owner: "somebody".into(), until: at(until) }
    }

    #[test]
    fn who_may_claim_a_record() {
        let plan = testing::plan(Identity::Content, "one");
        let held = Claim::InFlight { until: at(100), route: Route::GCP };
        let done = State::Delivered { at: None, reply: None };
        let duplicate = Claim::Delivered(record(&plan, done.clone()));
        for (state, now, answer) in [
            (in_flight(100), 99, Some(held)),
            // The end of the lease is no longer part of it.
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
        other.route = Route::AWS;
        let states =
            [in_flight(100), State::DeadLetter, State::Delivered { at: None, reply: None }];
        for state in states {
            let refused = record(&first, state.clone()).against(&other, at(200)).unwrap();
            assert_eq!(refused, Some(Claim::OtherBody { route: Route::GCP }), "{state:?}");
        }
        assert_eq!(record(&first, State::DeadLetter).against(&first, at(0)).unwrap(), None);
        // The vendor's id identifies the event, whatever the body contains.
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
            // The owner died without leaving a letter.
            (held(), false, 100, Some(in_flight(100))),
            (None, true, 0, Some(State::DeadLetter)),
            (None, false, 0, None),
        ] {
            assert_eq!(State::open(held, has_letter, at(now)), state, "{has_letter}, {now}");
        }
    }

    #[test]
    fn an_event_of_the_inbox_waits_again_when_its_lease_ends() {
        let held = || Some(("somebody".to_owned(), at(100)));
        for (held, now, state) in [
            (held(), 99, in_flight(100)),
            (held(), 100, State::Waiting { due: at(7) }),
            (held(), 101, State::Waiting { due: at(7) }),
            (None, 0, State::Waiting { due: at(7) }),
        ] {
            assert_eq!(State::in_inbox(held, at(7), at(now)), state, "{now}");
        }
    }

    #[test]
    fn an_excerpt_is_never_printed() {
        let answer = Reply::text(StatusCode::OK, "x".repeat(4000));
        assert_eq!(format!("{:?}", Excerpt::of(&answer)), "Excerpt(2048 of 4000 bytes)");
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
        let again = details.plan(plan.key, None);
        assert_eq!((again.key, again.route), (plan.key, plan.route));
        assert_eq!((again.event.digest.as_str(), &again.event.source), ("one", &None));
        assert_eq!(again.event.event_type, plan.event.event_type);
    }

    fn excerpt(body: &[u8]) -> Excerpt {
        Excerpt::of(&Reply { body: body.to_owned().into(), ..Reply::text(StatusCode::OK, "") })
    }

    #[test]
    fn an_excerpt_is_cut_between_characters_and_keeps_every_byte() {
        for (body, kept) in [
            ("short".as_bytes().to_owned(), 5),
            (vec![0xFF; 3000], MAX_EXCERPT_BYTES),
            ("x".repeat(3000).into_bytes(), MAX_EXCERPT_BYTES),
            (format!("x{}", "é".repeat(3000)).into_bytes(), MAX_EXCERPT_BYTES - 1),
        ] {
            let excerpt = excerpt(&body);
            assert_eq!(excerpt.body, body[..kept]);
            assert_eq!(excerpt.length, body.len() as u64);
            let failure = Failure {
                outcome: Outcome::Status(500),
                detail: String::new(),
                answer: Some(excerpt.into()),
            };
            let json = stored::to_json(&failure);
            assert!(json.len() < 3000, "{}", json.len());
            assert_eq!(stored::from_json::<Failure>(&json).unwrap(), failure);
        }
    }

    #[test]
    fn a_failure_of_an_earlier_version_is_still_read() {
        let json = r#"{"outcome":{"status":503},"detail":"no"}"#;
        let failure: Failure = stored::from_json(json).unwrap();
        assert_eq!((failure.outcome, &failure.answer), (Outcome::Status(503), &None));
        assert_eq!(stored::to_json(&failure), json);
    }
}
