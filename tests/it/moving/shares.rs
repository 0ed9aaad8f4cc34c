//! The share of the events that each destination of a table gets, and the events that another table
//! moves.

use std::{collections::BTreeMap, process::Command};

use chrono::Utc;
use http::StatusCode;
use serde_json::Value;
use webhook_router::config::{EXAMPLE_ROUTING_SECRET, Intake};

use super::{event, file, serve, table, told_moves};
use crate::support::{ROUTER, Server, Sink, delivery, end_of, lookup, ok, planned, sqlite, status};

/// Names and bytes of five destinations.
pub(super) const FIVE: [(&str, &str); 5] = [
    ("eu-1", "0-99"),
    ("eu-2", "100-149,250-255"),
    ("us_east", "150-199"),
    ("asia", "200-229"),
    ("lab", "230-249"),
];

/// The same destinations after a shift: `eu-1` gives bytes to `asia` and to a new destination.
pub(super) const SHIFTED: [(&str, &str); 6] = [
    ("eu-1", "0-59"),
    ("new", "60-79"),
    ("asia", "80-99,200-229"),
    ("eu-2", "100-149,250-255"),
    ("us_east", "150-199"),
    ("lab", "230-249"),
];

fn table_of(rows: &[(&str, &str)], url: &str) -> String {
    table(&rows.iter().map(|(name, bytes)| (*name, url, *bytes)).collect::<Vec<_>>())
}

pub(super) fn intake(rows: &[(&str, &str)]) -> Intake {
    let table = table_of(rows, "https://x.example.com");
    Intake::from_vars(lookup(&[
        ("ROUTING_SECRET", EXAMPLE_ROUTING_SECRET),
        ("ALLOW_UNSIGNED", "true"),
        ("DESTINATIONS", &table),
    ]))
    .unwrap()
}

/// Returns the destination of an event by its plan.
pub(super) fn place(number: usize, intake: &Intake) -> String {
    planned(&delivery(event(number)), intake, Utc::now()).unwrap().route.to_string()
}

/// Posts an event, and returns the destination that the answer names.
async fn posted(router: &Server, number: usize) -> String {
    let got = router.post(event(number)).await.expect(200);
    got.header("x-webhook-destination").unwrap().to_owned()
}

#[test]
fn a_hundred_thousand_events_fall_within_three_percent_of_their_shares() {
    const EVENTS: usize = 100_000;
    let intake = intake(&FIVE);
    let mut counts = BTreeMap::<_, usize>::new();
    for number in 0..EVENTS {
        *counts.entry(place(number, &intake)).or_default() += 1;
    }
    assert_eq!(counts.len(), FIVE.len());
    for (name, count) in counts {
        let bytes = intake.shares.count(name.parse().unwrap());
        let expected = EVENTS as f64 * bytes as f64 / 256.0;
        let off = (count as f64 - expected) / expected;
        assert!(off.abs() < 0.03, "{name}: {count} events, {expected} expected, {off}");
    }
}

#[tokio::test]
async fn the_same_events_go_to_the_same_places_in_two_processes_and_after_a_restart() {
    const EVENTS: usize = 200;
    let (sink, intake) = (Sink::start().await, intake(&FIVE));
    let serve = serve(&table_of(&FIVE, &sink.url));
    // Each process has a store of its own, so that none learns from the other.
    let (one, other) = (serve.start(), serve.start());
    let mut places = Vec::new();
    for number in 0..EVENTS {
        let place = place(number, &intake);
        assert_eq!(posted(&one, number).await, place);
        assert_eq!(posted(&other, number).await, place);
        places.push(place);
    }
    drop((one, other));
    let restarted = serve.start();
    for (number, place) in places.iter().enumerate() {
        assert_eq!(posted(&restarted, number).await, *place);
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), FIVE.len());
}

