//! Hostile bodies: they are refused or read in time linear in their size.

use std::{hint::black_box, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use webhook_router::{config::Intake, delivery::Delivery, json::Document, plan::plan};

use crate::support::{PAYLOAD, Serve, Sink, client, delivery, intake, lookup, post};

const MIB: usize = 1024 * 1024;

/// Returns hostile bodies of about this size, each with a name and the expected answer.
fn bodies(size: usize) -> Vec<(&'static str, Vec<u8>, u16)> {
    let envelope = |value: String| {
        format!(r#"{{"vendor":"v","event_type":"e","created_at":"2024-05-05","x":{value}}}"#)
            .into_bytes()
    };
    let repeat = |text: &str| text.repeat(size / text.len());
    let field = |name: &str, value: String| {
        let mut fields = vec![("vendor", "v".into()), ("event_type", "e".into())];
        fields.retain(|(field, _)| *field != name);
        fields.push((name, value));
        if name != "created_at" {
            fields.push(("created_at", "2024-05-05".into()));
        }
        let texts: Vec<_> =
            fields.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        format!("{{{}}}", texts.join(",")).into_bytes()
    };
    vec![
        ("nested arrays", repeat("[").into_bytes(), 400),
        ("nested objects", repeat("{\"a\":").into_bytes(), 400),
        (
            "nested and closed",
            envelope(format!("{}{}", "[".repeat(size / 2), "]".repeat(size / 2))),
            400,
        ),
        ("an integer", envelope(repeat("7")), 400),
        ("a negative integer", envelope(format!("-{}", repeat("7"))), 400),
        ("a float's integer part", envelope(format!("{}.5", repeat("7"))), 200),
        ("a float's fraction", envelope(format!("0.{}", repeat("7"))), 200),
        ("a float's zeros", envelope(format!("0.{}1e{size}", repeat("0"))), 200),
        ("an exponent", envelope(format!("1e{}", repeat("7"))), 200),
        ("many floats", envelope(format!("[{}0]", repeat("1.5e-7,"))), 200),
        ("one key again and again", envelope(format!("{{{}\"a\":1}}", repeat("\"a\":1,"))), 200),
        ("keys backwards", envelope(backwards(size)), 200),
        ("long equal keys", envelope(long_keys(size)), 200),
        (
            "siblings at depth",
            envelope(format!("{}{}0{}", "[".repeat(900), repeat("{},"), "]".repeat(900))),
            200,
        ),
        ("escapes", envelope(format!("\"{}\"", repeat("\\ud800"))), 200),
        ("escaped keys", envelope(format!("{{{}\"a\":1}}", repeat("\"\\u0061\":1,"))), 200),
        ("escaped quotes", envelope(format!("\"{}\"", repeat("\\\""))), 200),
        ("non-ASCII", envelope(format!("\"{}\"", repeat("é"))), 200),
        ("white space", [repeat(" ").into_bytes(), PAYLOAD.into()].concat(), 200),
        ("an unclosed string", [b"{\"".to_vec(), repeat("a").into_bytes()].concat(), 400),
        ("created_at", field("created_at", repeat("1.")), 400),
        ("created_at of digits", field("created_at", repeat("1")), 400),
        ("a vendor of capital sigmas", field("vendor", repeat("Σ")), 200),
        ("an event type", field("event_type", repeat("%")), 200),
        ("invalid UTF-8", [b"{\"a\":\"".to_vec(), vec![0xFF; size]].concat(), 400),
    ]
}

#[tokio::test]
async fn over_http_hostile_bodies_get_their_answer() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let client = client();
    for (what, body, status) in bodies(MIB) {
        let got = post(&client, &router.webhook(), body).await;
        assert_eq!(got.status, status, "{what}: {}", String::from_utf8_lossy(&got.body));
    }
    let brackets = "[".repeat(1_000_000);
    assert_eq!(post(&client, &router.webhook(), brackets).await.status, 400);
    let digits = format!(r#"{{"a":{}}}"#, "9".repeat(6_000_000));
    assert_eq!(post(&client, &router.webhook(), digits).await.status, 400);
    assert_eq!(post(&client, &router.webhook(), "1".repeat(6_300_000)).await.status, 413);
    // The router still works.
    assert_eq!(post(&client, &router.webhook(), PAYLOAD).await.status, 200);
}

#[test]
fn time_is_linear_in_size() {
    let (small, large) = (bodies(MIB / 16), bodies(MIB / 4));
    for ((what, small, _), (_, large, _)) in small.into_iter().zip(large) {
        // Four times the size takes four times the time. Quadratic code would take 16 times.
        let ratio = time(&large).as_secs_f64() / time(&small).as_secs_f64();
        assert!(ratio < 9.0, "{what}: {ratio:.1} times the time for 4 times the size");
    }
}

#[test]
fn many_signatures_cost_no_more_than_one() {
    let vars = [("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t")];
    let intake = Intake::from_vars(lookup(&vars)).unwrap();
    let wrong = format!("v1,{}", BASE64_STANDARD.encode([0; 32]));
    let signed = |entries: usize| {
        let mut delivery = delivery("x".repeat(MIB / 2));
        let signatures = vec![&*wrong; entries].join(" ");
        for (name, value) in
            [("webhook-id", "m"), ("webhook-timestamp", "0"), ("webhook-signature", &signatures)]
        {
            delivery.headers.insert(name, value.parse().unwrap());
        }
        delivery
    };
    let one = time_of(&signed(1), &intake).as_secs_f64();
    // If each entry cost a hash, 16 entries would take 16 times as long. An attack with 500 entries
    // would be worthwhile.
    let ratio = time_of(&signed(16), &intake).as_secs_f64() / one;
    assert!(ratio < 4.0, "16 entries take {ratio:.1} times the time of one");
    let ratio = time_of(&signed(500), &intake).as_secs_f64() / one;
    assert!(ratio < 1.0, "500 entries take {ratio:.1} times the time of one");
}

/// Returns the time of one run. It is the smallest of several averages, because other load
/// disturbed that one least. Each average covers so many runs that the kernel's clock ticks of some
/// milliseconds do not matter.
fn time(body: &[u8]) -> Duration {
    time_of(&delivery(body.to_vec()), &intake("test-routing-secret"))
}

fn time_of(delivery: &Delivery, intake: &Intake) -> Duration {
    let mean = || {
        let (started, mut runs) = (on_processor(), 0);
        loop {
            let _ =
                black_box(plan(black_box(delivery), intake, None, chrono::DateTime::UNIX_EPOCH));
            runs += 1;
            let took = on_processor() - started;
            if took > Duration::from_millis(100) {
                return took / runs;
            }
        }
    };
    (0..3).map(|_| mean()).min().unwrap()
}

/// Returns the time for which this thread was on a processor, without the time that other threads
/// took (<https://docs.kernel.org/scheduler/sched-stats.html>).
fn on_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn over_http_every_truncation_of_an_event_is_refused() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let client = client();
    let event = r#"{"vendor":"é\ud83d\ude00","event_type":"e","created_at":"2024-05-05","n":[-1.5e-7,true,null,{}]}"#;
    for end in 0..event.len() {
        let got = post(&client, &router.webhook(), event.as_bytes()[..end].to_vec()).await;
        assert_eq!((got.status, got.text()), (400, "invalid json"), "{end}");
    }
    assert!(sink.received().is_empty());
    assert_eq!(post(&client, &router.webhook(), event).await.status, 200);
}

#[test]
fn every_truncation_of_a_body_is_refused() {
    let intake = intake("test-routing-secret");
    for end in 0..PAYLOAD.len() {
        let refusal = plan(&delivery(&PAYLOAD[..end]), &intake, None, chrono::Utc::now());
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.reply().status, 400, "{}", &PAYLOAD[..end]);
    }
}

#[test]
fn the_deepest_body_needs_little_stack() {
    // A body with spaces is not canonical, so its digest needs each level to be written.
    for open in ["[", "{\"a\":", "[ ", "{\"a\": "] {
        let close = if open.starts_with('[') { "]" } else { "}" };
        let body = |depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let deepest = body(975);
        // The stack is a quarter of a thread's default.
        let thread = std::thread::Builder::new().stack_size(512 * 1024);
        let digest = thread.spawn(move || Document::parse(deepest.as_bytes()).unwrap().digest());
        digest.unwrap().join().unwrap();
        assert!(Document::parse(body(976).as_bytes()).is_err());
    }
}

fn backwards(size: usize) -> String {
    let keys: Vec<_> = (0..size / 12).rev().map(|key| format!("\"{key:08}\":1")).collect();
    format!("{{{}}}", keys.join(","))
}

fn long_keys(size: usize) -> String {
    let prefix = "k".repeat(1000);
    let keys: Vec<_> =
        (0..size / 1012).rev().map(|key| format!("\"{prefix}{key:06}\":1")).collect();
    format!("{{{}}}", keys.join(","))
}
