//! Accepted events: answered at once, and delivered behind the answer.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use chrono::Utc;
use http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;
use webhook_router::{
    config::{Config, StoreConfig},
    outcome::Trigger,
    store::{self, Record, State},
};

use crate::{
    servers::{DynamoDbLocal, Redis, RedisCluster},
    support::{
        Answer, PAYLOAD, ROUTER, Server, Sink, client, end_of, intake, lookup, ok, planned, post,
        sqlite, status,
    },
};

/// Returns the variables of a router that answers at once.
fn vars<'a>(sink: &'a Sink, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let common = [
        ("ANSWER", "accepted"),
        ("ROUTE_THRESHOLD", "256"),
        ("FORWARD_TIMEOUT_MS", "1000"),
        ("STORE_TIMEOUT_MS", "1000"),
    ];
    [&common[..], &sink.vars(), more].concat()
}

fn event(name: &str) -> String {
    format!(
        r#"{{"vendor":"v","event_type":{name:?},"created_at":"2026-05-06T12:34:56Z","n":1.50}}"#
    )
}

/// Waits until the record of an event is as wanted.
async fn record(
    url: &str,
    dynamodb: Option<&DynamoDbLocal>,
    key: &str,
    is_wanted: impl Fn(&Record) -> bool,
) -> Record {
    let config =
        StoreConfig::from_vars(lookup(&[("STORE_URL", url), ("STORE_TIMEOUT_MS", "20000")]));
    let config = config.unwrap();
    let store: std::sync::Arc<dyn store::Store> = match dynamodb {
        Some(local) => {
            let table = DynamoDbLocal::TABLE.to_owned();
            let store = store::DynamoDb::with_sdk_config(table, config.timeout, &local.sdk);
            std::sync::Arc::new(store)
        }
        None => store::open(&config).await.unwrap(),
    };
    let began = Instant::now();
    loop {
        let record = store.get(&key.parse().unwrap(), Utc::now()).await.unwrap();
        if let Some(record) = record.clone().filter(&is_wanted) {
            return record;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{key}: {record:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_delivered(record: &Record) -> bool {
    matches!(record.state, State::Delivered { .. })
}

#[tokio::test]
async fn the_vendor_is_answered_before_the_destination_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(Answer::WhenTold);
    let router =
        Server::router(&vars(&sink, &[("STORE_URL", &url), ("DUPLICATE_REPLY", "replay")]));
    let got = post(&client(), &router.webhook(), PAYLOAD).await;
    assert_eq!((got.status, got.text()), (200, "accepted"));
    assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    let key = got.header("x-webhook-key").unwrap();
    sink.arrived(1).await;
    let again = post(&client(), &router.webhook(), PAYLOAD).await;
    assert_eq!((again.status, again.text()), (200, "duplicate ignored"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    sink.go.notify_one();
    let record = record(&url, None, key, is_delivered).await;
    assert_eq!(record.attempts.len(), 1);
    assert_eq!((record.attempts[0].by, record.accepted), (Trigger::Inbox, None));
    // The sender of an accepted event never gets the destination's reply.
    let again = post(&client(), &router.webhook(), PAYLOAD).await;
    assert_eq!((again.status, again.text()), (200, "duplicate ignored"));
    let received = sink.take();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, PAYLOAD);
    assert_eq!(received[0].header("idempotency-key"), Some(key));
    assert_eq!(received[0].header("x-webhook-attempt"), Some("1"));
}

#[tokio::test]
async fn each_entry_of_the_schedule_is_one_attempt_and_its_end_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let router = Server::router(&vars(
        &sink,
        &[("STORE_URL", &url), ("RETRY_SCHEDULE", "0s, 500ms, 1s"), ("FORWARD_ATTEMPTS", "9")],
    ));
    let got = post(&client(), &router.webhook(), PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    let dead = record(&url, None, key, |record| record.state == State::DeadLetter).await;
    assert_eq!((dead.attempts.len(), sink.received().len()), (3, 3));
    let pauses: Vec<_> = dead.attempts.windows(2).map(|two| two[1].at - two[0].at).collect();
    assert!(pauses[0].num_milliseconds() >= 500 && pauses[1].num_milliseconds() >= 1000);
    assert!(pauses.iter().all(|pause| pause.num_milliseconds() < 3000), "{pauses:?}");
    let numbers: Vec<_> =
        sink.take().iter().map(|one| one.header("x-webhook-attempt").unwrap().to_owned()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);

    // The vendor's next delivery is accepted anew.
    sink.answers(ok("done"));
    let anew = post(&client(), &router.webhook(), PAYLOAD).await;
    assert_eq!((anew.status, anew.text()), (200, "accepted"));
    let delivered = record(&url, None, key, is_delivered).await;
    assert_eq!(delivered.attempts.len(), 4);
}

#[tokio::test]
async fn an_answer_that_will_not_change_is_a_dead_letter_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "never"));
    let router = Server::router(&vars(&sink, &[("STORE_URL", &url)]));
    let got = post(&client(), &router.webhook(), PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    let dead = record(&url, None, key, |record| record.state == State::DeadLetter).await;
    assert_eq!((dead.attempts.len(), sink.received().len()), (1, 1));
}

#[tokio::test]
async fn the_destination_may_ask_for_a_later_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let busy = |seconds| {
        Answer::With(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", seconds)], "busy".into())
    };
    sink.answers(busy("7200"));
    let router = Server::router(&vars(&sink, &[("STORE_URL", &url)]));
    for (name, asked, hours) in [("two hours", "7200", 2), ("ten days", "864000", 24)] {
        sink.answers(busy(asked));
        let got = post(&client(), &router.webhook(), event(name)).await;
        let key = got.header("x-webhook-key").unwrap();
        let tried = |record: &Record| record.accepted.is_some_and(|accepted| accepted.tries == 1);
        let waiting = record(&url, None, key, tried).await;
        let State::Waiting { due } = waiting.state else { panic!("{waiting:?}") };
        let pause = due - waiting.attempts[0].at;
        let (least, most) = (hours * 60, hours * 66 + 1);
        assert!((least..=most).contains(&pause.num_minutes()), "{name}: {pause}");
    }
}

#[tokio::test]
async fn a_source_decides_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let sources = r#"
        [sources.quick]
        vendor = "custom"
        scheme = "shared-secret"
        header = "x-secret"
        secrets = ["plainly-fake-test-secret"]
        answer = "accepted"
    "#;
    let vars = [
        ("STORE_URL", &*url),
        ("SOURCES", sources),
        ("ROUTE_THRESHOLD", "256"),
        ("ALLOW_UNSIGNED", "true"),
    ];
    let router = Server::router(&[&sink.vars(), &vars[..]].concat());
    let quick = client().post(format!("{}/webhook/quick", router.url));
    let quick = quick.header("x-secret", "plainly-fake-test-secret").body(event("quick"));
    let got = crate::support::get(quick.send().await).await;
    assert_eq!((got.status, got.text()), (200, "accepted"), "{}", router.log());
    record(&url, None, got.header("x-webhook-key").unwrap(), is_delivered).await;
    let slow = post(&client(), &router.webhook(), event("slow")).await;
    assert_eq!((slow.status, slow.text()), (200, "done"));
}

#[test]
fn lambda_refuses_to_accept_what_it_does_not_deliver() {
    let common = [
        ("GCP_TARGET_URL", "https://x.dev"),
        ("AWS_TARGET_FUNCTION", "p"),
        ("ROUTING_SECRET", "a-test-secret-of-enough-bytes"),
        ("STORE_URL", "dynamodb://a-table"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
    ];
    let quick = r#"sources.quick = { vendor = "github", secrets = ["s3cr3t-for-a-test"], answer = "accepted" }"#;
    for (more, names) in [(("ANSWER", "accepted"), "ANSWER"), (("SOURCES", quick), "SOURCES")] {
        let errors = Config::from_vars(lookup(&[&common[..], &[more]].concat())).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].variable, names);
        assert!(errors.to_string().contains("webhook-router serve"), "{errors}");
    }
    Config::from_vars(lookup(&[&common[..], &[("ANSWER", "delivered")]].concat())).unwrap();
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let common = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    for (name, value) in [
        ("ANSWER", "later"),
        ("RETRY_SCHEDULE", "soon"),
        ("RETRY_SCHEDULE", "0s,,5s"),
        ("RETRY_SCHEDULE", "0s,8days"),
        ("INBOX_WORKERS", "0"),
    ] {
        let errors = Config::from_vars(lookup(&[&common[..], &[(name, value)]].concat()));
        let errors = errors.unwrap_err();
        assert_eq!((errors.0.len(), &*errors.0[0].variable), (1, name), "{value}");
    }
    let config = Config::from_vars(lookup(&common)).unwrap();
    let minutes = config.inbox.schedule.iter().map(|pause| pause.as_secs() / 60);
    assert_eq!(minutes.collect::<Vec<_>>(), [0, 0, 5, 30, 120, 300, 600, 600]);
}

