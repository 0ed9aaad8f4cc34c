//! The log line of a delivery, the metrics, and the data that neither may contain.

mod inbox; // The metrics of accepted events.

use std::process::Command;

use serde_json::Value;
use webhook_router::trace::Trace;

use crate::{
    servers::{DynamoDbLocal, Redis},
    support::{PAYLOAD, ROUTER, Serve, Server, Sink, client, delivery, get, sign, status, venv},
};

/// Returns the lines of deliveries in a log.
fn deliveries(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "delivery").collect()
}

#[tokio::test]
async fn every_delivery_has_one_line_that_says_all() {
    let sink = Sink::start().await;
    let vars = [("ROUTE_THRESHOLD", "256"), ("FORWARD_ATTEMPTS", "2"), ("METRICS_LISTEN", "off")];
    let router = Serve::to(&sink).envs(vars).start();
    let first = router.post(PAYLOAD).await;
    router.post(PAYLOAD).await;
    sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    router.post(PAYLOAD.replace("4200", "1")).await;
    let lines = deliveries(&router.log());
    assert_eq!(lines.len(), 3, "{}", router.log());
    assert!(!router.log().contains("the lease was lost"), "{}", router.log());
    let of = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("outcome"), ["delivered", "duplicate", "failed"]);
    assert_eq!(of("attempts"), [1, 0, 2]);
    assert_eq!(of("trigger"), ["vendor"; 3]);
    assert_eq!(of("source"), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(of("status"), [200, 200, 503]);
    assert_eq!(of("level"), ["INFO", "INFO", "WARN"]);
    assert_eq!(lines[2]["reason"], "the destination answered 503 Service Unavailable");
    assert_eq!(lines[0]["key"], first.header("x-webhook-key").unwrap());
    for line in &lines {
        assert_eq!((&line["vendor"], &line["destination"]), (&"stripe".into(), &"gcp".into()));
        assert_eq!(
            line["bytes"].as_u64().unwrap() as usize,
            PAYLOAD.len() - if line["outcome"] == "failed" { 3 } else { 0 }
        );
        let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
        // Only a failure is followed by a pause.
        let has_failed = line["outcome"] == "failed";
        assert_eq!(line.get("pause_milliseconds").is_some(), has_failed);
        let pause = if has_failed { number("pause_milliseconds") } else { 0.0 };
        let parts = ["store", "destination", "self"].map(|part| format!("{part}_milliseconds"));
        let sum = pause + parts.iter().map(|part| number(part)).sum::<f64>();
        assert!((sum - number("milliseconds")).abs() < 0.05, "{line}");
        assert!(number("store_milliseconds") > 0.0);
        assert_eq!(number("destination_milliseconds") > 0.0, line["outcome"] != "duplicate");
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        // What goes without saying is left out, and only the lines for CloudWatch name their function.
        for absent in ["settled", "cold_start", "room_milliseconds", "function", "_aws"] {
            assert!(line.get(absent).is_none(), "{absent}: {line}");
        }
    }
}

