//! The state after a crash at every step. The process ends itself before and after each call of the
//! store and of the destination. The vendor comes again until it hears 200, and never after that.
//!
//! docs/guarantees.md says how often an accepted event may arrive after such a crash.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::Utc;
use http::StatusCode;
use tokio::task::JoinSet;
use webhook_router::{
    config::{EXAMPLE_ROUTING_SECRET, StoreConfig},
    route::Route,
    store::{self, DynamoDb, State, Store},
};

use super::{event, record_in};
use crate::{
    servers::{DynamoDbLocal, RedisCluster},
    shared,
    support::{Serve, Sink, client, delivery, intake, lookup, ok, planned, sqlite, status},
};

/// The answer of the destination before the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Done,
    TryLater,
    Never,
}
use Says::{Done, Never, TryLater};

/// The place where the process ends, the answer of the destination if the event arrives before the
/// crash, and how often the event arrives in the end.
const STEPS: [(&str, Says, usize); 24] = [
    ("before accept", Done, 1),
    // DynamoDB has written one part of the body, or two.
    ("after part", Done, 1),
    ("after part:2", Done, 1),
    ("before acceptance is stored", Done, 1),
    // The vendor gets no answer, although the event is in the inbox.
    ("after accept", Done, 1),
    ("before take", Done, 1),
    // The event has a lease, but in a cluster the list does not have the end of the lease yet.
    ("after take writes", Done, 1),
    ("after take", Done, 1),
    ("before send", Done, 1),
    // The event arrived, but that is not recorded.
    ("after send", Done, 2),
    ("before settle", Done, 2),
    // SQLite has not committed the success, so the event arrives again.
    ("before finish commits", Done, 2),
    // Redis and DynamoDB have the success.
    ("after finish writes", Done, 1),
    ("after settle", Done, 1),
    // The first attempt fails, and the schedule has another.
    ("after send", TryLater, 2),
    ("before settle", TryLater, 2),
    ("before postpone commits", TryLater, 2),
    ("after postpone writes", TryLater, 2),
    ("after settle", TryLater, 2),
    ("after send:2", TryLater, 3),
    // The destination refuses the event. Without its dead letter, the event is tried again.
    ("before settle", Never, 2),
    // DynamoDB has written one part of the dead letter.
    ("after part of letter", Never, 2),
    ("before letter is stored", Never, 2),
    ("after settle", Never, 1),
];

/// Returns whether a store has a step.
fn has(store: &str, (step, ..): (&str, Says, usize)) -> bool {
    let is_sqlite = store.starts_with("sqlite:");
    match step {
        "before finish commits" | "before postpone commits" => is_sqlite,
        "after take writes" | "after finish writes" | "after postpone writes" => !is_sqlite,
        _ => store.starts_with("dynamodb:") || !step.starts_with("after part"),
    }
}

