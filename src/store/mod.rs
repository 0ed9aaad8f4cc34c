//! The records of events, and the atomic claim on an event.
//!
//! ```text
//! absent ──claim──▶ in flight (owner, until)
//!                     ├─ finish ─────────────▶ delivered ── its TTL ends ──▶ absent
//!                     ├─ fail, `Now` ────────▶ dead letter; the key may be claimed at once
//!                     ├─ fail, `AtLeaseEnd` ─▶ dead letter; the key may be claimed after `until`
//!                     ├─ claim after `until` ▶ in flight (new owner): the old one died or hangs
//!                     └─ 30 days without any of these ▶ absent, unless there is a dead letter
//! ```
//!
//! An event that is answered at once takes the way through the inbox:
//!
//! ```text
//! absent ──accept──▶ waiting (due) ──take──▶ in flight (owner, until) ──finish──▶ delivered
//!                        ▲                       │  ▲               └─fail────▶ dead letter
//!                        └──────postpone─────────┘  └── take, once `until` has passed
//! ```
//!
//! If the owner died, the event counts as waiting once `until` has passed. `router/budget.rs` says
//! what else the death of an owner means.
//!
//! The log and the senders' answers call the state `in flight` by the name `in progress`, and the command
//! `pending` calls it `being-delivered`.
//!
//! `finish`, `fail` and `postpone` carry the lease, and change nothing if another owner has taken
//! over. Each destination has a list of the events in its inbox. The list is ordered by the time at
//! which somebody must look at an event again: the time of the next attempt, or the end of the
//! lease. So events whose owner died are found like events whose pause has ended. Where a message
//! brings an event, the list has a later time than the next attempt: the time from which the message
//! counts as lost.
//!
//! A store knows every destination that may have such a list, so that the events of a destination that
//! is no longer configured are found. SQLite finds the lists in its index. Redis and DynamoDB keep the
//! names of the destinations other than `gcp` and `aws`, and add a name before its list gets an event.
//!
//! A store must pass the contract test that all stores share. CONTRIBUTING.md lists what a new store
//! needs.

mod dynamodb;
mod merge;
mod named;
mod record;
mod redis;
mod sqlite;
mod stored;

use std::{sync::Arc, time::Duration};

use self::record::{DETAILS_TTL, UNREADABLE_PAUSE};
pub use self::{
    dynamodb::{DynamoDb, INDEX as DYNAMODB_INDEX},
    record::{
        Acceptance, Attempt, DeadLetter, Delivered, Details, Excerpt, Failed, Failure,
        KEPT_ATTEMPTS, MAX_EXCERPT_BYTES, MAX_NAME_CHARS, Postponed, Record, State,
    },
    redis::Redis,
    sqlite::Sqlite,
    stored::DeliveryHead,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    config::{StoreConfig, StoreUrl},
    delivery::Delivery,
    finding::{Finding, Severity},
    hex_digits::hex,
    key::Key,
    plan::Plan,
    route::Route,
};

