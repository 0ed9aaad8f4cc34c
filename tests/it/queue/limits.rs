//! A destination with limits, and the messages of its events.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use webhook_router::{outcome::Outcome, store::Record};

use super::{SCHEDULE, VISIBILITY, instance, until};
use crate::{
    emulator::{self, Emulator},
    event_source::{Faults, Function, Queue, Wakers, batch},
    inbox::{event, is_delivered, record},
    meter::Meter,
    shared,
    support::ROUTER,
};

/// Starts a function with one instance, which sends every event to a Lambda with limits.
async fn limited(meter: &Meter, url: &str, limit: (&str, &str)) -> (Arc<Queue>, Arc<Function>) {
    let queue = Queue::start(VISIBILITY, 10).await;
    let aws = [
        ("ROUTE_THRESHOLD", "0"),
        ("AWS_TARGET_FUNCTION", "webhook-processor"),
        ("AWS_ENDPOINT_URL_LAMBDA", meter.url.as_str()),
        limit,
    ];
    let store = [("STORE_URL", url)];
    let emulator = instance(Path::new(ROUTER), &meter.url, &store, &queue, &aws);
    (Arc::new(queue), Function::of([emulator]))
}

/// Accepts ten events, and returns the event of their batch and their keys. `first` is the number of
/// the first one.
async fn ten(function: &Function, queue: &Queue, first: usize) -> (String, Vec<String>) {
    let (mut keys, mut messages) = (Vec::new(), Vec::new());
    for number in first..first + 10 {
        keys.push(function.deliver(&event(&number.to_string())).await.unwrap().key);
    }
    until("the messages come", async || {
        messages.extend(queue.receive().await);
        messages.len() == 10
    })
    .await;
    (batch(&messages), keys)
}

#[tokio::test]
async fn a_batch_waits_for_room_within_its_invocation() {
    let (meter, url) = (Meter::start(Duration::from_millis(100)), shared::redis_database());
    let (queue, function) = limited(&meter, &url, ("AWS_MAX_CONCURRENT", "2")).await;
    let (batch, keys) = ten(&function, &queue, 0).await;
    let answer = function.invoke(batch).await.unwrap();
    assert_eq!(answer["batchItemFailures"], serde_json::json!([]), "{answer}");
    let seen = meter.seen();
    assert_eq!((seen.arrivals.len(), seen.most_at_once), (10, 2));
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
}

#[tokio::test]
async fn a_message_without_room_is_done_and_the_list_brings_its_event() {
    let (meter, url) = (Meter::start(Duration::from_millis(700)), shared::redis_database());
    let (queue, function) = limited(&meter, &url, ("AWS_MAX_CONCURRENT", "1")).await;
    let (batch, keys) = ten(&function, &queue, 0).await;
    let answer = function.invoke(batch).await.unwrap();
    // A message that comes again too often would end among those that cannot be read.
    assert_eq!(answer["batchItemFailures"], serde_json::json!([]), "{answer}");
    let first = meter.count();
    assert!((1..10).contains(&first), "{first}");
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    for key in &keys {
        let record = record(&url, key, is_delivered).await;
        // The wait used up nothing of the schedule.
        assert_eq!(record.attempts.len(), 1);
    }
    let seen = meter.seen();
    assert_eq!((seen.arrivals.len(), seen.events().len(), seen.most_at_once), (10, 10, 1));
}

/// Asserts that a destination got each event once, and none before the rate allows it.
fn assert_is_in_time(meter: &Meter, count: usize, since: Instant, per_second: u32) {
    let seen = meter.seen();
    assert_eq!((seen.arrivals.len(), seen.events().len()), (count, count));
    for (number, (at, _)) in (0..).zip(&seen.arrivals) {
        let soonest = Duration::from_secs(1) * number / per_second;
        assert!(*at - since >= soonest, "{number}: {:?} < {soonest:?}", *at - since);
    }
}