#[tokio::test]
async fn a_shift_moves_exactly_what_plan_shift_says_and_no_event_that_has_a_record() {
    const EVENTS: usize = 400;
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let (before, after) = (table_of(&FIVE, &sink.url), table_of(&SHIFTED, &sink.url));
    let file = |name: &str, text: &str| file(folder.path(), name, text);
    let bodies: Vec<_> = (0..EVENTS).map(event).collect();
    // Half of the bodies are in one file, one per line. One event is there twice.
    let (first, last) = bodies.split_at(EVENTS - 1);
    let lines = file("bodies.jsonl", &format!("{}\n\n{}\n", first.join("\n"), first[0]));
    let (from, to) = (file("from.toml", &before), file("to.toml", &after));
    let one = file("one.json", &last[0]);
    let shift = plan_shift(&["--json", "--from", &from, "--to", &to, &lines, &one]);
    let shift: Value = serde_json::from_str(&shift).unwrap();

    let url = sqlite(folder.path());
    let (old, new) = (serve(&before), serve(&after));
    let (with_records, without) = (old.clone().store(&url).start(), new.start());
    let (mut places, mut moves) = (Vec::new(), BTreeMap::<_, u64>::new());
    for number in 0..EVENTS {
        // The last event fails, and so has only a dead letter.
        if number == EVENTS - 1 {
            sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "no"));
            with_records.post(event(number)).await.expect(422);
            sink.answers(ok("done"));
        }
        let now = posted(&without, number).await;
        let then = match number == EVENTS - 1 {
            true => place(number, &intake(&FIVE)),
            false => posted(&with_records, number).await,
        };
        if then != now {
            *moves.entry((then.clone(), now)).or_default() += 1;
        }
        places.push(then);
    }
    assert_eq!(told_moves(&shift), moves);
    assert_eq!(shift["events"], EVENTS);
    assert_eq!(shift["moved"], moves.values().sum::<u64>());
    assert_eq!(moves.keys().map(|(from, _)| from.as_str()).collect::<Vec<_>>(), ["eu-1", "eu-1"]);
    for (name, ..) in SHIFTED {
        let count = places.iter().filter(|place| *place == name).count();
        assert_eq!(shift["destinations"][name]["before"], count, "{name}");
    }

    drop(with_records);
    let shifted = new.store(&url).start();
    for (number, place) in places.iter().enumerate() {
        assert_eq!(posted(&shifted, number).await, *place, "{number}");
    }
}

#[test]
fn plan_shift_compares_a_threshold_with_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| file(folder.path(), name, text);
    let rows = [("gcp", "0-127"), ("aws", "128-199"), ("new", "200-255")];
    let from = file("from.env", "ROUTE_THRESHOLD=128\n");
    let to = file("to.toml", &table_of(&rows, "https://x.example.com"));
    let bodies: Vec<_> = (0..1000).map(event).collect();
    let bodies = file("bodies.ndjson", &bodies.join("\n"));
    let text = plan_shift(&["--from", &from, "--to", &to, &bodies]);
    assert!(text.contains("  aws -> new: ") && !text.contains("gcp ->"), "{text}");
    assert!(text.ends_with("Events that have a record keep their destination.\n"), "{text}");
    let stripe =
        plan_shift(&["--json", "--source", "stripe", "--from", &from, "--to", &to, &bodies]);
    assert!(stripe.contains("\"events\":1000"), "{stripe}");

    for (text, problem) in [
        (
            "",
            "line 1: `ROUTE_THRESHOLD` is missing: the text has neither it nor [destinations.NAME]",
        ),
        ("ROUTE_THRESHOLD = 257", "line 1: `ROUTE_THRESHOLD` must be a whole number from 0 to 256"),
        (
            "[destinations.a]\nkind = \"http\"\nurl = \"https://x.dev\"\nbytes = \"0-254\"",
            "byte 255 belongs to none",
        ),
    ] {
        let wrong = file("wrong.toml", text);
        let args = ["plan-shift", "--from", &from, "--to", &wrong, &bodies];
        let output = end_of(Command::new(ROUTER).env_clear().args(args));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}

/// Returns the output of the command `plan-shift`.
pub(super) fn plan_shift(args: &[&str]) -> String {
    let output = end_of(Command::new(ROUTER).env_clear().arg("plan-shift").args(args));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
