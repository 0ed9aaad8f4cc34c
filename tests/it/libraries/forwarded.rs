//! The libraries for Standard Webhooks as receivers of what the router forwards (FORWARD_SECRETS).

use std::collections::HashMap;

use webhook_router::{cmd::fronts, route::Route};

use super::{NOTE, Request, Script, Verdict};
use crate::{
    signing::{NEW, OLD},
    support::{Received, Serve, Sink},
};

/// Returns a request that asks the libraries for a verdict on what a destination received.
fn about(received: &Received, secret: &str) -> Request {
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    let (headers, body) = match received.header("x-amz-client-context") {
        Some(_) => (received.custom(), text(&received.body)),
        None if received.is_invocation() => {
            let event = fronts::delivery(std::str::from_utf8(&received.body).unwrap()).unwrap();
            let lines = event.headers.iter();
            let lines = lines.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
            (lines.collect(), text(&event.body))
        }
        None => {
            let lines = received.headers.iter();
            let lines = lines.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
            (lines.collect::<HashMap<_, _>>(), text(&received.body))
        }
    };
    Request { body, headers: Some(headers), ..Request::new("standard-webhooks", secret, "{}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_libraries_accept_what_the_router_forwards_and_nothing_else() {
    let sink = Sink::start().await;
    let secrets = format!("{NEW},{OLD}");
    let mut received = Vec::new();
    for (route, payload) in [(Route::GCP, "body"), (Route::AWS, "body"), (Route::AWS, "request")] {
        let form = [("FORWARD_SECRETS", secrets.as_str()), ("AWS_TARGET_PAYLOAD", payload)];
        let router = Serve::to(&sink).only(route).envs(form).start();
        // Neither the spaces nor the escapes may change on the way.
        let body = format!(
            r#"{{ "vendor": "v",  "event_type": "t", "created_at": "2024-05-05", "n": "{NOTE} \u00fc" }}"#
        );
        router.post(body).await.expect(200);
        received.extend(sink.take());
    }
    assert_eq!(received.len(), 3);
    let changed = |request: &Request, name: &str, value: &str| {
        let mut headers = request.headers.clone().unwrap();
        headers.insert(name.into(), value.into());
        Request { headers: Some(headers), ..request.clone() }
    };
    for mut script in Script::start() {
        for received in &received {
            for secret in [NEW, OLD] {
                let genuine = about(received, secret);
                let body = genuine.body.replace("2024", "2025");
                for (request, expected) in [
                    (Request { body, ..genuine.clone() }, "refused"),
                    (changed(&genuine, "webhook-id", "another"), "refused"),
                    (changed(&genuine, "webhook-timestamp", "1700000000"), "refused"),
                    (about(received, "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE="), "refused"),
                    (genuine, "accepted"),
                ] {
                    let verdicts = script.ask::<Verdict>(&request);
                    assert!(verdicts.iter().any(|one| one.library == "standardwebhooks"));
                    for Verdict { library, verdict } in verdicts {
                        let headers = &request.headers;
                        assert!(verdict.starts_with(expected), "{library}: {verdict}: {headers:?}");
                    }
                }
            }
        }
    }
}