/// Keeps claims, records and dead letters. The caller supplies the current time, so a test can
/// choose it. Returned times use the same clock. SQLite and DynamoDB also use the caller's clock to
/// judge whether a lease has ended. Redis uses its server's clock for that.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes the key of a plan until `until`, or reports who has it. `now` is the time at which the
    /// delivery came in. The claim is atomic. In Redis and DynamoDB, a first claim and a duplicate
    /// take one round trip. In DynamoDB, a takeover takes two.
    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError>;

    /// Takes an event into the inbox with its whole delivery, or reports who has its key. The first
    /// attempt is due at `due`, and the event is listed at `look`. The event does not expire. Its
    /// dead letter, if it has one, is cleared.
    async fn accept(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Accepted, StoreError>;

    /// Returns the destinations that may have events in their inboxes, also those that are no longer
    /// configured.
    async fn destinations(&self) -> Result<Vec<Route>, StoreError>;

    /// Returns events of a destination's inbox, in the order of the times at which somebody must
    /// look at them: those whose time is not after `by_now`, or all if it is `None`. Redis compares
    /// the times with its server's clock instead of `by_now`. The list may lag a little.
    async fn due(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError>;

    /// Lists an event of the inbox at another time, unless its entry has changed since it was read.
    /// Returns the entry as it is now, or `None` if this call did not move it. The event itself
    /// stays as it is.
    async fn relist(
        &self,
        route: Route,
        entry: Due,
        now: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError>;

    /// Takes a lease on an event of the inbox until `until`, unless it is under another lease, or
    /// waits for a later time and `early` is false. An event that cannot be read gets no lease.
    /// Redis and DynamoDB list it again an hour later, so that it does not hold up the others.
    async fn take(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError>;

    /// Gives an event back to the inbox until its next attempt is due. It may be repeated with the
    /// same lease.
    async fn postpone(&self, lease: &Lease, postponed: &Postponed) -> Result<Settled, StoreError>;

    /// Marks the event as delivered, and clears its dead letter. It may be repeated with the same
    /// lease.
    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError>;

    /// Stores the dead letter, and frees the key as `release` says. It may be repeated with the
    /// same lease.
    async fn fail(
        &self,
        lease: &Lease,
        letter: &DeadLetter,
        release: Release,
    ) -> Result<Settled, StoreError>;

    /// Removes the remains of acceptances that were interrupted at least a day ago.
    async fn sweep(&self, _now: DateTime<Utc>) -> Result<(), StoreError> {
        // Only DynamoDB stores parts, which an interrupted acceptance may leave behind.
        Ok(())
    }

    /// Returns the record of an event, or `None` if it was never claimed or its TTL has ended.
    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError>;

    /// Returns the keys whose hex digits begin with these, or `None` if this store cannot search.
    /// If several keys match, it returns at least two.
    async fn find(&self, digits: &str, now: DateTime<Utc>) -> Result<Option<Vec<Key>>, StoreError>;

    /// Returns the dead letter of an event, if it has one.
    async fn dead_letter(&self, key: &Key) -> Result<Option<DeadLetter>, StoreError>;

    /// Returns the delivery of an event that has a dead letter or is in the inbox. Takes no lease.
    async fn delivery(&self, key: &Key) -> Result<Option<Delivery>, StoreError>;

    /// Returns entries of the list of dead letters, oldest failure first. The list may lag a
    /// little: the letter of an entry may be cleared already. In Redis, a crash between two writes
    /// can leave an entry without a letter.
    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError>;

    /// Removes an entry that a crash has left without a letter from the list of dead letters. An
    /// entry with another time stays.
    async fn remove_entry(&self, _entry: Entry) {
        // The other stores write a letter and its entry together.
    }

    /// Deletes an event that has a dead letter or is in the inbox, and is under no lease.
    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError>;

    /// Checks whether the store would answer a claim, with one round trip that changes nothing.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Checks whether the store is set up correctly, and changes nothing.
    async fn examine(&self) -> Vec<Finding>;
}

/// Opens the store that the configuration names.
///
/// # Errors
/// Fails if the store cannot be opened. The text has the reason and the remedy.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match config.url.file() {
        Some(path) => Ok(Arc::new(Sqlite::open(path, config.timeout).await?)),
        None => open_remote(config).await,
    }
}

/// Opens the store that the configuration names if it is a service. A program that calls only this
/// function does not contain SQLite.
///
/// # Errors
/// Fails if the store is a file.
pub async fn open_remote(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match &config.url {
        StoreUrl::Sqlite(_) => Err(StoreError::Failed(
            "this function has no SQLite: set STORE_URL to redis://, rediss:// or dynamodb://"
                .into(),
        )),
        StoreUrl::DynamoDb { table } => Ok(Arc::new(DynamoDb::new(table.clone(), config.timeout))),
        StoreUrl::Redis(url) => Ok(Arc::new(Redis::new(url, config.timeout))),
    }
}

/// Returns the reason why [`open`] would fail, and creates nothing.
pub async fn cannot_open(config: &StoreConfig) -> Option<String> {
    // The other stores connect when they are first needed.
    let findings = sqlite::examine(config.url.file()?, config.timeout).await;
    let error = findings.into_iter().find(|finding| finding.severity == Severity::Error)?;
    Some(error.text)
}

/// Checks the store that the configuration names, as [`Store::examine`] does, and creates nothing.
pub async fn examine(config: &StoreConfig) -> Vec<Finding> {
    if let Some(path) = config.url.file() {
        return sqlite::examine(path, config.timeout).await;
    }
    match open_remote(config).await {
        Ok(store) => store.examine().await,
        Err(error) => vec![Finding::error("STORE_URL", error.to_string())],
    }
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is ours until the lease ends.
    Won(Lease),
    /// Another owner has the key.
    InFlight { until: DateTime<Utc>, route: Route },
    /// The event is in the inbox.
    Accepted { route: Route },
    /// The event was delivered before.
    Delivered(Record),
    /// The sender's name for the event belongs to another body. This is the route of that body.
    OtherBody { route: Route },
}

impl Claim {
    /// Returns the route in the event's record, or `None` if a Python router delivered the event.
    pub fn route(&self) -> Option<Route> {
        match self {
            Self::Won(lease) => Some(lease.details.route),
            Self::InFlight { route, .. } | Self::Accepted { route } | Self::OtherBody { route } => {
                Some(*route)
            }
            Self::Delivered(record) => Some(record.details.as_ref()?.route),
        }
    }
}

/// The result of an acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The event is in the inbox now. An event keeps the route of its first claim or acceptance.
    Stored { route: Route },
    /// The event cannot be accepted. A claim would have had this answer.
    Taken(Box<Claim>),
}