#[tokio::test]
async fn a_line_and_its_metrics_name_the_source() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let metrics = format!("127.0.0.1:{}", crate::support::free_port());
    let store = crate::support::sqlite(folder.path());
    let sources = r#"
        [sources.orders-eu]
        vendor = "github"
        secrets = ["plainly-a-secret-of-the-tests"]
        except = ["ping"]
    "#;
    let vars = [
        ("SOURCES", sources),
        ("STORE_URL", &store),
        ("METRICS_LISTEN", &metrics),
        ("ROUTE_THRESHOLD", "256"),
    ];
    let router = Serve::to(&sink).envs(vars).start();
    let body = r#"{"number":1}"#;
    let secret = b"plainly-a-secret-of-the-tests";
    let signature = webhook_router::key::hmac_sha256(secret, &[body.as_bytes()]);
    let signature = format!("sha256={}", hex::encode(signature));
    let send = async |event: &str| {
        let request = client()
            .post(format!("{}/webhook/orders-eu", router.url))
            .header("x-hub-signature-256", &signature)
            .header("x-github-event", event)
            .header("x-github-delivery", event)
            .body(body);
        get(request.send().await).await
    };
    assert_eq!(send("push").await.text(), "done");
    assert_eq!(send("ping").await.text(), "filtered");
    sink.answers(status(http::StatusCode::BAD_REQUEST, "no"));
    let failed = send("issues").await;
    let lines = deliveries(&router.log());
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!((&line["source"], &line["vendor"]), (&"orders-eu".into(), &"github".into()));
        assert_eq!(line["trigger"], "vendor");
    }
    let log = router.log();
    let filtered = log.lines().find(|line| line.contains(r#""message":"filtered""#)).unwrap();
    assert!(filtered.contains(r#""source":"orders-eu""#), "{filtered}");
    let got = get(client().get(format!("http://{metrics}/metrics")).send().await).await;
    for line in [
        r#"webhook_router_deliveries_total{destination="gcp",source="orders-eu",vendor="github",outcome="delivered"} 1"#,
        r#"webhook_router_filtered_total{source="orders-eu",vendor="github"} 1"#,
    ] {
        assert!(got.text().contains(line), "{line}\n{}", got.text());
    }
    // A replay knows the source from the path of the original delivery.
    let mut replay = Command::new(ROUTER);
    replay.args(["replay", failed.header("x-webhook-key").unwrap()]);
    replay.env_clear().envs(sink.vars()).envs(vars).env("RUST_LOG", "info");
    let output = tokio::task::spawn_blocking(move || crate::support::end_of(&mut replay)).await;
    let log = String::from_utf8(output.unwrap().stderr).unwrap();
    let line = log.lines().find(|line| line.contains(r#""message":"delivery""#)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["source"], &line["trigger"]), (&"orders-eu".into(), &"replay".into()));
}

#[tokio::test]
async fn on_a_terminal_the_log_is_text() {
    // Makes standard error a terminal, and copies its output to the previous standard error.
    const ON_A_TERMINAL: &str = "\
import os, pty, sys
ours, terminal = pty.openpty()
if os.fork():
    os.close(ours); os.dup2(terminal, 2); os.close(terminal)
    os.execv(sys.argv[1], sys.argv[1:])
os.close(terminal); os.close(1)
try:
    while True: os.write(2, os.read(ours, 4096))
except OSError: pass";
    let sink = Sink::start().await;
    let mut command = Command::new(venv("python"));
    command.args(["-c", ON_A_TERMINAL, ROUTER, "serve", "--listen", "127.0.0.1:0"]);
    let vars = [("ROUTE_THRESHOLD", "256"), ("METRICS_LISTEN", "off"), ("FORWARD_ATTEMPTS", "1")];
    let router = Server::start(command, &[sink.vars(), vars.to_vec()].concat());
    let got = router.post(PAYLOAD).await;
    sink.answers(status(http::StatusCode::BAD_REQUEST, "no"));
    router.post(PAYLOAD.replace("4200", "1")).await;
    // The copy may arrive late.
    for _ in 0..600 {
        if router.log().contains("failed") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let log = router.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("delivery")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for (line, parts) in lines.iter().zip([
        ["INFO", "delivered", "gcp", "200", got.header("x-webhook-key").unwrap()],
        ["WARN", "failed", "gcp", "400", "the destination answered 400 Bad Request"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert!(serde_json::from_str::<Value>(line).is_err());
    }
}

#[tokio::test]
async fn a_trace_is_passed_on_translated_and_begun() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("ROUTE_THRESHOLD", "256").start();
    const W3C: &str = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
    const AMAZON: &str =
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let mut number = 0;
    let mut send = async |headers: &[(&str, &str)]| {
        number += 1;
        let mut request = client().post(router.webhook());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = PAYLOAD.replace("4200", &number.to_string());
        assert_eq!(get(request.body(body).send().await).await.status, 200);
        let received = sink.take().remove(0);
        let header = |name: &str| received.header(name).map(str::to_owned);
        (header("traceparent").unwrap(), header("tracestate"), header("x-amzn-trace-id").unwrap())
    };
    let both = (W3C.to_owned(), None, AMAZON.to_owned());
    assert_eq!(send(&[("traceparent", W3C)]).await, both);
    assert_eq!(send(&[("x-amzn-trace-id", AMAZON)]).await, both);
    let state = [("traceparent", W3C), ("tracestate", "a=b"), ("x-amzn-trace-id", "Root=own")];
    assert_eq!(send(&state).await, (W3C.into(), Some("a=b".into()), "Root=own".into()));
    // The known fields of a later version are read.
    let later = W3C.replace("00-", "cc-") + "-more";
    assert_eq!(send(&[("traceparent", &later)]).await.0, W3C);
    for malformed in [
        "",
        "00",
        "ff-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
        &W3C.replace('5', "X"),
        &format!("{W3C}-more"),
        &W3C.replace("53995c3f42cd8ad8", "0000000000000000"),
    ] {
        let (begun, state, amazon) =
            send(&[("traceparent", malformed), ("tracestate", "a=b")]).await;
        assert!(begun.len() == 55 && begun.ends_with("-00") && state.is_none(), "{begun}");
        assert!(amazon.replace('-', "").contains(&begun[3..35]), "{begun} {amazon}");
    }
    // A tracestate is not passed on with a traceparent that was derived from AWS's form, either.
    let alone = send(&[("x-amzn-trace-id", AMAZON), ("tracestate", "a=b")]).await;
    assert_eq!(alone, both);
    let ids: Vec<_> =
        deliveries(&router.log()).iter().map(|line| line["trace_id"].clone()).collect();
    assert_eq!(ids[0], W3C[3..35]);
    assert_eq!(ids.last().unwrap(), &W3C[3..35]);
    // Outside Lambda, there is no Lambda trace.
    assert!(router.log().lines().all(|line| !line.contains("lambda_trace_id")));
    assert_ne!(ids[5], ids[6]);
}

#[test]
fn in_lambda_its_own_trace_is_told_and_logged_beside_the_sender_s() {
    const LAMBDA: &str =
        "Root=1-11111111-222222222222222222222222;Parent=3333333333333333;Sampled=1";
    const LAMBDA_ID: &str = "11111111222222222222222222222222";
    const W3C: &str = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
    let of = |headers: &[(&'static str, &'static str)]| {
        let mut delivery = delivery(PAYLOAD);
        for (name, value) in headers {
            delivery.headers.insert(*name, http::HeaderValue::from_static(value));
        }
        Trace::of(&delivery, Some(LAMBDA))
    };
    let both = of(&[("traceparent", W3C), ("tracestate", "a=b")]);
    assert_eq!((&*both.id, both.lambda_id.as_deref()), (&W3C[3..35], Some(LAMBDA_ID)));
    let told = |name: &'static str, value: &str| (name, value.to_owned());
    let state = told("tracestate", "a=b");
    let amazon = told("x-amzn-trace-id", LAMBDA);
    assert_eq!(both.headers, [told("traceparent", W3C), state, amazon.clone()]);
    // Without a valid traceparent, the tracestate is ignored.
    let parent = told("traceparent", &format!("00-{LAMBDA_ID}-3333333333333333-01"));
    for headers in [&[("tracestate", "a=b")][..], &[("traceparent", "x"), ("tracestate", "a=b")]] {
        let alone = of(headers);
        assert_eq!((&*alone.id, alone.lambda_id), (LAMBDA_ID, None));
        assert_eq!(alone.headers, [parent.clone(), amazon.clone()]);
    }
}

#[tokio::test]
async fn a_panic_is_answered_counted_and_never_quoted() {
    let sink = Sink::start().await;
    let metrics = format!("127.0.0.1:{}", crate::support::free_port());
    let vars = [("METRICS_LISTEN", &*metrics), ("FAULT_POINT", "panic before claim:1")];
    let router = Serve::to(&sink).envs(vars).start();
    let got = router.post(PAYLOAD).await;
    assert_eq!((got.status, got.text()), (500, "internal error"));
    let counted = get(client().get(format!("http://{metrics}/metrics")).send().await).await;
    assert!(counted.text().contains("webhook_router_panics_total 1\n"), "{}", counted.text());
    assert!(router.log().contains("\"place\":\"src/fault.rs:"), "{}", router.log());
    assert!(!router.log().contains("a test wanted it"), "{}", router.log());
    router.post(PAYLOAD).await.expect(200);
}

#[tokio::test]
async fn prometheus_reads_counts_and_durations_at_an_address_of_its_own() {
    let sink = Sink::start().await;
    let metrics = format!("127.0.0.1:{}", crate::support::free_port());
    let vars =
        [("ROUTE_THRESHOLD", "256"), ("METRICS_LISTEN", &metrics), ("MAX_BODY_BYTES", "1000")];
    let router = Serve::to(&sink).envs(vars).start();
    for _ in 0..3 {
        router.post(PAYLOAD).await;
    }
    router.post("nonsense").await;
    router.post("x".repeat(1001)).await;
    // There are more vendors than labels for vendors.
    for vendor in 0..60 {
        let body = PAYLOAD.replace("stripe", &format!("vendor-{vendor}"));
        router.post(body).await;
    }
    let read =
        async |path: &str| get(client().get(format!("http://{metrics}{path}")).send().await).await;
    let got = read("/metrics").await;
    assert!(got.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let labels = |outcome: &str| {
        format!("{{destination=\"gcp\",source=\"\",vendor=\"stripe\",outcome=\"{outcome}\"}}")
    };
    for line in [
        format!("webhook_router_deliveries_total{} 1\n", labels("delivered")),
        format!("webhook_router_deliveries_total{} 2\n", labels("duplicate")),
        format!("webhook_router_delivery_seconds_count{} 1\n", labels("delivered")),
        "webhook_router_refused_total{status=\"400\"} 1\n".into(),
        "webhook_router_refused_total{status=\"413\"} 1\n".into(),
        "webhook_router_attempts_total{destination=\"gcp\"} 61\n".into(),
        "webhook_router_store_seconds_count 63\n".into(),
        "webhook_router_unsettled_total 0\n".into(),
        "webhook_router_panics_total 0\n".into(),
        "webhook_router_deliveries_total{destination=\"gcp\",source=\"\",vendor=\"other\",outcome=\"delivered\"} 11\n".into(),
    ] {
        assert!(got.text().contains(&line), "{line}\n{}", got.text());
    }
    assert!(got.text().ends_with("# EOF\n"));
    assert_eq!(read("/").await.status, 404);
    // The address for senders does not serve the metrics.
    let outside = get(client().get(format!("{}/metrics", router.url)).send().await).await;
    assert_eq!(outside.status, 404);
}

#[tokio::test]
async fn scrapes_count_the_dead_letters_and_ask_the_store_once() {
    let log_all = ["--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000"];
    let (sink, redis) = (Sink::start().await, Redis::start(&log_all));
    let start = |store: &str| {
        let metrics = format!("127.0.0.1:{}", crate::support::free_port());
        let vars = [
            ("STORE_URL", store),
            ("METRICS_LISTEN", metrics.as_str()),
            ("ROUTE_THRESHOLD", "256"),
            ("FORWARD_ATTEMPTS", "1"),
        ];
        (Serve::to(&sink).envs(vars).start(), metrics)
    };
    let gauges = async |metrics: &str| {
        let got = get(client().get(format!("http://{metrics}/metrics")).send().await).await;
        assert!(got.status == 200 && got.text().ends_with("# EOF\n"), "{}", got.text());
        let gauge = |name: &str| {
            let name = format!("webhook_router_{name} ");
            let line = got.text().lines().find_map(|line| line.strip_prefix(&name))?;
            Some(line.parse::<f64>().unwrap())
        };
        gauge("dead_letters").zip(gauge("oldest_dead_letter_seconds"))
    };
    // The workers of the inbox list what is due in other sets.
    let listings = || {
        let commands = redis.cli(&["SLOWLOG", "GET", "100000"]);
        commands.matches("ZRANGEBYSCORE\nwebhook:dead-letters\n").count()
    };
    let (router, metrics) = start(&redis.url());
    assert_eq!(gauges(&metrics).await, Some((0.0, 0.0)));
    sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    for number in ["1", "2"] {
        let got = router.post(PAYLOAD.replace("4200", number)).await;
        assert_eq!(got.status, 503);
    }
    // A recent result is reused.
    for _ in 0..20 {
        assert_eq!(gauges(&metrics).await, Some((0.0, 0.0)));
    }
    assert_eq!(listings(), 1);
    let (_another, metrics) = start(&redis.url());
    let (count, age) = gauges(&metrics).await.unwrap();
    assert!(count == 2.0 && age > 0.0 && age < 600.0, "{count} {age}");
    // The count stops at its limit.
    let add = "for i = 1, 1500 do redis.call('ZADD', 'webhook:dead-letters', i, \
               'webhook:dedup:' .. string.format('%064x', i)) end";
    redis.cli(&["EVAL", add, "0"]);
    let (_another, metrics) = start(&redis.url());
    let (count, age) = gauges(&metrics).await.unwrap();
    assert!(count == 1000.0 && age > 1e9, "{count} {age}");
    // Without an answer from the store, its metrics are missing, and all others are there.
    let nowhere = format!("redis://127.0.0.1:{}", crate::support::free_port());
    let (router, metrics) = start(&nowhere);
    assert_eq!(gauges(&metrics).await, None);
    assert_eq!(gauges(&metrics).await, None);
    let warnings = router.log().matches("the dead letters cannot be counted").count();
    assert_eq!(warnings, 1, "{}", router.log());
}

#[tokio::test]
async fn no_secret_signature_or_payload_is_in_a_log_at_any_level() {
    const SECRET: &str = "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t";
    let (sink, redis, dynamodb) =
        (Sink::start().await, Redis::start(&[]), DynamoDbLocal::start().await);
    let folder = tempfile::tempdir().unwrap();
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    for store in [crate::support::sqlite(folder.path()), redis.url(), table] {
        let vars = [
            ("RUST_LOG", "trace"),
            ("STORE_URL", store.as_str()),
            ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
            ("STORE_TIMEOUT_MS", "20000"),
            ("ENVELOPE_SECRETS", SECRET),
            ("FORWARD_ATTEMPTS", "2"),
        ];
        // The server checks its log when it is dropped.
        let router = Serve::to(&sink).envs(vars).start();
        for number in 0..6 {
            let body = PAYLOAD.replace("4200", &number.to_string());
            let now = chrono::Utc::now().timestamp();
            let signature = sign(SECRET, "id", now, &body);
            if number == 4 {
                sink.answers(status(http::StatusCode::BAD_GATEWAY, "marker-in-the-payload"));
            }
            for signature in [&signature, "v1,bm90IHRoZSBzaWduYXR1cmU="] {
                let request = client()
                    .post(router.webhook())
                    .header("webhook-id", "id")
                    .header("webhook-timestamp", now)
                    .header("webhook-signature", signature);
                get(request.body(body.clone()).send().await).await;
                assert!(!router.log().contains(&signature[3..]), "{}", router.log());
            }
        }
        assert!(sink.take().len() >= 6);
        assert!(router.log().contains("\"outcome\":\"delivered\""), "{}", router.log());
        sink.answers(crate::support::ok("done"));
    }
}
