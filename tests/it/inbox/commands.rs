//! Operators' commands for accepted events.

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use serde_json::Value;
use webhook_router::route::Route;

use super::{crash::Place, event, vars};
use crate::{
    operators::{run, serve},
    rough_destination::{Behaviour, Rough},
    support::{Server, Sink, delivery, ok, plan_of, sqlite, status},
};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn operators_list_replay_and_discard_accepted_events() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    // No attempt is due for a day, so only replays deliver events.
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "1day,1day")]);
    let router = serve(&vars);
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        let got = router.post(event(name)).await;
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    let pending = run(&vars, &["pending"]).await;
    assert_eq!(text(&pending).lines().count(), 3);
    assert!(text(&pending).contains("gcp v one accepted="), "{}", text(&pending));
    assert_eq!(text(&run(&vars, &["pending", "--due"]).await), "");
    assert_eq!(text(&run(&vars, &["pending", "--vendor", "other"]).await), "");
    let json = text(&run(&vars, &["pending", "--json", "--destination", "gcp"]).await);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["state"], &first["tries"]), (&"waiting".into(), &0.into()));
    assert!(first["next_attempt_at"].is_string() && first["accepted_at"].is_string());
    assert_eq!(text(&run(&vars, &["pending", "--since", "2999-01-01T00:00:00Z"]).await), "");
    assert_eq!(
        text(&run(&vars, &["pending", "--since", "1h", "--vendor", "V"]).await),
        text(&pending)
    );
    let inspected = text(&run(&vars, &["inspect", "--delivery", &keys[0]]).await);
    assert!(inspected.contains("state        waiting"), "{inspected}");
    assert!(
        inspected.contains("next attempt ") && !inspected.contains("last failure"),
        "{inspected}"
    );
    assert!(inspected.contains("\nPOST /webhook\n"), "{inspected}");
    assert!(inspected.ends_with(&format!("\n\n{}\n", event("one"))), "{inspected}");
    let json = run(&vars, &["inspect", "--json", "--delivery", &keys[0]]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["delivery"]["body"], event("one"));

    // `drain` delivers only events that are due, and none is due.
    let drained = run(&vars, &["drain"]).await;
    assert_eq!(text(&drained), "0 delivered, 0 to be tried again, 0 failed\n");
    assert!(sink.received().is_empty());
    let replayed = run(&vars, &["replay", &keys[0]]).await;
    assert!(replayed.status.success() && text(&replayed).ends_with(": delivered\n"));
    // The record still says that the event was accepted, and when.
    let delivered = text(&run(&vars, &["inspect", "--delivery", &keys[0]]).await);
    assert!(delivered.contains("state        delivered"), "{delivered}");
    assert!(delivered.contains("\naccepted     2"), "{delivered}");
    assert!(
        delivered.ends_with(
            "\nno delivery is kept: the event is neither a dead letter nor in the inbox\n"
        )
    );
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let replayed = run(&vars, &["replay", &keys[1]]).await;
    assert!(!replayed.status.success());
    let line = text(&replayed);
    assert!(line.contains(": gcp: failed, and is tried again later: "), "{line}");
    let says = String::from_utf8_lossy(&replayed.stderr).into_owned();
    assert!(says.contains("shows the last failure and the time of the next attempt"), "{says}");
    assert!(!says.contains("answer"), "{says}");
    let inspected = text(&run(&vars, &["inspect", &keys[1]]).await);
    assert!(
        inspected.contains("\ntries        1 (used entries of RETRY_SCHEDULE)\n"),
        "{inspected}"
    );
    assert!(inspected.contains("\nlast failure 502\n"), "{inspected}");
    let discarded = run(&vars, &["discard", &keys[2]]).await;
    assert!(discarded.status.success());
    let json = text(&run(&vars, &["pending", "--json"]).await);
    let left: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&left["key"], &left["tries"]), (&(&*keys[1]).into(), &1.into()));
    assert_eq!(left["attempts"][0]["by"], "replay");
}

