//! A destination that is down, or busy.

use std::{path::Path, sync::Arc, time::Duration};

use http::StatusCode;

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    emulator::Artefact,
    event_source::{Faults, Function, Queue, Wakers},
    inbox::{crash::Place, event, is_delivered, record_in},
    rough_destination::{Behaviour, Rough},
    shared,
    support::{ROUTER, Sink, ok, status},
};

/// The time after which a message counts as lost in these tests.
const LOST: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn while_a_destination_is_down_its_events_wait_with_few_attempts() {
    const EVENTS: usize = 40;
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let (artefact, Place { vars, store }) = (Artefact::router(), Place::in_shared_table().await);
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let more = [("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s"), ("STORE_TIMEOUT_MS", "2000")];
    let start = || instance(&artefact.bootstrap(), &sink.url, &vars, &queue, &more);
    let function = Function::of([start(), start()]);
    let queue = Arc::new(queue);
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let wakers = Wakers::start(&queue, &function, 2, Faults::default(), SCHEDULE);
    let wakers = wakers.with_messages_lost_after(LOST, Arc::clone(&store));
    let (mut keys, began) = (Vec::new(), std::time::Instant::now());
    for number in 0..EVENTS {
        // DynamoDB Local is slow while the machine is busy.
        let heard = loop {
            let heard = function.deliver(&event(&number.to_string())).await.unwrap();
            if heard.status != 503 {
                break heard;
            }
        };
        assert_eq!(heard.status, 200, "{heard:?}");
        keys.push(heard.key);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let in_vain = sink.received().len();
    // For each instance: the attempts of the first batches, and a probe each second or later.
    let most = 2 * (20 + began.elapsed().as_secs() as usize * 2);
    assert!(in_vain <= most, "{in_vain} attempts, not {most}, in {:?}", began.elapsed());
    sink.answers(ok("done"));
    for key in &keys {
        record_in(&*store, key, is_delivered).await;
    }
    drop(wakers);
    let attempts = sink.take().len();
    assert!(attempts <= EVENTS + most, "{attempts} attempts");
}

/// GitHub does not send an event again that was not answered in time.
#[tokio::test]
async fn an_event_that_comes_once_while_its_destination_is_down_arrives_by_itself() {
    let queue = Queue::start(VISIBILITY, 10).await;
    let (artefact, url) = (Artefact::router(), shared::redis_database());
    let (store, vars) = (Place::at(&url).await.store, [("STORE_URL", url.as_str())]);
    let (sink, port) = Sink::closed();
    let more = [("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s")];
    let emulator = instance(&artefact.bootstrap(), &sink.url, &vars, &queue, &more);
    let (queue, function) = (Arc::new(queue), Function::of([emulator]));
    let heard = function.deliver(&event("only once")).await.unwrap();
    assert_eq!((heard.status, &*heard.text), (200, "accepted"));
    let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    let _wakers = wakers.with_messages_lost_after(LOST, Arc::clone(&store));
    let is_tried = |record: &webhook_router::store::Record| record.attempts.len() >= 2;
    record_in(&*store, &heard.key, is_tried).await;
    sink.open(port);
    record_in(&*store, &heard.key, is_delivered).await;
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn events_that_lambda_throttles_arrive_and_keep_their_schedules() {
    const EVENTS: usize = 40;
    // An account may run few functions at a time.
    let throttled = "x-amzn-errortype: TooManyRequestsException\r\n";
    let processor = Rough::start(move |_| match rand::random_ratio(6, 10) {
        true => Behaviour::Invoke(429, throttled, "{}"),
        false => Behaviour::Status(200, None),
    })
    .await;
    let queue = Queue::start(VISIBILITY, 10).await;
    let url = shared::redis_database();
    let (store, vars) = (Place::at(&url).await.store, [("STORE_URL", url.as_str())]);
    let more = [
        ("ROUTE_THRESHOLD", "0"),
        ("AWS_TARGET_FUNCTION", "processor"),
        ("AWS_ENDPOINT_URL_LAMBDA", &processor.url),
        ("RETRY_SCHEDULE", "0s,1s"),
    ];
    let start = || instance(Path::new(ROUTER), &processor.url, &vars, &queue, &more);
    let function = Function::of([start(), start()]);
    let queue = Arc::new(queue);
    let mut keys = Vec::new();
    for number in 0..EVENTS {
        keys.push(function.deliver(&event(&number.to_string())).await.unwrap().key);
    }
    let began = std::time::Instant::now();
    let _wakers = Wakers::start(&queue, &function, 2, Faults::default(), SCHEDULE);
    for key in &keys {
        // Two attempts that counted would have made a dead letter.
        record_in(&*store, key, is_delivered).await;
    }
    // The pause between two tries does not grow, as it does while a destination is down.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
