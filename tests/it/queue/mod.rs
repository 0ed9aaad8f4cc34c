//! Accepted events in Lambda: answered at once, and delivered when a message of SQS wakes the function.
//! The function runs in AWS's Runtime Interface Emulator, SQS is moto's.

mod backlog; // Many events that wait, and old ones.
mod batch; // Batches: failures, panics, timeouts, SIGTERM.
mod cost; // Requests for each event.
mod crash; // A crash at every exchange with a service.
mod life; // Answers, messages, schedules, the release build.
mod limits; // A destination with limits.
mod mirror; // Copies for mirrors.
mod model; // All faults together, at random.
mod outage; // A destination that is down.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    emulator::Emulator,
    event_source::{Function, Queue},
    support::{ROUTER, Sink},
};

/// The time after which a message counts as lost in these tests.
const MESSAGE_LOST_MS: &str = "1500";

/// The visibility timeout of these tests. It is longer than a lease.
const VISIBILITY: Duration = Duration::from_secs(7);

/// The interval of the schedule in these tests.
const SCHEDULE: Duration = Duration::from_millis(400);

/// Starts an instance of the function that answers at once. It sends every event to a destination, as
/// to Cloud Run.
fn instance(
    function: &Path,
    destination: &str,
    store: &[(&str, &str)],
    queue: &Queue,
    more: &[(&str, &str)],
) -> Emulator {
    let common = [
        ("ANSWER", "accepted"),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_TARGET_URL", destination),
        ("FORWARD_TIMEOUT_MS", "1500"),
        ("STORE_TIMEOUT_MS", "1000"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "5"),
        ("FAULT_MESSAGE_LOST_MS", MESSAGE_LOST_MS),
    ];
    Emulator::start(function, &[&common[..], &queue.vars(), store, more].concat())
}

/// Starts a function with one instance, its queue, and its destination. `url` names the store.
async fn one_instance(url: &str, more: &[(&str, &str)]) -> (Sink, Arc<Queue>, Arc<Function>) {
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let emulator = instance(Path::new(ROUTER), &sink.url, &[("STORE_URL", url)], &queue, more);
    (sink, Arc::new(queue), Function::of([emulator]))
}

/// Waits until a number of requests has arrived.
async fn arrived(sink: &Sink, count: usize, emulator: &Emulator) {
    let arrived = tokio::time::timeout(Duration::from_secs(60), sink.arrived(count)).await;
    assert!(arrived.is_ok(), "{} arrived\n{}", sink.received().len(), emulator.log());
}

/// Waits until a condition is true.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(90), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
