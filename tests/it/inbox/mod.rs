//! Accepted events: answered at once, and delivered after the answer.

mod commands; // `pending`, `inspect`, `replay`, `discard`, `drain`.
pub mod crash; // A crash at every step.
mod earlier; // Dead letters that an earlier version listed.
mod life; // Answers, schedules, ends, settings.
mod outage; // A destination that is down.
mod python; // The Python router on the same Redis.
mod remains; // Remains of interrupted acceptances.

use std::time::{Duration, Instant};

use chrono::Utc;
use webhook_router::{
    config::StoreConfig,
    route::Route,
    store::{self, Record, State, Store},
};

use crate::{
    operators::{self, Vars},
    support::{Serve, Sink, lookup},
};

/// Creates a router that answers at once, and sends every event to a sink as Cloud Run.
fn accepting(sink: &Sink, store: &str) -> Serve {
    Serve::to(sink).only(Route::GCP).store(store).envs([
        ("ANSWER", "accepted"),
        ("FORWARD_TIMEOUT_MS", "1000"),
        ("STORE_TIMEOUT_MS", "1000"),
    ])
}

/// Returns the variables of such a router and of its commands.
fn vars(sink: &Sink, more: &[(&str, &str)]) -> Vars {
    let accepting = [("ANSWER", "accepted"), ("FORWARD_TIMEOUT_MS", "1000")];
    operators::vars(sink, &[&accepting[..], more].concat())
}

pub fn event(name: &str) -> String {
    format!(
        r#"{{"vendor":"v","event_type":{name:?},"created_at":"2026-05-06T12:34:56Z","n":1.50}}"#
    )
}

/// Waits until the record of an event is as wanted. `url` names SQLite or Redis.
pub async fn record(url: &str, key: &str, is_wanted: impl Fn(&Record) -> bool) -> Record {
    let vars = [("STORE_URL", url), ("STORE_TIMEOUT_MS", "20000")];
    let store = store::open(&StoreConfig::from_vars(lookup(&vars)).unwrap()).await.unwrap();
    record_in(&*store, key, is_wanted).await
}

pub async fn record_in(
    store: &dyn Store,
    key: &str,
    is_wanted: impl Fn(&Record) -> bool,
) -> Record {
    let began = Instant::now();
    loop {
        let record = store.get(&key.parse().unwrap(), Utc::now()).await.unwrap();
        if let Some(record) = record.clone().filter(&is_wanted) {
            return record;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{key}: {record:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn is_delivered(record: &Record) -> bool {
    matches!(record.state, State::Delivered { .. })
}
