//! Measures the functions that every delivery pays for (`make bench-functions`), beside SHA-256 of
//! the same body's canonical bytes.
//!
//! divan prints the time of each function. The ratios come after: both sides of a ratio take turns,
//! so that other load disturbs them alike. With FUNCTIONS_JSON, the ratios also go to that file.

mod bodies;

use std::{
    fmt,
    hint::black_box,
    time::{Duration, Instant},
};

use bodies::Body;
use chrono::DateTime;
use divan::{Bencher, counter::BytesCount};
use http::{HeaderMap, Method};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use webhook_router::{
    config::Intake, delivery::Delivery, json::Document, plan::plan, timestamp::Timestamp,
};

const KIB: usize = 1024;
const SECRET: &str = "plainly-a-secret-of-the-benchmark";

fn main() {
    divan::main();
    // divan has other work with these arguments: to list the benchmarks, or to test each once.
    if std::env::args().all(|argument| argument != "--list" && argument != "--test") {
        ratios();
    }
}

#[divan::bench(args = bodies())]
fn sha256_of_canonical_bytes(bencher: Bencher<'_, '_>, body: &Body) {
    let canonical = canonical(body);
    let counted = bencher.counter(BytesCount::of_slice(&canonical));
    counted.bench(|| Sha256::digest(black_box(&canonical)));
}

#[divan::bench(args = bodies())]
fn digest(bencher: Bencher<'_, '_>, body: &Body) {
    let counted = bencher.counter(BytesCount::of_str(&body.text));
    counted.bench(|| digest_of(black_box(body)));
}

#[divan::bench(args = bodies())]
fn key_and_route(bencher: Bencher<'_, '_>, body: &Body) {
    let (delivery, intake) = (delivery(body), intake());
    let counted = bencher.counter(BytesCount::of_str(&body.text));
    counted.bench(|| plan(black_box(&delivery), &intake, None, DateTime::UNIX_EPOCH));
}

#[divan::bench(args = ["2026-05-06T14:34:56.789+02:00", "Wed, 06 May 2026 12:34:56 GMT"])]
fn timestamp(text: &str) -> Timestamp {
    Timestamp::parse(black_box(text)).unwrap()
}

/// Compares the digest, and key and route, with SHA-256 alone.
fn ratios() {
    println!(
        "\nbody                 bytes  sha256 us  digest us  key us  digest/sha256  key/sha256"
    );
    // The page of benchmarks has only the orders. All the bodies take many minutes.
    let path = std::env::var("FUNCTIONS_JSON").ok();
    let bodies = if path.is_some() { orders() } else { bodies() };
    let rows: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (canonical, delivery, intake) = (canonical(body), delivery(body), intake());
            let [hash, digest, key] = medians([
                &|| {
                    black_box(Sha256::digest(black_box(&canonical)));
                },
                &|| {
                    black_box(digest_of(black_box(body)));
                },
                &|| {
                    let now = DateTime::UNIX_EPOCH;
                    drop(black_box(plan(black_box(&delivery), &intake, None, now)));
                },
            ])
            .map(|time| time.as_secs_f64() * 1e6);
            let bytes = body.text.len();
            let (of_digest, of_key) = (digest / hash, key / hash);
            println!(
                "{:<17} {bytes:>8} {hash:>10.2} {digest:>10.2} {key:>7.2} {of_digest:>14.2} {of_key:>11.2}",
                body.name,
            );
            json!({
                "body": body.name, "bytes": bytes, "canonical_bytes": canonical.len(),
                "sha256_us": hash, "digest_us": digest, "key_us": key,
                "digest_ratio": of_digest, "key_ratio": of_key,
            })
        })
        .collect();
    if let Some(path) = path {
        std::fs::write(path, json!(rows).to_string()).unwrap();
    }
}

/// Returns the median time of each function. The functions take turns.
fn medians<const N: usize>(functions: [&dyn Fn(); N]) -> [Duration; N] {
    const ROUNDS: usize = 101;
    // A clock's resolution does not matter for a turn of this length.
    const TURN: Duration = Duration::from_micros(100);
    let started = Instant::now();
    functions[0]();
    let runs = 1 + (TURN.as_nanos() / (started.elapsed().as_nanos() + 1)) as u32;
    let mut times = functions.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (function, times) in functions.iter().zip(&mut times) {
            let started = Instant::now();
            (0..runs).for_each(|_| function());
            times.push(started.elapsed() / runs);
        }
    }
    times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    })
}

/// Returns bodies of three sizes.
fn orders() -> Vec<Body> {
    let order = |name, size| Body { name, text: bodies::order(size) };
    vec![order("1 KB", KIB), order("64 KB", 64 * KIB), order("1 MB", 1024 * KIB)]
}

/// Returns the bodies to measure with: of three sizes, of other shapes, and of an attacker.
fn bodies() -> Vec<Body> {
    let mut all = orders();
    all.extend(bodies::shapes(64 * KIB));
    all.extend(bodies::hostile(1024 * KIB));
    all
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn canonical(body: &Body) -> Vec<u8> {
    let mut canonical = Vec::new();
    Document::parse(body.text.as_bytes()).unwrap().write_canonical(&mut canonical).unwrap();
    canonical
}

fn digest_of(body: &Body) -> [u8; 32] {
    Document::parse(body.text.as_bytes()).unwrap().digest()
}

fn delivery(body: &Body) -> Delivery {
    let (method, path, body) = (Method::POST, "/webhook".into(), body.text.clone().into());
    Delivery { method, path, query: None, headers: HeaderMap::new(), body }
}

fn intake() -> Intake {
    let variable = |name: &str| match name {
        "ROUTING_SECRET" => Some(SECRET.to_owned()),
        "ALLOW_UNSIGNED" => Some("true".to_owned()),
        _ => None,
    };
    Intake::from_vars(variable).unwrap()
}
