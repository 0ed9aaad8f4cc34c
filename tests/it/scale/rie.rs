//! The release build in AWS's emulator, which runs one invocation at a time, as an instance of the function does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{is_close, mean, simulate};
use crate::{
    emulator::{Artefact, Emulator, event},
    event_source::{DUE, Faults, Function, Queue, Wakers},
    inbox,
    meter::Meter,
    servers::Redis,
    shared,
    support::PAYLOAD,
};

#[tokio::test]
async fn invocations_one_after_the_other_take_as_long_as_simulated() {
    let _turn = shared::turn().await;
    let (artefact, redis, meter) =
        (Artefact::router(), Redis::start(&[]), Meter::start(Duration::from_millis(800)));
    let url = redis.url();
    let vars = [
        ("STORE_URL", url.as_str()),
        ("STORE_TIMEOUT_MS", "5000"),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_TARGET_URL", &meter.url),
        ("AWS_TARGET_FUNCTION", "processor"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "60"),
    ];
    let emulator = Emulator::start(&artefact.bootstrap(), &vars);
    let (mut times, mut took, began) = (Vec::new(), Vec::new(), Instant::now());
    for number in 0..8 {
        times.push(began.elapsed().as_secs_f64());
        let body = PAYLOAD.replace("4200", &number.to_string());
        let answer = emulator.invoke(event(&body)).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
        took.push(began.elapsed().as_secs_f64() - times[number]);
    }
    let simulated = simulate(&json!({
        "store": "redis", "concurrency": 1000, "processor": 1, "start": 0, "until": 600,
        "arrivals": { "kind": "given", "times": times },
        "destination": { "median": 0.8, "p99": 0.8 },
    }));
    assert_eq!(simulated["answers"], json!({ "200": 8.0 }));
    assert_eq!(simulated["attempts"], meter.count() as f64);
    is_close("mean time of an answer", &simulated["answer_mean"], mean(&took));
    is_close("billed seconds", &simulated["busy_seconds"], took.iter().sum());
}

/// Events that wait for batches of ten, of which two run at a time. A batch takes long beside the requests with
/// which the tests' event source gets its messages and deletes them.
const EVENTS: usize = 40;
const BATCHES: usize = 2;
const PACE: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_messages_are_delivered_as_simulated() {
    let _turn = shared::turn().await;
    let (artefact, redis, meter) = (Artefact::router(), Redis::start(&[]), Meter::start(PACE));
    let (url, queue) = (redis.url(), Queue::start(Duration::from_secs(60), 10).await);
    let vars = [
        ("STORE_URL", url.as_str()),
        ("STORE_TIMEOUT_MS", "5000"),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_TARGET_URL", &meter.url),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "60"),
        ("ANSWER", "accepted"),
    ];
    let vars = [&vars[..], &queue.vars()].concat();
    let instance = || Emulator::start(&artefact.bootstrap(), &vars);
    // One instance answers vendors, and others get the batches.
    let (front, consumers) = (instance(), [instance(), instance()]);
    for started in [&front].into_iter().chain(&consumers) {
        started.invoke(DUE.into()).await;
    }
    let (queue, function) = (Arc::new(queue), Function::of(consumers));
    let never = Duration::from_secs(600);
    let wakers = Wakers::start(&queue, &function, BATCHES, Faults::default(), never);
    let (mut times, began) = (Vec::new(), Instant::now());
    for number in 0..EVENTS {
        times.push(began.elapsed().as_secs_f64());
        let answer = front.invoke(event(&inbox::event(&number.to_string()))).await;
        assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("accepted")));
    }
    while meter.seen().served.len() < EVENTS {
        assert!(began.elapsed() < Duration::from_secs(60), "{} arrived", meter.count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The last batch is answered.
    while !function.is_idle() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(wakers);
    let mut billed = Vec::new();
    for index in 0..BATCHES {
        // The first invocation only starts the instance.
        billed.extend_from_slice(&function.emulator(index).durations().await[1..]);
    }
    let simulated = simulate(&json!({
        "answer": "accepted", "store": "redis", "concurrency": 1000, "warm": 10, "processor": 1,
        "inbox_concurrency": BATCHES, "arrivals": { "kind": "given", "times": times },
        "until": 60, "destination": { "median": PACE.as_secs_f64(), "p99": PACE.as_secs_f64() },
    }));
    let seen = meter.seen();
    assert_eq!(simulated["answers"], json!({ "200": EVENTS as f64 }));
    assert_eq!(simulated["attempts"], seen.arrivals.len() as f64);
    assert!(seen.most_at_once <= 10 * BATCHES, "{}", seen.most_at_once);
    let deliveries = seen.served.iter().map(|at| (*at - began + PACE).as_secs_f64());
    let last = deliveries.fold(0.0, f64::max);
    // The polls decide how many events share the first batches, so the number of batches differs: 40 events
    // take at least 4, and 6 if the first polls find one event each. The batches run in rounds, so the times
    // are compared for each round.
    let number = |name: &str| simulated[name].as_f64().unwrap();
    let batches = billed.len();
    println!("batches: simulated {}, real {batches}", number("batches"));
    let possible = EVENTS.div_ceil(10)..=EVENTS.div_ceil(10) + BATCHES;
    assert!(possible.contains(&batches) && possible.contains(&(number("batches") as usize)));
    let rounds = |batches: usize| batches.div_ceil(BATCHES) as f64;
    let of_each = number("last_delivery") / rounds(number("batches") as usize);
    is_close("time of a round", &json!(of_each), last / rounds(batches));
    let of_each = number("batch_seconds") / number("batches");
    is_close("billed seconds of a batch", &json!(of_each), mean(&billed));
}
