//! The release build in AWS's emulator, which runs one invocation at a time, as an instance of the function does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{is_close, mean, simulate};
use crate::{
    emulator::{Artefact, Emulator, event},
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
