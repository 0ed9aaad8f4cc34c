//! Sources end to end: real requests to `serve`, and what arrives at the destination.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::Hmac;
use http::{Method, StatusCode};
use ring::signature::KeyPair as _;
use sha1::Sha1;
use sha2::Sha512;
use webhook_router::delivery::Delivery;

use crate::{
    servers::Redis,
    signed_deliveries::{ED25519, KINDS, Kind, PAYPAL, PUBLIC_URL, mac, secrets, sha256},
    support::{Serve, Server, Sink, get, status},
};

/// A router with every vendor and these variables.
fn router(sink: &Sink, more: &[(&str, &str)]) -> Server {
    Serve::to(sink).envs(secrets()).envs(more.iter().copied()).start()
}

/// Writes PayPal's certificate to a file.
fn paypal_certificate() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &PAYPAL.certificate).unwrap();
    file
}

#[tokio::test]
async fn every_vendor_is_served_and_its_signature_forwarded() {
    let sink = Sink::start().await;
    let certificate = paypal_certificate();
    let path = certificate.path().to_str().unwrap();
    let router = router(&sink, &[("PAYPAL_CERT_FILE", path), ("RUST_LOG", "trace")]);
    for kind in KINDS {
        let delivery = kind.delivery_at(1, 0, Utc::now().timestamp());
        let got = router.deliver(&delivery).await;
        assert_eq!(got.status, 200, "{}: {}", kind.name, router.log());
        assert!(got.header("x-webhook-key").is_some());
        let body = if kind.source == "adyen" { "[accepted]" } else { "done" };
        // These kinds carry the event of an earlier kind, with other headers or another signature.
        let is_duplicate = ["svix", "v1a", "shopify-events"].contains(&kind.name);
        let arrived = sink.take();
        assert_eq!(arrived.len(), usize::from(!is_duplicate), "{}", kind.name);
        assert_eq!(got.text(), if is_duplicate { "duplicate ignored" } else { body });
        for arrived in arrived {
            assert_eq!(arrived.body, delivery.body);
            assert_eq!(arrived.told("x-webhook-vendor").as_deref(), Some(kind.source));
            for name in kind.signed_headers.iter().chain([&kind.signature]) {
                let sent = delivery.headers.get(*name).map(|value| value.to_str().unwrap());
                assert_eq!(arrived.told(name).as_deref(), sent, "{} {name}", kind.name);
            }
        }
        let again = router.deliver(&delivery).await;
        let again_is = if kind.source == "adyen" { "[accepted]" } else { "duplicate ignored" };
        assert_eq!((again.status, again.text()), (200, again_is), "{}", kind.name);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        let headers = delivery.headers.values().map(|value| value.to_str().unwrap().to_owned());
        let body = String::from_utf8(delivery.body.to_vec()).unwrap();
        let values: Vec<_> = headers.chain([body]).collect();
        let unsigned = Delivery { headers: http::HeaderMap::new(), body: "{}".into(), ..delivery };
        let got = router.deliver(&unsigned).await;
        assert_eq!((got.status, got.text()), (401, "invalid signature"), "{}", kind.name);
        let log = router.log();
        // Twilio's signatures are the shortest, with 28 characters. Longer texts with a dot are
        // types, times and addresses.
        let separators = ['"', '&', '=', ',', ';', ' ', '|', '%'];
        let pieces = values.iter().flat_map(|value| value.split(separators));
        for piece in pieces.filter(|piece| piece.len() >= 27 && !piece.contains('.')) {
            assert!(!log.contains(piece), "{piece} of {} is logged", kind.name);
        }
    }
    let log = router.log();
    for secret in secrets().iter().filter(|(name, _)| name.ends_with("_SECRETS")) {
        // Webhook ids are not secret, but the log has no use for them, either.
        assert!(secret.1.split([',', ':']).all(|one| one.len() < 7 || !log.contains(one.trim())));
    }
}

