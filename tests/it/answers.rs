//! The answers in the table of docs/answers.md, over HTTP.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use webhook_router::{key::hmac_sha256, route::Route};

use crate::support::{
    Answer, Got, PAYLOAD, ROUTER, Serve, Server, Sink, client, delivery, end_of, get, lookup, post,
    sign, sqlite, status,
};

/// A Standard Webhooks secret that is plainly for tests.
const SECRET: &str = "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t";

#[tokio::test]
async fn the_readme_s_payload_is_routed_and_then_ignored_as_a_duplicate() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let first = router.post(PAYLOAD).await.expect(200).says("done");
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("idempotent-replayed"), None);
    let second = router.post(PAYLOAD).await.expect(200).says("duplicate ignored");
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    for name in ["x-webhook-key", "x-webhook-destination"] {
        assert!(first.header(name).is_some());
        assert_eq!(first.header(name), second.header(name));
    }
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn bad_requests_get_their_status_and_reason_and_reach_no_destination() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("MAX_BODY_BYTES", "1000").start();
    let created_at = |text: &str| {
        format!(r#"{{"vendor":"v","event_type":"e","created_at":{}}}"#, serde_json::json!(text))
    };
    let deep = format!("{}1{}", "[".repeat(990), "]".repeat(5));
    let cases: Vec<(String, u16, &str)> = vec![
        ("nonsense".into(), 400, "invalid json"),
        ("".into(), 400, "invalid json"),
        ("[1]".into(), 400, "invalid json"),
        ("{} {}".into(), 400, "invalid json"),
        (deep, 400, "invalid json: nested deeper than 975 levels at byte 975"),
        ("{}".into(), 400, "missing required fields: vendor, event_type, created_at"),
        (
            r#"{"vendor":"v","event_type":1,"created_at":""}"#.into(),
            400,
            "missing required fields: event_type, created_at",
        ),
        (
            r#"{"vendor":"v","event_type":"\ud800","created_at":"2024-05-05"}"#.into(),
            400,
            "event_type holds a lone surrogate",
        ),
        (created_at("yesterday"), 400, "created_at is not a date and time"),
        (created_at("12:00"), 400, "created_at names no full date: year, month and day are needed"),
        (created_at("05/06/07"), 400, "created_at has a two-digit year, which is ambiguous"),
        (
            created_at("2024-05-05 10:00 EST"),
            400,
            "created_at has a zone name, which is ambiguous: give the offset, as in +01:00",
        ),
        (created_at("2024-05-05T24:00:00Z"), 400, "created_at has a field outside its range"),
        (created_at(&"1".repeat(129)), 400, "created_at is longer than 128 bytes"),
        (created_at(&" ".repeat(1000)), 413, "larger than 1000 bytes"),
        (created_at(&" ".repeat(10_000)), 413, "larger than 1000 bytes"),
    ];
    for (body, status, reason) in cases {
        let got = router.post(body.clone()).await;
        assert_eq!((got.status, got.text()), (status, reason), "{body}");
        assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(got.header("x-webhook-key"), None);
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn paths_and_methods_are_told_apart() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let request = async |method: Method, path: &str| {
        get(router.request(method, path).body(PAYLOAD).send().await).await
    };
    for path in ["/", "/webhook/", "/webhook/nobody", "/webhooks", "//webhook", "/healthz/x"] {
        assert_eq!(request(Method::POST, path).await.status, 404, "{path}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let got = request(method, "/webhook").await;
        assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
    }
    let got = request(Method::POST, "/healthz").await;
    assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")));
    let got = request(Method::GET, "/healthz").await;
    assert_eq!((got.status, got.text()), (200, "ok"));
    assert_eq!(request(Method::HEAD, "/healthz").await.status, 200);
    assert!(sink.received().is_empty());
    let got = request(Method::POST, "/webhook?source=console").await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let sink = Sink::start().await;
    let limit = 6 * 1024 * 1024;
    let router = Serve::to(&sink).start();
    let body = |length: usize| {
        let head = r#"{"vendor":"v","event_type":"e","created_at":"2024-05-05","x":""#;
        format!("{head}{}\"}}", "x".repeat(length - head.len() - 2))
    };
    router.post(body(limit + 1)).await.expect(413);
    assert!(sink.received().is_empty());
    router.post(body(limit)).await.expect(200);
    assert_eq!(sink.received()[0].body.len(), limit);
}

#[tokio::test]
async fn a_destination_s_refusal_is_passed_on_and_the_next_delivery_tries_again() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).only(Route::GCP).env("FORWARD_ATTEMPTS", "1").start();
    for (theirs, ours) in [
        (301, 502),
        (304, 502),
        (400, 400),
        (403, 403),
        (404, 404),
        (410, 502),
        (429, 429),
        (500, 500),
        (503, 503),
    ] {
        sink.answers(status(StatusCode::from_u16(theirs).unwrap(), "no"));
        let got = router.post(PAYLOAD).await;
        assert_eq!(got.status, ours, "{theirs}");
        let body = if theirs == 304 { "" } else { "no" };
        assert_eq!(got.text(), body);
        assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    }
    let attempts: Vec<_> = sink
        .received()
        .iter()
        .map(|received| received.header("x-webhook-attempt").unwrap().to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    sink.answers(status(StatusCode::CREATED, "yes"));
    router.post(PAYLOAD).await.expect(201).says("yes");
    router.post(PAYLOAD).await.expect(200).says("duplicate ignored");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_503_and_nothing_is_forwarded() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = sqlite(folder.path());
    let router = Serve::to(&sink).store(&store).env("STORE_TIMEOUT_MS", "200").start();
    // Another process holds the write lock, as a stuck one would.
    let lock = rusqlite::Connection::open(&file).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let got = router.post(PAYLOAD).await.expect(503).says("try again later");
    assert_eq!(got.header("retry-after"), Some("5"));
    assert!(got.header("x-webhook-key").is_some());
    assert!(sink.received().is_empty());
    lock.execute_batch("ROLLBACK").unwrap();
    router.post(PAYLOAD).await.expect(200);
}

#[tokio::test]
async fn the_envelope_is_verified_as_standard_webhooks_when_it_has_secrets() {
    let sink = Sink::start().await;
    let other = "whsec_b3RoZXItdGVzdC1zZWNyZXQtLS0tLS0tLS0tLS0t";
    let secrets = format!("{SECRET},{other}");
    let router = Serve::to(&sink).env("ENVELOPE_SECRETS", &secrets).start();
    let now = chrono::Utc::now().timestamp();
    let send = |id: &str, time: i64, signature: Option<String>| {
        let mut request = client().post(router.webhook()).body(PAYLOAD);
        request = request.header("webhook-id", id).header("webhook-timestamp", time);
        if let Some(signature) = signature {
            request = request.header("webhook-signature", signature);
        }
        async move { get(request.send().await).await }
    };
    let refused = |got: Got| {
        assert_eq!((got.status, got.text()), (401, "invalid signature"));
        assert_eq!(got.header("x-webhook-key"), None);
    };
    refused(send("m1", now, None).await);
    refused(send("m1", now, Some("nonsense".into())).await);
    refused(send("m1", now, Some(sign(SECRET, "m2", now, PAYLOAD))).await);
    refused(send("m1", now, Some(sign(SECRET, "m1", now, "{}"))).await);
    refused(send("m1", now, Some(sign(SECRET, "m1", now, PAYLOAD).replace("v1", "v2"))).await);
    for stale in [now - 310, now + 310] {
        refused(send("m1", stale, Some(sign(SECRET, "m1", stale, PAYLOAD))).await);
    }
    assert!(sink.received().is_empty());

    let wrong = format!("v1,{}", BASE64_STANDARD.encode([0; 32]));
    let rotated = format!("v1a,x {wrong} {}", sign(other, "m1", now - 290, PAYLOAD));
    assert_eq!(send("m1", now - 290, Some(rotated)).await.text(), "done");
    let got = send("m2", now, Some(sign(SECRET, "m2", now, PAYLOAD))).await;
    assert_eq!(got.text(), "duplicate ignored");
    // Only the log names the kind of fault.
    let log = router.log();
    for fault in ["signature missing", "signature wrong", "signature stale"] {
        assert!(log.contains(fault), "{fault} in {log}");
    }
}

#[tokio::test]
async fn a_signature_of_more_than_sixteen_entries_is_refused() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("ENVELOPE_SECRETS", SECRET).start();
    let now = chrono::Utc::now().timestamp();
    let genuine = sign(SECRET, "m1", now, PAYLOAD);
    let wrong = format!("v1,{}", BASE64_STANDARD.encode([0; 32]));
    let send = async |signature: String| {
        let request = client().post(router.webhook()).body(PAYLOAD);
        let request = request.header("webhook-id", "m1").header("webhook-timestamp", now);
        get(request.header("webhook-signature", signature).send().await).await.status
    };
    let behind =
        |entry: &str, count: usize| format!("{}{genuine}", format!("{entry} ").repeat(count));
    assert_eq!(send(behind(&wrong, 16)).await, 401);
    assert_eq!(send(behind("v1,malformed", 16)).await, 401);
    assert!(sink.received().is_empty());
    assert_eq!(send(behind(&wrong, 15)).await, 200);
    for other in ["v1a,AAAA", "v2,AAAA", "nonsense", ""] {
        assert_eq!(send(behind(other, 500)).await, 200, "{other}");
    }
    assert_eq!(sink.received().len(), 1);
}

