//! A retry storm at a small scale: a destination is down for some seconds, and vendors come again with pauses
//! that double. The real attempts have the simulated shape.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{TOLERANCE, is_close, serve, simulate};
use crate::{
    inbox::event,
    meter::Meter,
    shared,
    support::{Server, client, post},
};

/// Events per second, and the seconds in which they come to be.
const RATE: f64 = 16.0;
const ARRIVING: f64 = 9.0;
/// The seconds in which the destination is down.
const DOWN: (f64, f64) = (2.0, 6.0);
/// The vendor's pauses, in seconds.
const PAUSES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];
/// The seconds that a step of the comparison has: several times the time of an attempt.
const STEP: f64 = 2.0;
const UNTIL: f64 = 30.0;
const PACE: Duration = Duration::from_millis(400);

fn times() -> Vec<f64> {
    (0..(RATE * ARRIVING) as u32).map(|number| f64::from(number) / RATE).collect()
}

/// Sends an event until it is answered with 200, as a vendor does. Returns the number of answers.
async fn send(client: reqwest::Client, url: String, number: usize, at: Instant) -> usize {
    tokio::time::sleep_until(at.into()).await;
    for (retries, pause) in PAUSES.iter().enumerate() {
        if post(&client, &url, event(&number.to_string())).await.status == 200 {
            return retries + 1;
        }
        tokio::time::sleep(Duration::from_secs_f64(*pause)).await;
    }
    panic!("event {number} is not delivered");
}

/// Sends all events while the destination goes down and comes up again. Returns the start, and the number
/// of answers.
async fn storm(router: &Server, meter: &Arc<Meter>) -> (Instant, usize) {
    let client = client();
    post(&client, &router.webhook(), event("first")).await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (time, is_down) in [(DOWN.0, true), (DOWN.1, false)] {
        let (meter, at) = (Arc::clone(meter), began + Duration::from_secs_f64(time));
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            meter.set_down(is_down);
        });
    }
    for (number, time) in times().into_iter().enumerate() {
        let at = began + Duration::from_secs_f64(time);
        tasks.spawn(send(client.clone(), router.webhook(), number, at));
    }
    (began, tasks.join_all().await.into_iter().sum())
}

fn scenario(more: Value) -> Value {
    let mut scenario = json!({
        "place": "serve", "store": "redis", "step": STEP, "until": UNTIL,
        "arrivals": { "kind": "given", "times": times() },
        "vendor": { "pauses": PAUSES, "jitter": 0 },
        "destination": {
            "median": 0.4, "p99": 0.4, "outages": [[DOWN.0, DOWN.1, "refuses"]],
        },
    });
    let more = more.as_object().unwrap().clone();
    scenario.as_object_mut().unwrap().extend(more);
    scenario
}

/// Returns the seconds of all arrivals after the start.
fn arrivals(meter: &Meter, began: Instant) -> Vec<f64> {
    let seen = meter.seen().arrivals;
    let after = seen.iter().filter(|(at, _)| *at >= began);
    after.map(|(at, _)| (*at - began).as_secs_f64()).collect()
}

/// Asserts that not too many of the real arrivals are in another step than the simulated ones.
fn have_the_shape(real: &[f64], simulated: &Value) {
    let mut steps = vec![0.0; (UNTIL / STEP) as usize];
    for at in real {
        steps[((at / STEP) as usize).min((UNTIL / STEP) as usize - 1)] += 1.0 / STEP;
    }
    let simulated: Vec<_> =
        simulated["arrivals"].as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
    println!("real      {steps:?}\nsimulated {simulated:?}");
    assert_eq!(steps.len(), simulated.len());
    // Each arrival in another step counts twice: once where it is, and once where it is not.
    let differ: f64 = steps.iter().zip(&simulated).map(|(one, two)| (one - two).abs()).sum();
    let part = differ / 2.0 / steps.iter().sum::<f64>();
    println!("{part:.3} of the arrivals are in another step");
    assert!(part <= TOLERANCE, "{part} of the arrivals are in another step");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_vendors_wait_their_retries_arrive_as_simulated() {
    let _turn = shared::turn().await;
    let meter = Arc::new(Meter::start(PACE));
    let vars = [
        ("FORWARD_ATTEMPTS", "2"),
        ("FORWARD_BACKOFF_MS", "200"),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("FORWARD_BUDGET_MS", "10000"),
    ];
    let router = serve(&meter, &vars);
    let (began, answers) = storm(&router, &meter).await;
    let arrivals = arrivals(&meter, began);
    let simulated = simulate(&scenario(json!({
        "attempts": 2, "backoff": 0.2, "timeout": 2, "budget": 10,
    })));
    assert_eq!(
        (&simulated["lost"], &simulated["delivered"]),
        (&json!(0.0), &json!(RATE * ARRIVING))
    );
    is_close("attempts", &simulated["attempts"], arrivals.len() as f64);
    let of_each = simulated["answers"].as_object().unwrap().values();
    let simulated_answers: f64 = of_each.map(|count| count.as_f64().unwrap()).sum();
    is_close("answers", &json!(simulated_answers), answers as f64);
    let last = arrivals.iter().copied().fold(0.0, f64::max);
    is_close("last delivery", &simulated["last_delivery"], last + PACE.as_secs_f64());
    have_the_shape(&arrivals, &simulated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_answer_events_wait_and_arrive_as_simulated() {
    let _turn = shared::turn().await;
    let meter = Arc::new(Meter::start(PACE));
    let router = serve(&meter, &[("ANSWER", "accepted"), ("INBOX_WORKERS", "10")]);
    let (began, answers) = storm(&router, &meter).await;
    let count = times().len();
    // Vendors hear 200 at once, and never come again.
    assert_eq!(answers, count);
    // The event before the start is one more.
    let served = || meter.seen().served.len();
    while served() <= count {
        assert!(began.elapsed() < Duration::from_secs(60), "{} are served", served());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrivals = arrivals(&meter, began);
    // The pauses before probes are random. So the simulation gets their times: the attempts during the outage
    // that come alone, and the first one after it.
    let alone = began + Duration::from_secs_f64(DOWN.0 + 0.4);
    let first_up = meter.seen().served.into_iter().find(|at| *at > alone).unwrap();
    let seen = meter.seen().arrivals;
    let probes = seen.iter().filter(|(at, _)| *at > alone && *at <= first_up);
    let probes: Vec<_> = probes.map(|(at, _)| (*at - began).as_secs_f64()).collect();
    let simulated = simulate(&scenario(json!({
        "answer": "accepted", "workers": 10, "timeout": 10, "probes": probes,
    })));
    assert_eq!((&simulated["lost"], &simulated["delivered"]), (&json!(0.0), &json!(count as f64)));
    is_close("attempts", &simulated["attempts"], arrivals.len() as f64);
    let last = arrivals.iter().copied().fold(0.0, f64::max);
    is_close("last delivery", &simulated["last_delivery"], last + PACE.as_secs_f64());
    have_the_shape(&arrivals, &simulated);
}
