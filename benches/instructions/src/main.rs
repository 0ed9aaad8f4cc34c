//! Runs one piece of work a fixed number of times, for a count of its instructions
//! (`scripts/instruction_counts.py`).
//!
//! The input is the same in every run, and no clock, thread or random hash seed has a part in the work.
//! So two runs execute the same instructions.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the router's files hold more than the counted work")]

#[path = "../../functions/bodies.rs"]
mod bodies;
#[path = "../../../src/source/body.rs"]
mod body;
#[path = "../../../src/code_points.rs"]
mod code_points;
#[path = "../../../src/event.rs"]
mod event;
#[path = "../../../src/hex_digits.rs"]
mod hex_digits;
#[path = "../../../src/json/mod.rs"]
mod json;
#[path = "../../../src/key.rs"]
mod key;
#[path = "../../../src/lowercase.rs"]
mod lowercase;
#[path = "../../../src/secret.rs"]
mod secret;
#[path = "../../../src/timestamp/mod.rs"]
mod timestamp;

use std::hint::black_box;

use event::{Event, Identity};
use json::Document;
use key::{Key, RouteBytes, RoutingSecret};
use timestamp::Timestamp;

const KIB: usize = 1024;
const RUNS: usize = 10;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("key-1k") => digest(KIB),
        Some("key-64k") => digest(64 * KIB),
        Some("key-1m") => digest(1024 * KIB),
        Some("plan-1k") => key_and_route(KIB),
        _ => panic!("name the work: key-1k, key-64k, key-1m or plan-1k"),
    }
}

/// Parses a body, and hashes its canonical form.
fn digest(size: usize) {
    let text = bodies::order(size);
    repeat(&|| {
        black_box(Document::parse(black_box(text.as_bytes())).unwrap().digest());
    });
}

/// Derives key and route of an unsigned envelope, as `plan` does once the delivery is admitted.
fn key_and_route(size: usize) {
    let text = bodies::order(size);
    let secret = RoutingSecret::new("plainly-a-secret-of-the-benchmark");
    repeat(&|| {
        let document = Document::parse(black_box(text.as_bytes())).unwrap();
        let field = |name| document.root().get(name).unwrap().as_str().unwrap().unwrap();
        let event = Event {
            vendor: field("vendor"),
            source: None,
            event_type: field("event_type"),
            created_at: Timestamp::parse(&field("created_at")).ok(),
            digest: hex_digits::hex(&document.digest()),
            identity: Identity::Content,
        };
        let logical = event.logical();
        black_box((Key::derive(&secret, &logical), RouteBytes::derive(&secret, &logical)));
    });
}

/// Runs the work once, so that what is done only once is done, and then counted.
fn repeat(work: &dyn Fn()) {
    work();
    measured(work);
}

/// Marks the instructions that are counted.
#[inline(never)]
fn measured(work: &dyn Fn()) {
    for _ in 0..RUNS {
        work();
    }
}
