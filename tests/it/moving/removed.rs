//! Events whose destination is no longer in the table: each becomes a dead letter that names the
//! destination, and is delivered when the destination is back.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;

use super::{event, table};
use crate::{
    operators::{self, Vars, run, serve},
    shared,
    support::{Sink, ok, sqlite, status},
};

const WHY: &str = "the destination old is not configured";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_events_of_a_removed_destination_wait_for_an_operator() {
    let folder = tempfile::tempdir().unwrap();
    removed_and_back(&[("STORE_URL", &sqlite(folder.path()))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_events_of_a_removed_destination_wait_for_an_operator() {
    removed_and_back(&[("STORE_URL", &shared::redis_database())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_redis_cluster_events_of_a_removed_destination_wait_for_an_operator() {
    let cluster = shared::redis_cluster().await;
    removed_and_back(&[("STORE_URL", &cluster.url())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_events_of_a_removed_destination_wait_for_an_operator() {
    let table = shared::dynamodb_table().await;
    let vars = table.vars();
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    removed_and_back(&vars).await;
}

/// Lets events fail and wait at a destination, removes it from the table, and adds it again.
async fn removed_and_back(store: &[(&str, &str)]) {
    let (old, other) = (Sink::start().await, Sink::start().await);
    let with = table(&[("old", &old.url, "0-255"), ("other", &other.url, "none")]);
    let without = table(&[("other", &other.url, "0-255")]);
    let vars = |table: &str, answer: &str| {
        let own = [
            ("DESTINATIONS", table),
            ("ANSWER", answer),
            ("RETRY_SCHEDULE", "0s,1s,1s"),
            ("FORWARD_ATTEMPTS", "1"),
            ("STORE_TIMEOUT_MS", "20000"),
            ("FAULT_ABANDONED_MS", "200"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        let all = own.iter().chain(store);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vars>()
    };

    // One event fails while its vendor waits. Another one is in the inbox while `old` is down.
    old.answers(status(StatusCode::SERVICE_UNAVAILABLE, "no"));
    let router = serve(&vars(&with, "delivered"));
    let failed = router.post(event(1)).await;
    assert_eq!(failed.status, 503, "{}", failed.text());
    drop(router);
    let mut router = serve(&vars(&with, "accepted"));
    let accepted = router.post(event(2)).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(accepted.header("x-webhook-destination"), Some("old"));
    // Attempts that are under way end first, so that no lease is left.
    router.terminate();
    router.wait();

    // Operators' commands find the event without the destination's table.
    let gone = vars(&without, "delivered");
    let pending = run(&gone, &["pending", "--destination", "old"]).await;
    let pending = String::from_utf8(pending.stdout).unwrap();
    assert!(pending.contains(" old v moved accepted="), "{pending}");

    // The vendor's retry keeps the destination that the event had.
    let router = serve(&gone);
    let again = router.post(event(1)).await;
    assert_eq!((again.status, again.header("x-webhook-destination")), (502, Some("old")));
    let letters = until(&gone, &router, |letters| letters.len() == 2).await;
    for letter in &letters {
        assert_eq!(letter["destination"], "old");
        let why = letter["failure"]["detail"].as_str().unwrap();
        assert!(why.ends_with(WHY), "{why}");
    }
    let key = letters[0]["key"].as_str().unwrap();
    let inspected = operators::text(&run(&gone, &["inspect", key]).await);
    assert!(inspected.contains("\ndestination  old\n") && inspected.contains(WHY), "{inspected}");
    let in_vain = run(&gone, &["replay", "--all"]).await;
    assert!(!in_vain.status.success());
    let said = operators::text(&in_vain);
    assert_eq!(said.matches(WHY).count(), 2, "{said}");
    let pending = run(&gone, &["pending"]).await;
    assert!(pending.stdout.is_empty(), "{}", operators::text(&pending));
    drop(router);

    // The vendor sends the event of the inbox again: it is accepted for its destination, and is a
    // dead letter again.
    let accepting = vars(&without, "accepted");
    let router = serve(&accepting);
    let again = router.post(event(2)).await.expect(200).says("accepted");
    assert_eq!(again.header("x-webhook-destination"), Some("old"));
    until(&accepting, &router, |letters| letters.len() == 2).await;
    drop(router);
    assert!(other.received().is_empty());

    old.take();
    old.answers(ok("done"));
    let back = run(&vars(&with, "delivered"), &["replay", "--all"]).await;
    assert!(back.status.success(), "{}", operators::text(&back));
    assert_eq!(old.take().len(), 2);
    assert!(other.received().is_empty());
}

/// Waits until the dead letters are as wanted, and returns them.
async fn until(
    vars: &Vars,
    router: &crate::support::Server,
    are_wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let listed = run(vars, &["dead-letters", "--json"]).await;
        let lines = String::from_utf8(listed.stdout).unwrap();
        let letters: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if are_wanted(&letters) {
            return letters;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{lines}\n{}", router.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_removed_destination_is_drained_and_discarded() {
    let (old, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let with = table(&[("old", &old.url, "0-255")]);
    let without = table(&[("other", &old.url, "0-255")]);
    let vars = |table: &str| {
        let own = [
            ("DESTINATIONS", table),
            ("ANSWER", "accepted"),
            ("STORE_URL", &store),
            ("FAULT_ABANDONED_MS", "0"),
        ];
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    old.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let mut router = serve(&vars(&with));
    for number in 0..3 {
        router.post(event(number)).await.expect(200);
    }
    // Attempts that are under way end first, so that no lease is left.
    router.terminate();
    router.wait();
    let drained = run(&vars(&without), &["drain"]).await;
    let said = operators::text(&drained);
    assert_eq!(said, "0 delivered, 0 to be tried again, 3 failed\n");
    assert!(drained.status.success());
    let inspected = run(&vars(&without), &["dead-letters"]).await;
    let text = operators::text(&inspected);
    assert_eq!(text.matches(WHY).count(), 3, "{text}");
    let discarded =
        run(&vars(&without), &["discard", "--all", "--yes", "--destination", "old"]).await;
    assert!(discarded.status.success(), "{}", operators::text(&discarded));
    let none = run(&vars(&without), &["dead-letters"]).await;
    assert!(none.stdout.is_empty());
}
