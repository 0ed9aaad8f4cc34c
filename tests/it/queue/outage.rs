//! A destination that is down.

use std::{path::Path, sync::Arc, time::Duration};

use http::StatusCode;

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    event_source::{Faults, Function, Queue, Wakers},
    inbox::{event, is_delivered, record},
    shared,
    support::{ROUTER, Sink, ok, status},
};

#[tokio::test]
async fn while_a_destination_is_down_its_events_wait_with_few_attempts() {
    const EVENTS: usize = 40;
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let url = shared::redis_database();
    let store = [("STORE_URL", url.as_str())];
    let function = Function::of((0..2).map(|_| {
        instance(
            Path::new(ROUTER),
            &sink.url,
            &store,
            &queue,
            &[("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s")],
        )
    }));
    let queue = Arc::new(queue);
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let wakers = Wakers::start(&queue, &function, 2, Faults::default(), SCHEDULE);
    let (mut keys, began) = (Vec::new(), std::time::Instant::now());
    for number in 0..EVENTS {
        let heard = function.deliver(&event(&number.to_string())).await.unwrap();
        assert_eq!((heard.status, &*heard.text), (200, "accepted"));
        keys.push(heard.key);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let in_vain = sink.received().len();
    // For each instance: the attempts of the first batches, and a probe each second or later.
    let most = 2 * (20 + began.elapsed().as_secs() as usize * 2);
    assert!(in_vain <= most, "{in_vain} attempts, not {most}, in {:?}", began.elapsed());
    sink.answers(ok("done"));
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    drop(wakers);
    let attempts = sink.take().len();
    assert!(attempts <= EVENTS + most, "{attempts} attempts");
}

/// GitHub does not send an event again that was not answered in time.
#[tokio::test]
async fn an_event_that_comes_once_while_its_destination_is_down_arrives_by_itself() {
    let queue = Queue::start(VISIBILITY, 10).await;
    let url = shared::redis_database();
    let store = [("STORE_URL", url.as_str())];
    let (sink, port) = Sink::closed();
    let more = [("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s")];
    let emulator = instance(Path::new(ROUTER), &sink.url, &store, &queue, &more);
    let (queue, function) = (Arc::new(queue), Function::of([emulator]));
    let heard = function.deliver(&event("only once")).await.unwrap();
    assert_eq!((heard.status, &*heard.text), (200, "accepted"));
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    let is_tried = |record: &webhook_router::store::Record| record.attempts.len() >= 2;
    record(&url, &heard.key, is_tried).await;
    sink.open(port);
    record(&url, &heard.key, is_delivered).await;
    assert_eq!(sink.take().len(), 1);
}
