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
mod record;
mod redis;
mod sqlite;
mod stored;

use std::{sync::Arc, time::Duration};

use self::record::DETAILS_TTL;
pub use self::{
    dynamodb::{DynamoDb, INDEX as DYNAMODB_INDEX},
    record::{
        Attempt, DeadLetter, Delivered, Details, Failed, Failure, KEPT_ATTEMPTS, MAX_NAME_CHARS,
        Record, State,
    },
    redis::Redis,
    sqlite::Sqlite,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    config::{StoreConfig, StoreUrl},
    key::Key,
    plan::Plan,
    route::Route,
};

/// Where claims, records and dead letters are kept. All times that go in and come out are by the
/// caller's clock, so that a test can choose them. SQLite and DynamoDB also judge by it whether a
/// lease has ended; Redis judges by its server's clock.
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

impl Claim {
    /// Returns the route that the event's record has; nothing when a Python router delivered it.
    pub fn route(&self) -> Option<Route> {
        match self {
            Self::Won(lease) => Some(lease.details.route),
            Self::InFlight { route, .. } | Self::OtherBody { route } => Some(*route),
            Self::Delivered(record) => Some(record.details.as_ref()?.route),
        }
    }
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

/// Whether a write with a lease counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Stored,
    /// Another owner has taken over; nothing was changed.
    LeaseLost,
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

#[cfg(test)]
mod tests {
    use super::new_owner;

    #[test]
    fn no_two_owners_are_the_same() {
        let (one, another) = (new_owner(), new_owner());
        assert_ne!(one, another);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }
}
