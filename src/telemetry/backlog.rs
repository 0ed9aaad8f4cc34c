//! The number and age of the events that are not delivered, for a scrape: dead letters, and the
//! events of the inboxes.

use std::{sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::acceptances::Acceptances;
use crate::{
    route::Route,
    store::{Page, Store, StoreError},
};

/// The label of a metric that has a value for each destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Destination {
    pub(super) destination: Route,
}

/// Time for which an answer of the store about dead letters is reused, so that frequent scrapes do
/// not load the store. An error is reused as well.
const REFRESH: Duration = Duration::from_secs(15);

/// The same for an answer about an inbox, which takes more requests.
const REFRESH_INBOXES: Duration = Duration::from_secs(60);

/// Longest wait for the store, even if STORE_TIMEOUT_MS is longer. When the store hangs, a scrape
/// must still get the other metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most inboxes that are read at a time.
const AT_ONCE: usize = 8;

/// Largest number of dead letters that are counted, and of events of an inbox. A longer list costs
/// no more.
const MAX_COUNTED: usize = 1000;

/// The last answers of the store. Concurrent readers share one query.
#[derive(Debug, Default)]
pub struct Backlog {
    letters: Latest<Seen>,
    inboxes: Latest<Vec<(Route, Seen)>>,
    acceptances: Acceptances,
}

/// The events that are not delivered. `None` if the store did not answer. Inboxes that were not read in
/// time are missing.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    letters: Option<Seen>,
    inboxes: Option<Vec<(Route, Seen)>>,
}

/// The state of a list at the last query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    count: usize,
    /// The time of the oldest failure, or of the oldest acceptance.
    oldest: Option<DateTime<Utc>>,
}

impl Backlog {
    /// Returns the state of the lists, from the store or from the last query.
    pub(super) async fn read(&self, store: &dyn Store, routes: &[Route]) -> Undelivered {
        let letters = self.letters.read(REFRESH, letters(store));
        let inboxes = inboxes(store, routes, &self.acceptances);
        let inboxes = self.inboxes.read(REFRESH_INBOXES, inboxes);
        let (letters, inboxes) = tokio::join!(letters, inboxes);
        Undelivered { letters, inboxes }
    }
}

async fn letters(store: &dyn Store) -> Option<Seen> {
    let read = in_time(store.dead_letters(Page { limit: MAX_COUNTED, after: None })).await;
    match read {
        Ok(entries) => {
            let oldest = entries.first().map(|entry| entry.failed_at);
            Some(Seen { count: entries.len(), oldest })
        }
        Err(error) => {
            tracing::warn!(%error, "the dead letters cannot be counted");
            None
        }
    }
}

/// Returns the number of events in each inbox, up to 1000, and the age of the oldest one in seconds.
pub(super) async fn pending(
    store: &dyn Store,
    routes: &[Route],
    acceptances: &Acceptances,
) -> Vec<(Route, usize, f64)> {
    let inboxes = inboxes(store, routes, acceptances).await.unwrap_or_default();
    inboxes.into_iter().map(|(route, seen)| (route, seen.count, seen.age())).collect()
}

/// Waits for an answer of the store, but not for long.
async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || Err(StoreError::Failed(format!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| late())
}

/// Reads the inboxes of the configured destinations, `routes`, and those of the others that have
/// events. Returns what could be read in time, or `None` if that is nothing.
async fn inboxes(
    store: &dyn Store,
    routes: &[Route],
    acceptances: &Acceptances,
) -> Option<Vec<(Route, Seen)>> {
    // Reading the ages of many events must not delay the counts.
    let until = Instant::now() + PATIENCE.mul_f64(0.75);
    let look = |route| inbox(store, route, acceptances, until);
    let mut inboxes = Vec::new();
    let read = in_time(async {
        let configured = add(&mut inboxes, routes.to_vec(), look).await;
        let mut others = store.destinations().await?;
        others.retain(|route| !routes.contains(route));
        add(&mut inboxes, others, look).await.and(configured)
    });
    if let Err(error) = read.await {
        let counted = inboxes.len();
        tracing::warn!(%error, counted, "the accepted events of some destinations cannot be counted");
        if inboxes.is_empty() {
            return None;
        }
    }
    inboxes.retain(|(route, seen)| seen.count > 0 || routes.contains(route));
    Some(inboxes)
}

/// Reads several inboxes at a time, and adds each as soon as it is read. One that cannot be read does
/// not hide the others.
async fn add<Look: Future<Output = Result<(Route, Seen), StoreError>>>(
    inboxes: &mut Vec<(Route, Seen)>,
    routes: Vec<Route>,
    look: impl Fn(Route) -> Look,
) -> Result<(), StoreError> {
    let reads = stream::iter(routes).map(look);
    let mut reads = reads.buffer_unordered(AT_ONCE);
    let mut result = Ok(());
    while let Some(read) = reads.next().await {
        match read {
            Ok(inbox) => inboxes.push(inbox),
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Reads the beginning of an inbox, and the records that are not known yet.
async fn inbox(
    store: &dyn Store,
    route: Route,
    acceptances: &Acceptances,
    until: Instant,
) -> Result<(Route, Seen), StoreError> {
    let due = store.due(route, None, None, MAX_COUNTED).await?;
    let oldest = acceptances.oldest(store, route, &due, until).await?;
    Ok((route, Seen { count: due.len(), oldest }))
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
    async fn read(&self, refresh: Duration, asked: impl Future<Output = Option<T>>) -> Option<T> {
        let mut last = self.0.lock().await;
        if let Some((read_at, answer)) = &*last
            && read_at.elapsed() < refresh
        {
            return answer.clone();
        }
        let answer = asked.await;
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