/// Test vectors that the Standard Webhooks libraries themselves refuse.
#[test]
fn malformed_signatures_are_refused() {
    use webhook_router::{config::Intake, plan::plan};
    let vectors = [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "garbage"),
    ];
    for (secret, signature) in vectors {
        let vars = [("ENVELOPE_SECRETS", secret)];
        let intake = Intake::from_vars(lookup(&vars)).unwrap();
        let mut delivery = delivery(r#"{"test": 2432232314}"#);
        for (name, value) in [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ] {
            delivery.headers.insert(name, value.parse().unwrap());
        }
        let now = chrono::DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        assert_eq!(plan(&delivery, &intake, None, now).unwrap_err().reply().status, 401);
    }
}

#[tokio::test]
async fn an_unsigned_envelope_is_served_to_the_world_only_with_allow_unsigned() {
    let sink = Sink::start().await;
    let client = client();
    let start = |vars: &[(&'static str, &'static str)]| {
        let mut command = std::process::Command::new(ROUTER);
        command.args(["serve", "--listen", "0.0.0.0:0"]);
        let secret = [("ROUTING_SECRET", "plainly-a-secret")];
        let all = [sink.vars(), secret.to_vec(), vars.to_vec()].concat();
        let server = Server::start(command, &all);
        let url = server.webhook().replace("0.0.0.0", "127.0.0.1");
        (server, url)
    };
    let (closed, url) = start(&[]);
    let got = post(&client, &url, PAYLOAD).await;
    assert_eq!((got.status, got.text()), (404, "not found"));
    assert!(
        closed
            .log()
            .contains("POST /webhook is not served: set ENVELOPE_SECRETS, or ALLOW_UNSIGNED=true")
    );
    let (_open, url) = start(&[("ALLOW_UNSIGNED", "true")]);
    assert_eq!(post(&client, &url, PAYLOAD).await.status, 200);
}