#[tokio::test]
async fn all_pending_events_or_some_are_replayed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "1day,1day")]);
    let router = serve(&vars);
    for number in 0..20 {
        let vendor = if number < 5 { "few" } else { "many" };
        let body = event(&number.to_string())
            .replace(r#""vendor":"v""#, &format!("\"vendor\":{vendor:?}"));
        router.post(body).await;
    }
    drop(router);
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let hint = "not included: 20 accepted events in the inbox";
    let all = run(&vars, &["replay", "--all"]).await;
    assert!(all.status.success() && text(&all) == "0 delivered\n");
    assert!(stderr(&all).contains(&format!("{hint}; `replay --pending` tries them now")));
    let all = run(&vars, &["discard", "--all", "--yes"]).await;
    assert!(all.status.success() && stderr(&all).contains(hint), "{}", stderr(&all));
    let alone = run(&vars, &["replay", "--vendor", "few", "00000000"]).await;
    assert!(stderr(&alone).contains("filters need --all or --pending"), "{}", stderr(&alone));
    let both = run(&vars, &["replay", "--all", "--pending"]).await;
    assert!(!both.status.success() && sink.received().is_empty());

    let dry = run(&vars, &["replay", "--pending", "--dry-run"]).await;
    assert!(dry.status.success() && sink.received().is_empty());
    assert_eq!(text(&dry), text(&run(&vars, &["pending"]).await));
    assert!(stderr(&dry).contains("20 to replay; nothing was sent"), "{}", stderr(&dry));
    let none = run(&vars, &["replay", "--pending", "--destination", "aws"]).await;
    assert_eq!(text(&none), "0 delivered\n");
    let few = run(&vars, &["replay", "--pending", "--vendor", "FEW", "--since", "1h"]).await;
    assert_eq!(text(&few), "5 delivered\n", "{}", stderr(&few));
    // A destination that is down uses up no schedule.
    sink.take();
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let in_vain = run(&vars, &["replay", "--pending", "--per-second", "100"]).await;
    assert!(!in_vain.status.success() && text(&in_vain).ends_with("0 delivered, 15 failed\n"));
    let pending = text(&run(&vars, &["pending", "--due"]).await);
    assert_eq!(pending.matches("tries=0").count(), 15, "{pending}");
    assert!(text(&run(&vars, &["dead-letters"]).await).is_empty());
    sink.answers(ok("done"));
    let many = run(&vars, &["replay", "--pending"]).await;
    assert!(many.status.success() && stderr(&many).is_empty(), "{}", stderr(&many));
}

#[tokio::test]
async fn what_waits_is_told_with_its_next_attempt_while_a_message_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    let store = Place::at(&url).await.store;
    let (now, hour) = (Utc::now(), TimeDelta::hours(1));
    let (due, look) = (now + hour, now + hour + hour);
    let mut plan = plan_of("waiting");
    plan.route = Route::GCP;
    store.accept(&plan, &delivery("{}"), now, due, look).await.unwrap();
    let drained = run(&vars, &["drain", "--json"]).await;
    let drained: Value = serde_json::from_slice(&drained.stdout).unwrap();
    let next: DateTime<Utc> = serde_json::from_value(drained["next_attempt_at"].clone()).unwrap();
    assert!((next - due).abs() < TimeDelta::seconds(1), "{drained}");
}

#[tokio::test]
async fn what_is_due_is_drained_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "0s,1day")]);
    let mut router = serve(&vars);
    for number in 0..100 {
        router.post(event(&number.to_string())).await;
    }
    // The router finishes the attempts under way.
    router.terminate();
    let ended = tokio::task::spawn_blocking(move || router.wait()).await.unwrap();
    assert!(ended.success());
    // A destination that is down gets one attempt of each drain, which does not count.
    sink.take();
    for _ in 0..2 {
        let down = run(&vars, &["drain"]).await;
        assert!(!down.status.success());
        let says = String::from_utf8_lossy(&down.stderr).into_owned();
        assert!(says.contains("gcp is down (it cannot be reached, or answers 503)"), "{says}");
        assert!(says.contains("100 accepted events left; the next attempt is due now"), "{says}");
        assert_eq!(sink.take().len(), 1);
    }
    let down = run(&vars, &["drain", "--json"]).await;
    let drained: Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!(drained["down"], serde_json::json!(["gcp"]), "{drained}");
    assert_eq!((&drained["postponed"], &drained["pending"]), (&1.into(), &100.into()), "{drained}");
    assert!(drained["next_attempt_at"].is_string(), "{drained}");
    // One event is refused for now, so it waits for a day.
    sink.take();
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let first = text(&run(&vars, &["pending"]).await);
    let first = first.split(' ').nth(1).unwrap().to_owned();
    assert!(!run(&vars, &["replay", &first]).await.status.success());
    sink.take();
    sink.answers(ok("done"));
    let drained = run(&vars, &["drain"]).await;
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(text(&drained), "99 delivered, 0 to be tried again, 0 failed\n");
    let says = String::from_utf8_lossy(&drained.stderr).into_owned();
    assert!(says.contains("1 accepted event left; the next attempt is due at 2"), "{says}");
    assert_eq!(sink.take().len(), 99);
}