/// The result of taking the lease on an event of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    Won(Box<Taken>),
    /// Until this time, the event is under another lease, or waits for its next attempt.
    NotDue(DateTime<Utc>),
    /// The event is not in the inbox any more.
    Gone,
}

/// An event of the inbox that is ours until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub lease: Lease,
    pub accepted: Acceptance,
    pub delivery: Delivery,
}

/// A place in the list of a destination's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// The time at which somebody must look at the event.
    pub at: DateTime<Utc>,
    pub key: Key,
}

/// Decides when the key of a failed event becomes free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Frees the key at once, because the attempt has ended for certain: it was not made, or the
    /// destination has answered.
    Now,
    /// Frees the key at the end of the lease, because the destination may have processed the event,
    /// or may still be processing it.
    AtLeaseEnd,
}

/// The proof of a won claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: Key,
    /// 32 random hex digits. No other claim has the same ones.
    pub owner: String,
    /// The end of the lease by the caller's clock. In Redis, the lease starts when the claim's
    /// script runs, so it ends a little later than this.
    pub until: DateTime<Utc>,
    /// The details from the event's first claim. Their route stays when the shares of the destinations change.
    pub details: Details,
    /// The attempts of earlier claims.
    pub attempts: Vec<Attempt>,
}

/// The result of a write with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Stored,
    /// Another owner has taken over, or the event is gone, so nothing was changed.
    LeaseLost,
}

/// Selects a part of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most entries to return.
    pub limit: usize,
    /// The last entry of the previous page.
    pub after: Option<Entry>,
}

/// A place in the list of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub failed_at: DateTime<Utc>,
    pub key: Key,
}

/// The result of discarding an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    Done,
    /// The event is being delivered, or may have been. Its lease must end first.
    InFlight {
        until: DateTime<Utc>,
    },
    /// The event has no dead letter, and is not in the inbox.
    None,
}

/// Reasons why an operation of a store failed. The texts are for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("no answer within {} ms (STORE_TIMEOUT_MS)", .0.as_millis())]
    Timeout(Duration),
    #[error("{0}")]
    Failed(String),
    /// A stored value does not have the form that this code writes.
    #[error("a record cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Adds the name of the store to the text of an error. An error about a corrupt record stays as
    /// it is.
    fn at(self, place: &impl std::fmt::Display) -> Self {
        match self {
            Self::Corrupt(_) => self,
            Self::Timeout(_) | Self::Failed(_) => Self::Failed(format!("{place}: {self}")),
        }
    }

    fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    fn contended() -> Self {
        Self::Failed("the owner of the key changes too often".into())
    }
}

/// The subject of findings about a store.
const SUBJECT: &str = "STORE_URL";

/// Creates an owner token of 128 random bits, from a generator that the operating system seeds. No
/// other owner has the same token.
fn new_owner() -> String {
    hex(&rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{cannot_open, examine, new_owner};
    use crate::config::{StoreConfig, StoreUrl};

    #[test]
    fn no_two_owners_are_the_same() {
        let (one, another) = (new_owner(), new_owner());
        assert_ne!(one, another);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_told_and_never_created() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| StoreConfig {
            url: StoreUrl::Sqlite(folder.path().join(path)),
            timeout: Duration::from_secs(4),
        };
        assert_eq!(cannot_open(&at("store.db")).await, None);
        assert_eq!(examine(&at("store.db")).await.len(), 1);
        let why = cannot_open(&at("nowhere/store.db")).await.unwrap();
        assert!(why.ends_with("; its folder must exist and be writable"), "{why}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
