//! Delivering dead letters again, on the word of an operator or a schedule.
//!
//! A replay goes through the same claim and the same attempts as a vendor's delivery, so it may be
//! repeated, and done by several at once: whoever claims an event first delivers it, and the others
//! find it in flight or delivered.

use std::{collections::HashSet, ops::RangeInclusive, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{task::JoinSet, time::Interval};
use tokio_util::sync::CancellationToken;

use crate::{
    config::MAX_REDRIVE_LIMIT,
    key::Key,
    outcome::{Ending, Origin, Trigger},
    route::Route,
    router::{Budget, Replay, Router},
    store::{Attempt, Entry, KEPT_ATTEMPTS, Page, Record, Store, StoreError},
};

/// How many may be begun in a second, where that is said.
pub const PER_SECOND: RangeInclusive<u32> = 1..=10_000;

/// Events that are replayed at the same time.
const AT_ONCE: usize = 8;

/// Entries that are read at once: few enough for a Lambda to begin soon.
const PAGE: usize = 64;

// The attempts that a record keeps show no longer row of redrives.
const _: () = assert!(MAX_REDRIVE_LIMIT as usize <= KEPT_ATTEMPTS);

/// Which dead letters are meant; all, where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The vendor, in upper or lower case.
    pub vendor: Option<String>,
    pub destination: Option<Route>,
    /// Only those that failed then or later.
    pub since: Option<DateTime<Utc>>,
}

impl Filter {
    fn takes(&self, record: &Record) -> bool {
        let Record { details: Some(details), failed: Some(failed), .. } = record else {
            return false;
        };
        let is_vendor = |vendor: &String| vendor.to_lowercase() == details.vendor.to_lowercase();
        self.vendor.as_ref().is_none_or(is_vendor)
            && self.destination.is_none_or(|route| route == details.route)
            && self.since.is_none_or(|since| failed.at >= since)
    }
}

/// The dead letters that there were when the listing began, those that failed first coming first.
pub struct Letters<'a> {
    store: &'a dyn Store,
    filter: &'a Filter,
    began: DateTime<Utc>,
    after: Option<Entry>,
    /// A letter may be listed anew while the list is read.
    seen: HashSet<Key>,
    /// How many could not be read.
    pub corrupt: u32,
}

impl<'a> Letters<'a> {
    pub fn new(store: &'a dyn Store, filter: &'a Filter) -> Self {
        Self { store, filter, began: Utc::now(), after: None, seen: HashSet::new(), corrupt: 0 }
    }

    /// The records of some more, or nothing when there are no more. A record that cannot be read is
    /// named in the log, and does not hide the others.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        let page = Page { limit: PAGE, after: self.after };
        let mut entries = self.store.dead_letters(page).await?;
        entries.retain(|entry| entry.failed_at <= self.began);
        let Some(last) = entries.last() else { return Ok(None) };
        self.after = Some(*last);
        let mut records = Vec::new();
        for Entry { key, .. } in entries {
            if !self.seen.insert(key) {
                continue;
            }
            match self.store.get(&key, Utc::now()).await {
                Ok(record) => records.extend(record.filter(|record| self.filter.takes(record))),
                Err(StoreError::Corrupt(what)) => {
                    self.corrupt += 1;
                    tracing::error!(%key, what, "a dead letter cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(records))
    }

    /// The records of all of them.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn all(mut self) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::new();
        while let Some(records) = self.next().await? {
            all.extend(records);
        }
        Ok(all)
    }
}

/// Whether the redrive that is due leaves a dead letter to the operator: its last `limit` redrives
/// each ended in an answer that will not change. Any other attempt or outcome in between starts the
/// count anew.
///
/// A redrive ends with the first such answer, so each of these attempts is a redrive of its own.
pub fn is_left_to_operator(record: &Record, limit: u32) -> bool {
    let is_in_vain = |attempt: &&Attempt| {
        attempt.by == Trigger::BulkReplay && !attempt.outcome.is_worth_another()
    };
    record.attempts.iter().rev().take_while(is_in_vain).count() >= limit as usize
}

/// What came of a replay, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub end: End,
    /// Nothing when that is not known.
    pub destination: Option<Route>,
    /// Why the event was not delivered.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ended(Ending),
    /// It was delivered, or failed again, and the store could not be told.
    Unsettled,
    /// There is no dead letter: it was delivered, or discarded.
    Gone,
}

/// What came of several replays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub delivered: u32,
    /// Delivered by somebody else, or discarded, in the meantime.
    pub gone: u32,
    /// Being delivered, or perhaps delivered, by an owner whose lease has not ended.
    pub in_progress: u32,
    /// Dead letters again.
    pub failed: u32,
    /// Sent, and the store could not be told what came of it: still dead letters.
    pub unsettled: u32,
    /// The store did not answer.
    pub store_unavailable: u32,
    /// Not begun, because there was no time left or somebody interrupted.
    pub not_begun: u32,
}

