//! The release build in AWS's own Runtime Interface Emulator.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    emulator::{Artefact, Emulator, SECRET, event, signal},
    lambda::{events, request_of},
    servers::{DynamoDbLocal, Redis},
    stack::{Stack, text},
    support::{Answer, PAYLOAD, PROCESSOR, ROUTER, Serve, Server, Sink, get, ok, sign, status},
};

#[tokio::test]
async fn the_release_build_answers_every_event_as_serve_does_on_both_stores() {
    let (artefact, redis, dynamodb) =
        (Artefact::router(), Redis::start(&[]), DynamoDbLocal::start().await);
    // The processor runs as a Cloud Run service, and as a function in another emulator. That
    // emulator names every function `function`.
    let service = Server::start(Command::new(PROCESSOR), &[("PORT", "0")]);
    let service_url = service.url.replace("0.0.0.0", "127.0.0.1");
    let processor = Artefact::unpack("webhook-processor");
    let function = Emulator::start(&processor.bootstrap(), &[]);
    let invoke = format!("http://127.0.0.1:{}", function.port);
    let targets = [
        ("GCP_TARGET_URL", service_url.as_str()),
        ("AWS_TARGET_FUNCTION", "function"),
        ("AWS_ENDPOINT_URL_LAMBDA", &invoke),
        ("STORE_TIMEOUT_MS", "5000"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "60"),
    ];
    for (store, endpoint) in
        [(redis.url(), ""), ("dynamodb://webhook-router".into(), &*dynamodb.url)]
    {
        let at = [("STORE_URL", store.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint)];
        let emulator = Emulator::start(&artefact.bootstrap(), &[&targets[..], &at].concat());
        let router =
            Serve::new().envs(targets[..3].iter().copied()).env("ROUTING_SECRET", SECRET).start();
        let mut outcomes = BTreeMap::new();
        let invocations = || function.log().matches("INVOKE START").count();
        let before = invocations();
        for file in events() {
            let text = std::fs::read_to_string(&file).unwrap();
            for _ in 0..2 {
                let served = get(request_of(&file, &router.webhook()).send().await).await;
                let answer = emulator.invoke(text.clone()).await;
                assert_eq!(answer["statusCode"], served.status, "{file:?}: {answer}");
                // The processor counts events over all routers, so only the first answer has
                // `true`.
                let any_count = |body: &str| body.replace(":true}", ":false}");
                let body = answer["body"].as_str().unwrap();
                assert_eq!(any_count(body), any_count(served.text()), "{file:?}");
                for name in ["x-webhook-key", "x-webhook-destination", "idempotent-replayed"] {
                    // A REST API reads the headers from the other member.
                    let header = answer["headers"].get(name);
                    let header = header.or(answer["multiValueHeaders"][name].get(0));
                    assert_eq!(
                        header.and_then(Value::as_str),
                        served.header(name),
                        "{file:?}: {name}"
                    );
                }
                *outcomes.entry(served.status).or_insert(0) += 1;
            }
        }
        assert!(outcomes[&200] >= 18 && outcomes.len() > 1, "{outcomes:?}");
        let report = emulator.invoke(r#"{"doctor": true}"#.to_owned()).await;
        assert_eq!(report["errors"], 0, "{report}");
        let is_store = |found: &Value| found["severity"] == "ok" && found["subject"] == "STORE_URL";
        assert!(report["findings"].as_array().unwrap().iter().any(is_store), "{report}");
        assert!(invocations() >= before + 4, "{}", function.log());

        // The line of each delivery is short, and carries its metrics.
        let log = emulator.log();
        let lines: Vec<_> = log
            .lines()
            .filter_map(|text| Some((text, serde_json::from_str::<Value>(text).ok()?)))
            .filter(|(_, line)| line["message"] == "delivery")
            .collect();
        assert!(lines.len() >= 8, "{log}");
        let stack = Stack::default();
        for (text, line) in &lines {
            assert!(line["request_id"].is_string() && line["trace_id"].is_string(), "{line}");
            assert!(stack.metrics_of(line).contains(&by("milliseconds", "function,outcome")));
            assert!(text.len() <= LONGEST_LINE || line.get("reason").is_some(), "{text}");
        }
    }
}

/// Most bytes of the line of a delivery, with its metrics.
const LONGEST_LINE: usize = 600;

fn by(metric: &str, dimensions: &str) -> (String, String) {
    (metric.to_owned(), dimensions.to_owned())
}

#[tokio::test]
async fn the_line_of_a_delivery_is_short_and_has_all_that_metrics_and_queries_read() {
    const SECRET: &str = "plainly-a-secret-of-the-tests";
    let (redis, sink) = (Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let vars = [
        ("STORE_URL", url.as_str()),
        ("ROUTE_THRESHOLD", "256"),
        ("GITHUB_SECRETS", SECRET),
        // CloudFormation gives such names.
        ("AWS_LAMBDA_FUNCTION_NAME", "webhook-router-Router-AbCdEf123456"),
    ];
    let emulator = Emulator::start(Path::new(ROUTER), &[&sink.vars(), &vars[..]].concat());
    let body = r#"{"action":"opened","number":1}"#;
    let signature = webhook_router::key::hmac_sha256(SECRET.as_bytes(), &[body.as_bytes()]);
    let mut from_github: Value = serde_json::from_str(&event(body)).unwrap();
    from_github["rawPath"] = "/webhook/github".into();
    from_github["requestContext"]["http"]["path"] = "/webhook/github".into();
    from_github["headers"] = json!({
        "content-type": "application/json",
        "x-hub-signature-256": format!("sha256={}", hex::encode(signature)),
        "x-github-event": "pull_request",
        "x-github-delivery": "11111111-2222-3333-4444-555555555555",
    });
    let (envelope, from_github) = (event(PAYLOAD), from_github.to_string());
    for event in [&envelope, &from_github, &envelope, &from_github] {
        assert_eq!(emulator.invoke(event.clone()).await["statusCode"], 200, "{}", emulator.log());
    }
    let log = emulator.log();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains(r#""message":"delivery""#)).collect();
    assert_eq!(lines.len(), 4, "{log}");
    let stack = Stack::default();
    let mut longest = 0;
    for text in lines {
        longest = longest.max(text.len());
        let line: Value = serde_json::from_str(text).unwrap();
        assert_eq!(line["function"], "webhook-router-Router-AbCdEf123456");
        assert_eq!(stack.metrics_of(&line), [by("milliseconds", "function,outcome")].into());
        // A member is there once, and what goes without saying is not.
        let members = line.as_object().unwrap();
        assert_eq!(text.matches("\":").count(), members.len(), "{text}");
        assert!(line.get("settled").is_none() && line.get("_aws").is_none(), "{line}");
    }
    assert!(longest <= LONGEST_LINE, "{longest} bytes: {log}");
    let page = std::fs::read_to_string("docs/cost.md").unwrap();
    let told = page.lines().find_map(|line| line.strip_prefix("| a log line | at most "));
    let told: usize = told.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((longest..longest + 20).contains(&told), "{longest} bytes, cost.md has {told}");
}

#[tokio::test]
async fn a_crash_a_hang_and_nonsense_leave_the_function_able_to_serve_the_next() {
    let (artefact, redis, sink) = (Artefact::router(), Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let vars = [
        ("STORE_URL", url.as_str()),
        ("ROUTE_THRESHOLD", "256"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "5"),
        ("RUST_LOG", "trace"),
    ];
    let emulator = Emulator::start(&artefact.bootstrap(), &[&sink.vars(), &vars[..]].concat());
    let mut number = 0;
    let mut serves = async || {
        number += 1;
        let body = PAYLOAD.replace("4200", &number.to_string());
        let answer = emulator.invoke(event(&body)).await;
        assert_eq!(
            (&answer["statusCode"], &answer["body"]),
            (&200.into(), &"done".into()),
            "{}",
            emulator.log()
        );
    };
    serves().await;
    serves().await;
    let cold = |log: String| log.matches(r#""cold_start":true"#).count();
    assert_eq!(cold(emulator.log()), 1);
    for nonsense in ["{}", "[1]", "\"x\"", "null", "{\"requestContext\": 1}"] {
        let answer = emulator.invoke(nonsense.into()).await;
        let said = answer["errorMessage"].as_str().unwrap_or_default();
        assert!(said.starts_with("not an HTTP request: expected an event of "), "{answer}");
    }
    serves().await;
    // An attempt at a destination that never answers is abandoned in time. There is no Lambda
    // error, and the lease runs out.
    sink.answers(Answer::WhenTold);
    let answer = emulator.invoke(event(PAYLOAD)).await;
    assert_eq!(
        (&answer["statusCode"], &answer["body"]),
        (&504.into(), &"destination too slow".into())
    );
    sink.answers(ok("done"));
    let answer = emulator.invoke(event(PAYLOAD)).await;
    assert_eq!(answer["statusCode"], 409);
    serves().await;
    // The function dies, or hangs, in the middle of a delivery.
    for (signal, amount, said) in [("-ABRT", "91", "Runtime"), ("-STOP", "92", "timed out")] {
        sink.answers(Answer::WhenTold);
        sink.take();
        let body = PAYLOAD.replace("4200", amount);
        let answered = async { emulator.invoke_anyhow(event(&body)).await };
        let harm = async {
            sink.arrived(1).await;
            self::signal(signal, &emulator.function());
        };
        let (text, ()) = tokio::join!(answered, harm);
        assert!(text.contains(said), "{signal}: {text}");
        sink.answers(ok("done"));
        serves().await;
    }
}

#[tokio::test]
async fn sigterm_ends_the_function_once_the_answer_under_way_is_given() {
    let (artefact, redis, sink) = (Artefact::router(), Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let vars = [("STORE_URL", url.as_str()), ("ROUTE_THRESHOLD", "256")];
    let emulator = Emulator::start(&artefact.bootstrap(), &[&sink.vars(), &vars[..]].concat());
    let invoke = async |event: String| emulator.invoke(event).await;
    // The redrive needs a dead letter.
    let letter = event(&PAYLOAD.replace("4200", "1"));
    sink.answers(status(StatusCode::BAD_REQUEST, "no"));
    assert_eq!(invoke(letter.clone()).await["statusCode"], 400);
    let redrive = r#"{"replay": {"all": true}}"#.to_owned();
    for (stops, event, path, answer) in
        [(1, event(PAYLOAD), "/body", json!("at last")), (2, redrive, "/delivered", json!(1))]
    {
        sink.answers(Answer::WhenTold);
        sink.take();
        let terminate = async {
            sink.arrived(1).await;
            let function = emulator.function();
            signal("-TERM", &function);
            // The function has received the signal, and continues.
            let says_so = || emulator.log().matches("stopping").count() == stops;
            emulator.until("it says so", says_so).await;
            sink.go.notify_one();
            function
        };
        let (answered, function) = tokio::join!(invoke(event), terminate);
        assert_eq!(answered.pointer(path), Some(&answer), "{answered}");
        emulator.is_rid_of(&function).await;
        sink.answers(ok("done"));
    }
    // Both events are settled.
    for known in [letter, event(PAYLOAD)] {
        assert_eq!(invoke(known).await["body"], "duplicate ignored");
    }
    // Without work, the function ends immediately.
    let function = emulator.function();
    signal("-TERM", &function);
    emulator.is_rid_of(&function).await;
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_function_goes_on() {
    let (redis, sink) = (Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    // This is the build with fault points, so that it can panic.
    let vars = [("STORE_URL", url.as_str()), ("FAULT_POINT", "panic before claim:2")];
    let emulator = Emulator::start(Path::new(ROUTER), &[&sink.vars(), &vars[..]].concat());
    for (amount, status) in [("1", 200), ("2", 500), ("2", 200), ("3", 200)] {
        let answer = emulator.invoke(event(&PAYLOAD.replace("4200", amount))).await;
        assert_eq!(answer["statusCode"], status, "{answer}");
    }
    assert_eq!(sink.take().len(), 3);
    // The message of a panic might quote a payload, so the log contains only its place.
    let log = emulator.log();
    assert!(!log.contains("a test wanted it"), "{log}");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut panics = lines.filter(|line| line["panics"] == 1);
    let panic = &panics.next().unwrap();
    assert_eq!(panic["message"], "bug: a panic");
    assert!(panic["place"].as_str().unwrap().starts_with("src/fault.rs:"), "{panic}");
    let directive = &panic["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Metrics"][0]["Name"], "panics");
    assert_eq!(directive["Dimensions"], json!([["function"]]));
    assert_eq!(Stack::default().metrics_of(panic), [by("panics", "function")].into());
    assert!(panics.next().is_none());
}

#[tokio::test]
async fn an_answer_comes_before_lambda_s_timeout_though_destination_and_store_hang() {
    let (redis, sink) = (Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let hurried = [("STORE_TIMEOUT_MS", "500"), ("AWS_LAMBDA_FUNCTION_TIMEOUT", "3")];
    let vars = [&sink.vars()[..], &[("STORE_URL", &url)], &hurried].concat();
    let emulator = Emulator::start(Path::new(ROUTER), &vars);
    let warm_up = emulator.invoke(event(&PAYLOAD.replace("4200", "1"))).await;
    assert_eq!(warm_up["statusCode"], 200, "{}", emulator.log());
    sink.take();
    sink.answers(Answer::WhenTold);
    let stall = async {
        sink.arrived(1).await;
        redis.signal("STOP");
    };
    let (text, ()) = tokio::join!(emulator.invoke_anyhow(event(PAYLOAD)), stall);
    redis.signal("CONT");
    assert!(text.contains("try again later"), "{text}\n{}", emulator.log());
    // The store did not keep the result, and an alarm tells so.
    let log = emulator.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.rfind(|line| line["message"] == "delivery").unwrap();
    assert_eq!((&line["settled"], &line["unsettled"]), (&false.into(), &1.into()), "{line}");
    let made = [by("milliseconds", "function,outcome"), by("unsettled", "function")];
    assert_eq!(Stack::default().metrics_of(&line), made.into());
}

#[tokio::test]
async fn the_metrics_are_ones_that_cloudwatch_takes_and_alarms_can_trust() {
    let (artefact, redis, sink) = (Artefact::router(), Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let vars = [("STORE_URL", url.as_str()), ("ROUTE_THRESHOLD", "256")];
    let emulator = Emulator::start(&artefact.bootstrap(), &[&sink.vars(), &vars[..]].concat());
    let lines = |message: &str| -> Vec<Value> {
        let log = emulator.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    };
    // The vendor's name is no dimension, because a sender chooses it.
    for vendor in ["Stripe", "Zahlung für", " "] {
        assert_eq!(
            emulator.invoke(event(&PAYLOAD.replace("stripe", vendor))).await["statusCode"],
            200
        );
        assert_eq!(lines("delivery").pop().unwrap()["vendor"], vendor);
    }
    // The first invocation was the cold start. A refused invocation may be one, too.
    let cold_starts = lines("delivery");
    let cold_starts: Vec<_> = cold_starts.iter().map(|line| line["cold_start"].clone()).collect();
    assert_eq!(cold_starts, [true.into(), Value::Null, Value::Null]);
    assert_eq!(emulator.invoke(event("nonsense")).await["statusCode"], 400);
    assert_eq!(lines("refused")[0]["cold_start"], false);

    // The number of remaining dead letters is known after a replay of all.
    sink.answers(status(StatusCode::BAD_REQUEST, "no"));
    emulator.invoke(event(PAYLOAD)).await;
    for (request, ending, left) in [
        (r#"{"all": true, "vendor": "adyen"}"#, json!({ "chosen": 0 }), None),
        (r#"{"all": true, "vendor": "stripe"}"#, json!({ "failed": 1 }), None),
        (r#"{"all": true}"#, json!({ "failed": 1 }), Some(1)),
        (r#"{"all": true}"#, json!({ "delivered": 1 }), Some(0)),
    ] {
        if left == Some(0) {
            sink.answers(ok("done"));
        }
        let report = emulator.invoke(format!(r#"{{"replay": {request}}}"#)).await;
        let (name, count) = ending.as_object().unwrap().iter().next().unwrap();
        assert_eq!(&report[name], count, "{report}");
        let line = lines("redrive").pop().unwrap();
        assert_eq!(line["summary"], report);
        assert_eq!(line.get("dead_letters"), left.map(Value::from).as_ref(), "{line}");
        assert_eq!(line.get("_aws").is_some(), left.is_some());
    }

    // A replayed delivery belongs to its invocation, and has its own source.
    let replayed = lines("delivery").pop().unwrap();
    assert_eq!(
        (&replayed["trigger"], &replayed["outcome"]),
        (&"bulk replay".into(), &"delivered".into())
    );
    assert!(
        emulator.log().contains(&format!("START RequestId: {}", text(&replayed["request_id"])))
    );

    // Every metric that the alarms and the dashboard use exists. `unsettled` needs a store that breaks.
    let stack = Stack::default();
    let mut there = BTreeSet::from([by("panics", "function"), by("unsettled", "function")]);
    for line in [lines("delivery"), lines("redrive")].concat() {
        there.extend(stack.metrics_of(&line));
    }
    assert_eq!(stack.watched(), there);
}

#[tokio::test]
async fn in_lambda_too_no_log_at_any_level_tells_a_secret_a_signature_or_a_payload() {
    const SECRET: &str = "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t";
    let (artefact, redis, sink) = (Artefact::router(), Redis::start(&[]), Sink::start().await);
    let url = redis.url();
    let vars = [("STORE_URL", url.as_str()), ("ENVELOPE_SECRETS", SECRET), ("RUST_LOG", "trace")];
    // The emulator checks its log when it ends.
    let emulator = Emulator::start(&artefact.bootstrap(), &[&sink.vars(), &vars[..]].concat());
    for amount in 0..4 {
        let body = PAYLOAD.replace("4200", &amount.to_string());
        let now = chrono::Utc::now().timestamp();
        let signature = sign(SECRET, "id", now, &body);
        for (signature, status) in [(&*signature, 200), ("v1,bm90IHRoZSBzaWduYXR1cmU=", 401)] {
            let mut event: Value = serde_json::from_str(&event(&body)).unwrap();
            event["headers"] = json!({
                "webhook-id": "id",
                "webhook-timestamp": now.to_string(),
                "webhook-signature": signature,
            });
            assert_eq!(emulator.invoke(event.to_string()).await["statusCode"], status);
            assert!(!emulator.log().contains(&signature[3..]), "{}", emulator.log());
        }
    }
    assert_eq!(sink.take().len(), 4);
    assert!(emulator.log().contains(r#""outcome":"delivered""#));
}
