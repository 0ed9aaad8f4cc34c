//! Sends events to `serve` over a fixed number of connections. Compares answers at once with the
//! destination's answers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use axum::routing::any;
use tokio::{net::TcpListener, task::JoinSet};
use webhook_router::route::Route;

use crate::{
    number, quantile,
    servers::Redis,
    support::{Serve, client},
};

/// Least ratio of the events per second: with answers at once, to those with the destination's
/// answers.
const GAIN: f64 = 2.0;

/// Largest ratio of the 99th percentile with a slow destination to that with a fast one.
const SPREAD: f64 = 1.3;

const SLOW: Duration = Duration::from_millis(50);

/// The answers to the events of some runs.
#[derive(Default)]
struct Answers {
    times: Vec<Duration>,
    seconds: f64,
}

impl Answers {
    fn a_second(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    fn p99(&mut self) -> f64 {
        quantile(&mut self.times, 0.99).as_secs_f64() * 1e3
    }
}

/// Measures acceptances on SQLite and Redis, and returns whether they are within the limits.
pub async fn run() -> bool {
    let connections = number("CONNECTIONS", 16);
    let redis = Redis::start(&[]);
    let mut is_within = true;
    for (name, store) in [("sqlite", None), ("redis", Some(&redis))] {
        let [mut delivered, mut accepted, mut fast, mut slower] =
            [(); 4].map(|()| Answers::default());
        for _ in 0..number("ROUNDS", 3) {
            for (answers, delay, answer) in [
                (&mut delivered, SLOW, "delivered"),
                (&mut accepted, SLOW, "accepted"),
                (&mut fast, Duration::ZERO, "accepted"),
                (&mut slower, Duration::from_secs(2), "accepted"),
            ] {
                measure(answers, store, delay, answer, connections).await;
            }
        }
        let gain = accepted.a_second() / delivered.a_second();
        is_within &= gain >= GAIN;
        println!(
            "{name:8} {connections} connections, destination of 50 ms: {:.0} events a second \
             accepted, {:.0} delivered: {gain:.1} x",
            accepted.a_second(),
            delivered.a_second(),
        );
        let yardstick = fast.p99();
        for (milliseconds, answers) in [(0, fast), (50, accepted), (2000, slower)] {
            let p99 = { answers }.p99();
            let spread = p99 / yardstick;
            is_within &= spread <= SPREAD;
            println!(
                "{name:8} destination of {milliseconds:>4} ms: accepted with a p99 of {p99:.1} ms: \
                 {spread:.2} x",
            );
        }
    }
    is_within
}

/// Sends events for some seconds, to an empty store.
async fn measure(
    answers: &mut Answers,
    redis: Option<&Redis>,
    delay: Duration,
    answer: &str,
    connections: usize,
) {
    let serve = Serve::to_url(&destination(delay).await).only(Route::GCP).env("ANSWER", answer);
    // The log costs time.
    let mut serve = serve.env("STORE_TIMEOUT_MS", "10000").env("RUST_LOG", "error");
    if let Some(redis) = redis {
        redis.cli(&["FLUSHALL"]);
        serve = serve.store(&redis.url());
    }
    let router = serve.start();
    let until = Instant::now() + Duration::from_secs(number("SECONDS", 5) as u64);
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (url, client) = (router.webhook(), client());
        senders.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let answer = client.post(&url).body(event()).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
                times.push(began.elapsed());
            }
            times
        });
    }
    answers.times.extend(senders.join_all().await.concat());
    answers.seconds += began.elapsed().as_secs_f64();
}

/// Returns an event that no other call returns.
fn event() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(
        r#"{{"vendor":"v","event_type":"benchmark","created_at":"2026-05-06T12:34:56Z","number":{number}}}"#
    )
}

/// Starts a destination that answers after some time.
async fn destination(delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move || async move {
        tokio::time::sleep(delay).await;
        "done"
    };
    let app = axum::Router::new().fallback(any(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}
