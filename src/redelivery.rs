//! Delivers dead letters again when an operator or a schedule asks for it. An operator can also
//! replay an event of the inbox before its time.
//!
//! A replay uses the same claim and the same attempts as a vendor's delivery. So it may be
//! repeated, and several processes may replay at once: the first one to claim an event delivers it,
//! and the others find it in flight or delivered.

use std::{
    collections::{HashSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio::{task::JoinSet, time::Interval};
use tokio_util::sync::CancellationToken;

use crate::{
    config::MAX_REDRIVE_LIMIT,
    key::Key,
    outcome::{Ending, Origin, Trigger},
    route::Route,
    router::{Budget, Cause, Handled, Replay, Router},
    store::{Attempt, Due, Entry, KEPT_ATTEMPTS, Page, Record, Store, StoreError},
};

/// The allowed range for the number of replays that begin per second, at most. The timer ticks in
/// milliseconds, so the largest numbers are not reached.
pub const PER_SECOND: RangeInclusive<u32> = 1..=10_000;

/// Most events that are replayed at the same time.
const AT_ONCE: usize = 8;

/// Entries that are read per page. Small pages let a Lambda begin its first replays early.
const PAGE: usize = 64;

/// Age of an entry without a letter after which it is a remainder of a crash. A letter that is being
/// stored is listed moments before.
const REMAINDER_AGE: TimeDelta = TimeDelta::hours(1);

// The attempts in a record must suffice to count redrives (bulk replays) up to the largest limit.
const _: () = assert!(MAX_REDRIVE_LIMIT as usize <= KEPT_ATTEMPTS);

/// Selects dead letters or accepted events. Each field that is `None` selects all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The vendor's name. Upper and lower case count as equal.
    pub vendor: Option<String>,
    pub destination: Option<Route>,
    /// Selects the letters that failed, or the events that were accepted, at this time or later.
    pub since: Option<DateTime<Utc>>,
}

impl Filter {
    /// Returns whether the filter selects an event. `at` is the time of its failure or acceptance,
    /// or `None` if the event is not on the list any more.
    fn takes(&self, record: &Record, at: Option<DateTime<Utc>>) -> bool {
        let (Some(details), Some(at)) = (&record.details, at) else { return false };
        let is_vendor = |vendor: &String| vendor.to_lowercase() == details.vendor.to_lowercase();
        self.vendor.as_ref().is_none_or(is_vendor)
            && self.destination.is_none_or(|route| route == details.route)
            && self.since.is_none_or(|since| at >= since)
    }
}

/// Returns the record of an event, if it has one. A record that cannot be read is named in the log
/// and counted.
async fn readable(
    store: &dyn Store,
    key: Key,
    corrupt: &mut u32,
) -> Result<Option<Record>, StoreError> {
    match store.get(&key, Utc::now()).await {
        Err(StoreError::Corrupt(what)) => {
            *corrupt += 1;
            tracing::error!(%key, what, "a record cannot be read");
            Ok(None)
        }
        record => record,
    }
}

/// The dead letters that existed when the listing began, oldest failure first.
pub struct Letters<'a> {
    store: &'a dyn Store,
    filter: &'a Filter,
    began: DateTime<Utc>,
    after: Option<Entry>,
    /// The keys that were listed already. A letter may be listed again while the list is read.
    seen: HashSet<Key>,
    /// The number of records that could not be read.
    pub corrupt: u32,
}

impl<'a> Letters<'a> {
    pub fn new(store: &'a dyn Store, filter: &'a Filter) -> Self {
        Self { store, filter, began: Utc::now(), after: None, seen: HashSet::new(), corrupt: 0 }
    }

