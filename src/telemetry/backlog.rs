//! The number and age of the dead letters, for a scrape.

use std::{sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::store::{Page, Store, StoreError};

/// Time for which an answer of the store is reused, so that frequent scrapes do not load the store.
/// An error is reused as well.
const REFRESH: Duration = Duration::from_secs(15);

/// Longest wait for the store, even if STORE_TIMEOUT_MS is longer. When the store hangs, a scrape
/// must still get the other metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most dead letters that are counted.
const MAX_COUNTED: usize = 1000;

/// The last answer about the dead letters. Concurrent readers share one query to the store.
#[derive(Debug, Default)]
pub struct Backlog {
    last: Mutex<Option<(Instant, Option<Seen>)>>,
}

/// The state of the list of dead letters at the last query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    count: usize,
    oldest: Option<DateTime<Utc>>,
}

impl Backlog {
    /// Returns the state of the list, from the store or from the last query. Returns `None` when
    /// the store does not answer.
    pub(super) async fn read(&self, store: &dyn Store) -> Option<Seen> {
        let mut last = self.last.lock().await;
        if let Some((read_at, seen)) = *last
            && read_at.elapsed() < REFRESH
        {
            return seen;
        }
        let listing = store.dead_letters(Page { limit: MAX_COUNTED, after: None });
        let listed = timeout(PATIENCE, listing).await;
        let late = || Err(StoreError::Failed(format!("no answer within {} s", PATIENCE.as_secs())));
        let seen = match listed.unwrap_or_else(|_| late()) {
            Ok(entries) => {
                let oldest = entries.first().map(|entry| entry.failed_at);
                Some(Seen { count: entries.len(), oldest })
            }
            Err(error) => {
                tracing::warn!(%error, "the dead letters cannot be counted");
                None
            }
        };
        *last = Some((Instant::now(), seen));
        seen
    }
}

impl Seen {
    /// Registers the gauges with their current values.
    pub(super) fn register(self, registry: &mut Registry) {
        let count: Gauge = Gauge::default();
        count.set(self.count as i64);
        registry.register("dead_letters", "Dead letters, counted up to 1000", count);
        let age = self.oldest.map(|oldest| (Utc::now() - oldest).as_seconds_f64().max(0.0));
        let oldest: Gauge<f64, AtomicU64> = Gauge::default();
        oldest.set(age.unwrap_or_default());
        registry.register("oldest_dead_letter_seconds", "Time since the oldest failure", oldest);
    }
}
