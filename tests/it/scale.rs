//! The simulator (`scripts/simulate`) beside real runs of `serve` and of the function in AWS's emulator, at a
//! small scale. Its figures are within 15% of the real ones.
//!
//! Destinations that take their time, and limits, decide the figures that are compared. So a busy machine
//! changes them little.

mod rie; // The function in the emulator.
mod storm; // A destination that is down, and vendors that come again.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use webhook_router::route::Route;

use crate::{
    inbox::event,
    meter::Meter,
    shared,
    support::{Serve, Server, client, post},
};

/// Largest difference between a simulated and a real figure, as a part of the real one.
const TOLERANCE: f64 = 0.15;

/// Runs a scenario, and returns its figures.
fn simulate(scenario: &Value) -> Value {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut simulator = Command::new("python3")
        .args(["-B", "-m", "simulate", "--run"])
        .current_dir(scripts)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is missing");
    simulator.stdin.take().unwrap().write_all(scenario.to_string().as_bytes()).unwrap();
    let output = simulator.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_page_has_the_figures_of_the_benchmarks_and_of_the_simulation() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut check = Command::new("python3");
    check.args(["-B", "-m", "simulate", "--check"]).current_dir(scripts);
    let checked = check.output().expect("python3 is missing");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Asserts that a simulated figure is close to the real one.
#[track_caller]
fn is_close(what: &str, simulated: &Value, real: f64) {
    let simulated = simulated.as_f64().unwrap_or_else(|| panic!("{what}: {simulated}"));
    println!("{what}: simulated {simulated:.3}, real {real:.3}");
    let difference = (simulated - real).abs();
    assert!(difference <= TOLERANCE * real.abs(), "{what}: simulated {simulated}, real {real}");
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

/// Creates a router that sends every event to a meter, over Redis.
fn to(meter: &Meter, more: &[(&str, &str)]) -> Serve {
    let common = [("STORE_TIMEOUT_MS", "20000"), ("METRICS_LISTEN", "off")];
    let serve = Serve::to_url(&meter.url).only(Route::GCP).store(&shared::redis_database());
    serve.envs(common).envs(more.iter().copied())
}

fn start(serve: &Serve) -> Server {
    let router = serve.start();
    router.checked();
    router
}

/// Returns the times, in seconds, of events that come at this many per second in turn, for four seconds each.
fn times(rates: &[u32]) -> Vec<f64> {
    let mut times = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let of_rate = (0..4 * rate).map(|n| 4.0 * index as f64 + f64::from(n) / f64::from(*rate));
        times.extend(of_rate);
    }
    times
}

/// Posts an event at each of these times. Returns the start of the run, and each answer's status and time.
async fn post_at(router: &Server, times: &[f64]) -> (Instant, Vec<(u16, f64)>) {
    let (client, url) = (client(), router.webhook());
    // The connections come up before the clock starts.
    post(&client, &url, event("first")).await;
    let began = Instant::now();
    let posts = times.iter().enumerate().map(|(number, time)| {
        let (client, url) = (client.clone(), url.clone());
        let at = began + Duration::from_secs_f64(*time);
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let got = post(&client, &url, event(&number.to_string())).await;
            (got.status, at.elapsed().as_secs_f64())
        })
    });
    let answers = join_all(posts).await.into_iter().map(Result::unwrap).collect();
    (began, answers)
}

/// A burst beyond what a limited destination takes: the others wait for room.
const RATES: [u32; 3] = [6, 18, 3];
const PACE: Duration = Duration::from_millis(1200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_at_a_limited_destination_is_answered_as_simulated() {
    let _turn = shared::turn().await;
    let meter = Meter::start(PACE);
    let router = start(&to(&meter, &[("GCP_MAX_CONCURRENT", "12")]));
    let times = times(&RATES);
    let (began, answers) = post_at(&router, &times).await;
    let last = began.elapsed().as_secs_f64();
    let simulated = simulate(&json!({
        "place": "serve", "store": "redis", "arrivals": { "kind": "given", "times": times },
        "until": 60, "max_concurrent": 12, "destination": { "median": 1.2, "p99": 1.2 },
    }));
    assert_eq!(simulated["answers"], json!({ "200": times.len() as f64 }));
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    let seen = meter.seen();
    assert_eq!(simulated["at_destination_most"], seen.most_at_once as f64);
    assert_eq!(simulated["attempts"], (seen.arrivals.len() - 1) as f64);
    let answers: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
    is_close("mean time of an answer", &simulated["answer_mean"], mean(&answers));
    is_close("last answer", &simulated["last_delivery"], last);
    // Little's law: the concurrency is the rate times the time of an answer.
    is_close("seconds of deliveries", &simulated["busy_seconds"], answers.iter().sum());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_accepted_events_is_delivered_as_simulated() {
    let _turn = shared::turn().await;
    let meter = Meter::start(PACE);
    let router = start(&to(&meter, &[("ANSWER", "accepted"), ("INBOX_WORKERS", "12")]));
    let times = times(&RATES);
    let (began, answers) = post_at(&router, &times).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    while meter.count() <= times.len() {
        assert!(began.elapsed() < Duration::from_secs(60), "{} arrived", meter.count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let simulated = simulate(&json!({
        "answer": "accepted", "place": "serve", "store": "redis",
        "arrivals": { "kind": "given", "times": times }, "until": 60, "workers": 12,
        "destination": { "median": 1.2, "p99": 1.2 },
    }));
    let seen = meter.seen();
    assert_eq!(simulated["at_destination_most"], seen.most_at_once as f64);
    assert_eq!(simulated["attempts"], (seen.arrivals.len() - 1) as f64);
    let arrivals = seen.arrivals.iter().filter(|(at, _)| *at >= began);
    let arrivals: Vec<_> = arrivals.map(|(at, _)| (*at - began + PACE).as_secs_f64()).collect();
    let last = arrivals.iter().copied().fold(0.0, f64::max);
    is_close("last delivery", &simulated["last_delivery"], last);
    // An event is delivered so long after it came to be, on average.
    is_close("mean delay", &simulated["delay_mean"], mean(&arrivals) - mean(&times));
}

#[test]
fn equal_seeds_give_equal_figures_and_other_seeds_others() {
    let scenario = |seed: u32, answer: &str| {
        json!({
            "seed": seed, "answer": answer, "arrivals": { "kind": "steady", "rate": 100 },
            "arriving": 20, "until": 20, "destination": { "outages": [[5, 10, "refuses"]] },
        })
    };
    for answer in ["delivered", "accepted"] {
        let first = simulate(&scenario(1, answer));
        assert_eq!(simulate(&scenario(1, answer)), first);
        assert_ne!(simulate(&scenario(2, answer))["arrivals"], first["arrivals"]);
        assert_eq!(first["lost"], json!(0.0));
    }
}
