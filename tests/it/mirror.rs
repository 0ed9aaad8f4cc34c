//! Mirrors: copies of a part of the events, which change nothing about the events.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use http::StatusCode;
use webhook_router::{key::hmac_sha256, route::Route};

use crate::{
    emulator::{self, Emulator},
    runtime_api::OneInvocation,
    signing::NEW,
    support::{
        Answer, PAYLOAD, ROUTER, Serve, Server, Sink, delivery, free_port, intake, ok, planned,
        sqlite, status,
    },
};

const SECRET: &str = "plainly-a-test-s-routing-secret";

/// Returns an event that no other number has. Neither its spaces nor its escapes may change.
fn numbered(number: usize) -> String {
    format!(
        r#"{{ "vendor":"v",  "event_type":"t", "created_at":"2024-05-05", "n": "\u00fc {number}"}}"#
    )
}

/// Returns the byte that decides about a copy: the one after the route byte in the same HMAC.
fn mirror_byte(body: &str) -> u8 {
    let plan = planned(&delivery(body.to_owned()), &intake(SECRET), Utc::now()).unwrap();
    hmac_sha256(SECRET.as_bytes(), &[b"route|", plan.event.logical().as_bytes()])[1]
}

/// Stops a router, which then has sent or dropped every copy.
fn stop(mut router: Server) -> String {
    router.terminate();
    assert!(router.wait().success(), "{}", router.log());
    router.log()
}