    /// Returns the records of the next page, or `None` after the last page. A record that cannot be
    /// read is named in the log and skipped.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        let page = Page { limit: PAGE, after: self.after };
        let mut entries = self.store.dead_letters(page).await?;
        entries.retain(|entry| entry.failed_at <= self.began);
        let Some(last) = entries.last() else { return Ok(None) };
        self.after = Some(*last);
        let mut records = Vec::new();
        for entry in entries {
            if !self.seen.insert(entry.key) {
                continue;
            }
            let corrupt = self.corrupt;
            let record = readable(self.store, entry.key, &mut self.corrupt).await?;
            let has_letter = record.as_ref().is_some_and(|record| record.failed.is_some());
            let is_readable = self.corrupt == corrupt;
            if is_readable && !has_letter && entry.failed_at < self.began - REMAINDER_AGE {
                self.store.remove_entry(entry).await;
            }
            records.extend(record.filter(|record| {
                self.filter.takes(record, record.failed.as_ref().map(|failed| failed.at))
            }));
        }
        Ok(Some(records))
    }

    /// Returns the records of all pages.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn all(mut self) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::new();
        while let Some(records) = self.next().await? {
            all.extend(records);
        }
        Ok(all)
    }
}

/// The accepted events that are not delivered, by destination, in the order in which they are due.
pub struct Pending<'a> {
    store: &'a dyn Store,
    filter: &'a Filter,
    /// Selects the events that are due at this time or before.
    due_by: Option<DateTime<Utc>>,
    /// The destinations whose events are not listed yet. `None` before the first page.
    routes: Option<VecDeque<Route>>,
    after: Option<Due>,
    /// The keys that were listed already. An attempt that is made while the list is read moves its
    /// event.
    seen: HashSet<Key>,
    /// The number of records that could not be read.
    pub corrupt: u32,
}

impl<'a> Pending<'a> {
    pub fn new(store: &'a dyn Store, filter: &'a Filter, due_by: Option<DateTime<Utc>>) -> Self {
        let (seen, corrupt) = (HashSet::new(), 0);
        Self { store, filter, due_by, routes: None, after: None, seen, corrupt }
    }

    /// Returns the destinations whose events are not listed yet, also those that are no longer
    /// configured.
    async fn routes(&mut self) -> Result<&mut VecDeque<Route>, StoreError> {
        if self.routes.is_none() {
            let only = self.filter.destination;
            let all = self.store.destinations().await?;
            let wanted = all.into_iter().filter(|route| only.is_none_or(|only| only == *route));
            self.routes = Some(wanted.collect());
        }
        Ok(self.routes.get_or_insert_default())
    }

    /// Returns the records of the next page, or `None` after the last page. A record that cannot be
    /// read is named in the log and skipped.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        while let Some(route) = self.routes().await?.front().copied() {
            let page = self.store.due(route, self.due_by, self.after, PAGE).await?;
            self.after = page.last().copied();
            if page.is_empty() {
                self.routes().await?.pop_front();
                continue;
            }
            let mut records = Vec::new();
            for Due { key, .. } in page {
                if !self.seen.insert(key) {
                    continue;
                }
                let record = readable(self.store, key, &mut self.corrupt).await?;
                records.extend(record.filter(|record| {
                    self.filter.takes(record, record.accepted.map(|accepted| accepted.at))
                }));
            }
            return Ok(Some(records));
        }
        Ok(None)
    }

    /// Returns the records of all pages.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn all(mut self) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::new();
        while let Some(records) = self.next().await? {
            all.extend(records);
        }
        Ok(all)
    }
}

/// Returns whether the next redrive leaves a dead letter to the operator. It does when the last
/// `limit` bulk replays each ended in a final status, such as 422. Any other attempt or outcome in
/// between restarts the count. An operator's `replay --all` is a bulk replay like a redrive.
///
/// A redrive ends with the first final status, so each of these attempts is a separate redrive.
pub fn is_left_to_operator(record: &Record, limit: u32) -> bool {
    let is_in_vain = |attempt: &&Attempt| {
        attempt.by == Trigger::BulkReplay && !attempt.outcome.is_worth_another()
    };
    record.attempts.iter().rev().take_while(is_in_vain).count() >= limit as usize
}

/// The result of a replay, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub end: End,
    /// `None` if the destination is not known.
    pub destination: Option<Route>,
    /// The reason why the event was not delivered.
    pub reason: Option<String>,
}