#[tokio::test]
async fn an_instance_keeps_the_rate_within_a_batch_and_from_one_batch_to_the_next() {
    let (meter, url) = (Meter::start(Duration::ZERO), shared::redis_database());
    let (queue, function) = limited(&meter, &url, ("AWS_MAX_PER_SECOND", "10")).await;
    let (first, mut keys) = ten(&function, &queue, 0).await;
    let (second, more) = ten(&function, &queue, 10).await;
    keys.extend(more);
    let since = Instant::now();
    for batch in [first, second] {
        let answer = function.invoke(batch).await.unwrap();
        assert_eq!(answer["batchItemFailures"], serde_json::json!([]), "{answer}");
    }
    for key in &keys {
        assert_eq!(record(&url, key, is_delivered).await.attempts.len(), 1);
    }
    assert_is_in_time(&meter, 20, since, 10);
}

/// Starts an instance that answers when an event is delivered, to a Lambda with limits.
fn answering(meter: &Meter, url: &str, more: &[(&str, &str)]) -> Emulator {
    let common = [
        ("ROUTE_THRESHOLD", "0"),
        ("AWS_TARGET_FUNCTION", "webhook-processor"),
        ("AWS_ENDPOINT_URL_LAMBDA", meter.url.as_str()),
        ("STORE_URL", url),
        ("STORE_TIMEOUT_MS", "1000"),
    ];
    Emulator::start(Path::new(ROUTER), &[&common[..], more].concat())
}

#[tokio::test]
async fn an_instance_keeps_the_rate_while_the_senders_wait() {
    let (meter, url) = (Meter::start(Duration::ZERO), shared::redis_database());
    let emulator = answering(&meter, &url, &[("AWS_MAX_PER_SECOND", "5")]);
    let since = Instant::now();
    for number in 0..15 {
        let answer = emulator.invoke(emulator::event(&event(&number.to_string()))).await;
        assert_eq!((&answer["statusCode"], &answer["body"]), (&200.into(), &"done".into()));
    }
    assert_is_in_time(&meter, 15, since, 5);
}

#[tokio::test]
async fn without_room_in_an_invocation_s_time_the_answer_says_when_to_come_again() {
    let (meter, url) = (Meter::start(Duration::ZERO), shared::redis_database());
    // An attempt needs nearly all of the time that the invocation has for forwarding.
    let hurried = [
        ("AWS_MAX_PER_SECOND", "1"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "5"),
        ("FORWARD_TIMEOUT_MS", "3400"),
    ];
    let emulator = answering(&meter, &url, &hurried);
    let deliver = async |name: &str| emulator.invoke(emulator::event(&event(name))).await;
    let header = |answer: &Value, name: &str| answer["headers"][name].as_str().unwrap().to_owned();
    // The first event of an instance has room.
    assert_eq!(deliver("first").await["statusCode"], 200);
    let mut refused = Vec::new();
    while refused.is_empty() {
        let number = meter.count();
        assert!(number < 20, "no event was refused");
        let answer = deliver(&format!("at once, {number}")).await;
        if answer["statusCode"] != 200 {
            refused.push(answer);
        }
    }
    let (before, answer) = (meter.count(), refused.pop().unwrap());
    assert_eq!((&answer["statusCode"], &answer["body"]), (&503.into(), &"try again later".into()));
    let retry_after: u64 = header(&answer, "retry-after").parse().unwrap();
    assert!((1..=2).contains(&retry_after), "{answer}");
    let key = header(&answer, "x-webhook-key");
    let Record { failed, attempts, .. } = record(&url, &key, |_| true).await;
    assert_eq!((failed.unwrap().failure.outcome, attempts.len()), (Outcome::Limited, 0));
    // The sender comes again at that time.
    tokio::time::sleep(Duration::from_secs(retry_after)).await;
    let again = deliver(&format!("at once, {before}")).await;
    assert_eq!(again["statusCode"], 200, "{again}");
    let record = record(&url, &key, is_delivered).await;
    assert_eq!((record.failed.is_none(), record.attempts.len()), (true, 1));
    assert_eq!(meter.count(), before + 1);
}