/// Returns the number of lines about copies with this outcome.
fn copies(log: &str, outcome: &str) -> usize {
    let is_it = |line: &&str| {
        line.contains(r#""message":"mirror""#)
            && line.contains(&format!(r#""outcome":"{outcome}""#))
    };
    log.lines().filter(is_it).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_events_is_copied_once_with_the_exact_bytes() {
    const EVENTS: usize = 60;
    const PERCENT: usize = 30;
    let bodies: Vec<_> = (0..EVENTS).map(numbered).collect();
    let is_chosen = |body: &&String| usize::from(mirror_byte(body.as_str())) * 100 < PERCENT * 256;
    let chosen: BTreeSet<Bytes> =
        bodies.iter().filter(is_chosen).map(|body| Bytes::from(body.clone())).collect();
    assert!(!chosen.is_empty() && chosen.len() < EVENTS / 2);
    for answer in ["delivered", "accepted"] {
        let (sink, mirror) = (Sink::start().await, Sink::start().await);
        let vars = [
            ("ROUTING_SECRET", SECRET),
            ("ANSWER", answer),
            ("MIRROR_URL", mirror.url.as_str()),
            ("MIRROR_PERCENT", "30"),
            ("FORWARD_SECRETS", NEW),
        ];
        let router = Serve::to(&sink).envs(vars).start();
        for body in &bodies {
            router.post(body.clone()).await.expect(200);
        }
        sink.arrived(EVENTS).await;
        mirror.arrived(chosen.len()).await;
        for body in &bodies {
            router.post(body.clone()).await.expect(200).says("duplicate ignored");
        }
        stop(router);
        let copies = mirror.received();
        assert_eq!(copies.len(), chosen.len(), "{answer}");
        assert_eq!(copies.iter().map(|copy| copy.body.clone()).collect::<BTreeSet<_>>(), chosen);
        for copy in &copies {
            assert_eq!(copy.header("x-webhook-mirror"), Some("true"));
            assert_eq!(copy.header("webhook-signature"), None);
            assert_eq!(copy.header("x-webhook-vendor"), Some("v"));
            let real = sink.received().into_iter().find(|real| real.body == copy.body).unwrap();
            let key = real.told("idempotency-key");
            assert_eq!(copy.told("idempotency-key"), key);
            assert!(real.told("webhook-signature").is_some());
            assert_eq!(real.told("x-webhook-mirror"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_refuses_or_fails_changes_no_answer() {
    const EVENTS: usize = 40;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (hanging, failing) = (Sink::start().await, Sink::start().await);
    hanging.answers(Answer::WhenTold);
    failing.answers(status(StatusCode::INTERNAL_SERVER_ERROR, "no"));
    for (mirror, outcome) in [("", ""), (&nobody, "failed"), (&failing.url, "failed")]
        .into_iter()
        .chain([(hanging.url.as_str(), "dropped")])
    {
        let sink = Sink::start().await;
        sink.answers(ok("done"));
        // No copy ends by its own time limit.
        let vars = [("MIRROR_URL", mirror), ("FORWARD_TIMEOUT_MS", "29000")];
        let router = Serve::to(&sink).envs(vars).start();
        for number in 0..EVENTS {
            let got = router.post(numbered(number)).await;
            assert_eq!((got.status, got.text()), (200, "done"), "{mirror}");
        }
        for number in 0..EVENTS {
            router.post(numbered(number)).await.expect(200).says("duplicate ignored");
        }
        assert_eq!(sink.received().len(), EVENTS);
        let log = stop(router);
        assert_eq!(log.matches(r#""outcome":"delivered""#).count(), EVENTS, "{log}");
        let expected = if mirror.is_empty() { 0 } else { EVENTS };
        assert_eq!(copies(&log, outcome), expected, "{mirror}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_without_a_connection_rests_after_one_copy() {
    // It takes connections, and says nothing in them.
    let mirror = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}", mirror.local_addr().unwrap());
    let sink = Sink::start().await;
    let vars = [("MIRROR_URL", url.as_str()), ("FORWARD_TIMEOUT_MS", "2000")];
    let router = Serve::to(&sink).envs(vars).start();
    router.post(numbered(0)).await.expect(200);
    while copies(&router.log(), "failed") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    router.post(numbered(1)).await.expect(200);
    let log = stop(router);
    assert_eq!((copies(&log, "failed"), copies(&log, "dropped")), (1, 1), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_dropped_and_counted() {
    let (sink, mirror) = (Sink::start().await, Sink::start().await);
    mirror.answers(Answer::WhenTold);
    let metrics = format!("127.0.0.1:{}", free_port());
    let vars = [
        ("MIRROR_URL", mirror.url.as_str()),
        ("MAX_BODY_BYTES", "20000"),
        ("MAX_BUFFERED_BYTES", "100000"),
        ("METRICS_LISTEN", &metrics),
    ];
    let router = Serve::to(&sink).only(Route::GCP).envs(vars).start();
    for number in 0..10 {
        let filled = numbered(number).replace("2024-05-05\"", "2024-05-05\",\"p\":\"");
        let padding = "x".repeat(15_000 - filled.len() - 1);
        let body = filled.replace("\"p\":\"", &format!("\"p\":\"{padding}\""));
        assert_eq!(body.len(), 15_000);
        router.post(body).await.expect(200);
    }
    assert_eq!(copies(&router.log(), "dropped"), 5, "five copies of 17 KiB fit");
    let counted = crate::support::client().get(format!("http://{metrics}/metrics")).send();
    let counted = crate::support::get(counted.await).await;
    let line = "webhook_router_copies_total{destination=\"gcp\",outcome=\"dropped\"} 5\n";
    assert!(counted.text().contains(line), "{}", counted.text());
    stop(router);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_is_copied_when_it_is_delivered() {
    let (sink, mirror) = (Sink::start().await, Sink::start().await);
    let router = Serve::to(&sink).only(Route::GCP).env("MIRROR_URL", &mirror.url).start();
    sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "no"));
    for _ in 0..2 {
        router.post(PAYLOAD).await.expect(422);
    }
    sink.answers(ok("done"));
    router.post(PAYLOAD).await.expect(200);
    stop(router);
    assert_eq!(mirror.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_while_its_sender_waited_is_copied_when_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, mirror, store) = (Sink::start().await, Sink::start().await, sqlite(folder.path()));
    let router = Serve::to(&sink).only(Route::GCP).store(&store).env("MIRROR_URL", &mirror.url);
    let waiting = router.start();
    sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "no"));
    waiting.post(PAYLOAD).await.expect(422);
    stop(waiting);
    sink.answers(ok("done"));
    let router = Serve::to(&sink).only(Route::GCP).store(&store).env("MIRROR_URL", &mirror.url);
    let accepting = router.env("ANSWER", "accepted").start();
    accepting.post(PAYLOAD).await.expect(200).says("accepted");
    sink.arrived(2).await;
    stop(accepting);
    assert_eq!(mirror.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_of_a_table_can_have_a_mirror_of_its_own() {
    let (sink, own, common) = (Sink::start().await, Sink::start().await, Sink::start().await);
    let (url, mirror) = (&sink.url, &own.url);
    let table = format!(
        "[destinations.one]\nkind = \"http\"\nurl = \"{url}\"\nbytes = \"0-127\"\n\
         mirror = \"{mirror}\"\n\
         [destinations.two]\nkind = \"http\"\nurl = \"{url}\"\nbytes = \"128-255\"\n"
    );
    let vars = [("DESTINATIONS", table.as_str()), ("MIRROR_URL", &common.url)];
    let router = Serve::new().envs(vars).start();
    let (mut one, mut two) = (0, 0);
    for number in 0..20 {
        let got = router.post(numbered(number)).await.expect(200);
        match got.header("x-webhook-destination") {
            Some("one") => one += 1,
            _ => two += 1,
        }
    }
    stop(router);
    assert!(one > 0 && two > 0);
    assert_eq!((own.received().len(), common.received().len()), (one, two));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_can_be_a_mirror() {
    for payload in ["body", "request"] {
        let sink = Sink::start().await;
        let vars = [("MIRROR_FUNCTION", "shadow"), ("AWS_TARGET_PAYLOAD", payload)];
        let router = Serve::to(&sink).only(Route::GCP).envs(vars).start();
        router.post(PAYLOAD).await.expect(200);
        sink.arrived(2).await;
        let copy = sink.received().into_iter().find(|one| one.is_invocation()).unwrap();
        assert_eq!(copy.path, "/2015-03-31/functions/shadow/invocations");
        let is_marked = match payload {
            "body" => copy.custom()["x-webhook-mirror"] == "true" && copy.body == PAYLOAD,
            _ => String::from_utf8_lossy(&copy.body).contains(r#""x-webhook-mirror":"true""#),
        };
        assert!(is_marked, "{copy:?}");
        stop(router);
    }
}

/// Returns the variables of a function with a destination and its mirror.
fn in_lambda<'a>(store: &'a str, sink: &'a Sink, mirror: &'a Sink) -> [(&'static str, &'a str); 5] {
    [
        ("STORE_URL", store),
        ("LAMBDA_EMULATOR", "true"),
        ("ROUTE_THRESHOLD", "256"),
        ("GCP_TARGET_URL", &sink.url),
        ("MIRROR_URL", &mirror.url),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_does_not_begin_before_lambda_has_the_answer() {
    let (sink, mirror, folder) =
        (Sink::start().await, Sink::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let vars = [("ROUTING_SECRET", SECRET), ("ALLOW_UNSIGNED", "true")];
    let vars = [&in_lambda(&store, &sink, &mirror)[..], &vars].concat();
    let function = OneInvocation::start(ROUTER, &vars, emulator::event(&numbered(1))).await;
    mirror.arrived(1).await;
    let answer = function.answer().expect("the answer is there first");
    assert!(String::from_utf8_lossy(&answer).contains("\"statusCode\":200"), "{answer:?}");
    assert_eq!((sink.received().len(), mirror.received().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_lambda_a_copy_is_sent_within_the_invocation() {
    let (sink, mirror, folder) =
        (Sink::start().await, Sink::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let vars = [("AWS_LAMBDA_FUNCTION_TIMEOUT", "20")];
    let vars = [&in_lambda(&store, &sink, &mirror)[..], &vars].concat();
    let function = Emulator::start(Path::new(ROUTER), &vars);
    // A mirror that did not answer gets no copies for half a minute.
    let answers = [(1, ok("copied")), (2, Answer::WhenTold), (3, ok("copied"))];
    for ((number, answer), copies) in answers.into_iter().zip([1, 2, 2]) {
        mirror.answers(answer);
        let body = numbered(number);
        let said = function.invoke(emulator::event(&body)).await;
        assert_eq!(said["statusCode"], 200, "{said}\n{}", function.log());
        // The emulator answers only when the extension has asked for the next invocation.
        assert_eq!(mirror.received().len(), copies, "{}", function.log());
        assert_eq!(mirror.received().last().unwrap().body == body, number == copies);
        mirror.go.notify_waiters();
    }
    let log = function.log();
    assert_eq!((copies(&log, "failed"), copies(&log, "dropped")), (1, 1), "{log}");
    assert!(log.contains(r#""copies_not_mirrored":1"#), "{log}");
}