#[tokio::test]
async fn on_loopback_unsigned_envelopes_come_from_this_machine_alone() {
    let sink = Sink::start().await;
    let send = async |router: &Server, name: &str, value: &str| {
        let request = client().post(router.webhook()).body(PAYLOAD).header(name, value);
        get(request.send().await).await
    };
    let router = Serve::to(&sink).start();
    assert!(router.log().contains("accepts unsigned envelopes from programs on this machine"));
    let foreign = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.7"),
        ("via", "1.1 tunnel"),
        ("x-real-ip", "203.0.113.7"),
        ("cf-connecting-ip", "203.0.113.7"),
        ("host", "evil.example"),
        ("host", "localhost.evil.example:8080"),
    ];
    for (name, value) in foreign {
        let got = send(&router, name, value).await;
        assert_eq!((got.status, got.text()), (403, "forbidden"), "{name}: {value}");
        assert_eq!(got.header("x-webhook-key"), None);
    }
    assert!(sink.received().is_empty());
    assert!(router.log().contains("ALLOW_UNSIGNED=true to accept it anyway"));
    for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(send(&router, "host", host).await.status, 200, "{host}");
    }

    // If unsigned envelopes are allowed explicitly, or envelopes are signed, no such header
    // matters.
    let allowing = Serve::to(&sink).env("ALLOW_UNSIGNED", "true").start();
    let signing = Serve::to(&sink).env("ENVELOPE_SECRETS", SECRET).start();
    let now = chrono::Utc::now().timestamp();
    for (name, value) in foreign {
        assert_eq!(send(&allowing, name, value).await.status, 200, "{name}: {value}");
        let signed = client().post(signing.webhook()).body(PAYLOAD).header(name, value);
        let signed = signed
            .header("webhook-id", "m")
            .header("webhook-timestamp", now)
            .header("webhook-signature", sign(SECRET, "m", now, PAYLOAD));
        assert_eq!(get(signed.send().await).await.status, 200, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_duplicate_gets_the_first_reply_where_that_is_wanted_and_kept() {
    let sink = Sink::start().await;
    let answer = |status: u16, headers: Vec<_>, body: &'static [u8]| {
        Answer::With(StatusCode::from_u16(status).unwrap(), headers, body.into())
    };
    let own = [("content-type", "application/x-own"), ("x-other", "not kept")];
    let first = answer(202, own.to_vec(), b"\xff\x00 verbatim");
    for (more, replayed) in [
        (&[("DUPLICATE_REPLY", "replay")][..], true),
        (&[("DUPLICATE_REPLY", "replay"), ("REPLY_KEEP_BYTES", "11")], true),
        (&[("DUPLICATE_REPLY", "replay"), ("REPLY_KEEP_BYTES", "10")], false),
        (&[("DUPLICATE_REPLY", "ignored")], false),
        (&[], false),
    ] {
        // The destination is Cloud Run, because a Lambda's payload has no content type of its own.
        let router = Serve::to(&sink).only(Route::GCP).envs(more.iter().copied()).start();
        sink.answers(first.clone());
        let got = router.post(PAYLOAD).await;
        assert_eq!((got.status, &*got.body), (202, &b"\xff\x00 verbatim"[..]));
        assert_eq!(got.header("idempotent-replayed"), None);
        for _ in 0..2 {
            let again = router.post(PAYLOAD).await;
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
            assert_eq!(again.header("x-webhook-key"), got.header("x-webhook-key"));
            if replayed {
                assert_eq!((again.status, &again.body), (202, &got.body), "{more:?}");
                assert_eq!(again.header("content-type"), Some("application/x-own"));
            } else {
                assert_eq!((again.status, again.text()), (200, "duplicate ignored"), "{more:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reply_that_no_duplicate_would_get_is_not_kept() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let store = [("STORE_URL", url.as_str())];
    let deliver = async |more: &[(&'static str, &'static str)], body: String| {
        let router = Serve::to(&sink).envs(store).envs(more.iter().copied()).start();
        let got = router.post(body).await;
        assert_eq!(got.text(), "done");
        let mut inspect = std::process::Command::new(ROUTER);
        inspect.args(["inspect", "--json", got.header("x-webhook-key").unwrap()]).envs(store);
        let output = end_of(&mut inspect);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["reply"].take()
    };
    assert!(deliver(&[], PAYLOAD.into()).await.is_null());
    let replayed = deliver(&[("DUPLICATE_REPLY", "replay")], PAYLOAD.replace("4200", "1")).await;
    assert_eq!(replayed["bytes"], 4);
}

#[tokio::test]
async fn a_trusted_idempotency_key_takes_the_event_s_place() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("TRUST_IDEMPOTENCY_HEADER", "true").start();
    let send = async |router: &Server, headers: &[(&str, &str)], body: &str| {
        let mut request = client().post(router.webhook()).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        get(request.send().await).await
    };
    let other = PAYLOAD.replace("4200", "1");
    let named = [("idempotency-key", "order 7")];
    let first = send(&router, &named, PAYLOAD).await;
    assert_eq!(first.text(), "done");
    // HMAC-SHA256 of `header|stripe|order 7` under the secret of the examples.
    let secret = b"dev-not-for-prod-change-me";
    let key = hex::encode(hmac_sha256(secret, &[b"header|stripe|order 7"]));
    assert_eq!(first.header("x-webhook-key"), Some(&*format!("webhook:dedup:{key}")));
    assert_eq!(send(&router, &named, PAYLOAD).await.text(), "duplicate ignored");
    // The same event in another notation, with the same name in the other header, is a duplicate.
    let spaced = PAYLOAD.replace(':', ": ").replace("12: 34: 56", "12:34:56");
    let x_named = [("X-Idempotency-Key", "order 7"), ("Idempotency-Key", "")];
    assert_eq!(send(&router, &x_named, &spaced).await.text(), "duplicate ignored");
    let reused = send(&router, &named, &other).await;
    assert_eq!((reused.status, reused.text()), (422, "idempotency key reused with another body"));
    assert_eq!(reused.header("x-webhook-key"), first.header("x-webhook-key"));
    assert_eq!(reused.header("x-webhook-destination"), first.header("x-webhook-destination"));
    // Another vendor, another name, or a missing name makes another event.
    let events = [
        send(&router, &named, &PAYLOAD.replace("stripe", "adyen")).await,
        send(&router, &[("idempotency-key", "order 8")], PAYLOAD).await,
        send(&router, &[("idempotency-key", "")], PAYLOAD).await,
    ];
    assert!(events.iter().all(|got| got.text() == "done"));
    assert_eq!(sink.take().len(), 4);
    // An invalid body is still refused.
    assert_eq!(send(&router, &named, "{}").await.status, 400);
    // A router that does not trust the header ignores it.
    let router = Serve::to(&sink).start();
    let got = send(&router, &named, PAYLOAD).await;
    assert_ne!(got.header("x-webhook-key"), first.header("x-webhook-key"));
    assert_eq!(send(&router, &named, &other).await.text(), "done");
}

#[tokio::test]
async fn where_the_envelope_is_signed_only_the_signed_webhook_id_names_the_event() {
    let sink = Sink::start().await;
    let vars = [("TRUST_IDEMPOTENCY_HEADER", "true"), ("ENVELOPE_SECRETS", SECRET)];
    let router = Serve::to(&sink).envs(vars).start();
    let now = chrono::Utc::now().timestamp();
    let send = async |id: &str, body: &str, more: &[(&str, &str)]| {
        let mut request = client().post(router.webhook()).body(body.to_owned());
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request = request
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", sign(SECRET, id, now, body));
        get(request.send().await).await
    };
    let first = send("order 7", PAYLOAD, &[]).await;
    assert_eq!(first.text(), "done");
    let key = hex::encode(hmac_sha256(b"dev-not-for-prod-change-me", &[b"header|stripe|order 7"]));
    assert_eq!(first.header("x-webhook-key"), Some(&*format!("webhook:dedup:{key}")));

    // A captured request with the same name is a duplicate. A request with another name is refused.
    let same = [("Idempotency-Key", "order 7"), ("X-Idempotency-Key", "order 7")];
    assert_eq!(send("order 7", PAYLOAD, &same).await.text(), "duplicate ignored");
    let others: [&[(&str, &str)]; 3] = [
        &[("Idempotency-Key", "order 8")],
        &[("X-Idempotency-Key", "order 8")],
        &[("Idempotency-Key", "order 7"), ("Idempotency-Key", "order 8")],
    ];
    for other in others {
        let got = send("order 7", PAYLOAD, other).await;
        let refusal = (400, "idempotency key differs from webhook-id");
        assert_eq!((got.status, got.text()), refusal, "{other:?}");
        assert_eq!(got.header("x-webhook-key"), None);
    }
    // The refused requests have not used up the name `order 8`: a genuine event still gets it.
    // Another body under that name is then refused.
    let other = PAYLOAD.replace("4200", "1");
    assert_eq!(send("order 8", &other, &[]).await.text(), "done");
    let reused = send("order 8", PAYLOAD, &[]).await;
    assert_eq!((reused.status, reused.text()), (422, "idempotency key reused with another body"));
    assert_eq!(sink.take().len(), 2);
}