#[tokio::test]
async fn a_drain_is_patient_with_a_function_that_is_throttled() {
    const EVENTS: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    // Lambda takes each third request, or none.
    let (requests, is_full) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let refuses = Arc::clone(&is_full);
    let throttled = "x-amzn-errortype: TooManyRequestsException\r\n";
    let processor = Rough::start(move |_| {
        let request = requests.fetch_add(1, Ordering::SeqCst);
        match refuses.load(Ordering::SeqCst) || request % 3 < 2 {
            true => Behaviour::Invoke(429, throttled, "{}"),
            false => Behaviour::Status(200, None),
        }
    })
    .await;
    let more = [
        ("STORE_URL", url.as_str()),
        ("RETRY_SCHEDULE", "1h"),
        ("ROUTE_THRESHOLD", "0"),
        ("AWS_ENDPOINT_URL_LAMBDA", &processor.url),
    ];
    let vars = vars(&sink, &more);
    let router = serve(&vars);
    for number in 0..EVENTS {
        router.post(event(&number.to_string())).await;
    }
    drop(router);
    let file = rusqlite::Connection::open(url.trim_start_matches("sqlite:")).unwrap();
    file.execute("UPDATE events SET due = 1", []).unwrap();
    is_full.store(true, Ordering::SeqCst);
    let busy = run(&vars, &["drain"]).await;
    let says = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(!busy.status.success() && !says.contains("is down"), "{says}");
    assert!(says.contains("aws is busy (Lambda throttles the function)"), "{says}");
    assert_eq!(text(&busy), "0 delivered, 5 to be tried again, 0 failed\n");
    is_full.store(false, Ordering::SeqCst);
    let drained = run(&vars, &["drain"]).await;
    let says = String::from_utf8_lossy(&drained.stderr).into_owned();
    assert!(drained.status.success(), "{says}");
    assert!(text(&drained).starts_with(&format!("{EVENTS} delivered, ")), "{}", text(&drained));
}

#[tokio::test]
async fn operators_are_told_what_is_answered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let sources = r#"
        sources.slow = { vendor = "github", secrets = ["plainly-for-a-test"], answer = "delivered" }
    "#;
    let more = [("STORE_URL", &*url), ("SOURCES", sources), ("RETRY_SCHEDULE", "1day, 90min")];
    let accepting = vars(&sink, &more);
    let body = folder.path().join("body.json");
    std::fs::write(&body, event("explained")).unwrap();
    let body = body.to_str().unwrap();
    let explained = text(&run(&accepting, &["explain", body]).await);
    assert!(explained.ends_with("  answered     at once, before the delivery\n"), "{explained}");
    let explained = run(&accepting, &["explain", "--json", body]).await;
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(explained["answer"], "accepted");
    let doctor = text(&run(&accepting, &["doctor", "--listen", "0"]).await);
    let finding = "ANSWER: events are answered at once, before they are delivered; those of \
                   /webhook/slow when they are delivered\n";
    assert!(doctor.contains(finding), "{doctor}");

    let line_of = |router: &Server, what: &str| {
        let log = router.log();
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{log}"));
        serde_json::from_str::<Value>(line).unwrap()
    };
    let line = line_of(&serve(&accepting), "delivering accepted events");
    assert_eq!((&line["answer"], &line["workers"]), (&"accepted".into(), &16.into()), "{line}");
    assert_eq!(line["schedule"], "1day,1h 30m");
    let delivering = [accepting, vec![("ANSWER".into(), "delivered".into())]].concat();
    let line = line_of(
        &serve(&delivering),
        "events are answered when they are delivered; accepted events that are left",
    );
    assert_eq!((&line["answer"], &line["workers"]), (&"delivered".into(), &16.into()), "{line}");
}

#[tokio::test]
async fn an_event_whose_record_cannot_be_read_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "1day")]);
    let router = serve(&vars);
    let mut keys = Vec::new();
    for number in 0..20 {
        let got = router.post(event(&number.to_string())).await;
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    drop(router);
    let file = rusqlite::Connection::open(url.trim_start_matches("sqlite:")).unwrap();
    file.execute("UPDATE events SET due = 1", []).unwrap();
    file.execute("UPDATE events SET details = '{' WHERE key = ?1", [&keys[0]]).unwrap();
    for delivered in [19, 0] {
        let drained = run(&vars, &["drain", "--json"]).await;
        let log = String::from_utf8_lossy(&drained.stderr);
        assert!(!drained.status.success() && log.contains(&keys[0]), "{log}");
        let drained: Value = serde_json::from_slice(&drained.stdout).unwrap();
        assert_eq!(drained["delivered"], delivered, "{drained}");
    }
    assert_eq!(sink.take().len(), 19);
}