/// The number of stores for trials at the same time. The workers of a router deliver all events of
/// its store, so each trial needs its own.
const PLACES: usize = STEPS.len();
/// The same for a slow store. A cluster has three servers.
const SLOW_PLACES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_every_accepted_event_arrives_as_often_as_promised() {
    let folders: Vec<_> = (0..PLACES).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut places = Vec::new();
    for folder in &folders {
        places.push(Place::at(&sqlite(folder.path())).await);
    }
    at_every_step(places).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_every_accepted_event_arrives_as_often_as_promised() {
    let mut places = Vec::new();
    for _ in 0..PLACES {
        places.push(Place::at(&shared::redis_database()).await);
    }
    at_every_step(places).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_redis_cluster_every_accepted_event_arrives_as_often_as_promised() {
    let clusters: Vec<_> = (0..SLOW_PLACES).map(|_| RedisCluster::start_patiently()).collect();
    let mut places = Vec::new();
    for cluster in &clusters {
        places.push(Place::at(&cluster.url()).await);
    }
    at_every_step(places).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_every_accepted_event_arrives_as_often_as_promised() {
    let dynamodb = DynamoDbLocal::start().await;
    let places = Place::in_tables(&dynamodb, SLOW_PLACES).await;
    at_every_step(places).await;
}

/// A store that one trial at a time uses.
#[derive(Clone)]
pub struct Place {
    /// The variables of a router with this store.
    pub vars: Vec<(&'static str, String)>,
    pub store: Arc<dyn Store>,
}

impl Place {
    /// Opens SQLite or Redis.
    pub async fn at(url: &str) -> Self {
        let vars = [("STORE_URL", url), ("STORE_TIMEOUT_MS", "20000")];
        let store = store::open(&StoreConfig::from_vars(lookup(&vars)).unwrap()).await.unwrap();
        Self { vars: vec![("STORE_URL", url.to_owned())], store }
    }

    /// Creates tables in DynamoDB.
    pub async fn in_tables(dynamodb: &DynamoDbLocal, count: usize) -> Vec<Self> {
        let mut places = Vec::new();
        for number in 0..count {
            let (table, timeout) = (format!("table-{number}"), Duration::from_secs(20));
            DynamoDbLocal::create_table(&dynamodb.sdk, &table).await;
            let url = ("STORE_URL", format!("dynamodb://{table}"));
            let endpoint = ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url.clone());
            let store = Arc::new(DynamoDb::with_sdk_config(table, timeout, &dynamodb.sdk));
            places.push(Self { vars: vec![url, endpoint], store });
        }
        places
    }

    /// Creates a table in the DynamoDB that the tests share.
    pub async fn in_shared_table() -> Self {
        let (table, timeout) = (shared::dynamodb_table().await, Duration::from_secs(20));
        let store = DynamoDb::with_sdk_config(table.name.clone(), timeout, &table.sdk);
        Self { vars: table.vars().into(), store: Arc::new(store) }
    }

    /// Delivers an event, because the first use of a store takes longer than any other.
    async fn warm_up(&self) {
        let sink = Sink::start().await;
        let router = Serve::to(&sink).envs(self.vars.clone()).start();
        while router.post(event("the first")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn at_every_step(places: Vec<Place>) {
    let steps = STEPS.into_iter().filter(|step| has(&places[0].vars[0].1, *step));
    let steps = Arc::new(Mutex::new(steps.collect::<Vec<_>>()));
    places[0].warm_up().await;
    let mut trials = JoinSet::new();
    for place in places {
        let steps = Arc::clone(&steps);
        trials.spawn(async move {
            loop {
                let next = steps.lock().unwrap().pop();
                let Some((step, says, arrivals)) = next else { break };
                crash(&place, step, says, arrivals).await;
            }
        });
    }
    trials.join_all().await;
}

async fn crash(place: &Place, step: &str, says: Says, arrivals: usize) {
    let what = format!("{step}, {says:?}");
    let sink = Sink::start().await;
    sink.answers(match says {
        Done => ok("done"),
        TryLater => status(StatusCode::BAD_GATEWAY, "no"),
        Never => status(StatusCode::UNPROCESSABLE_ENTITY, "never"),
    });
    let serve = Serve::to(&sink).envs(place.vars.clone()).envs([
        ("ANSWER", "accepted"),
        // The vendor hears the answer before the first attempt.
        ("RETRY_SCHEDULE", "1s,1s,1s"),
        // Many routers start at once. A lease lasts an attempt, plus five store timeouts, plus a
        // second.
        ("FORWARD_TIMEOUT_MS", "4000"),
        ("STORE_TIMEOUT_MS", "1500"),
    ]);
    let body = match place.vars[0].1.starts_with("dynamodb:") {
        // DynamoDB stores this body in three parts.
        true => event(&what).replace("1.50", &NOISE),
        false => event(&what),
    };
    let key = planned(&delivery(body.clone()), &intake(EXAMPLE_ROUTING_SECRET), Utc::now());
    let key = key.unwrap().key;
    let start = |serve: Serve| tokio::task::spawn_blocking(move || serve.start());
    let first = serve.clone().only(Route::GCP).env("FAULT_POINT", step);
    let mut router = start(first).await.unwrap();
    let mut is_repeated = false;
    let is_heard = loop {
        match client().post(router.webhook()).body(body.clone()).send().await {
            Ok(answer) if answer.status() == 200 => break true,
            Ok(answer) => {
                // A slow store makes the vendor come again, and the router write the parts again.
                assert_eq!(answer.status(), 503, "{what}: {}", router.log());
                is_repeated = true;
            }
            Err(_) => break false,
        }
    };
    let is_accepting = step.contains("accept") || (step.contains("part") && says == Done);
    assert!(is_repeated || is_heard != is_accepting, "{what}: {}", router.log());
    let began = Instant::now();
    while !router.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {}", router.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sink.answers(ok("done"));
    let record = place.store.get(&key, Utc::now()).await.unwrap();
    if let Some(State::InFlight { until, .. }) = record.map(|record| record.state) {
        // A router looks at the list when it starts, and not again soon.
        tokio::time::sleep((until - Utc::now()).to_std().unwrap_or_default()).await;
    }
    // The threshold has changed, but an accepted event keeps its route.
    let router = start(serve.only(Route::AWS)).await.unwrap();
    while !is_heard && router.post(body.clone()).await.status != 200 {}
    let key = key.to_string();
    let record = record_in(&*place.store, &key, |record| record.accepted.is_none()).await;
    match (says, step) {
        (Never, "after settle") => assert_eq!(record.state, State::DeadLetter, "{what}"),
        _ => assert!(super::is_delivered(&record), "{what}: {record:?}"),
    }
    let received = sink.take();
    assert_eq!(received.len(), arrivals, "{what}\n{}", router.log());
    let route = record.details.unwrap().route;
    assert!(!is_heard || route == Route::GCP, "{what}");
    for one in &received {
        assert!(one.body == body, "{what}: the body has changed");
        assert_eq!(one.is_invocation(), route == Route::AWS, "{what}");
        assert_eq!(one.told("idempotency-key").unwrap_or_default(), key, "{what}");
    }
}

/// A JSON string that is hardly compressible.
pub static NOISE: LazyLock<String> = LazyLock::new(|| {
    let mut random = vec![0; 600_000];
    rand::fill(&mut random[..]);
    format!("\"{}\"", BASE64_STANDARD.encode(random))
});
