//! Vendors' handshakes: the router answers them, and gives these answers to nobody else.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::Hmac;
use http::StatusCode;
use ring::signature::KeyPair as _;
use sha2::Sha256;
use webhook_router::route::Route;

use crate::{
    signed_deliveries::{ED25519, mac, sha256},
    support::{Got, Serve, Server, Sink, client, get, ok, status},
};

/// Starts a router with these variables, whose events all go to Cloud Run.
fn router(sink: &Sink, vars: &[(&str, &str)]) -> Server {
    Serve::to(sink).only(Route::GCP).envs(vars.iter().copied()).start()
}

async fn post(router: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
    let request = client().post(format!("{}{path}", router.url));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    get(request.body(body.to_owned()).send().await).await
}

#[tokio::test]
async fn metas_challenge_is_echoed_for_the_verify_token_alone() {
    let sink = Sink::start().await;
    let vars = [("META_SECRETS", "plainly-meta"), ("META_VERIFY_TOKEN", "plainly-token")];
    let router = router(&sink, &vars);
    let ask = async |path: &str, query: &str| {
        get(client().get(format!("{}{path}?{query}", router.url)).send().await).await
    };
    let good = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=plainly-token";
    let got = ask("/webhook/meta", good).await;
    assert_eq!((got.status, got.text()), (200, "1158201444"));
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
    for (part, other) in [
        ("plainly-token", "plainly-other"),
        ("plainly-token", ""),
        ("hub.verify_token", "verify_token"),
        ("subscribe", "unsubscribe"),
        ("1158201444", ""),
        ("1158201444", &"1".repeat(300)),
    ] {
        let got = ask("/webhook/meta", &good.replace(part, other)).await;
        assert_eq!((got.status, got.header("allow")), (405, Some("POST")), "{part} {other}");
    }
    assert_eq!(ask("/webhook/github", good).await.status, 404);
    // Without a verify token, no challenge is echoed.
    drop(router);
    let router = self::router(&sink, &vars[..1]);
    for token in ["hub.verify_token=", "hub.verify_token=plainly-token"] {
        let query = format!("hub.mode=subscribe&hub.challenge=1&{token}");
        let url = format!("{}/webhook/meta?{query}", router.url);
        assert_eq!(get(client().get(url).send().await).await.status, 405);
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn zooms_validation_is_answered_narrowly() {
    let sink = Sink::start().await;
    let router = router(&sink, &[("ZOOM_SECRETS", "plainly-zoom,plainly-old")]);
    let question = |token: &str| {
        format!(
            r#"{{"payload":{{"plainToken":"{token}"}},"event_ts":1654503849680,"event":"endpoint.url_validation"}}"#
        )
    };
    let token = "qgg8vlvZRS6UYooatFL8Aw";
    let encrypted = hex::encode(sha256("plainly-zoom", token));
    let expected = format!(r#"{{"plainToken":"{token}","encryptedToken":"{encrypted}"}}"#);
    let body = question(token);
    let time = Utc::now().timestamp().to_string();
    let signature =
        format!("v0={}", hex::encode(sha256("plainly-zoom", &format!("v0:{time}:{body}"))));
    let signed = [("x-zm-signature", &*signature), ("x-zm-request-timestamp", &*time)];
    for headers in [&[][..], &signed] {
        let got = post(&router, "/webhook/zoom", headers, &body).await;
        assert_eq!((got.status, got.text()), (200, &*expected));
        assert_eq!(got.header("content-type"), Some("application/json"));
    }
    let event = body.replace("endpoint.url_validation", "meeting.started");
    let signed_event = format!("v0:{time}:{event}").replace('"', "\\\"");
    for body in [
        question(""),
        question(&"a".repeat(65)),
        question("a b"),
        question("v0:1"),
        // A text that an event's signature would cover gets no signature as its answer.
        question(&signed_event),
        event,
        format!("{}{}", question(token), " ".repeat(1024)),
        r#"{"event":"endpoint.url_validation"}"#.into(),
        "no".into(),
    ] {
        let got = post(&router, "/webhook/zoom", &[], &body).await;
        assert_eq!((got.status, got.text()), (401, "invalid signature"), "{body}");
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn discords_ping_and_events_are_answered_with_204_and_others_with_401() {
    let sink = Sink::start().await;
    let key = hex::encode(ED25519.public_key().as_ref());
    let router = router(&sink, &[("DISCORD_SECRETS", &key)]);
    let time = Utc::now().timestamp().to_string();
    let send = async |body: &str, signed: &str| {
        let signature = hex::encode(ED25519.sign(format!("{time}{signed}").as_bytes()));
        let headers = [("x-signature-ed25519", &*signature), ("x-signature-timestamp", &*time)];
        post(&router, "/webhook/discord", &headers, body).await
    };
    let ping = r#"{"version":1,"application_id":"1","type":0}"#;
    let got = send(ping, ping).await;
    assert_eq!((got.status, got.text(), got.header("content-length")), (204, "", None));
    assert!(sink.received().is_empty());
    // Discord sends wrong signatures now and then, and expects 401.
    assert_eq!(send(ping, "{}").await.status, 401);
    assert_eq!(post(&router, "/webhook/discord", &[], ping).await.status, 401);
    assert!(sink.received().is_empty());
    let event =
        r#"{"type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"2026-05-06T12:00:00Z"}}"#;
    sink.answers(ok("done"));
    let got = send(event, event).await;
    assert_eq!((got.status, got.text()), (204, ""));
    assert!(got.header("x-webhook-key").is_some());
    assert_eq!(send(event, event).await.status, 204);
    assert_eq!(sink.take().len(), 1);
    sink.answers(status(StatusCode::BAD_REQUEST, "no"));
    let other = event.replace("ENTITLEMENT_CREATE", "QUEST_USER_ENROLLMENT");
    assert_eq!(send(&other, &other).await.status, 400);
}

#[tokio::test]
async fn twitchs_challenge_is_answered_once_it_is_verified() {
    let sink = Sink::start().await;
    let router = router(&sink, &[("TWITCH_SECRETS", "plainly-twitch")]);
    let time = Utc::now().format("%Y-%m-%dT%H:%M:%S.123456789Z").to_string();
    let body = r#"{"challenge":"pogchamp-kappa","subscription":{"status":"webhook_callback_verification_pending","type":"channel.follow"}}"#;
    let signature = sha256("plainly-twitch", &format!("id-1{time}{body}"));
    let signature = format!("sha256={}", hex::encode(signature));
    let headers = [
        ("twitch-eventsub-message-id", "id-1"),
        ("twitch-eventsub-message-timestamp", &*time),
        ("twitch-eventsub-message-signature", &*signature),
    ];
    let got = post(&router, "/webhook/twitch", &headers, body).await;
    assert_eq!((got.status, got.text()), (200, "pogchamp-kappa"));
    assert_eq!(post(&router, "/webhook/twitch", &headers[..2], body).await.status, 401);
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn gitlab_signs_or_sends_a_token_that_stays_here() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = crate::support::sqlite(folder.path());
    let key = BASE64_STANDARD.encode("test-password of GitLab");
    let secrets = format!("whsec_{key},plainly-gitlab");
    let router = router(&sink, &[("GITLAB_SECRETS", &secrets), ("STORE_URL", &store)]);
    let time = Utc::now().timestamp().to_string();
    let body = r#"{"object_kind":"push"}"#;
    let signature = mac::<Hmac<Sha256>>(b"test-password of GitLab", format!("id-1.{time}.{body}"));
    let signature = format!("v1,{}", BASE64_STANDARD.encode(signature));
    let signed = [
        ("webhook-id", "id-1"),
        ("webhook-timestamp", &*time),
        ("webhook-signature", &*signature),
        ("x-gitlab-event", "Push Hook"),
    ];
    assert_eq!(post(&router, "/webhook/gitlab", &signed, body).await.text(), "done");
    assert_eq!(sink.take()[0].header("webhook-signature"), Some(&*signature));
    // A dead letter holds everything that the store keeps of a delivery.
    sink.answers(status(StatusCode::BAD_REQUEST, "no"));
    let token = |value| {
        [("x-gitlab-token", value), ("idempotency-key", "id-2"), ("x-gitlab-event", "Push Hook")]
    };
    assert_eq!(post(&router, "/webhook/gitlab", &token("plainly-gitlab"), body).await.status, 400);
    let arrived = sink.take();
    assert_eq!(arrived[0].header("x-webhook-event-type"), Some("Push%20Hook"));
    assert!(arrived.iter().all(|one| one.header("x-gitlab-token").is_none()));
    let files = std::fs::read_dir(folder.path()).unwrap();
    let bytes: Vec<u8> =
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!bytes.windows(14).any(|window| window == b"plainly-gitlab"));
    // A signing token is never sent, so it is no secret token.
    let signing = format!("whsec_{key}");
    for wrong in ["plainly-other", "", &signing] {
        assert_eq!(post(&router, "/webhook/gitlab", &token(wrong), body).await.status, 401);
    }
    // A right token is enough, even beside a wrong signature.
    let mut both = token("plainly-gitlab").to_vec();
    both.extend([signed[0], signed[1], ("webhook-signature", "v1,AAAA")]);
    let got = post(&router, "/webhook/gitlab", &both, body).await;
    assert_eq!((got.status, got.text()), (200, "duplicate ignored"));
    let other =
        [signed[0], signed[1], ("webhook-signature", "v1,AAAA"), ("x-gitlab-event", "Push")];
    assert_eq!(post(&router, "/webhook/gitlab", &other, body).await.status, 401);
}

#[tokio::test]
async fn githubs_ping_is_an_event_that_a_rule_can_leave_out() {
    let sink = Sink::start().await;
    let sources = r#"
        [sources.github-quiet]
        vendor = "github"
        secrets = ["plainly-github"]
        except = ["ping"]
    "#;
    let router = router(&sink, &[("GITHUB_SECRETS", "plainly-github"), ("SOURCES", sources)]);
    let body = r#"{"zen":"Design for failure.","hook_id":1,"hook":{"type":"Repository"}}"#;
    let signature = format!("sha256={}", hex::encode(sha256("plainly-github", body)));
    let ping = async |path: &str, signature: &str| {
        let headers = [
            ("x-github-event", "ping"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-hub-signature-256", signature),
        ];
        post(&router, path, &headers, body).await
    };
    sink.answers(ok("done"));
    let got = ping("/webhook/github", &signature).await;
    assert_eq!((got.status, got.text()), (200, "done"));
    let received = sink.take();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("x-webhook-event-type"), Some("ping"));
    let got = ping("/webhook/github-quiet", &signature).await;
    assert_eq!((got.status, got.text()), (200, "filtered"));
    for path in ["/webhook/github", "/webhook/github-quiet"] {
        assert_eq!(ping(path, &signature.replace("sha256=", "sha256=00")).await.status, 401);
    }
    assert!(sink.take().is_empty());
}

#[tokio::test]
async fn trellos_check_of_the_address_is_answered_and_only_for_a_served_source() {
    let sink = Sink::start().await;
    let url = ("PUBLIC_URL", "https://hooks.example.com");
    let router = router(&sink, &[url, ("TRELLO_SECRETS", "plainly-trello")]);
    let head = async |path: &str| {
        get(client().head(format!("{}{path}", router.url)).send().await).await.status
    };
    assert_eq!(head("/webhook/trello").await, 200);
    assert_eq!(head("/webhook/github").await, 404);
    let got = get(client().get(format!("{}/webhook/trello", router.url)).send().await).await;
    assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
    assert!(sink.received().is_empty());
    drop(router);
    let router = self::router(&sink, &[url]);
    let got = get(client().head(format!("{}/webhook/trello", router.url)).send().await).await;
    assert_eq!(got.status, 404);
}
