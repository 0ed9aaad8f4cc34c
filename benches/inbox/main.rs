//! Measures the costs of the inbox (`make bench-inbox`), and compares each with a reference from
//! the same run.
//!
//! `scale` lists and takes due events, with few and with many due events. `acceptance` compares an
//! answer at once with the destination's answer.

#[path = "../../tests/it/fixture/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the benchmark needs a part of the tests' building blocks"
)]
mod fixture;

mod acceptance;
mod scale;

use std::{process::ExitCode, time::Duration};

use fixture::{servers, support};

#[tokio::main]
async fn main() -> ExitCode {
    // cargo passes `--bench`.
    let chosen: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    let mut is_within = true;
    for name in ["sqlite", "redis", "dynamodb"] {
        if is_chosen("scale") || is_chosen(name) {
            is_within &= scale::run(name).await;
        }
    }
    if is_chosen("acceptance") {
        is_within &= acceptance::run().await;
    }
    if is_within {
        ExitCode::SUCCESS
    } else {
        eprintln!("a measured value exceeds its limit");
        ExitCode::FAILURE
    }
}

/// Sorts times, and returns a quantile of them: 0.5 is the median.
fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * part).round() as usize]
}

/// Returns a number from a variable, or the default.
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}
