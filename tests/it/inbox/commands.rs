//! Operators' commands for accepted events.

use std::process::Output;

use http::StatusCode;
use serde_json::Value;

use super::{event, vars};
use crate::{
    operators::{run, serve},
    support::{Sink, client, ok, post, sqlite, status},
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
        let got = post(&client(), &router.webhook(), event(name)).await;
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
    let inspected = text(&run(&vars, &["inspect", &keys[0]]).await);
    assert!(inspected.contains("state        waiting"), "{inspected}");
    assert!(inspected.contains("next attempt "), "{inspected}");

    // `drain` delivers only events that are due, and none is due.
    let drained = run(&vars, &["drain"]).await;
    assert_eq!(text(&drained), "0 delivered, 0 to be tried again, 0 failed\n");
    assert!(sink.received().is_empty());
    let replayed = run(&vars, &["replay", &keys[0]]).await;
    assert!(replayed.status.success() && text(&replayed).ends_with(": delivered\n"));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let replayed = run(&vars, &["replay", &keys[1]]).await;
    assert!(!replayed.status.success());
    let line = text(&replayed);
    assert!(line.contains(": gcp: failed, and is tried again later: "), "{line}");
    let discarded = run(&vars, &["discard", &keys[2]]).await;
    assert!(discarded.status.success());
    let json = text(&run(&vars, &["pending", "--json"]).await);
    let left: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&left["key"], &left["tries"]), (&(&*keys[1]).into(), &1.into()));
    assert_eq!(left["attempts"][0]["by"], "replay");
}

#[tokio::test]
async fn what_is_due_is_drained_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    // An event that was tried is not due again for a day.
    let vars =
        vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "0s,1day"), ("INBOX_WORKERS", "2")]);
    let mut router = serve(&vars);
    for number in 0..100 {
        post(&client(), &router.webhook(), event(&number.to_string())).await;
    }
    // The router finishes the attempts under way.
    router.terminate();
    let ended = tokio::task::spawn_blocking(move || router.wait()).await.unwrap();
    assert!(ended.success());
    let tried = sink.take().len();
    let down = run(&vars, &["drain"]).await;
    assert!(!down.status.success());
    let probed = sink.take().len();
    assert!((1..=2).contains(&probed), "{probed}");
    sink.answers(ok("done"));
    let drained = run(&vars, &["drain", "--json"]).await;
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    let drained: Value = serde_json::from_slice(&drained.stdout).unwrap();
    assert_eq!(drained["delivered"], 100 - tried - probed, "{drained}");
    assert_eq!(sink.take().len(), 100 - tried - probed);
}

#[tokio::test]
async fn an_event_whose_record_cannot_be_read_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "1day")]);
    let router = serve(&vars);
    let mut keys = Vec::new();
    for number in 0..20 {
        let got = post(&client(), &router.webhook(), event(&number.to_string())).await;
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
