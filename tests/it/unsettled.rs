//! Stores that break while an event is at its destination, so that the result cannot be stored.

use std::time::Duration;

use http::StatusCode;
use webhook_router::route::Route;

use crate::servers::{DynamoDbLocal, Redis, RedisCluster};
use crate::support::{Answer, PAYLOAD, Serve, Sink, client, ok, post, sqlite};

/// The destination's answer to the event. The sender would take it as a final refusal.
const REFUSAL: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// Lets the destination refuse an event while the store is broken. Then repairs the store, and
/// delivers the event again as its vendor does.
async fn a_refusal_is_not_final(store: &[(&str, &str)], break_it: impl Fn(), mend_it: impl Fn()) {
    let sink = Sink::start().await;
    let short = [
        ("FORWARD_BUDGET_MS", "3000"),
        ("FORWARD_TIMEOUT_MS", "3000"),
        ("STORE_TIMEOUT_MS", "1000"),
    ];
    let store = store.iter().copied();
    let router = Serve::to(&sink).only(Route::GCP).envs(short).envs(store).start();
    // The first use of a store takes longer than later uses.
    let warm_up = PAYLOAD.replace("4200", "1");
    while router.post(warm_up.clone()).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sink.take();

    sink.answers(Answer::RefusalWhenTold(REFUSAL));
    let url = router.webhook();
    let delivery = tokio::spawn(async move { post(&client(), &url, PAYLOAD).await });
    sink.arrived(1).await;
    break_it();
    sink.go.notify_one();
    let got = delivery.await.unwrap();
    assert_eq!((got.status, got.text()), (503, "try again later"), "{}", router.log());
    let wait: u64 = got.header("retry-after").unwrap().parse().unwrap();
    // The lease lasts 8 s: the budget, four tries to store the result, and 1 s more.
    assert!((1..=8).contains(&wait), "{wait}");
    let reason = "the destination answered 422 Unprocessable Entity; the event's dead letter could not be stored";
    assert!(router.log().contains(reason), "{}", router.log());

    mend_it();
    sink.answers(ok("done"));
    sink.take();
    // A vendor that obeys Retry-After finds the key free once the store works again.
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let again = loop {
        let again = router.post(PAYLOAD).await;
        match again.status {
            503 => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => break again,
        }
    };
    assert_eq!((again.status, again.text()), (200, "done"), "{}", router.log());
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn on_sqlite_a_refusal_without_a_letter_is_not_final() {
    let folder = tempfile::tempdir().unwrap();
    let lock = std::cell::RefCell::new(None);
    // Another process holds the write lock, as a hung one would.
    let hold = || {
        let other = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        lock.replace(Some(other));
    };
    let release = || drop(lock.take());
    a_refusal_is_not_final(&[("STORE_URL", &sqlite(folder.path()))], hold, release).await;
}

#[tokio::test]
async fn on_redis_a_refusal_without_a_letter_is_not_final() {
    let redis = Redis::start(&[]);
    let (stop, go_on) = (|| redis.signal("STOP"), || redis.signal("CONT"));
    a_refusal_is_not_final(&[("STORE_URL", &redis.url())], stop, go_on).await;
}

#[tokio::test]
async fn on_a_redis_cluster_a_refusal_without_a_letter_is_not_final() {
    let cluster = RedisCluster::start_patiently();
    let signal = |name| cluster.nodes.iter().for_each(|node| node.signal(name));
    let (stop, go_on) = (|| signal("STOP"), || signal("CONT"));
    a_refusal_is_not_final(&[("STORE_URL", &cluster.url())], stop, go_on).await;
}

#[tokio::test]
async fn on_dynamodb_a_refusal_without_a_letter_is_not_final() {
    let dynamodb = DynamoDbLocal::start().await;
    let store =
        [("STORE_URL", "dynamodb://webhook-router"), ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url)];
    let (stop, go_on) = (|| dynamodb.signal("STOP"), || dynamodb.signal("CONT"));
    a_refusal_is_not_final(&store, stop, go_on).await;
}
