//! `explain`: what the router derives from a body.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{
    cli::{file, router, stderr, stdout},
    lambda::{events, request_of},
    support::{PAYLOAD, ROUTER, tells_nothing},
};

#[test]
fn explain_tells_a_person_what_is_derived() {
    let folder = tempfile::tempdir().unwrap();
    let body = file(&folder, "payload.json", PAYLOAD);
    let output = router(&["explain", &body], &[]);
    assert!(output.status.success());
    let lines = [
        "  vendor       stripe",
        "  event_type   payment.succeeded",
        "  created_at   2026-05-06T12:34:56Z",
        "  key          webhook:dedup:b1c2385d2d97926fb253b63a6d3a27d1f34482c217b909e48054f1d8dd6ffe8f",
        "  destination  aws",
        "  answered     when the event is delivered",
    ];
    for line in lines {
        assert!(stdout(&output).contains(line), "{}", stdout(&output));
    }
    assert!(
        stderr(&output).starts_with("ROUTING_SECRET has its default value"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn explain_says_when_the_rules_of_a_source_decide() {
    let folder = tempfile::tempdir().unwrap();
    let body = file(&folder, "body.json", r#"{"id": "z1"}"#);
    let source = "[sources.acme]\nvendor = \"custom\"\nsecrets = [\"plainly\"]\nscheme = \"hmac-body\"\n\
                  header = \"X-Acme\"\nid = \"/id\"\n";
    for (rule, destination) in [("threshold = 256", "gcp"), ("destination = \"aws\"", "aws")] {
        let sources = format!("{source}{rule}\n");
        let vars = [("SOURCES", sources.as_str())];
        let event = router(&["event", "--source", "acme", &body], &vars);
        let event = file(&folder, "event.json", stdout(&event));
        let output = router(&["explain", "--event", &event], &vars);
        let line = format!("  destination  {destination} (by the rules of the source)\n");
        assert!(stdout(&output).contains(&line), "{}", stdout(&output));
        assert!(!stdout(&output).contains(" has "), "{}", stdout(&output));
    }
}

#[test]
fn explain_reads_a_vendor_s_own_payload_and_verifies_it_at_a_given_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    let body = r#"{"id":"evt_1","type":"invoice.paid","created":1780000000}"#;
    std::fs::write(&file, body).unwrap();
    let file = file.to_str().unwrap();
    let secret = "plainly-a-secret-of-the-tests";
    let signature = webhook_router::key::hmac_sha256(
        secret.as_bytes(),
        &[b"1780000000", b".", body.as_bytes()],
    );
    let header = format!("stripe-signature: t=1780000000,v1={}", hex::encode(signature));
    let explain = |more: &[&str], vars: &[(&str, &str)]| {
        let args = ["explain", "--json", "--vendor", "stripe", "--header", &header];
        let output = router(&[&args[..], more, &[file]].concat(), vars);
        serde_json::from_str::<serde_json::Value>(stdout(&output)).unwrap()
    };
    let secrets = [("STRIPE_SECRETS", secret)];
    let genuine = explain(&["--now", "1780000100"], &secrets);
    assert_eq!((&genuine["status"], &genuine["event_id"]), (&200.into(), &"evt_1".into()));
    assert_eq!(genuine["event_type"], "invoice.paid");
    assert_eq!(genuine["created_at"], "2026-05-28T20:26:40Z");
    assert_eq!(explain(&["--now", "1780000301"], &secrets)["status"], 401);
    let other = [("STRIPE_SECRETS", "plainly-another-secret")];
    assert_eq!(explain(&["--now", "1780000100"], &other)["status"], 401);
    // The body comes from a file, not from a sender, so nothing is verified without secrets.
    assert_eq!(explain(&[], &[])["key"], genuine["key"]);
    let told = |vars: &[(&str, &str)]| {
        let output = router(&["explain", "--vendor", "stripe", file], vars);
        stderr(&output).contains("signature not verified: set STRIPE_SECRETS")
    };
    assert!(told(&[]) && !told(&secrets));

    let unknown = router(&["explain", "--vendor", "nobody", file], &[]);
    assert!(!unknown.status.success());
    assert!(
        stderr(&unknown).contains("the built-in vendors are adyen, aftership, "),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn explain_goes_on_after_a_refusal_and_fails_for_a_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let bad = file(&folder, "bad", "{");
    let good = file(&folder, "good", PAYLOAD);
    let output = router(&["explain", "--json", &bad, &good], &[]);
    assert!(output.status.success());
    let objects: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!((&objects[0]["status"], &objects[1]["status"]), (&400.into(), &200.into()));
    assert_eq!(objects[0]["error"], "invalid json: the text ends too early, at byte 1");
    assert_eq!(objects[1]["route_byte"].as_u64().map(|byte| byte >= 128), Some(true));
    let missing = router(&["explain", "--json", "/nowhere/at-all", &good], &[]);
    assert!(!missing.status.success());
    assert!(stderr(&missing).contains("cannot read the file /nowhere/at-all"));
    assert_eq!(stdout(&missing).lines().count(), 1);
    let numeric = file(&folder, "numeric", &PAYLOAD.replace("\"2026-05-06T12:34:56Z\"", "1.5e9"));
    let refused = router(&["explain", &numeric], &[]);
    let why = "  refused      400: missing required fields: created_at is a number; expected a \
               string such as 2026-05-06T12:34:56Z\n";
    assert!(stdout(&refused).contains(why), "{}", stdout(&refused));
    let refused = router(&["explain", &bad], &[]);
    assert!(stdout(&refused).contains("refused      400: invalid json"));
}

#[test]
fn explain_finds_in_every_front_s_event_what_its_body_alone_tells() {
    let folder = tempfile::tempdir().unwrap();
    let key = |args: &[&str]| {
        let output = router(&[&["explain", "--json"], args].concat(), &[]);
        let object: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        object["key"].as_str().map(str::to_owned)
    };
    let mut keys = BTreeSet::new();
    for event in events() {
        let request = request_of(&event, "http://localhost/").build().unwrap();
        let body = folder.path().join("body");
        std::fs::write(&body, request.body().unwrap().as_bytes().unwrap()).unwrap();
        let of_event = key(&["--event", event.to_str().unwrap()]);
        assert_eq!(of_event, key(&[body.to_str().unwrap()]), "{event:?}");
        keys.extend(of_event);
    }
    assert!(keys.len() >= 12, "{keys:?}");
}

#[test]
fn explain_reads_events_standard_input_and_headers() {
    let output =
        router(&["explain", "--json", "--event", "events/paypal-capture-base64.json"], &[]);
    let object: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((&object["status"], &object["vendor"]), (&200.into(), &"PayPal".into()));
    let output = router(&["explain", "--json", "--event", "Cargo.toml"], &[]);
    assert!(stdout(&output).contains("not an event of a Function URL"), "{}", stdout(&output));
    assert!(stdout(&output).contains("omit --event if the file"), "{}", stdout(&output));
    for args in [&[][..], &["--vendor", "shopify"]] {
        let event = &["events/paypal-capture-base64.json"][..];
        let output = router(&[&["explain"][..], args, event].concat(), &[]);
        let hint = "  hint         the file looks like an event of a Function URL, an API \
                    Gateway or a load balancer, and a raw body was expected: add --event\n";
        assert!(stdout(&output).contains(hint), "{}", stdout(&output));
    }

    let mut child = Command::new(ROUTER)
        .args(["explain", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PAYLOAD.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    tells_nothing(stderr(&output));
    assert!(stdout(&output).contains("payment.succeeded"));

    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good", PAYLOAD);
    let signed = [("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t")];
    let refused = router(&["explain", &good], &signed);
    assert!(stdout(&refused).contains("refused      401: signature missing"));
    let headers = [
        "--header",
        "webhook-id: m",
        "--header",
        "webhook-timestamp: 1",
        "--header",
        "webhook-signature: v1,x",
    ];
    let args = [&["explain"][..], &headers, &[&good]].concat();
    assert!(stdout(&router(&args, &signed)).contains("refused      401: signature stale"));
    let wrong = router(&["explain", "--header", "no colon", &good], &[]);
    assert!(stderr(&wrong).contains("NAME: VALUE"));
}
