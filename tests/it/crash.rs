//! The state after a crash at every step: the process ends itself there, before and after each call
//! of the store and of the destination.
//!
//! docs/guarantees.md says how often the event may arrive then.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;

use crate::{
    servers::{DynamoDbLocal, Redis},
    support::{Got, Server, Sink, client, ok, post, sqlite, status},
};

/// The place where the process ends, whether the destination accepts the event before, and how
/// often the event arrives in the end.
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
    // The second attempt.
    ("before send:2", false, 2),
    ("after send:2", false, 3),
    // Both attempts failed, and the next delivery makes the third.
    ("before settle", false, 3),
    ("before letter is stored", false, 3),
    ("after settle", false, 3),
    // The claim after a dead letter, and the end of its delivery.
    ("after claim:2", false, 3),
    ("after settle:2", false, 5),
];

#[tokio::test]
async fn after_a_crash_at_any_step_every_event_arrives_as_often_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let (redis, dynamodb) = (Redis::start(&[]), DynamoDbLocal::start().await);
    // The first write to a new DynamoDB Local takes long.
    let warm = aws_sdk_dynamodb::Client::new(&dynamodb.sdk).put_item();
    let key = aws_sdk_dynamodb::types::AttributeValue::S("warm".into());
    warm.table_name(DynamoDbLocal::TABLE).item("key", key).send().await.unwrap();
    let (sqlite, redis_url) = (sqlite(folder.path()), redis.url());
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let mut trials = JoinSet::new();
    for store in [sqlite, redis_url, table] {
        for (step, taken, arrivals) in STEPS {
            let (store, endpoint) = (store.clone(), dynamodb.url.clone());
            let is_sqlite = store.starts_with("sqlite:");
            if step == if is_sqlite { "after finish writes" } else { "before finish commits" } {
                continue;
            }
            trials.spawn(async move { crash(&store, &endpoint, step, taken, arrivals).await });
        }
    }
    trials.join_all().await;
}

async fn crash(store: &str, dynamodb: &str, step: &str, taken: bool, arrivals: usize) {
    let what = format!("{store}, {step}, {taken}");
    let sink = Sink::start().await;
    sink.answers(if taken { ok("done") } else { status(StatusCode::BAD_GATEWAY, "no") });
    let vars = [
        ("STORE_URL", store),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("ROUTE_THRESHOLD", "256"),
        ("FORWARD_ATTEMPTS", "2"),
        // The times are long because many routers start at once. A lease lasts for the budget, four
        // times the store's timeout, and a second.
        ("FORWARD_BUDGET_MS", "10000"),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("STORE_TIMEOUT_MS", "3000"),
    ];
    let vars = [&sink.vars(), &vars[..]].concat();
    let body = format!(
        r#"{{"vendor":"v","event_type":{what:?},"created_at":"2026-05-06T12:34:56Z","n":1.50}}"#
    );
    let start = |vars: Vec<(&str, &str)>| {
        let vars: Vec<_> = vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        tokio::task::spawn_blocking(move || {
            Server::router(&vars.iter().map(|(k, v)| (&**k, &**v)).collect::<Vec<_>>())
        })
    };
    // The first router ends at its fault point. The vendor gets no answer, or failures before that.
    let router = start([&vars[..], &[("FAULT_POINT", step)]].concat()).await.unwrap();
    let mut ended = false;
    for _ in 0..2 {
        let response = client().post(router.webhook()).body(body.clone()).send().await;
        ended |= response.is_err();
    }
    assert!(ended, "{what}: the router did not end");
    drop(router);
    let router = start(vars.clone()).await.unwrap();
    sink.answers(ok("done"));
    let mut answers: Vec<Got> = Vec::new();
    loop {
        let got = post(&client(), &router.webhook(), body.clone()).await;
        let wait = got.header("retry-after").map(|seconds| seconds.parse().unwrap());
        let is_taken = got.status == 200;
        answers.push(got);
        if is_taken {
            break;
        }
        // Every answer has a `Retry-After`, at which a lease has run out, or almost.
        let wait = wait.unwrap_or_else(|| panic!("{what}: {answers:?}\n{}", router.log()));
        assert!(answers.len() < 6, "{what}: {answers:?}\n{}", router.log());
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
    let again = post(&client(), &router.webhook(), body.clone()).await;
    assert_eq!(again.text(), "duplicate ignored", "{what}");
    let received = sink.take();
    assert_eq!(received.len(), arrivals, "{what}: {answers:?}");
    let first = &received[0];
    for one in &received {
        assert_eq!((&one.path, &one.body), (&first.path, &body.clone().into()), "{what}");
        assert_eq!(one.header("idempotency-key"), first.header("idempotency-key"), "{what}");
    }
}
