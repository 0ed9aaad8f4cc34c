//! A destination with limits, and the messages of its events.

use std::{path::Path, sync::Arc, time::Duration};

use super::{SCHEDULE, VISIBILITY, instance, until};
use crate::{
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

/// Accepts ten events, and returns the event of their batch and their keys.
async fn ten(function: &Function, queue: &Queue) -> (String, Vec<String>) {
    let (mut keys, mut messages) = (Vec::new(), Vec::new());
    for number in 0..10 {
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
    let (batch, keys) = ten(&function, &queue).await;
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
    let (batch, keys) = ten(&function, &queue).await;
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
