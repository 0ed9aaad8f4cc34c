//! The times at which the events of the inboxes were accepted.
//!
//! The list of an inbox is in the order in which somebody must look at its events. Only their records
//! have the times of acceptance. Such a time does not change. So a process reads the record of an event
//! once, and remembers the time while the event is on the list.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use crate::{
    key::Key,
    route::Route,
    store::{Due, Store, StoreError},
};

/// Most records of an inbox that are read at each look, so that a look costs little.
const READS: usize = 100;

/// Most records that are read at a time. Each needs a connection to the store.
const AT_ONCE: usize = 8;

/// The times of acceptance that a process knows. A record that cannot be read has none.
#[derive(Debug, Default)]
pub struct Acceptances(Mutex<HashMap<Route, Known>>);

type Known = HashMap<Key, Option<DateTime<Utc>>>;

impl Acceptances {
    /// Returns the earliest acceptance among the events of a list, as far as it is known. Reads until
    /// `until` at the latest. The next look reads on.
    ///
    /// The first event of the list is read first. Then those at its end follow: the pauses of a
    /// retry schedule usually grow, so an event in a long pause was probably accepted early.
    pub(super) async fn oldest(
        &self,
        store: &dyn Store,
        route: Route,
        list: &[Due],
        until: Instant,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let unread = self.unread(route, list);
        let now = Utc::now();
        let records: Vec<_> = unread.iter().map(|key| store.get(key, now)).collect();
        let mut records = stream::iter(records).buffered(AT_ONCE).zip(stream::iter(&unread));
        let reading = async {
            while let Some((record, key)) = records.next().await {
                let accepted = match record {
                    Err(StoreError::Corrupt(_)) => Some(None),
                    // The list may still have an event that has left the inbox.
                    record => record?.and_then(|record| record.accepted).map(|one| Some(one.at)),
                };
                if let Some(accepted) = accepted {
                    self.known().entry(route).or_default().insert(*key, accepted);
                }
            }
            Ok(())
        };
        let read = timeout_at(until, reading).await;
        let known = self.known();
        let oldest = known.get(&route).and_then(|known| known.values().flatten().min()).copied();
        match read {
            Ok(Err(error)) => Err(error),
            Err(_late) if oldest.is_none() => Err(StoreError::Failed("no answer in time".into())),
            Ok(Ok(())) | Err(_) => Ok(oldest),
        }
    }

    /// Forgets the events that have left a list, and returns the others whose records are to be read
    /// next.
    fn unread(&self, route: Route, list: &[Due]) -> Vec<Key> {
        let listed: HashSet<_> = list.iter().map(|due| due.key).collect();
        let mut known = self.known();
        let known = known.entry(route).or_default();
        known.retain(|key, _| listed.contains(key));
        let Some((first, others)) = list.split_first() else { return Vec::new() };
        let in_order = [first].into_iter().chain(others.iter().rev()).map(|due| due.key);
        in_order.filter(|key| !known.contains_key(key)).take(READS).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Route, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
