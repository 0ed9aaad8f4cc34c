//! Lambda Managed Instances: an instance has several invocations at a time. Each one keeps its own time, and
//! gets its answer also at a stop.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use http::StatusCode;
use serde_json::Value;

use crate::{
    emulator::event,
    managed_instance::ManagedInstance,
    meter::Meter,
    shared,
    support::{Answer, PAYLOAD, ROUTER, Sink},
};

const SECOND: Duration = Duration::from_secs(1);
/// Time of an invocation that must not run out.
const AMPLE: Duration = Duration::from_secs(60);

/// Starts a function that sends every event to one destination, as to Cloud Run.
async fn instance(concurrency: usize, url: &str, more: &[(&str, &str)]) -> ManagedInstance {
    with_store(&shared::redis_database(), concurrency, url, more).await
}

async fn with_store(
    store: &str,
    concurrency: usize,
    url: &str,
    more: &[(&str, &str)],
) -> ManagedInstance {
    let vars = [
        ("STORE_URL", store),
        ("STORE_TIMEOUT_MS", "500"),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_TARGET_URL", url),
    ];
    ManagedInstance::start(ROUTER, concurrency, &[&vars, more].concat()).await
}

/// Returns the event of a Function URL with a delivery that no other has.
fn delivery(number: usize) -> String {
    event(&PAYLOAD.replace("4200", &number.to_string()))
}

