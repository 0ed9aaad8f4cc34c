//! A destination that is down.

use std::{path::Path, sync::Arc};

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    event_source::{Faults, Function, Queue, Wakers},
    inbox::{event, is_delivered, record},
    shared,
    support::{ROUTER, Sink},
};

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
