//! The number and age of the events that are not delivered, for a scrape: dead letters, and the
//! events of the inboxes.

use std::{sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{acceptances::Acceptances, metrics::Destination};
use crate::{
    route::Route,
    store::{Page, Store, StoreError},
};

/// Time for which an answer of the store about dead letters is reused, so that frequent scrapes do
/// not load the store. An error is reused as well.
const REFRESH: Duration = Duration::from_secs(15);

/// The same for an answer about an inbox, which takes more requests.
const REFRESH_INBOXES: Duration = Duration::from_secs(60);

/// Longest wait for the store, even if STORE_TIMEOUT_MS is longer. When the store hangs, a scrape
/// must still get the other metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most dead letters that are counted, and most events of an inbox. A longer list costs no more.
const MAX_COUNTED: usize = 1000;

/// The last answers of the store. Concurrent readers share one query.
#[derive(Debug, Default)]
pub struct Backlog {
    letters: Latest<Seen>,
    inboxes: Latest<Vec<(Route, Seen)>>,
    acceptances: Acceptances,
}

/// The events that are not delivered. `None` if the store did not answer.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    letters: Option<Seen>,
    inboxes: Option<Vec<(Route, Seen)>>,
}

/// The state of a list at the last query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    count: usize,
    /// The time of the oldest failure, or of the earliest acceptance that is known.
    oldest: Option<DateTime<Utc>>,
}

impl Backlog {
    /// Returns the state of the lists, from the store or from the last query.
    pub(super) async fn read(&self, store: &dyn Store, routes: &[Route]) -> Undelivered {
        let letters = self.letters.read(REFRESH, "the dead letters", letters(store));
        let inboxes = inboxes(store, routes, &self.acceptances);
        let inboxes = self.inboxes.read(REFRESH_INBOXES, "the accepted events", inboxes);
        let (letters, inboxes) = tokio::join!(letters, inboxes);
        Undelivered { letters, inboxes }
    }
}

async fn letters(store: &dyn Store) -> Result<Seen, StoreError> {
    let entries = store.dead_letters(Page { limit: MAX_COUNTED, after: None }).await?;
    let oldest = entries.first().map(|entry| entry.failed_at);
    Ok(Seen { count: entries.len(), oldest })
}

/// Returns the number of events in each inbox, up to 1000, and the age of the oldest one in seconds.
pub(super) async fn pending(
    store: &dyn Store,
    routes: &[Route],
    acceptances: &Acceptances,
) -> Vec<(Route, usize, f64)> {
    let inboxes = in_time(inboxes(store, routes, acceptances), "the accepted events").await;
    let inboxes = inboxes.unwrap_or_default();
    inboxes.into_iter().map(|(route, seen)| (route, seen.count, seen.age())).collect()
}

/// Waits for an answer of the store, but not for long.
async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>, what: &str) -> Option<T> {
    let late = || Err(StoreError::Failed(format!("no answer within {} s", PATIENCE.as_secs())));
    match timeout(PATIENCE, asked).await.unwrap_or_else(|_| late()) {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::warn!(%error, "{what} cannot be counted");
            None
        }
    }
}

/// Reads the beginning of each inbox, and the records that are not known yet. `routes` are the configured
/// destinations. The result has the others as well, as long as they have events.
async fn inboxes(
    store: &dyn Store,
    routes: &[Route],
    acceptances: &Acceptances,
) -> Result<Vec<(Route, Seen)>, StoreError> {
    // The numbers must not wait for the ages of many events.
    let (mut inboxes, until) = (Vec::new(), Instant::now() + PATIENCE.mul_f64(0.75));
    let others = store.destinations().await?.into_iter().filter(|route| !routes.contains(route));
    for route in routes.iter().copied().chain(others) {
        let due = store.due(route, None, None, MAX_COUNTED).await?;
        let oldest = acceptances.oldest(store, route, &due, until).await?;
        if due.is_empty() && !routes.contains(&route) {
            continue;
        }
        inboxes.push((route, Seen { count: due.len(), oldest }));
    }
    Ok(inboxes)
}

/// An answer of the store that is reused for some time.
#[derive(Debug)]
struct Latest<T>(Mutex<Option<(Instant, Option<T>)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Latest<T> {
    /// Returns the last answer, or asks for a new one when it is old.
    async fn read(
        &self,
        refresh: Duration,
        what: &str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        let mut last = self.0.lock().await;
        if let Some((read_at, answer)) = &*last
            && read_at.elapsed() < refresh
        {
            return answer.clone();
        }
        let answer = in_time(asked, what).await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl Undelivered {
    /// Registers the gauges with their current values.
    pub(super) fn register(self, registry: &mut Registry) {
        if let Some(letters) = self.letters {
            let (count, oldest) = (Gauge::<i64>::default(), Gauge::<f64, AtomicU64>::default());
            count.set(letters.count as i64);
            oldest.set(letters.age());
            registry.register("dead_letters", "Dead letters, counted up to 1000", count);
            let help = "Time since the oldest failure";
            registry.register("oldest_dead_letter_seconds", help, oldest);
        }
        if let Some(inboxes) = self.inboxes {
            let count = Family::<Destination, Gauge>::default();
            let oldest = Family::<Destination, Gauge<f64, AtomicU64>>::default();
            for (route, inbox) in inboxes {
                let destination = Destination { destination: route };
                count.get_or_create(&destination).set(inbox.count as i64);
                oldest.get_or_create(&destination).set(inbox.age());
            }
            let help = "Accepted events that are not delivered, counted up to 1000";
            registry.register("pending", help, count);
            let help = "Time since the acceptance of the oldest event that is not delivered";
            registry.register("oldest_pending_seconds", help, oldest);
        }
    }
}

impl Seen {
    /// Returns the age of the oldest event in seconds, or 0 if there is none.
    fn age(&self) -> f64 {
        let age = self.oldest.map(|oldest| (Utc::now() - oldest).as_seconds_f64().max(0.0));
        age.unwrap_or_default()
    }
}
