//! The requests that the processor Lambda gets through the Invoke API, and the results of its
//! answers.

use std::{process::Command, time::Duration};

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::{Value, json};
use webhook_router::{
    cmd::fronts,
    config::{Config, Target},
    destination::{Destination, Lambda, Outgoing},
    route::Route,
};

use crate::support::{
    Answer, PAYLOAD, PROCESSOR, ROUTER, Serve, Server, Sink, client, delivery, end_of, get, lookup,
    ok, plan_of, sdk, sqlite, status,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn the_lambda_s_answers_are_read() {
    let sink = Sink::start().await;
    let vars = vec![("ROUTE_THRESHOLD", "0"), ("FORWARD_ATTEMPTS", "1")];
    let router = Serve::to(&sink).envs(vars).start();
    let answer = |status: u16, headers: Vec<(&'static str, &'static str)>, body: &'static str| {
        Answer::With(StatusCode::from_u16(status).unwrap(), headers, body.into())
    };
    let long: &'static str = format!(r#"{{"statusCode":500,"id":{}}}"#, "7".repeat(4400)).leak();
    let deep: &'static str =
        format!(r#"{{"statusCode":500,"deep":{}{}}}"#, "[".repeat(980), "]".repeat(980)).leak();
    let json = Some("application/json");
    let cases = [
        // The function failed. Its report is not passed on.
        (
            answer(
                200,
                vec![("x-amz-function-error", "Unhandled")],
                r#"{"errorMessage":"secret inside"}"#,
            ),
            502,
            "destination failed",
            None,
        ),
        (
            answer(200, vec![("x-amz-function-error", "Handled")], r#"{"statusCode":200}"#),
            502,
            "destination failed",
            None,
        ),
        // The function gives an HTTP answer.
        (answer(200, vec![], r#"{"statusCode":500,"body":"no"}"#), 500, "no", Some("")),
        (
            answer(200, vec![], r#"{"statusCode":302,"body":"elsewhere"}"#),
            502,
            "elsewhere",
            Some(""),
        ),
        (answer(200, vec![], r#"{"statusCode":410}"#), 502, "", Some("")),
        (
            answer(
                200,
                vec![],
                r#"{"statusCode":201,"headers":{"Content-Type":"text/csv"},"body":"YSxi","isBase64Encoded":true}"#,
            ),
            201,
            "a,b",
            Some("text/csv"),
        ),
        // The status of such an answer counts, whatever else it contains.
        (
            answer(200, vec![], r#"{"statusCode":500,"body":{"error":"db down"}}"#),
            500,
            r#"{"error":"db down"}"#,
            Some(""),
        ),
        (
            answer(200, vec![], r#"{"statusCode":500,"headers":null,"body":"x"}"#),
            500,
            "x",
            Some(""),
        ),
        (
            answer(200, vec![], r#"{"statusCode":500,"headers":{"X-N":1},"body":"x"}"#),
            500,
            "x",
            Some(""),
        ),
        (answer(200, vec![], r#"{"statusCode":503,"isBase64Encoded":null}"#), 503, "", Some("")),
        (
            answer(200, vec![], r#"{"statusCode":500,"isBase64Encoded":true,"body":"no base64!"}"#),
            500,
            "no base64!",
            Some(""),
        ),
        (answer(200, vec![], r#"{"statusCode":200,"statusCode":500}"#), 500, "", Some("")),
        (answer(200, vec![], r#"{"statusCode":500.0}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":0}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":1000}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":-1}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":200.5}"#), 502, "destination failed", None),
        // An unreadable answer may report a failure.
        (answer(200, vec![], r#"{"statusCode":"500"}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":"200"}"#), 502, "destination failed", None),
        (answer(200, vec![], r#"{"statusCode":null}"#), 502, "destination failed", None),
        (
            answer(200, vec![], r#"{"statusCode":500,"body":"no","retry":NaN}"#),
            502,
            "destination failed",
            None,
        ),
        (answer(200, vec![], long), 502, "destination failed", None),
        (answer(200, vec![], deep), 502, "destination failed", None),
        (answer(200, vec![], "Internal Server Error"), 502, "destination failed", None),
        // Any other payload is the answer itself.
        (answer(200, vec![], r#""fine""#), 200, r#""fine""#, json),
        (answer(200, vec![], ""), 200, "", Some("")),
        // Lambda itself refuses the request.
        (
            answer(
                404,
                vec![("x-amzn-errortype", "ResourceNotFoundException")],
                r#"{"Message":"Function not found: arn"}"#,
            ),
            502,
            "destination unreachable",
            None,
        ),
        (
            answer(
                403,
                vec![("x-amzn-errortype", "AccessDeniedException")],
                r#"{"Message":"not authorized"}"#,
            ),
            502,
            "destination unreachable",
            None,
        ),
        (
            answer(
                429,
                vec![("x-amzn-errortype", "TooManyRequestsException")],
                r#"{"Message":"Rate Exceeded."}"#,
            ),
            502,
            "destination unreachable",
            None,
        ),
    ];
    for (index, (answer, status, body, content_type)) in cases.into_iter().enumerate() {
        sink.answers(answer);
        let event =
            format!(r#"{{"vendor":"v","event_type":"e{index}","created_at":"2024-05-05"}}"#);
        let got = router.post(event.clone()).await;
        assert_eq!((got.status, got.text()), (status, body), "case {index}");
        if let Some(content_type) = content_type {
            assert_eq!(
                got.header("content-type").unwrap_or_default(),
                content_type,
                "case {index}"
            );
        }
        assert_eq!(sink.take().len(), 1, "case {index}: the SDK must not try again");
        // Only a success makes an event delivered.
        sink.answers(ok("done"));
        let again = router.post(event).await;
        let expected = if status < 300 { "duplicate ignored" } else { "done" };
        assert_eq!(again.text(), expected, "case {index}");
        sink.take();
    }
}

#[tokio::test]
async fn a_function_is_asked_for_in_the_region_of_its_arn() {
    let sink = Sink::start().await;
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:processor:live";
    for (function, region) in [("processor", "us-east-1"), (arn, "eu-west-1")] {
        let vars = [("AWS_TARGET_FUNCTION", function), ("ROUTE_THRESHOLD", "0")];
        let router = Serve::to(&sink).envs(vars).start();
        router.post(PAYLOAD).await.expect(200);
        let received = sink.take().remove(0);
        let signature = received.header("authorization").unwrap();
        assert!(signature.contains(&format!("/{region}/lambda/")), "{signature}");
        assert!(received.path.contains("processor"), "{}", received.path);
    }
}

#[tokio::test]
async fn an_event_invocation_is_delivered_when_lambda_has_queued_it() {
    let sink = Sink::start().await;
    let vars = vec![
        ("ROUTE_THRESHOLD", "0"),
        ("AWS_TARGET_INVOCATION", "Event"),
        ("AWS_TARGET_PAYLOAD", "request"),
    ];
    let router = Serve::to(&sink).envs(vars).start();
    sink.answers(status(StatusCode::ACCEPTED, ""));
    let request = client()
        .post(router.webhook())
        .header("content-type", "application/json; charset=UTF-8")
        .header("traceparent", TRACE)
        .header("webhook-signature", "not for the destination")
        .body(PAYLOAD);
    let got = get(request.send().await).await;
    assert_eq!((got.status, got.text()), (202, ""));

    let received = sink.take().remove(0);
    assert_eq!(received.header("x-amz-invocation-type"), Some("Event"));
    assert_eq!(received.header("x-amz-client-context"), None, "Lambda would drop it");
    let mut event: Value = serde_json::from_slice(&received.body).unwrap();
    let context = event["requestContext"].as_object_mut().unwrap();
    let time = context.remove("time").unwrap();
    let epoch = context.remove("timeEpoch").unwrap().as_i64().unwrap();
    let made = DateTime::from_timestamp_millis(epoch).unwrap();
    assert!((Utc::now() - made).num_seconds() < 60, "{made}");
    assert_eq!(time, made.format("%d/%b/%Y:%H:%M:%S +0000").to_string());
    let key = got.header("x-webhook-key").unwrap();
    let agent = concat!("webhook-router/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        event,
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/",
            "rawQueryString": "",
            "headers": {
                "content-length": PAYLOAD.len().to_string(),
                "content-type": "application/json; charset=UTF-8",
                "host": "webhook-router",
                "idempotency-key": key,
                "traceparent": TRACE,
                "user-agent": agent,
                "x-amzn-trace-id": "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
                "x-webhook-attempt": "1",
                "x-webhook-event-type": "payment.succeeded",
                "x-webhook-vendor": "stripe",
            },
            "requestContext": {
                "accountId": "anonymous",
                "apiId": "webhook-router",
                "domainName": "webhook-router",
                "domainPrefix": "webhook-router",
                "http": {
                    "method": "POST",
                    "path": "/",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "0.0.0.0",
                    "userAgent": agent,
                },
                "requestId": format!("{key}/1"),
                "routeKey": "$default",
                "stage": "$default",
            },
            "body": PAYLOAD,
            "isBase64Encoded": false,
        })
    );
    assert_eq!(router.post(PAYLOAD).await.text(), "duplicate ignored");
}

#[tokio::test]
async fn a_body_that_is_no_json_goes_as_a_request_and_base64_when_it_is_no_text() {
    let sink = Sink::start().await;
    let vars = [("AWS_TARGET_FUNCTION", "processor"), ("ROUTE_THRESHOLD", "0")];
    let targets = Config::from_vars(lookup(&vars)).unwrap().targets;
    let target = targets.get(Route::AWS).and_then(Target::lambda).unwrap().clone();
    let lambda = Lambda::with_sdk_config(target, Duration::from_secs(10), &sdk(&sink.url));
    let plan = plan_of("sent");
    for (body, as_request) in [
        (&b"{\"a\":\"\\ud800\"}"[..], None),
        (b"amount=42&currency=USD", Some(("amount=42&currency=USD", false))),
        (b"", Some(("", false))),
        (b"{\"a\":NaN}", Some(("{\"a\":NaN}", false))),
        (b"\"\xff\"", Some(("Iv8i", true))),
    ] {
        let delivery = delivery(body);
        let event = Outgoing {
            delivery: &delivery,
            plan: &plan,
            attempt: 3,
            trace: &[],
            signer: None,
            is_copy: false,
        };
        lambda.send(&event, Duration::from_secs(10)).await.unwrap();
        let received = sink.take().remove(0);
        let Some((text, is_base64)) = as_request else {
            assert_eq!(received.body, body);
            assert_eq!(received.custom()["x-webhook-attempt"], "3");
            continue;
        };
        assert_eq!(received.header("x-amz-client-context"), None);
        let event: Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(text), &json!(is_base64)));
        assert_eq!(event["headers"]["x-webhook-attempt"], "3");
        // A function written for a Function URL reads the original bytes.
        let read = fronts::delivery(std::str::from_utf8(&received.body).unwrap()).unwrap();
        assert_eq!(read.body, body);
    }
}

#[tokio::test]
async fn the_sample_processor_reads_both_forms() {
    let processor = Server::start(Command::new(PROCESSOR), &[("PORT", "0")]);
    let forms: [&[(&str, &str)]; 3] = [
        &[],
        &[("AWS_TARGET_PAYLOAD", "request")],
        &[("AWS_TARGET_PAYLOAD", "request"), ("AWS_TARGET_INVOCATION", "Event")],
    ];
    for (form, status) in forms.into_iter().zip([200, 200, 202]) {
        let router = Serve::new()
            .env("AWS_TARGET_FUNCTION", "webhook-processor")
            .env("AWS_ENDPOINT_URL_LAMBDA", &processor.url)
            .only(Route::AWS)
            .envs(form.iter().copied())
            .start();
        // The body looks like a Function URL's event, but it is only a body.
        let body = json!({
            "vendor": "v", "event_type": format!("{form:?}"), "created_at": "2024-05-05",
            "rawPath": "/x",
            "headers": { "idempotency-key": "forged" },
            "requestContext": { "http": { "method": "POST" }, "timeEpoch": 1 },
            "body": "x",
            "isBase64Encoded": false,
        });
        let body = body.to_string();
        let got = router.post(body.clone()).await;
        assert_eq!(got.status, status, "{form:?}: {}", got.text());
        let receipts = get(client().get(format!("{}/receipts", processor.url)).send().await).await;
        let receipts: Value = serde_json::from_slice(&receipts.body).unwrap();
        let receipt = &receipts[0];
        assert_eq!(receipt["key"], got.header("x-webhook-key").unwrap(), "{form:?}");
        assert_eq!(receipt["via"], "invoke");
        assert_eq!(receipt["vendor"], "v");
        assert_eq!(receipt["attempt"], "1");
        assert_eq!(receipt["bytes"], body.len());
    }
}

#[tokio::test]
async fn a_payload_that_lambda_would_not_take_is_a_dead_letter_that_says_so() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let event = |form: &str, padding: usize| {
        let padding = "x".repeat(padding);
        format!(
            r#"{{"vendor":"v","event_type":"{form} {}","created_at":"2024-05-05","p":"{padding}"}}"#,
            padding.len()
        )
    };
    for (invocation, payload, limit) in [
        ("Event", "request", 1_048_576),
        ("RequestResponse", "request", 6_291_456),
        ("RequestResponse", "body", 6_291_456),
    ] {
        let vars = vec![
            ("AWS_TARGET_INVOCATION", invocation),
            ("AWS_TARGET_PAYLOAD", payload),
            ("ROUTE_THRESHOLD", "0"),
            ("MAX_BODY_BYTES", "7000000"),
            ("STORE_URL", &store),
        ];
        let router = Serve::to(&sink).envs(vars.clone()).start();
        // The limit applies to the whole payload, not only to the body.
        let form = format!("{invocation} {payload}");
        let least = event(&form, 1_000_000);
        assert_eq!(router.post(least.clone()).await.status, 200, "{form}");
        let overhead = sink.take()[0].body.len() - 1_000_000;
        let fitting = event(&form, limit - overhead);
        assert_eq!(router.post(fitting).await.status, 200, "{form}");
        assert_eq!(sink.take()[0].body.len(), limit);

        let got = router.post(event(&form, limit - overhead + 1)).await;
        assert_eq!((got.status, got.text()), (502, "destination unreachable"));
        assert_eq!(sink.take().len(), 0);
        let key = got.header("x-webhook-key").unwrap();
        let inspected =
            end_of(Command::new(ROUTER).args(["inspect", "--json", key]).envs(vars.clone()));
        let record: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        let said = record["failure"]["detail"].as_str().unwrap_or_else(|| panic!("{record}"));
        let wanted = format!("of {} bytes does not fit: Lambda takes at most {limit}", limit + 1);
        assert!(said.contains(&wanted), "{said}");
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(1), "{record}");
    }
}

#[tokio::test]
async fn the_cause_of_a_failed_invocation_is_told_to_the_operator() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let vars = [("ROUTE_THRESHOLD", "0"), ("FORWARD_ATTEMPTS", "1"), ("STORE_URL", &store)];
    let router = Serve::to(&sink).envs(vars).start();
    const PAGE: &str = "<html>marker-in-the-payload</html>";
    const REPORT: &str = r#"{"errorType":"KeyError","errorMessage":"marker-in-the-payload"}"#;
    let html = || vec![("content-type", "text/html; charset=utf-8")];
    let aws = |code| vec![("x-amzn-errortype", code)];
    let foreign = |status: u16| {
        format!(
            "the Invoke endpoint answered {status} (text/html; charset=utf-8), and not in the form \
             of AWS's API: look at AWS_ENDPOINT_URL_LAMBDA, and at proxies on the way"
        )
    };
    for (index, (status, headers, body, outcome, detail, answer)) in [
        // A proxy answers with a page.
        (403, html(), PAGE, "refused", foreign(403), None),
        (302, html(), PAGE, "refused", foreign(302), None),
        (502, html(), PAGE, "connection broken", foreign(502), None),
        (429, html(), PAGE, "unreachable", foreign(429), None),
        (200, html(), PAGE, "502", "the answer 200 cannot be read: unexpected".into(), Some(PAGE)),
        // AWS itself answers.
        (403, aws("AccessDeniedException"), "{}", "refused", "AccessDeniedException".into(), None),
        (
            200,
            vec![("x-amz-function-error", "Unhandled")],
            REPORT,
            "502",
            "the destination failed: the function ended in an error (Unhandled)".into(),
            Some(REPORT),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let status = StatusCode::from_u16(status).unwrap();
        sink.answers(Answer::With(status, headers, body.into()));
        let got = router.post(PAYLOAD.replace("4200", &index.to_string())).await;
        assert!(got.status == 502 && !got.text().contains("marker"), "{}", got.text());
        let key = got.header("x-webhook-key").unwrap();
        let inspect = |form: &[&str]| {
            end_of(
                Command::new(ROUTER)
                    .args([&["inspect", key], form].concat())
                    .env_clear()
                    .envs(sink.vars())
                    .envs(vars),
            )
            .stdout
        };
        let record: Value = serde_json::from_slice(&inspect(&["--json"])).unwrap();
        let failure = &record["failure"];
        assert_eq!(failure["outcome"], outcome, "{record}");
        assert!(failure["detail"].as_str().unwrap().contains(&detail), "{record}");
        assert_eq!(failure["answer"]["body"].as_str(), answer, "{record}");
        let shown = String::from_utf8(inspect(&[])).unwrap();
        assert_eq!(shown.contains("marker-in-the-payload"), answer.is_some(), "{shown}");
    }
}