impl Summary {
    fn count(&mut self, end: End) {
        *match end {
            End::Ended(Ending::Delivered) => &mut self.delivered,
            End::Ended(Ending::Failed) => &mut self.failed,
            End::Ended(Ending::InProgress) => &mut self.in_progress,
            End::Ended(Ending::StoreUnavailable) => &mut self.store_unavailable,
            End::Ended(Ending::NoTime) => &mut self.not_begun,
            End::Ended(Ending::Duplicate | Ending::OtherBody) | End::Gone => &mut self.gone,
            End::Unsettled => &mut self.unsettled,
        } += 1;
    }

    /// Dead letters that are left.
    pub fn left(&self) -> u32 {
        let Self { in_progress, failed, unsettled, store_unavailable, not_begun, .. } = self;
        in_progress + failed + unsettled + store_unavailable + not_begun
    }
}

/// How several replays are done.
pub struct Pace {
    pub by: Trigger,
    /// Where the word came in.
    pub origin: Origin,
    /// Most that are begun in a second; any number when there is none.
    pub per_second: Option<u32>,
    /// Begins no more once it is cancelled; what is under way ends as it would.
    pub stop: CancellationToken,
}

/// Replays dead letters, several at once, and adds to the summary: `budget` gives the time for the
/// next, or nothing when there is none left, and `progress` hears of each that ended.
pub async fn replay(
    router: &Arc<Router>,
    keys: Vec<Key>,
    pace: &Pace,
    budget: impl Fn() -> Option<Budget>,
    mut progress: impl FnMut(Key, Replayed),
    summary: &mut Summary,
) {
    let (mut running, mut keys) = (JoinSet::<(Key, Replayed)>::new(), keys.into_iter());
    let mut ticks = pace.per_second.map(interval);
    let mut stopped = pace.stop.is_cancelled();
    while !running.is_empty() || (!stopped && keys.len() > 0) {
        let tick = async {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
        };
        tokio::select! {
            biased;
            () = pace.stop.cancelled(), if !stopped => stopped = true,
            Some(joined) = running.join_next() => match joined {
                Ok((key, replayed)) => {
                    summary.count(replayed.end);
                    progress(key, replayed);
                }
                // The log has its place.
                Err(_panic) => {
                    summary.failed += 1;
                }
            },
            () = tick, if !stopped && running.len() < AT_ONCE && keys.len() > 0 => {
                match budget() {
                    Some(budget) => {
                        let (router, by, origin) =
                            (Arc::clone(router), pace.by, pace.origin.clone());
                        if let Some(key) = keys.next() {
                            let replay = async move {
                                (key, replay_one(&router, key, by, origin, budget).await)
                            };
                            running.spawn(replay);
                        }
                    }
                    None => stopped = true,
                }
            },
        }
    }
    summary.not_begun += keys.len() as u32;
}

async fn replay_one(
    router: &Router,
    key: Key,
    by: Trigger,
    origin: Origin,
    budget: Budget,
) -> Replayed {
    match router.store().dead_letter(&key).await {
        Ok(Some(letter)) => {
            let Replay { ending, failure, route, settled } =
                router.replay(letter, by, origin, budget).await;
            Replayed {
                end: if settled { End::Ended(ending) } else { End::Unsettled },
                destination: Some(route),
                reason: failure.map(|failure| failure.to_string()),
            }
        }
        Ok(None) => Replayed { end: End::Gone, destination: None, reason: None },
        Err(error) => {
            tracing::error!(%key, %error, "a dead letter cannot be read");
            let reason = Some(format!("its dead letter cannot be read: {error}"));
            Replayed { end: End::Ended(Ending::StoreUnavailable), destination: None, reason }
        }
    }
}

/// Ticks that often, and does not catch up.
fn interval(per_second: u32) -> Interval {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