#[tokio::test]
async fn a_description_of_each_scheme_verifies_what_it_describes() {
    let sink = Sink::start().await;
    let key = hex::encode(ED25519.public_key().as_ref());
    let whsec = "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE=";
    let sources = format!(
        r#"
        [sources.body]
        vendor = "custom"
        secrets = ["plainly-old", "plainly-body"]
        scheme = "hmac-body"
        header = "X-Acme-Signature"
        algorithm = "sha512"
        encoding = "base64url"
        prefix = "v3="
        separator = " "
        type = "/type"
        time = "/at"
        time_unit = "milliseconds"
        id = "/id"

        [sources.inside]
        vendor = "custom"
        secrets = ["706c61696e6c79"]
        secret_encoding = "hex"
        scheme = "hmac-timestamped"
        header = "X-Signature"
        algorithm = "sha1"
        timestamp = "X-Time"
        timestamp_unit = "milliseconds"
        tolerance = 60
        template = "{{method}}:{{url}}:{{header:X-Id}}:{{timestamp}}:{{body}}"
        id = "X-Id"
        url = "{PUBLIC_URL}"

        [sources.entry]
        vendor = "custom"
        secrets = ["plainly-entry"]
        scheme = "hmac-timestamped"
        header = "X-Signature"
        separator = ";"
        prefix = "s="
        timestamp_prefix = "t="
        template = "{{timestamp}}.{{body}}"

        [sources.within]
        vendor = "custom"
        secrets = ["plainly-within"]
        scheme = "hmac-body"
        header = "/signed/by"
        template = "{{/id}}|{{/at}}|{{/absent}}"
        id = "/id"

        [sources.standard]
        vendor = "custom"
        secrets = ["{whsec}"]
        scheme = "standard-webhooks"

        [sources.shared]
        vendor = "custom"
        secrets = ["plainly-shared"]
        scheme = "shared-secret"
        header = "X-Gitlab-Token"
        type = "X-Gitlab-Event"

        [sources.basic]
        vendor = "custom"
        secrets = ["user:plainly:basic"]
        scheme = "basic"

        [sources.ed]
        vendor = "custom"
        secrets = ["{key}"]
        scheme = "ed25519"
        header = "X-Signature-Ed25519"
        timestamp = "X-Signature-Timestamp"
        template = "{{timestamp}}{{body}}"
        handshake = {{ at = "/type", is = "ping", answer = "/token" }}
        "#
    );
    let router = Serve::to(&sink).env("SOURCES", &sources).env("RUST_LOG", "trace").start();
    let body = r#"{"type":"a.b","at":1778070000123,"id":"one"}"#;
    let now = Utc::now().timestamp();
    let (seconds, millis) = (now.to_string(), (now * 1000).to_string());

    let signature = mac::<Hmac<Sha512>>(b"plainly-body", body);
    let signature = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(signature);
    let of_body = format!("v2=x v3={signature}");
    let signed = format!("POST:{PUBLIC_URL}/webhook/inside:7:{millis}:{body}");
    let inside = hex::encode(mac::<Hmac<Sha1>>(b"plainly", signed));
    let entry = hex::encode(sha256("plainly-entry", &format!("{seconds}.{body}")));
    let entry = format!("t={seconds};s={entry}");
    let standard = crate::support::sign(whsec, "msg_1", now, body);
    let basic = format!("Basic {}", BASE64_STANDARD.encode("user:plainly:basic"));
    let ed = hex::encode(ED25519.sign(format!("{seconds}{body}").as_bytes()));
    type Headers<'a> = Vec<(&'a str, &'a str)>;
    let cases: [(&str, Headers<'_>); 7] = [
        ("body", vec![("x-acme-signature", &of_body)]),
        ("inside", vec![("x-signature", &inside), ("x-time", &millis), ("x-id", "7")]),
        ("entry", vec![("x-signature", &entry)]),
        (
            "standard",
            vec![
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &seconds),
                ("webhook-signature", &standard),
            ],
        ),
        ("shared", vec![("x-gitlab-token", "plainly-shared"), ("x-gitlab-event", "push")]),
        ("basic", vec![("authorization", &basic)]),
        ("ed", vec![("x-signature-ed25519", &ed), ("x-signature-timestamp", &seconds)]),
    ];
    for (name, headers) in &cases {
        let got = router.post_to(name, headers, body).await;
        assert_eq!((got.status, got.text()), (200, "done"), "{name}: {}", router.log());
        let arrived = sink.take().remove(0);
        assert_eq!(arrived.body, body, "{name}");
        let is_secret = ["shared", "basic"].contains(name);
        for (header, value) in headers.iter().filter(|(header, _)| *header != "x-gitlab-event") {
            let told = arrived.told(header);
            // The `authorization` header that Cloud Run gets is the router's own, never the
            // sender's.
            assert_eq!(told.as_deref(), (!is_secret).then_some(*value), "{name} {header}");
        }
        for at in 0..headers.len() {
            let mut changed = headers.clone();
            if changed[at].0 == "x-gitlab-event" {
                continue;
            }
            let other = format!("{}0", changed[at].1);
            changed[at].1 = &other;
            assert_eq!(router.post_to(name, &changed, body).await.status, 401, "{name} {at}");
            changed.remove(at);
            assert_eq!(router.post_to(name, &changed, body).await.status, 401, "{name} {at}");
        }
        if !is_secret {
            let got = router.post_to(name, headers, body.replace("one", "two")).await;
            assert_eq!(got.status, 401, "{name}");
        }
    }
    assert!(sink.take().is_empty());
    // A signature inside the body covers the values that the template names.
    let signature = hex::encode(sha256("plainly-within", "one|1778070000123|"));
    let signed = format!(r#"{{"id":"one","at":1778070000123,"signed":{{"by":"{signature}"}}}}"#);
    router.post_to("within", &[], signed.clone()).await.expect(200);
    assert_eq!(sink.take().len(), 1);
    let added = signed.replace("\"signed\"", "\"absent\":{\"any\":1},\"signed\"");
    for changed in [signed.replace("one", "two"), signed.replace("123", "124"), added, body.into()]
    {
        router.post_to("within", &[], changed).await.expect(401);
    }
    // A handshake is answered, and is not an event.
    let question = r#"{"type":"ping","token":"so be it"}"#;
    let signature = hex::encode(ED25519.sign(format!("{seconds}{question}").as_bytes()));
    let headers = [("x-signature-ed25519", &*signature), ("x-signature-timestamp", &*seconds)];
    let got = router.post_to("ed", &headers, question).await.expect(200).says("so be it");
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(sink.take().is_empty() && got.header("x-webhook-key").is_none());
    let log = router.log();
    for secret in ["plainly-shared", "plainly:basic", basic.as_str(), &of_body, &inside, &ed] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
}

#[tokio::test]
async fn rules_choose_what_is_delivered_and_where() {
    let sink = Sink::start().await;
    let sources = r#"
        [sources.paid]
        vendor = "github"
        secrets = ["plainly-github"]
        only = ["issues.*"]
        except = ["*.closed"]
        where = { "/live" = true }
        destination = "gcp"

        [sources.content]
        vendor = "github"
        secrets = ["plainly-github"]
        key = "content"
        ignore = ["/delivery"]
        threshold = 0
    "#;
    let router = Serve::to(&sink).env("SOURCES", sources).start();
    let send = async |source: &str, event: &str, id: &str, body: &str| {
        let signature = format!("sha256={}", hex::encode(sha256("plainly-github", body)));
        let headers = [
            ("x-hub-signature-256", &*signature),
            ("x-github-event", event),
            ("x-github-delivery", id),
        ];
        router.post_to(source, &headers, body.to_owned()).await
    };
    for (event, body) in [
        ("push", r#"{"live":true}"#),
        ("issues", r#"{"live":true,"action":"closed"}"#),
        ("issues", r#"{"live":false,"action":"opened"}"#),
        ("issues", r#"{"action":"opened"}"#),
    ] {
        let got = send("paid", event, "1", body).await;
        assert_eq!((got.status, got.text()), (200, "filtered"), "{event} {body}");
    }
    assert!(sink.received().is_empty() && router.log().contains("filtered"));
    for id in 0..6 {
        let body = r#"{"live":true,"action":"opened"}"#;
        let got = send("paid", "issues", &id.to_string(), body).await;
        assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    }
    assert_eq!(sink.take().len(), 6);
    let first = send("content", "push", "1", r#"{"n":1,"delivery":1}"#).await;
    assert_eq!(first.header("x-webhook-destination"), Some("aws"));
    // A captured request under another id is a duplicate.
    let again = send("content", "push", "2", r#"{"delivery":2, "n":1}"#).await;
    assert_eq!(again.text(), "duplicate ignored");
    let other = send("content", "push", "2", r#"{"n":2,"delivery":2}"#).await;
    assert_eq!(other.text(), "done");
    let got = send("paid", "issues", "1", "no").await;
    assert_eq!(got.text(), "filtered");
}

#[tokio::test]
async fn a_dead_letter_keeps_the_signature_and_no_secret() {
    let sink = Sink::start().await;
    let sources = r#"
        [sources.shared]
        vendor = "custom"
        secrets = ["plainly-shared"]
        scheme = "shared-secret"
        header = "X-Token"
    "#;
    sink.answers(status(StatusCode::BAD_REQUEST, "no"));
    let folder = tempfile::tempdir().unwrap();
    let store = crate::support::sqlite(folder.path());
    let vars = [("STORE_URL", store.as_str()), ("SOURCES", sources), ("ROUTE_THRESHOLD", "256")];
    let router = router(&sink, &vars);
    let now = Utc::now().timestamp();
    let slack = Kind::of("slack").delivery_at(1, 0, now);
    let got = router.deliver(&slack).await;
    // The destination's answer will not change, so Slack need not come again.
    assert_eq!((got.status, got.header("x-slack-no-retry")), (400, Some("1")));
    let headers = [("x-token", "plainly-shared"), ("authorization", "x")];
    let got = router.post_to("shared", &headers, "{}").await;
    assert_eq!((got.status, got.header("x-slack-no-retry")), (400, None));
    let bytes = std::fs::read_dir(folder.path()).unwrap();
    let bytes: Vec<u8> =
        bytes.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(slack.headers["x-slack-signature"].to_str().unwrap()));
    assert!(!holds("plainly-shared") && !holds("authorization"));
    // An answer that may change does not tell Slack to stop.
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "later"));
    let slack = Kind::of("slack").delivery_at(2, 0, now);
    let got = router.deliver(&slack).await;
    assert_eq!((got.status, got.header("x-slack-no-retry")), (503, None));
}

#[tokio::test]
async fn slacks_challenge_is_answered_once_it_is_verified() {
    let sink = Sink::start().await;
    let router = router(&sink, &[]);
    let body = r#"{"type":"url_verification","token":"x","challenge":"3eZbrw1a"}"#;
    let time = Utc::now().timestamp().to_string();
    let signature = hex::encode(sha256("plainly-slack", &format!("v0:{time}:{body}")));
    let signature = format!("v0={signature}");
    let headers = [("x-slack-signature", &*signature), ("x-slack-request-timestamp", &*time)];
    router.post_to("slack", &headers, body).await.expect(200).says("3eZbrw1a");
    router.post_to("slack", &headers[1..], body).await.expect(401).says("invalid signature");
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn nothing_unverified_touches_the_store() {
    let redis = Redis::start(&[]);
    let sink = Sink::start().await;
    let certificate = paypal_certificate();
    let path = certificate.path().to_str().unwrap();
    let (store, vendors) = (redis.url(), KINDS);
    let router = router(&sink, &[("STORE_URL", &store), ("PAYPAL_CERT_FILE", path)]);
    let commands = || {
        let stats = redis.cli(&["info", "commandstats"]);
        let scripts = stats.lines().filter(|line| line.starts_with("cmdstat_eval"));
        scripts.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = commands();
    for kind in vendors {
        let mut delivery = kind.delivery(1, 0);
        delivery.headers.clear();
        delivery.body = "{}".into();
        assert_eq!(router.deliver(&delivery).await.status, 401, "{}", kind.name);
        let forged = kind.forged(Utc::now().timestamp());
        assert_eq!(router.deliver(&forged).await.status, 401, "forged {}", kind.name);
        if kind.stamped {
            let stale = kind.delivery_at(1, 0, Utc::now().timestamp() - 301);
            assert_eq!(router.deliver(&stale).await.status, 401, "stale {}", kind.name);
        }
    }
    assert_eq!(commands(), before);
    let got = router.deliver(&Kind::of("github").delivery(1, 0)).await;
    assert_eq!(got.status, 200);
    assert_ne!(commands(), before);
}

#[tokio::test]
async fn a_body_of_any_kind_arrives_as_it_came() {
    let sink = Sink::start().await;
    let sources = "[sources.git]\nvendor = \"github\"\nsecrets = [\"plainly-github\"]\n\
                   destination = \"gcp\"";
    let router = Serve::to(&sink).env("SOURCES", sources).start();
    let body = b"payload=%7B%7D&\xff\x00".to_vec();
    let signature = hex::encode(mac::<Hmac<sha2::Sha256>>(b"plainly-github", &body));
    let request = router
        .request(Method::POST, "/webhook/git")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .header("x-github-event", "push")
        .body(body.clone());
    assert_eq!(get(request.send().await).await.status, 200);
    let arrived = sink.take().remove(0);
    assert_eq!(arrived.body, body);
    assert_eq!(arrived.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn a_megabyte_of_header_is_refused() {
    let sink = Sink::start().await;
    let router = router(&sink, &[]);
    let huge = "v1=00,".repeat(1024 * 1024 / 6);
    let request = router.request(Method::POST, "/webhook/stripe");
    let sent = request.header("stripe-signature", huge).body("{}").send().await;
    // The server may close the connection before the whole header is sent.
    assert!(sent.is_err() || sent.unwrap().status() == 431);
    assert!(sink.received().is_empty());
}
