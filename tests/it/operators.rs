//! Operators' work with dead letters: list, inspect, replay, discard.

use std::{
    io::Read as _,
    process::{Child, Command, Output, Stdio},
};

use chrono::{TimeDelta, Utc};
use http::StatusCode;
use serde_json::{Value, json};
use webhook_router::{
    config::StoreConfig,
    key::Key,
    outcome::{Outcome, Trigger},
    redelivery::is_left_to_operator,
    route::Route,
    store::{self, Attempt, Claim, DeadLetter, Failure, Record, Release, State},
};

use crate::{
    servers::{DynamoDbLocal, Redis, RedisCluster},
    support::{
        Answer, PAYLOAD, ROUTER, Serve, Server, Sink, client, delivery, end_of, get, lookup, ok,
        plan_of, sqlite, status,
    },
};

/// The variables of a router and of its commands.
pub type Vars = Vec<(String, String)>;

pub fn vars(sink: &Sink, more: &[(&str, &str)]) -> Vars {
    let common = [
        ("ROUTE_THRESHOLD", "256"),
        ("FORWARD_ATTEMPTS", "1"),
        ("STORE_TIMEOUT_MS", "20000"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let all = [&common[..], &sink.vars(), more].concat();
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub fn serve(vars: &Vars) -> Server {
    Serve::new().envs(vars.iter().cloned()).start()
}

fn command(vars: &Vars, args: &[&str]) -> Command {
    let mut command = Command::new(ROUTER);
    command.args(args).env_clear().envs(vars.iter().cloned());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command while the test's runtime serves the sink.
pub async fn run(vars: &Vars, args: &[&str]) -> Output {
    let mut command = command(vars, args);
    tokio::task::spawn_blocking(move || end_of(&mut command)).await.unwrap()
}

pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

pub fn event(vendor: &str, number: u32) -> String {
    PAYLOAD.replace("stripe", vendor).replace("4200", &number.to_string())
}

/// Headers of a delivery that are forwarded, so that its dead letter keeps them.
const KEPT: [(&str, &str); 5] = [
    ("content-type", "application/json; v=1"),
    ("traceparent", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"),
    ("tracestate", "a=b"),
    ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793"),
    ("x-cloud-trace-context", "5759e988bd862e3fe1be46a994272793/1"),
];
/// Headers that a dead letter must not keep.
const LEFT_OUT: [(&str, &str); 5] = [
    ("authorization", "Bearer of-a-credential"),
    ("cookie", "session=of-a-credential"),
    ("idempotency-key", "of-its-sender"),
    ("webhook-signature", "of-its-body"),
    ("x-api-key", "of-a-credential"),
];

/// Turns events that the sink refuses into dead letters, and returns their keys.
pub async fn fail(
    sink: &Sink,
    router: &Server,
    events: impl IntoIterator<Item = String>,
) -> Vec<String> {
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "no"));
    let mut keys = Vec::new();
    for event in events {
        let mut request = client().post(router.webhook() + "?attempt=1").body(event);
        for (name, value) in KEPT.into_iter().chain(LEFT_OUT) {
            request = request.header(name, value);
        }
        let got = get(request.send().await).await;
        assert_eq!(got.status, 503);
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    sink.answers(ok("done"));
    sink.take();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_letters_replayed_by_two_at_once_arrive_once_each() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    let router = serve(&vars);
    let mut keys = fail(&sink, &router, (0..500).map(|number| event("stripe", number))).await;

    let dry = run(&vars, &["replay", "--all", "--dry-run"]).await;
    assert!(dry.status.success() && sink.received().is_empty(), "{}", text(&dry));
    assert!(text(&dry).contains("500 to replay; nothing was sent"), "{}", text(&dry));
    let replays = tokio::join!(run(&vars, &["replay", "--all"]), run(&vars, &["replay", "--all"]));
    for replay in [&replays.0, &replays.1] {
        let said = text(replay);
        // An event that the other replay is delivering is only reported as in progress.
        assert!(replay.status.success() || said.contains(" in progress"), "{said}");
        assert!(!said.contains("failed") && !said.contains("not begun"), "{said}");
    }
    let received = sink.take();
    let mut arrived: Vec<_> =
        received.iter().map(|one| one.header("idempotency-key").unwrap().to_owned()).collect();
    arrived.sort();
    keys.sort();
    assert_eq!(arrived, keys);
    assert!(received.iter().all(|one| one.header("x-webhook-attempt") == Some("2")));
    let none = text(&run(&vars, &["dead-letters"]).await);
    assert_eq!(none, format!("0 dead letters in {url}\n"));
    let again = run(&vars, &["replay", "--all"]).await;
    assert!(again.status.success() && sink.received().is_empty(), "{}", text(&again));
    let inspected = run(&vars, &["inspect", "--json", &keys[0]]).await;
    let record: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(record["state"], "delivered");
    let by = |attempt: usize| record["attempts"][attempt]["by"].clone();
    assert_eq!((by(0), by(1)), ("vendor".into(), "bulk_replay".into()));
    // The vendor's own retry is a duplicate now.
    let got = router.post(event("stripe", 0)).await;
    assert_eq!(got.text(), "duplicate ignored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_in_the_middle_of_a_replay_loses_nothing() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    let router = serve(&vars);
    let keys = fail(&sink, &router, (0..30).map(|number| event("stripe", number))).await;
    sink.answers(Answer::WhenTold);
    let mut replay = command(&vars, &["replay", "--all"]).spawn().unwrap();
    // Eight events are sent at once, and the interrupt comes during that.
    sink.arrived(8).await;
    interrupt(&replay);
    let mut said = String::new();
    let mut errors = replay.stderr.take().unwrap();
    while !said.contains("a second signal ends them") {
        let mut byte = [0];
        assert_eq!(errors.read(&mut byte).unwrap(), 1, "{said}");
        said.push(char::from(byte[0]));
    }
    for _ in 0..8 {
        sink.go.notify_one();
        tokio::task::yield_now().await;
    }
    let waiting = tokio::task::spawn_blocking(move || replay.wait_with_output().unwrap());
    tokio::pin!(waiting);
    // A notification without a waiter is kept only once.
    let output = loop {
        tokio::select! {
            output = &mut waiting => break output.unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => sink.go.notify_one(),
        }
    };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).starts_with("8 delivered"), "{}", text(&output));
    assert!(text(&output).contains("22 not begun"), "{}", text(&output));
    sink.answers(ok("done"));
    let rest = run(&vars, &["replay", "--all", "--per-second", "1000"]).await;
    assert!(text(&rest).starts_with("22 delivered"), "{}", text(&rest));
    let mut arrived: Vec<_> = sink.take();
    assert_eq!(arrived.len(), keys.len());
    let key = |one: &crate::support::Received| one.header("idempotency-key").unwrap().to_owned();
    arrived.sort_by_key(key);
    arrived.dedup_by_key(|one| key(one));
    assert_eq!(arrived.len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_when_nobody_reads_its_output() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let vars = vars(&sink, &[("STORE_URL", &sqlite(folder.path()))]);
    let router = serve(&vars);
    let keys = fail(&sink, &router, (0..20).map(|number| event("stripe", number))).await;
    let args: Vec<_> = ["replay"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let mut replay = command(&vars, &args).spawn().unwrap();
    drop(replay.stdout.take());
    let waiting = tokio::task::spawn_blocking(move || replay.wait_with_output().unwrap());
    let output = waiting.await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    assert_eq!(sink.take().len(), keys.len());
    assert_eq!(run(&vars, &["replay", "--all"]).await.status.code(), Some(0));
    assert!(sink.take().is_empty());
    // The reader has what it wanted, so this is no error either.
    let mut inspect = command(&vars, &["inspect", &keys[0]]).spawn().unwrap();
    drop(inspect.stdout.take());
    let output = inspect.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

#[tokio::test]
async fn letters_are_listed_shown_replayed_and_discarded_on_every_store() {
    let (redis, cluster) = (Redis::start(&[]), RedisCluster::start());
    let (dynamodb, folder) = (DynamoDbLocal::start().await, tempfile::tempdir().unwrap());
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    for url in [sqlite(folder.path()), redis.url(), cluster.url(), table] {
        let sink = Sink::start().await;
        let at = [("STORE_URL", url.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url)];
        let vars = vars(&sink, &at);
        let router = serve(&vars);
        let events = [event("stripe", 1), event("Stripe", 2), event("adyen", 3)];
        let keys = fail(&sink, &router, events.clone()).await;

        // The letters are listed and filtered.
        let list = async |args: &[&str]| {
            let output = run(&vars, &[&["dead-letters"], args].concat()).await;
            assert!(output.status.success(), "{}", text(&output));
            let lines = String::from_utf8(output.stdout).unwrap();
            lines.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let all = list(&[]).await;
        assert_eq!(all.len(), 3, "{url}: {all:?}");
        let digits = keys[0].trim_start_matches(Key::PREFIX);
        let shown = format!(" {digits} gcp stripe payment.succeeded attempts=1 the destination ");
        assert!(all[0].contains(&shown), "{}", all[0]);
        assert_eq!(list(&["--vendor", "stripe"]).await, all[..2]);
        assert_eq!(list(&["--vendor", "ADYEN", "--destination", "gcp"]).await, all[2..]);
        assert_eq!(list(&["--destination", "aws"]).await.len(), 0);
        assert_eq!(list(&["--since", "1h"]).await, all);
        assert_eq!(list(&["--since", "2999-01-01T00:00:00Z"]).await.len(), 0);
        let json: Value = serde_json::from_str(&list(&["--json"]).await[0]).unwrap();
        assert_eq!(
            (&json["key"], &json["state"]),
            (&keys[0].clone().into(), &"dead_letter".into())
        );

        // The letters are inspected.
        let inspect = async |key: &str| {
            let output = run(&vars, &["inspect", "--json", "--delivery", key]).await;
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let letter = inspect(&keys[2]).await;
        assert_eq!(letter["delivery"]["body"], events[2]);
        assert_eq!(letter["delivery"]["path"], "/webhook");
        assert_eq!(letter["delivery"]["query"], "attempt=1");
        let mut headers = letter["delivery"]["headers"].as_array().unwrap().clone();
        headers.sort_by_key(Value::to_string);
        assert_eq!(headers, KEPT.map(|(name, value)| json!([name, value])), "{url}");
        let answer = &letter["failure"]["answer"];
        assert_eq!((&answer["body"], &answer["bytes"]), (&"no".into(), &2.into()), "{url}");
        assert_eq!(answer["content_type"], "application/json");
        let output = text(&run(&vars, &["inspect", "--delivery", &keys[2]]).await);
        assert!(output.contains("\nanswer       application/json, 2 bytes\n  |          no\n"));
        assert!(
            output.contains("\nPOST /webhook?attempt=1\n") && output.contains(&events[2]),
            "{output}"
        );

        // The letters are replayed to their first destination. A letter that fails again is a dead
        // letter again.
        let elsewhere: Vars = vec![("ROUTE_THRESHOLD".into(), "0".into())];
        let vars = [vars.clone(), elsewhere].concat();
        sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "still no"));
        let output = run(&vars, &["replay", &keys[0]]).await;
        assert_eq!(output.status.code(), Some(1));
        let why = "gcp: failed, and is a dead letter again: the destination answered 503 Service \
                   Unavailable\n`inspect KEY` shows";
        assert!(text(&output).contains(&format!("{}: {why}", keys[0])), "{}", text(&output));
        sink.answers(ok("done"));
        sink.take();
        let output = run(&vars, &["replay", &keys[0], digits, &keys[1]]).await;
        assert!(output.status.success(), "{}", text(&output));
        let received = sink.take();
        assert!(received.len() == 2 && !received.iter().any(|one| one.is_invocation()));
        for (name, value) in KEPT {
            assert!(received.iter().all(|one| one.header(name) == Some(value)), "{name}");
        }
        let bodies: Vec<_> = received.into_iter().map(|one| one.body).collect();
        assert!(events[..2].iter().all(|event| bodies.iter().any(|body| body == event)));
        let record = inspect(&keys[0]).await;
        let by = record["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["by"]);
        assert_eq!(by.collect::<Vec<_>>(), ["vendor", "replay", "replay"]);
        assert!(record["delivery"].is_null());
        let output = run(&vars, &["replay", &keys[0]]).await;
        let said = text(&output);
        assert!(said.contains("is neither a dead letter nor in the inbox"), "{said}");
        assert_eq!(list(&[]).await.len(), 1);

        // The letters are discarded.
        let output = run(&vars, &["discard", &keys[2]]).await;
        assert!(output.status.success(), "{}", text(&output));
        let output = run(&vars, &["discard", &keys[2], &keys[0]]).await;
        assert_eq!(output.status.code(), Some(1));
        let neither = "is neither a dead letter nor in the inbox";
        assert_eq!(text(&output).matches(neither).count(), 2, "{}", text(&output));
        assert_eq!(list(&[]).await.len(), 0);
        assert!(sink.received().is_empty());
    }
}

#[tokio::test]
async fn a_letter_of_an_earlier_version_is_replayed_and_loses_its_credentials() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    // The earlier version kept all headers.
    let config = StoreConfig::from_vars(lookup(&[("STORE_URL", &url)])).unwrap();
    let store = store::open(&config).await.unwrap();
    let (mut plan, now) = (plan_of("of an earlier version"), Utc::now());
    plan.route = Route::GCP;
    let Claim::Won(lease) = store.claim(&plan, now, now + TimeDelta::minutes(1)).await.unwrap()
    else {
        panic!("claimed by another");
    };
    let mut delivery = delivery(PAYLOAD);
    for (name, value) in KEPT.into_iter().chain(LEFT_OUT) {
        delivery.headers.insert(name, value.parse().unwrap());
    }
    let failure =
        Failure { outcome: Outcome::Status(503), detail: "the one before".into(), answer: None };
    let (key, details, attempts) = (plan.key, lease.details.clone(), vec![]);
    let letter = DeadLetter { key, details, failed_at: now, failure, attempts, delivery };
    store.fail(&lease, &letter, Release::Now).await.unwrap();

    let key = key.to_string();
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "no"));
    let again = run(&vars, &["replay", &key]).await;
    assert!(text(&again).contains("is a dead letter again"), "{}", text(&again));
    let letter = store.dead_letter(&plan.key).await.unwrap().unwrap();
    let headers: Vec<_> = letter.delivery.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(headers, KEPT.map(|(name, _)| name));
    sink.answers(ok("done"));
    let replayed = run(&vars, &["replay", &key]).await;
    assert!(replayed.status.success(), "{}", text(&replayed));
    let received = sink.take();
    assert_eq!(received.len(), 2);
    for one in received {
        assert_eq!((one.body.as_ref(), one.header("cookie")), (PAYLOAD.as_bytes(), None));
        assert_eq!(KEPT.map(|(name, _)| one.header(name)), KEPT.map(|(_, value)| Some(value)));
    }
}

#[test]
fn a_letter_is_left_to_the_operator_after_redrives_in_vain_and_nothing_else() {
    let (refused, down) = (Outcome::Status(422), Outcome::Status(503));
    let (vendor, redrive, replay) = (Trigger::Vendor, Trigger::BulkReplay, Trigger::Replay);
    for (attempts, limit, left) in [
        (vec![(vendor, refused); 3], 1, false),
        (vec![(vendor, refused), (redrive, refused)], 1, true),
        (vec![(vendor, refused), (redrive, refused)], 2, false),
        (vec![(vendor, down), (redrive, refused), (redrive, Outcome::Status(301))], 2, true),
        (vec![(redrive, refused); 20], 20, true),
        // An outcome that may change is tried again without limit.
        (vec![(redrive, down); 20], 1, false),
        (vec![(redrive, Outcome::Status(429)); 20], 1, false),
        (vec![(redrive, Outcome::Unreachable); 20], 1, false),
        (vec![(redrive, Outcome::Refused); 20], 1, false),
        (vec![(redrive, Outcome::TimedOut); 20], 1, false),
        (vec![(redrive, Outcome::Broken); 20], 1, false),
        // Another attempt or outcome in between restarts the count.
        (vec![(redrive, refused), (redrive, down), (redrive, refused)], 2, false),
        (vec![(redrive, refused), (vendor, refused), (redrive, refused)], 2, false),
        (vec![(redrive, refused), (redrive, refused), (replay, refused)], 2, false),
    ] {
        let numbered = attempts.iter().zip(1..).map(|(&(by, outcome), number)| Attempt {
            number,
            at: Utc::now(),
            by,
            destination: Route::GCP,
            outcome,
            milliseconds: 1,
        });
        let record = Record {
            key: plan_of("left").key,
            details: None,
            attempts: numbered.collect(),
            failed: None,
            accepted: None,
            state: State::DeadLetter,
        };
        assert_eq!(is_left_to_operator(&record, limit), left, "{attempts:?}, {limit}");
    }
}

#[tokio::test]
async fn what_may_have_arrived_is_replayed_only_after_its_lease() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let mut vars = vars(&sink, &[("STORE_URL", &url), ("FORWARD_BUDGET_MS", "3000")]);
    vars.retain(|(name, _)| name != "STORE_TIMEOUT_MS");
    // The lease of this router is its budget plus 5 s. The commands have more time.
    let router =
        serve(&[vars.clone(), vec![("FORWARD_TIMEOUT_MS".into(), "1000".into())]].concat());
    sink.answers(Answer::WhenTold);
    let got = router.post(PAYLOAD).await;
    assert_eq!(got.status, 504);
    sink.answers(ok("done"));
    sink.take();
    let key = got.header("x-webhook-key").unwrap();
    for args in [["replay", key], ["discard", key]] {
        let output = run(&vars, &args).await;
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output);
        assert!(said.contains("in progress") || said.contains("is being delivered"), "{said}");
    }
    assert!(sink.received().is_empty());
    let again = router.post(PAYLOAD).await;
    let wait = again.header("retry-after").unwrap().parse().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    let output = run(&vars, &["replay", key]).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn bad_arguments_name_the_fault_and_send_nothing() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let vars = vars(&sink, &[("STORE_URL", &url)]);
    for args in [&["dead-letters"][..], &["inspect", "00000000"], &["replay", "--all"]] {
        let output = run(&vars, args).await;
        assert!(text(&output).contains("there is no store at "), "{}", text(&output));
    }
    let _creates_it = serve(&vars);
    for (args, said) in [
        (&["replay"][..], "--all"),
        (&["replay", "--all", "x"], "cannot be used with"),
        (&["replay", "--vendor", "stripe", "00000000"], "filters need --all"),
        (&["replay", "nonsense"], "`nonsense` is not a key"),
        (&["replay", "--all", "--per-second", "0"], "0 is not in 1..=10000"),
        (&["replay", "--all", "--since", "yesterday"], "must be a time in UTC"),
        (&["dead-letters", "--destination", "EU"], "must be 1 to 32 characters"),
        (&["discard"], "<KEY|--all>"),
        (&["discard", "--vendor", "stripe", "00000000"], "filters need --all"),
        (&["discard", "--yes", "00000000"], "cannot be used with"),
        (&["discard", "--all", "00000000"], "cannot be used with"),
    ] {
        let output = run(&vars, args).await;
        assert!(!output.status.success() && text(&output).contains(said), "{}", text(&output));
    }
    assert!(sink.received().is_empty());
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}
