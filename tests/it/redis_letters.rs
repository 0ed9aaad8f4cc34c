//! The list of dead letters in Redis, which is written apart from the letters.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use webhook_router::{
    config::StoreConfig,
    store::{self, Page},
};

use crate::{
    redis::{KEY, python_takes, router},
    servers::Redis,
    support::{PAYLOAD, ROUTER, Server, Sink, end_of, lookup, status},
};

/// Starts a router whose one event becomes a dead letter.
async fn with_a_letter(redis: &Redis) -> (Sink, Server) {
    let sink = Sink::start().await;
    sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    let router = router(&sink, redis, &[("FORWARD_ATTEMPTS", "1"), ("ROUTE_THRESHOLD", "256")]);
    router.post(PAYLOAD).await.expect(503);
    (sink, router)
}

#[tokio::test]
async fn a_letter_whose_key_the_python_router_took_is_cleared() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let vars = [("FORWARD_ATTEMPTS", "1"), ("ROUTE_THRESHOLD", "256")];
    let router = router(&sink, &redis, &vars);
    let listed = || redis.cli(&["ZCARD", "webhook:dead-letters"]).trim().to_owned();
    let fail = async || {
        sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
        router.post(PAYLOAD).await.expect(503);
        assert_eq!(listed(), "1");
        assert!(python_takes(&redis, KEY));
    };
    fail().await;
    assert_eq!(router.post(PAYLOAD).await.text(), "duplicate ignored");
    assert_eq!((listed().as_str(), redis.cli(&["DBSIZE"]).trim()), ("0", "1"));
    redis.cli(&["DEL", KEY]);
    fail().await;
    // The list has an entry for the letter while it exists. A replay clears the letter without
    // sending it.
    let command = |args: &[&str]| {
        let mut command = Command::new(ROUTER);
        let vars = sink.vars().into_iter().chain([("AWS_REGION", "us-east-1")]);
        end_of(command.args(args).env_clear().envs(vars).env("REDIS_URL", redis.url()))
    };
    let output = command(&["replay", "--all"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        output.stdout.split(|byte| *byte == b'\n').nth(1),
        Some(&b"0 delivered, 1 delivered or discarded by others"[..])
    );
    assert_eq!(listed(), "0");
    redis.cli(&["DEL", KEY]);
    fail().await;
    let url = redis.url();
    let discard = |key| {
        let mut command = Command::new(ROUTER);
        end_of(command.args(["discard", key]).env_clear().env("REDIS_URL", &url)).status
    };
    assert!(discard(KEY).success());
    assert_eq!((listed().as_str(), redis.cli(&["DBSIZE"]).trim()), ("0", "1"));
    assert!(!discard(KEY).success());
}

#[tokio::test]
async fn an_entry_that_a_crash_left_without_a_letter_goes_when_the_list_is_read() {
    let redis = Redis::start(&[]);
    let _running = with_a_letter(&redis).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let add = |minutes: u128, digit: &str| {
        let (time, key) = ((now - minutes * 60_000).to_string(), digit.repeat(64));
        let key = format!("webhook:dedup:{key}");
        assert_eq!(redis.cli(&["ZADD", "webhook:dead-letters", &time, &key]).trim(), "1");
    };
    add(61, "1");
    // An old entry with a letter stays.
    redis.cli(&["ZADD", "webhook:dead-letters", "XX", &(now - 61 * 60_000).to_string(), KEY]);
    // The letter of a young entry may be under way.
    add(1, "2");
    let listed = || redis.cli(&["ZRANGE", "webhook:dead-letters", "0", "-1"]);
    assert_eq!(listed().lines().count(), 3);
    let mut list = Command::new(ROUTER);
    let output = end_of(list.arg("dead-letters").env_clear().env("REDIS_URL", redis.url()));
    assert!(output.status.success(), "{output:?}");
    let left = listed();
    assert!(left.contains(KEY) && left.contains(&"2".repeat(64)), "{left}");
    assert_eq!(left.lines().count(), 2, "{left}");
}

#[tokio::test]
async fn an_entry_stays_if_its_letter_comes_while_the_list_is_read() {
    let redis = Redis::start(&[]);
    let _running = with_a_letter(&redis).await;
    let config = StoreConfig::from_vars(lookup(&[("REDIS_URL", &redis.url())])).unwrap();
    let store = store::open(&config).await.unwrap();
    let listed = async || store.dead_letters(Page { limit: 10, after: None }).await.unwrap();
    let before = listed().await;
    assert_eq!(before.len(), 1);
    // The reader found no letter for the entry, and now there is one.
    store.remove_entry(before[0]).await;
    assert_eq!(listed().await, before);
}