/// The place where the process ends, the answer of the destination before, and how often the event
/// arrives in the end.
const STEPS: [(&str, bool, usize); 14] = [
    ("before accept", true, 1),
    ("inside accept", true, 1),
    // The vendor gets no answer, although the event is in the inbox.
    ("after accept", true, 1),
    ("before take", true, 1),
    ("after take", true, 1),
    ("before send", true, 1),
    // The event arrived, but that is not recorded.
    ("after send", true, 2),
    ("before settle", true, 2),
    ("inside finish", true, 1),
    ("after settle", true, 1),
    ("after send", false, 2),
    ("before settle", false, 2),
    ("inside postpone", false, 2),
    ("after settle", false, 2),
];

#[tokio::test]
async fn after_a_crash_at_any_step_the_event_arrives_although_its_vendor_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (redis, dynamodb) = (Redis::start(&[]), DynamoDbLocal::start().await);
    // The first write to a new DynamoDB Local takes long.
    let warm = aws_sdk_dynamodb::Client::new(&dynamodb.sdk).put_item();
    let key = aws_sdk_dynamodb::types::AttributeValue::S("warm".into());
    warm.table_name(DynamoDbLocal::TABLE).item("key", key).send().await.unwrap();
    let cluster = RedisCluster::start_patiently();
    let (sqlite, redis_url, cluster_url) = (sqlite(folder.path()), redis.url(), cluster.url());
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let mut trials = JoinSet::new();
    let dynamodb = std::sync::Arc::new(dynamodb);
    for store in [sqlite, redis_url, cluster_url, table] {
        for (step, taken, arrivals) in STEPS {
            let (store, dynamodb) = (store.clone(), std::sync::Arc::clone(&dynamodb));
            let is_before_commit = store.starts_with("sqlite:") && step == "inside finish";
            let arrivals = arrivals + usize::from(is_before_commit);
            trials.spawn(async move { crash(&store, &dynamodb, step, taken, arrivals).await });
        }
    }
    trials.join_all().await;
}

