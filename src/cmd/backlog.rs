//! The number of accepted events that wait, for operators.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::shown::time;
use crate::store::{Due, State, Store, StoreError};

/// Largest number of events of each destination that are counted.
const MAX_COUNTED: usize = 1000;

/// The accepted events that are not delivered.
#[derive(Debug, Default, Serialize)]
pub(super) struct Backlog {
    /// Their number, counted up to 1,000 for each destination.
    pub pending: usize,
    /// True if there may be more.
    #[serde(skip)]
    has_more: bool,
    /// The time of the next attempt at the first event of a list, or the end of the lease of an
    /// attempt that is under way. It has passed if the event is due.
    #[serde(serialize_with = "shown")]
    pub next_attempt_at: Option<DateTime<Utc>>,
}

impl Backlog {
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut backlog = Self::default();
        for route in store.destinations().await? {
            let due = store.due(route, None, None, MAX_COUNTED).await?;
            backlog.pending += due.len();
            backlog.has_more |= due.len() >= MAX_COUNTED;
            if let Some(first) = due.first() {
                let at = next_attempt(store, first).await?;
                let before = backlog.next_attempt_at.unwrap_or(at);
                backlog.next_attempt_at = Some(before.min(at));
            }
        }
        Ok(backlog)
    }

    /// Describes the number, for example `1 accepted event`.
    pub fn count(&self) -> String {
        let least = if self.has_more { "at least " } else { "" };
        let plural = if self.pending == 1 { "" } else { "s" };
        format!("{least}{} accepted event{plural}", self.pending)
    }

    /// Tells the operator of accepted events that a command for dead letters leaves out.
    pub async fn hint(store: &dyn Store, remedy: &str) {
        // The command itself has done its work, so an error changes nothing.
        if let Ok(backlog) = Self::read(store).await
            && backlog.pending > 0
        {
            eprintln!("not included: {} in the inbox; {remedy}", backlog.count());
        }
    }

    /// Returns when the next attempt is due.
    pub fn next(&self) -> String {
        match self.next_attempt_at {
            Some(at) if at > Utc::now() => format!("at {}", time(at)),
            _ => "now".into(),
        }
    }
}

/// Returns the time of an event's next attempt. The list of the store has a later time while a
/// message of the queue is expected to bring the event.
async fn next_attempt(store: &dyn Store, listed: &Due) -> Result<DateTime<Utc>, StoreError> {
    let record = store.get(&listed.key, Utc::now()).await?;
    Ok(match record.map(|record| record.state) {
        Some(State::Waiting { due, .. }) => due,
        _ => listed.at,
    })
}

fn shown<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(time).serialize(serializer)
}
