//! Signatures of what the router forwards (FORWARD_SECRETS). The receivers in `libraries/forwarded.rs`
//! are the libraries for Standard Webhooks.

use std::process::Command;

use bytes::Bytes;
use chrono::Utc;
use http::StatusCode;
use serde_json::{Value, json};
use webhook_router::route::Route;

use crate::support::{
    Answer, Got, PAYLOAD, PROCESSOR, Received, Serve, Server, Sink, client, get, ok, sign,
};

/// Two secrets during a rotation. A secret may come without the prefix.
pub const NEW: &str = "whsec_dGVzdC1vbmx5LWZvcndhcmQtbmV3LTAx";
pub const OLD: &str = "dGVzdC1vbmx5LWZvcndhcmQtb2xkLTAx";

const VENDOR: &str = "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE=";

/// Checks the signature of what a destination received, and returns its time.
fn signed_at(received: &Received, secrets: &[&str]) -> i64 {
    let told = |name: &str| received.told(name).unwrap_or_else(|| panic!("{name}: {received:?}"));
    let id = told("webhook-id");
    assert_eq!(id, told("idempotency-key"));
    let time: i64 = told("webhook-timestamp").parse().unwrap();
    let body = std::str::from_utf8(&received.body).unwrap();
    let entries = secrets.iter().map(|secret| {
        let secret = format!("whsec_{}", secret.trim_start_matches("whsec_"));
        sign(&secret, &id, time, body)
    });
    assert_eq!(told("webhook-signature"), entries.collect::<Vec<_>>().join(" "));
    time
}

#[tokio::test]
async fn each_attempt_is_signed_by_every_secret_with_its_own_time() {
    let sink = Sink::start().await;
    for route in [Route::GCP, Route::AWS] {
        let secrets = format!("{NEW}, {OLD}");
        let router = Serve::to(&sink).only(route).env("FORWARD_SECRETS", &secrets).start();
        let later = json!({ "statusCode": 503, "headers": { "retry-after": "2" } }).to_string();
        sink.answers(if route == Route::AWS {
            Answer::With(StatusCode::OK, vec![], later.into())
        } else {
            let later = vec![("retry-after", "2")];
            Answer::With(StatusCode::SERVICE_UNAVAILABLE, later, Bytes::new())
        });
        let (got, ()) = tokio::join!(router.post(PAYLOAD), async {
            sink.arrived(1).await;
            sink.answers(ok("done"));
        });
        got.expect(200).says("done");
        let received = sink.take();
        assert_eq!(received.len(), 2);
        let times = [0, 1].map(|attempt| signed_at(&received[attempt], &[NEW, OLD]));
        assert!(times[0] < times[1] && times[1] <= Utc::now().timestamp(), "{times:?}");
    }
}

#[tokio::test]
async fn a_vendor_s_signature_never_stands_where_the_router_s_does() {
    let sink = Sink::start().await;
    let (body, now) = (r#"{"type":"contact.created"}"#, Utc::now().timestamp());
    let (time, signature) = (now.to_string(), sign(VENDOR, "msg_1", now, body));
    let headers =
        [("webhook-id", "msg_1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
    for route in [Route::GCP, Route::AWS] {
        let serve = Serve::to(&sink).only(route).env("STANDARD_WEBHOOKS_SECRETS", VENDOR);
        let router = serve.start();
        router.post_to("standard-webhooks", &headers, body).await.expect(200);
        let received = sink.take().remove(0);
        for (name, value) in headers {
            assert_eq!(received.told(name).as_deref(), Some(value), "{route}");
        }
        let router = serve.env("FORWARD_SECRETS", NEW).start();
        router.post_to("standard-webhooks", &headers, body).await.expect(200);
        let received = sink.take().remove(0);
        signed_at(&received, &[NEW]);
        assert!(received.headers.get_all("webhook-signature").iter().count() <= 1);
    }
}

#[tokio::test]
async fn the_sample_processor_takes_only_what_the_router_signed() {
    let vars = [("PORT", "0"), ("FORWARD_SECRETS", NEW)];
    let processor = Server::start(Command::new(PROCESSOR), &vars);
    let url = processor.url.replace("0.0.0.0", "127.0.0.1");
    let receipts = async || -> Vec<Value> {
        let listed = get(client().get(format!("{url}/receipts")).send().await).await;
        serde_json::from_slice(&listed.body).unwrap()
    };
    let both = format!("{OLD},{NEW}");
    for (index, (route, form)) in
        [(Route::GCP, "body"), (Route::AWS, "body"), (Route::AWS, "request")].iter().enumerate()
    {
        for (secrets, status) in [("", 401), (OLD, 401), (&both, 200)] {
            let vars = [("FORWARD_SECRETS", secrets), ("AWS_TARGET_PAYLOAD", form)];
            let router = Serve::to_url(&url).only(*route).envs(vars).start();
            let got = router.post(PAYLOAD.replace("4200", &index.to_string())).await;
            assert_eq!(got.status, status, "{route} {form}: {}", got.text());
            if status == 200 {
                assert_eq!(receipts().await[0]["key"], got.header("x-webhook-key").unwrap());
            } else {
                got.says("invalid signature");
            }
            assert_eq!(receipts().await.len(), index + usize::from(status == 200));
        }
    }
    // A stranger who has captured a request cannot make another event of it.
    let send = async |id: &str, time: i64| -> Got {
        let request = client()
            .post(&url)
            .header("idempotency-key", "forged")
            .header("webhook-id", id)
            .header("webhook-timestamp", time.to_string())
            .header("webhook-signature", sign(NEW, "captured", time, PAYLOAD));
        get(request.body(PAYLOAD).send().await).await
    };
    let now = Utc::now().timestamp();
    send("captured", now).await.expect(200).says(r#"{"processed":true}"#);
    send("captured", now).await.expect(200).says(r#"{"processed":false}"#);
    assert_eq!(receipts().await[0]["key"], "captured");
    send("another", now).await.expect(401);
    send("captured", now - 310).await.expect(401);
}