impl Replayed {
    /// Returns the result of a replay that sent nothing to a destination.
    fn unsent(end: End) -> Self {
        Self { end, destination: None, reason: None }
    }
}

/// The end of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ended(Ending),
    /// The event was delivered, or failed again, but the result could not be stored.
    Unsettled,
    /// The event has no dead letter and is not in the inbox any more: it was delivered or discarded.
    Gone,
}

/// The number of replays by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub delivered: u32,
    /// Letters that another owner delivered, or that were discarded, in the meantime.
    pub gone: u32,
    /// Letters under a lease: being delivered, or perhaps delivered already.
    pub in_progress: u32,
    /// Events that failed again. They are still dead letters, or in the inbox.
    pub failed: u32,
    /// Events that were sent, but whose result could not be stored. They are still dead letters, or
    /// in the inbox.
    pub unsettled: u32,
    /// Events for which the store did not answer, or whose record cannot be read.
    pub store_unavailable: u32,
    /// Letters whose replay did not begin, because there was no time or no room at the destination, or
    /// the replay was interrupted.
    pub not_begun: u32,
}

impl Summary {
    fn count(&mut self, end: End) {
        *match end {
            End::Ended(Ending::Delivered) => &mut self.delivered,
            End::Ended(Ending::Failed | Ending::Postponed) => &mut self.failed,
            End::Ended(Ending::InProgress) => &mut self.in_progress,
            End::Ended(Ending::StoreUnavailable) => &mut self.store_unavailable,
            End::Ended(Ending::NoTime | Ending::Limited) => &mut self.not_begun,
            End::Ended(Ending::Accepted | Ending::Duplicate | Ending::OtherBody) | End::Gone => {
                &mut self.gone
            }
            End::Unsettled => &mut self.unsettled,
        } += 1;
    }

    /// Returns the number of events that are not delivered.
    pub fn left(&self) -> u32 {
        let Self { in_progress, failed, unsettled, store_unavailable, not_begun, .. } = self;
        in_progress + failed + unsettled + store_unavailable + not_begun
    }
}

/// Controls how several replays run.
pub struct Pace {
    pub by: Trigger,
    /// The invocation that asked for the replays.
    pub origin: Origin,
    /// Most replays that begin per second. `None` means no limit.
    pub per_second: Option<u32>,
    /// Stops new replays once it is cancelled. Replays under way continue to their end.
    pub stop: CancellationToken,
}

/// Replays dead letters, several at once, and adds the results to `summary`. `budget` returns the
/// time for the next replay, or `None` when no time is left. `progress` is called for each replay
/// that has ended.
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
                // The place of the panic is in the log already.
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
        // An event of the inbox need not wait for its schedule.
        Ok(None) => {
            match router.deliver_accepted(key, Cause::Operator, by, origin, budget, None).await {
                Handled::Tried { ending, route, failure, settled, .. } => Replayed {
                    end: if settled { End::Ended(ending) } else { End::Unsettled },
                    destination: Some(route),
                    reason: failure.map(|failure| failure.to_string()),
                },
                Handled::NotDue(_) => Replayed::unsent(End::Ended(Ending::InProgress)),
                Handled::NoRoom(no_room) => Replayed {
                    reason: Some(no_room.to_string()),
                    ..Replayed::unsent(End::Ended(Ending::Limited))
                },
                Handled::Gone => Replayed::unsent(End::Gone),
                Handled::Unreadable => Replayed {
                    reason: Some("its record cannot be read".into()),
                    ..Replayed::unsent(End::Ended(Ending::StoreUnavailable))
                },
                Handled::StoreUnavailable => Replayed::unsent(End::Ended(Ending::StoreUnavailable)),
            }
        }
        Err(error) => {
            tracing::error!(%key, %error, "a dead letter cannot be read");
            let reason = Some(format!("its dead letter cannot be read: {error}"));
            Replayed { end: End::Ended(Ending::StoreUnavailable), destination: None, reason }
        }
    }
}

/// Creates a timer with this many ticks per second, or fewer. It does not catch up on missed ticks.
fn interval(per_second: u32) -> Interval {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