async fn crash(store: &str, dynamodb: &DynamoDbLocal, step: &str, taken: bool, arrivals: usize) {
    let what = format!("{store}, {step}, {taken}");
    let sink = Sink::start().await;
    sink.answers(if taken { ok("done") } else { status(StatusCode::BAD_GATEWAY, "no") });
    let more = [
        ("STORE_URL", store),
        ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
        // The vendor hears the answer before the first attempt.
        ("RETRY_SCHEDULE", "300ms,1s,1s"),
        // The times are long because many routers start at once.
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("STORE_TIMEOUT_MS", "3000"),
    ];
    let vars = vars(&sink, &more);
    // In DynamoDB, the delivery has several parts.
    let body = match store.starts_with("dynamodb:") {
        true => event(&what).replace("1.50", &format!("{:?}", noise(700_000))),
        false => event(&what),
    };
    let start = |vars: Vec<(&str, &str)>| {
        let vars: Vec<_> = vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        tokio::task::spawn_blocking(move || {
            Server::router(&vars.iter().map(|(k, v)| (&**k, &**v)).collect::<Vec<_>>())
        })
    };
    let mut router = start([&vars[..], &[("FAULT_POINT", step)]].concat()).await.unwrap();
    // The vendor comes again until it hears 200. After that, it never does.
    let heard = loop {
        match client().post(router.webhook()).body(body.clone()).send().await {
            Ok(answer) if answer.status() == 200 => break true,
            Ok(answer) => assert_eq!(answer.status(), 503, "{what}: {}", router.log()),
            Err(_) => break false,
        }
    };
    let is_before_answer = step.ends_with(" accept");
    assert_eq!(heard, !is_before_answer, "{what}: {}", router.log());
    tokio::task::spawn_blocking(move || router.wait()).await.unwrap();
    sink.answers(ok("done"));
    let router = start(vars.clone()).await.unwrap();
    while !heard && post(&client(), &router.webhook(), body.clone()).await.status != 200 {}
    let key = planned(&crate::support::delivery(body.clone()), &intake(EXAMPLE), Utc::now());
    let key = key.unwrap().key.to_string();
    let local = store.starts_with("dynamodb:").then_some(dynamodb);
    record(store, local, &key, is_delivered).await;
    let received = sink.take();
    assert_eq!(received.len(), arrivals, "{what}\n{}", router.log());
    for one in &received {
        assert!(one.body == body, "{what}: the body has changed");
        assert_eq!(one.header("idempotency-key"), Some(&*key), "{what}");
    }
}

