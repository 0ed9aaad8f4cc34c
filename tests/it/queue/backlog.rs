//! Many events that wait, and events that wait for long.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use webhook_router::{key::Key, route::Route, store::Store};

use super::{VISIBILITY, instance, until};
use crate::{
    emulator::Artefact,
    event_source::{DUE, Function, Queue},
    inbox::crash::Place,
    proxy::Proxy,
    servers::Redis,
    shared,
    support::{ROUTER, Sink, delivery, plan_of},
};

/// Copies an accepted event to other keys. This takes less time than their acceptances.
const COPY: &str = "
    local event, rest = redis.call('DUMP', KEYS[1]), redis.call('DUMP', '{' .. KEYS[1] .. '}:event')
    local due = redis.call('ZSCORE', 'webhook:due:gcp', KEYS[1])
    for number = 1, ARGV[1] do
        local key = 'webhook:dedup:' .. string.format('%064x', number)
        redis.call('RESTORE', key, 0, event)
        redis.call('RESTORE', '{' .. key .. '}:event', 0, rest)
        redis.call('ZADD', 'webhook:due:gcp', due, key)
    end";

/// Stores an accepted event, and returns its key.
async fn accept(store: &dyn Store, name: &str, at: DateTime<Utc>, due: DateTime<Utc>) -> Key {
    let mut plan = plan_of(name);
    plan.route = Route::GCP;
    store.accept(&plan, &delivery("{}"), at, due, due).await.unwrap();
    plan.key
}

#[tokio::test]
async fn a_run_with_ten_thousand_events_ends_in_time_and_the_next_one_goes_on() {
    const EVENTS: usize = 10_000;
    const TIMEOUT: Duration = Duration::from_secs(5);
    let (artefact, redis) = (Artefact::router(), Redis::start(&[]));
    let url = redis.url();
    let (sink, Place { store, .. }) = (Sink::start().await, Place::at(&url).await);
    let queue = Queue::start(Duration::from_secs(600), 10).await;
    let (vars, timeout) = ([("STORE_URL", url.as_str())], TIMEOUT.as_secs().to_string());
    let more = [("AWS_LAMBDA_FUNCTION_TIMEOUT", timeout.as_str())];
    let emulator = instance(&artefact.bootstrap(), &sink.url, &vars, &queue, &more);
    let (function, now) = (Function::of([emulator]), Utc::now());
    let first = accept(&*store, "first", now, now).await.to_string();
    redis.cli(&["EVAL", COPY, "1", &first, &(EVENTS - 1).to_string()]);
    let due = async || {
        let due = store.due(Route::GCP, Some(Utc::now()), None, 2 * EVENTS).await.unwrap();
        due.into_iter().map(|due| due.key.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(due().await.len(), EVENTS);

    let (mut messages, mut tried) = (BTreeSet::new(), 0);
    for _ in 0..2 {
        let began = Instant::now();
        let report = function.invoke(DUE.into()).await;
        let report = report.expect("the run ends before its invocation");
        assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
        let count = |name: &str| report[name].as_u64().unwrap() as usize;
        assert!(count("sent") > 0 && report["is_incomplete"] == true, "{report}");
        tried += count("delivered");
        // Events that got a message in the run before get no other.
        let expected = messages.len() + count("sent");
        until("the messages are received", async || {
            let received = queue.receive().await;
            let is_empty = received.is_empty();
            messages.extend(received.into_iter().filter_map(|message| message.body));
            is_empty && messages.len() >= expected
        })
        .await;
    }
    // Each event that has no message is still due.
    messages.extend(due().await);
    assert_eq!(messages.len() + tried, EVENTS);
}

#[tokio::test]
async fn on_redis_the_age_of_the_oldest_event_is_known() {
    let url = shared::redis_database();
    let Place { store, .. } = Place::at(&url).await;
    knows_the_oldest(&[("STORE_URL", &url)], &*store, || 0).await;
}

#[tokio::test]
async fn on_dynamodb_the_age_of_the_oldest_event_is_known_and_each_record_is_read_once() {
    let table = shared::dynamodb_table().await;
    let timeout = Duration::from_secs(20);
    let store =
        webhook_router::store::DynamoDb::with_sdk_config(table.name.clone(), timeout, &table.sdk);
    let proxy = Proxy::start(table.port).await;
    let endpoint = proxy.url();
    let [url, _] = table.vars();
    let vars = [(url.0, url.1.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str())];
    knows_the_oldest(&vars, &store, || proxy.take()).await;
}

/// Runs the schedule until it has read all records. `requests` returns the number of requests to the
/// store since the last call.
async fn knows_the_oldest(vars: &[(&str, &str)], store: &dyn Store, requests: impl Fn() -> usize) {
    let now = Utc::now();
    // The oldest event waits out a long pause, behind many others and before one.
    for number in 0..40 {
        accept(store, &number.to_string(), now, now + TimeDelta::hours(1)).await;
    }
    accept(store, "oldest", now - TimeDelta::hours(3), now + TimeDelta::hours(5)).await;
    accept(store, "last", now - TimeDelta::hours(1), now + TimeDelta::hours(9)).await;
    let (sink, queue) = (Sink::start().await, Arc::new(Queue::start(VISIBILITY, 10).await));
    let more = [("STORE_TIMEOUT_MS", "20000"), ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120")];
    let vars = [vars, &more].concat();
    let emulator = instance(std::path::Path::new(ROUTER), &sink.url, &vars, &queue, &[]);
    let function = Function::of([emulator]);
    let mut runs = 0;
    // DynamoDB Local is slow while the machine is busy, and then the age is missing.
    until("the age is known, and nothing more is read", async || {
        function.invoke(DUE.into()).await.unwrap();
        runs += 1;
        let (read, log) = (requests(), function.emulator(0).log());
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<_> = lines.filter(|line| line["message"] == "pending").collect();
        let Some(line) = lines.get(runs - 1) else {
            runs = lines.len();
            return false;
        };
        assert_eq!((&line["destination"], &line["pending"]), (&"gcp".into(), &42.into()));
        let age = line["oldest_pending_seconds"].as_f64().unwrap();
        // A run that finds nothing makes up to 80 requests to DynamoDB (cost.rs).
        (10_800.0..11_400.0).contains(&age) && read <= 80
    })
    .await;
}
