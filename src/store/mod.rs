//! What is kept of an event, and the atomic claim on it.
//!
//! ```text
//! absent ──claim──▶ in flight (owner, until) ──finish──▶ delivered, until its TTL ends
//!                       │  ▲                └─fail────▶ dead letter; the key may be claimed again
//!                       │  └── claim, once `until` has passed: the owner died
//! ```
//!
//! `finish` and `fail` carry the lease, and change nothing when another owner has taken over.
//! A new store is a file here, its `mod` line, its row in [`open`], and passes the one contract
//! test of all stores.

mod dynamodb;
mod redis;
mod sqlite;
mod stored;

use std::{sync::Arc, time::Duration};

pub use self::{
    dynamodb::{DynamoDb, INDEX as DYNAMODB_INDEX},
    redis::Redis,
    sqlite::Sqlite,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    config::{StoreConfig, StoreUrl},
    delivery::{Delivery, Reply},
    event::{Event, Identity},
    key::Key,
    plan::Plan,
    route::Route,
    timestamp::Timestamp,
};

/// Most attempts that a record keeps, the newest.
pub const KEPT_ATTEMPTS: usize = 20;

/// Most characters that a record keeps of a vendor and of a type: no less than a destination is
/// told.
pub const MAX_NAME_CHARS: usize = 256;

/// Where claims, records and dead letters are kept. All times are the caller's clock, so that a
/// test can choose them.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes the key of a plan until `until`, or says who has it. Atomic, and one round trip.
    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError>;

    /// Makes the event delivered, and clears its dead letter. May be repeated with the same lease.
    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError>;

    /// Keeps the dead letter, and frees the key. May be repeated with the same lease.
    async fn fail(
        &self,
        lease: &Lease,
        letter: &DeadLetter,
        release: Release,
    ) -> Result<Settled, StoreError>;

    /// What is known of an event; nothing when it was never claimed or its TTL is over.
    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError>;

    /// The keys whose hex digits begin with these; nothing when this store cannot look for them.
    /// At least two, when there are several.
    async fn find(&self, digits: &str, now: DateTime<Utc>) -> Result<Option<Vec<Key>>, StoreError>;

    /// The dead letter of an event, when it has one.
    async fn dead_letter(&self, key: &Key) -> Result<Option<DeadLetter>, StoreError>;

    /// The list of dead letters, those that failed first coming first. It may be a little behind:
    /// an entry whose letter was cleared meanwhile leads nowhere.
    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError>;

    /// Forgets an event that has a dead letter, and that nobody holds.
    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError>;
}

/// Opens the store that the configuration names.
///
/// # Errors
/// When it cannot be opened, say why and what to do.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match &config.url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(Sqlite::open(path, config.timeout).await?)),
        StoreUrl::DynamoDb { table } => Ok(Arc::new(DynamoDb::new(table.clone(), config.timeout))),
        StoreUrl::Redis(url) => Ok(Arc::new(Redis::open(url, config.timeout)?)),
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is ours until the lease ends.
    Won(Lease),
    /// Another owner has it.
    InFlight { until: DateTime<Utc>, route: Route },
    /// The event was delivered before.
    Delivered(Record),
    /// The sender's name for the event belongs to another body, whose route this is.
    OtherBody { route: Route },
}

/// When the key of a failed event becomes free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// At once: it is certain that the event was not processed.
    Now,
    /// When the lease ends: it may have been processed, or still be.
    AtLeaseEnd,
}

/// The proof of a won claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: Key,
    /// Random, and known to the winner alone: 32 hex digits.
    pub owner: String,
    pub until: DateTime<Utc>,
    /// Those of the event's first claim; its route outlives a change of ROUTE_THRESHOLD.
    pub details: Details,
    /// Attempts of earlier claims.
    pub attempts: Vec<Attempt>,
}

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
    fn new(plan: &Plan, first_seen: DateTime<Utc>) -> Self {
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
    fn other_body(&self, plan: &Plan) -> Option<Claim> {
        let is_other =
            matches!(plan.event.identity, Identity::Header(_)) && self.digest != plan.event.digest;
        is_other.then_some(Claim::OtherBody { route: self.route })
    }
}

/// Whether a write with a lease counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Stored,
    /// Another owner has taken over; nothing was changed.
    LeaseLost,
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

impl State {
    /// That of an event that is not delivered: held by an owner until a time, or free with a dead
    /// letter. An owner that died without leaving a letter still shows.
    fn open(
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
    pub by: Source,
    pub destination: Route,
    pub outcome: Outcome,
    pub milliseconds: u64,
}

/// Who brought a delivery to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Vendor,
    /// An operator, who named the key.
    Replay,
    /// An operator or a schedule, with all dead letters of a kind.
    BulkReplay,
}

impl Source {
    /// The words for it, in the log and for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vendor => "vendor",
            Self::Replay => "replay",
            Self::BulkReplay => "bulk replay",
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered with this HTTP status.
    Status(u16),
    /// It did not get the event.
    Unreachable,
    /// It may have got the event, and did not answer in time.
    TimedOut,
    /// It may have got the event, and the connection broke.
    Broken,
}

impl Outcome {
    /// Whether the event may have been processed, or may still be.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken)
    }
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
    /// The delivery that brought it last, byte for byte.
    pub delivery: Delivery,
}

/// Which part of a listing to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most entries to return.
    pub limit: usize,
    /// The last entry of the page before.
    pub after: Option<Entry>,
}

/// A place in the list of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub failed_at: DateTime<Utc>,
    pub key: Key,
}

/// What came of discarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    Done,
    /// It is being delivered, or may have been: its lease must end first.
    InFlight {
        until: DateTime<Utc>,
    },
    /// There is no dead letter.
    None,
}

/// Why a store could not do what it was asked to. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no answer within {} ms (STORE_TIMEOUT_MS)", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Failed(String),
    /// A stored value is not what this code writes.
    #[error("a record cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }
}

/// A new owner: 128 random bits from the operating system, which nobody else has.
fn new_owner() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}