/// Waits until so many invocations are handed out.
async fn handed_out(instance: &ManagedInstance, count: usize) {
    let began = Instant::now();
    while instance.running() < count {
        assert!(began.elapsed() < AMPLE, "{} of {count} are handed out", instance.running());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn status(answer: &Value) -> u64 {
    answer["statusCode"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn as_many_invocations_run_at_once_as_lambda_says() {
    let meter = Meter::start(Duration::from_millis(400));
    let instance = instance(8, &meter.url, &[]).await;
    let answers = join_all((0..24).map(|number| instance.invoke(delivery(number), AMPLE))).await;
    for (answer, _) in &answers {
        assert_eq!(status(answer), 200, "{answer}");
    }
    let seen = meter.seen();
    assert_eq!((seen.events().len(), seen.arrivals.len(), seen.most_at_once), (24, 24, 8));
}

#[tokio::test]
async fn deliveries_of_one_event_that_run_side_by_side_are_one_attempt() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let instance = instance(8, &sink.url, &[]).await;
    let copies = (0..8).map(|_| instance.invoke(delivery(99), AMPLE));
    let mut copies: FuturesUnordered<_> = copies.collect();
    for _ in 0..7 {
        let (answer, _) = copies.next().await.unwrap();
        assert_eq!(status(&answer), 409, "{answer}");
    }
    // The destination answers once all the others have theirs.
    sink.go.notify_one();
    let (answer, _) = copies.next().await.unwrap();
    assert_eq!((status(&answer), sink.received().len()), (200, 1), "{answer}");
}

#[tokio::test]
async fn without_a_limit_of_lambda_s_an_instance_has_one_invocation_at_a_time() {
    let meter = Meter::start(Duration::from_millis(50));
    let instance = instance(1, &meter.url, &[]).await;
    let answers = join_all((0..4).map(|number| instance.invoke(delivery(number), AMPLE))).await;
    assert!(answers.iter().all(|(answer, _)| status(answer) == 200), "{answers:?}");
    assert_eq!((meter.count(), meter.seen().most_at_once), (4, 1));
}

#[tokio::test]
async fn each_invocation_keeps_its_own_time_at_a_destination_that_hangs() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let instance = instance(4, &sink.url, &[]).await;
    // The first request to a new process takes longer.
    let (refused, _) = instance.invoke(event("{}"), AMPLE).await;
    assert_eq!(status(&refused), 400);
    let (short, long) = (3 * SECOND, 8 * SECOND);
    let times = [short, long, short];
    let answers = times.iter().enumerate();
    let answers = join_all(answers.map(|(n, time)| instance.invoke(delivery(n), *time))).await;
    for ((answer, took), time) in answers.iter().zip(times) {
        assert_eq!(status(answer), u64::from(StatusCode::GATEWAY_TIMEOUT.as_u16()), "{answer}");
        // Each attempt uses the time of its invocation, but for the part that settles and answers.
        assert!((time - 3 * SECOND / 2..time).contains(took), "{took:?} of {time:?}");
    }
    assert_eq!(sink.received().len(), 3);
}

#[tokio::test]
async fn at_a_stop_every_invocation_under_way_gets_its_answer() {
    let meter = Meter::start(SECOND);
    let mut instance = instance(8, &meter.url, &[]).await;
    let answers: Vec<_> = (0..5).map(|number| instance.invoke(delivery(number), AMPLE)).collect();
    let began = Instant::now();
    while meter.count() < 5 {
        assert!(began.elapsed() < AMPLE, "{} of 5 arrived", meter.count());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    instance.terminate();
    for (answer, _) in join_all(answers).await {
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert!(instance.end().await.success());
    assert_eq!((instance.running(), meter.count()), (0, 5));
}

#[tokio::test]
async fn invocations_that_are_handed_out_at_the_moment_of_a_stop_get_their_answers() {
    let meter = Meter::start(Duration::ZERO);
    let mut instance = instance(8, &meter.url, &[]).await;
    instance.hold(true);
    let answers: Vec<_> = (0..5).map(|number| instance.invoke(delivery(number), AMPLE)).collect();
    handed_out(&instance, 5).await;
    instance.terminate();
    instance.hold(false);
    for (answer, _) in join_all(answers).await {
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert!(instance.end().await.success());
    assert_eq!((instance.running(), meter.count()), (0, 5));
}

#[tokio::test]
async fn an_event_that_an_instance_never_read_is_delivered_when_it_comes_again() {
    let (meter, store) = (Meter::start(Duration::ZERO), shared::redis_database());
    let mut ending = with_store(&store, 4, &meter.url, &[]).await;
    ending.hold(true);
    let _unanswered = ending.invoke(delivery(1), AMPLE);
    handed_out(&ending, 1).await;
    ending.terminate();
    assert!(ending.end().await.success());
    // Lambda has no answer, so the vendor hears 502, and a message of SQS comes again.
    assert_eq!((ending.running(), meter.count()), (1, 0));
    let next = with_store(&store, 4, &meter.url, &[]).await;
    for body in ["done", "duplicate ignored"] {
        let (answer, _) = next.invoke(delivery(1), AMPLE).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer["body"].as_str().unwrap().contains(body), "{answer}");
    }
    assert_eq!(meter.count(), 1);
}

#[tokio::test]
async fn a_panic_in_one_invocation_leaves_the_others_alone() {
    let meter = Meter::start(Duration::from_millis(300));
    // This is the build with fault points, so that it can panic.
    let panics = [("FAULT_POINT", "panic before claim:3")];
    let instance = instance(6, &meter.url, &panics).await;
    let answers = join_all((0..6).map(|number| instance.invoke(delivery(number), AMPLE))).await;
    let mut statuses: Vec<_> = answers.iter().map(|(answer, _)| status(answer)).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 500]);
    let (answer, _) = instance.invoke(delivery(7), AMPLE).await;
    assert_eq!((status(&answer), meter.count()), (200, 6));
}

#[tokio::test]
async fn copies_for_a_mirror_are_sent_without_an_extension() {
    let (meter, mirror) = (Meter::start(Duration::ZERO), Meter::start(Duration::from_millis(200)));
    let mirrors = [("MIRROR_URL", mirror.url.as_str())];
    let mut instance = instance(4, &meter.url, &mirrors).await;
    let answers = join_all((0..6).map(|number| instance.invoke(delivery(number), AMPLE))).await;
    assert!(answers.iter().all(|(answer, _)| status(answer) == 200), "{answers:?}");
    // The copies under way are sent before the instance ends.
    instance.terminate();
    assert!(instance.end().await.success());
    assert_eq!((meter.count(), mirror.count()), (6, 6));
}