/// The default of ROUTING_SECRET.
const EXAMPLE: &str = webhook_router::config::EXAMPLE_ROUTING_SECRET;

/// Returns text that is hardly compressible.
fn noise(length: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + ((state >> 33) % 94) as u8)
    };
    (0..length).map(|_| next()).filter(|one| *one != '"' && *one != '\\').collect()
}

#[tokio::test]
async fn a_destination_that_is_down_is_probed_and_the_events_wait() {
    const EVENTS: usize = 2000;
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let vars = vars(&sink, &[("STORE_URL", &url), ("STORE_TIMEOUT_MS", "10000")]);
    let router = Server::router(&vars);
    let (client, began) = (client(), Instant::now());
    let mut posts = JoinSet::new();
    for number in 0..EVENTS {
        let (client, url) = (client.clone(), router.webhook());
        posts.spawn(async move { post(&client, &url, event(&number.to_string())).await.status });
        if posts.len() >= 32 {
            assert_eq!(posts.join_next().await.unwrap().unwrap(), 200);
        }
    }
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    let in_vain = sink.received().len();
    // The first failures of all workers, and a probe each second or later.
    let most = 16 + began.elapsed().as_secs() as usize * 2 + 1;
    assert!(in_vain <= most, "{in_vain} attempts, not {most}, in {:?}", began.elapsed());
    sink.answers(ok("done"));
    sink.arrived(EVENTS + in_vain).await;
    let pending = loop {
        let pending = run(&vars, &["pending"]).await;
        if pending.stdout.is_empty() || began.elapsed() > Duration::from_secs(120) {
            break pending;
        }
    };
    assert_eq!(String::from_utf8_lossy(&pending.stdout), "");
    let dead = run(&vars, &["dead-letters"]).await;
    assert_eq!(String::from_utf8_lossy(&dead.stdout), "");
    let attempts = sink.received().len();
    assert!(attempts <= EVENTS + EVENTS / 50 + most, "{attempts} attempts");
}

/// Runs a command while the test's runtime serves the sink.
async fn run(vars: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(ROUTER);
    command.args(args).env_clear().envs(vars.iter().copied());
    command.envs([("AWS_REGION", "us-east-1")]);
    tokio::task::spawn_blocking(move || end_of(&mut command)).await.unwrap()
}

#[tokio::test]
async fn operators_see_bring_forward_and_discard_accepted_events() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    // No attempt is due for a day, so only operators bring events forward.
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "1day,1day")]);
    let router = Server::router(&vars);
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        let got = post(&client(), &router.webhook(), event(name)).await;
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
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

    // What is due is drained; nothing is.
    let drained = run(&vars, &["drain"]).await;
    assert_eq!(text(&drained), "0 delivered, 0 to be tried again, 0 failed\n");
    assert!(sink.received().is_empty());
    let replayed = run(&vars, &["replay", &keys[0]]).await;
    assert!(replayed.status.success() && text(&replayed).ends_with(": delivered\n"));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let replayed = run(&vars, &["replay", &keys[1]]).await;
    assert!(!replayed.status.success());
    assert!(text(&replayed).ends_with(": failed, and is tried again later\n"));
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
    let mut router = Server::router(&vars);
    for number in 0..100 {
        post(&client(), &router.webhook(), event(&number.to_string())).await;
    }
    // The attempts under way are waited for.
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
async fn the_python_router_is_excluded_from_accepted_events() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let url = redis.url();
    let more =
        [("STORE_URL", &*url), ("RETRY_SCHEDULE", "0s,2s,1s"), ("FORWARD_TIMEOUT_MS", "5000")];
    let router = Server::router(&vars(&sink, &more));
    let got = post(&client(), &router.webhook(), PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    // What the Python router does.
    let claim = || redis.cli(&["SET", key, "1", "NX", "EX", "100"]);
    assert_eq!(claim(), "\n");
    record(&url, None, key, |record| matches!(record.state, State::Waiting { .. })).await;
    assert_eq!((claim(), redis.cli(&["TTL", key])), ("\n".into(), "-1\n".into()));
    sink.answers(Answer::WhenTold);
    record(&url, None, key, |record| matches!(record.state, State::InFlight { .. })).await;
    assert_eq!((claim(), redis.cli(&["TTL", key])), ("\n".into(), "-1\n".into()));
    sink.go.notify_one();
    record(&url, None, key, is_delivered).await;
    assert_eq!(claim(), "\n");
}
