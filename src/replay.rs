//! Delivering dead letters again, on the word of an operator or a schedule.
//!
//! A replay goes through the same claim and the same attempts as a vendor's delivery, so it may be
//! repeated, and done by several at once: whoever claims an event first delivers it, and the others
//! find it in flight or delivered.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{
    task::{JoinError, JoinSet},
    time::Interval,
};
use tokio_util::sync::CancellationToken;

use crate::{
    key::Key,
    plan::Route,
    router::{Budget, Router},
    store::{Entry, Page, Record, Source, Store, StoreError},
    telemetry::Ending,
};

/// Events that are replayed at the same time.
const AT_ONCE: usize = 8;

/// Entries that are read at once.
const PAGE: usize = 500;

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

/// The records of dead letters, those that failed first coming first. A record that cannot be read
/// is named in the log, and does not hide the others.
///
/// # Errors
/// When the store does not answer.
pub async fn dead_letters(
    store: &dyn Store,
    filter: &Filter,
    now: DateTime<Utc>,
) -> Result<Vec<Record>, StoreError> {
    let (mut records, mut seen, mut after) = (Vec::new(), HashSet::new(), None::<Entry>);
    loop {
        let entries = store.dead_letters(Page { limit: PAGE, after }).await?;
        let Some(last) = entries.last().copied() else { return Ok(records) };
        // A letter may be listed anew while the list is read.
        for Entry { key, .. } in entries.into_iter().filter(|entry| seen.insert(entry.key)) {
            match store.get(&key, now).await {
                Ok(record) => records.extend(record.filter(|record| filter.takes(record))),
                Err(StoreError::Corrupt(what)) => {
                    tracing::error!(%key, what, "a dead letter cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        after = Some(last);
    }
}

/// What came of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    Ended(Ending),
    /// There is no dead letter: it was delivered, or discarded.
    Gone,
}

/// What came of several replays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub delivered: u32,
    /// Delivered by somebody else, or discarded, in the meantime.
    pub gone: u32,
    /// Being delivered, or perhaps delivered, by an owner whose lease has not ended.
    pub in_progress: u32,
    /// Dead letters again.
    pub failed: u32,
    /// The store did not answer.
    pub store_unavailable: u32,
    /// Not begun, because there was no time left or somebody interrupted.
    pub not_begun: u32,
}

impl Summary {
    fn count(&mut self, replayed: Replayed) {
        *match replayed {
            Replayed::Ended(Ending::Delivered) => &mut self.delivered,
            Replayed::Ended(Ending::Failed) => &mut self.failed,
            Replayed::Ended(Ending::InProgress) => &mut self.in_progress,
            Replayed::Ended(Ending::StoreUnavailable) => &mut self.store_unavailable,
            Replayed::Ended(Ending::Duplicate | Ending::OtherBody) | Replayed::Gone => {
                &mut self.gone
            }
        } += 1;
    }

    /// Whether every event is delivered now, or was meant not to be.
    pub fn is_complete(&self) -> bool {
        let Self { in_progress, failed, store_unavailable, not_begun, .. } = self;
        in_progress + failed + store_unavailable + not_begun == 0
    }
}

/// How several replays are done.
pub struct Pace {
    pub by: Source,
    /// Most that are begun in a second; any number when there is none.
    pub per_second: Option<u32>,
    /// Begins no more once it is cancelled; what is under way ends as it would.
    pub stop: CancellationToken,
}

/// Replays dead letters, several at once: `budget` gives the time for the next, or nothing when
/// there is none left, and `progress` hears of each that ended.
pub async fn replay(
    router: &Arc<Router>,
    keys: Vec<Key>,
    pace: Pace,
    budget: impl Fn() -> Option<Budget>,
    mut progress: impl FnMut(Key, Replayed),
) -> Summary {
    let (mut summary, mut running) = (Summary::default(), JoinSet::new());
    let mut ticks = pace.per_second.map(interval);
    let mut keys = keys.into_iter();
    let mut ended = |summary: &mut Summary, joined: Result<_, JoinError>| match joined {
        Ok((key, replayed)) => {
            summary.count(replayed);
            progress(key, replayed);
        }
        Err(panic) => {
            tracing::error!(%panic, "bug: a replay did not end");
            summary.failed += 1;
        }
    };
    for key in keys.by_ref() {
        while running.len() >= AT_ONCE
            && let Some(joined) = running.join_next().await
        {
            ended(&mut summary, joined);
        }
        let tick = async {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
        };
        let stopped = tokio::select! {
            biased;
            () = pace.stop.cancelled() => true,
            () = tick => false,
        };
        let Some(budget) = budget().filter(|_| !stopped) else {
            summary.not_begun += 1;
            break;
        };
        let (router, by) = (Arc::clone(router), pace.by);
        running.spawn(async move { (key, replay_one(&router, key, by, budget).await) });
    }
    summary.not_begun += keys.len() as u32;
    while let Some(joined) = running.join_next().await {
        ended(&mut summary, joined);
    }
    summary
}

async fn replay_one(router: &Router, key: Key, by: Source, budget: Budget) -> Replayed {
    match router.store().dead_letter(&key).await {
        Ok(Some(letter)) => Replayed::Ended(router.replay(letter, by, budget).await),
        Ok(None) => Replayed::Gone,
        Err(error) => {
            tracing::error!(%key, %error, "a dead letter cannot be read");
            Replayed::Ended(Ending::StoreUnavailable)
        }
    }
}

/// Ticks that often, and does not catch up.
fn interval(per_second: u32) -> Interval {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
