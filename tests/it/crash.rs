//! The state after a crash at every step. The process ends itself before and after each call of the
//! store and of the destination.
//!
//! docs/guarantees.md says how often the event may arrive after such a crash.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use webhook_router::route::Route;

use crate::{
    servers::DynamoDbLocal,
    shared,
    support::{Got, PAYLOAD, Serve, Sink, client, ok, sqlite, status},
};

/// The place where the process ends, whether the destination accepts the event if it arrives before
/// the crash, and how often the event arrives in the end.
const STEPS: [(&str, bool, usize); 19] = [
    ("before claim", true, 1),
    ("after claim", true, 1),
    ("before send", true, 1),
    // The event arrived, but that is not recorded.
    ("after send", true, 2),
    ("before settle", true, 2),
    // SQLite has not committed the success, so the event arrives again.
    ("before finish commits", true, 2),
    // Redis and DynamoDB have the success, so the vendor's next delivery is a duplicate.
    ("after finish writes", true, 1),
    ("after settle", true, 1),
    ("before claim", false, 1),
    ("after claim", false, 1),
    ("before send", false, 1),
    ("after send", false, 2),
    // The process ends during the second attempt.
    ("before send:2", false, 2),
    ("after send:2", false, 3),
    // Both attempts failed, and the next delivery makes the third.
    ("before settle", false, 3),
    ("before letter is stored", false, 3),
    ("after settle", false, 3),
    // The process ends after the claim of a dead letter, or after that delivery ends.
    ("after claim:2", false, 3),
    ("after settle:2", false, 5),
];

#[tokio::test]
async fn on_sqlite_every_event_arrives_as_often_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    at_every_step([("STORE_URL", sqlite(folder.path()))].into()).await;
}

#[tokio::test]
async fn on_redis_every_event_arrives_as_often_as_promised() {
    at_every_step([("STORE_URL", shared::redis_database())].into()).await;
}

#[tokio::test]
async fn on_dynamodb_every_event_arrives_as_often_as_promised() {
    let dynamodb = DynamoDbLocal::start().await;
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let endpoint = ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url.clone());
    at_every_step(vec![("STORE_URL", table), endpoint]).await;
}

/// The variables of a router's store.
type Vars = Vec<(&'static str, String)>;

async fn at_every_step(store: Vars) {
    let is_sqlite = store[0].1.starts_with("sqlite:");
    // The first use of a store takes longer than any other.
    let sink = Sink::start().await;
    let router = Serve::to(&sink).envs(store.clone()).start();
    while router.post(PAYLOAD).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut trials = JoinSet::new();
    let other = if is_sqlite { "after finish writes" } else { "before finish commits" };
    for (step, taken, arrivals) in STEPS.into_iter().filter(|step| step.0 != other) {
        trials.spawn(crash(store.clone(), step, taken, arrivals));
    }
    trials.join_all().await;
}

async fn crash(store: Vars, step: &str, taken: bool, arrivals: usize) {
    let what = format!("{step}, {taken}");
    let sink = Sink::start().await;
    sink.answers(if taken { ok("done") } else { status(StatusCode::BAD_GATEWAY, "no") });
    let serve = Serve::to(&sink).only(Route::GCP).envs(store).envs([
        ("FORWARD_ATTEMPTS", "2"),
        // Many routers start at once. A lease lasts this budget, plus four store timeouts, plus a
        // second.
        ("FORWARD_BUDGET_MS", "6000"),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("STORE_TIMEOUT_MS", "3000"),
    ]);
    let body = format!(
        r#"{{"vendor":"v","event_type":{what:?},"created_at":"2026-05-06T12:34:56Z","n":1.50}}"#
    );
    let start = |serve: Serve| tokio::task::spawn_blocking(move || serve.start());
    // The first router ends at the fault point. Before that, the vendor gets no answer, or an
    // answer that is not a success.
    let router = start(serve.clone().env("FAULT_POINT", step)).await.unwrap();
    let mut posts = 0;
    while let Ok(answer) = client().post(router.webhook()).body(body.clone()).send().await {
        posts += 1;
        assert!(posts < 6, "{what}: the router did not end\n{}", router.log());
        let wait = answer.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap());
        if let Some(seconds) = wait {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
        }
    }
    drop(router);
    let router = start(serve).await.unwrap();
    sink.answers(ok("done"));
    let mut answers: Vec<Got> = Vec::new();
    loop {
        let got = router.post(body.clone()).await;
        let wait = got.header("retry-after").map(|seconds| seconds.parse().unwrap());
        let is_taken = got.status == 200;
        answers.push(got);
        if is_taken {
            break;
        }
        // Every answer has a `Retry-After`. At that time, a lease has ended or is about to end.
        let wait = wait.unwrap_or_else(|| panic!("{what}: {answers:?}\n{}", router.log()));
        assert!(answers.len() < 6, "{what}: {answers:?}\n{}", router.log());
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
    let again = router.post(body.clone()).await;
    assert_eq!(again.text(), "duplicate ignored", "{what}");
    let received = sink.take();
    assert_eq!(received.len(), arrivals, "{what}: {answers:?}");
    let first = &received[0];
    for one in &received {
        assert_eq!((&one.path, &one.body), (&first.path, &body.clone().into()), "{what}");
        assert_eq!(one.header("idempotency-key"), first.header("idempotency-key"), "{what}");
    }
}
