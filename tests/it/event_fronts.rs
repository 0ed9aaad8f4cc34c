//! The output of `event`: the signed address, and the event that each front creates.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use webhook_router::{cmd::fronts, config::Intake, plan::plan};

use crate::{
    cli::router,
    event_command::{body_of, printed},
    signed_deliveries::{SIGNED_AT, now},
    support::lookup,
};

#[test]
fn a_signed_address_is_the_one_that_is_called() {
    let time = SIGNED_AT.to_string();
    let header = |more: &[&str], vars: &[(&str, &str)]| {
        let args = ["event", "--vendor", "square", "--secret", "plainly", "--now", &time];
        let output = router(&[&args[..], more].concat(), vars);
        let event: Value = serde_json::from_str(printed(&output)).unwrap();
        event["headers"]["x-square-hmacsha256-signature"].clone()
    };
    let public = [("PUBLIC_URL", "https://hooks.example.com/in")];
    let whole = header(&["--url", "https://hooks.example.com/in/webhook/square"], &[]);
    assert_eq!(header(&[], &public), whole);
    assert_ne!(header(&["--url", "https://other.example.com"], &public), whole);
    // The address of the request is signed when no other address is known.
    let line = |more: &[&str]| {
        let args = ["event", "--vendor", "square", "--secret", "plainly", "--now", &time, "--curl"];
        printed(&router(&[&args[..], more].concat(), &[])).to_owned()
    };
    let line = line(&["https://hooks.example.com/in/webhook/square"]);
    assert!(line.contains(whole.as_str().unwrap()), "{line}");

    // For a JSON body, Twilio signs the hash in the query.
    let args = ["event", "--vendor", "twilio", "--secret", "plainly", "--now", &time];
    let url =
        ["--url", "https://hooks.example.com/webhook/twilio?a=b", "events/vendors/slack.json"];
    let output = router(&[&args[..], &url].concat(), &[]);
    let delivery = fronts::delivery(printed(&output)).unwrap();
    assert!(delivery.query.as_ref().unwrap().starts_with("a=b&bodySHA256="));
    let vars = [("TWILIO_SECRETS", "plainly"), ("PUBLIC_URL", "https://hooks.example.com")];
    let intake = Intake::from_vars(lookup(&vars)).unwrap();
    assert!(plan(&delivery, &intake, None, now(SIGNED_AT)).is_ok());
}

#[test]
fn each_front_delivers_the_event_in_its_own_shape() {
    let folder = tempfile::tempdir().unwrap();
    let form = body_of("twilio");
    let json = folder.path().join("body.json");
    std::fs::write(&json, "{\"a\": \"é\"}\n").unwrap();
    let event = |front: &str, body: &Path| -> Value {
        let args = ["event", "--vendor", "github", "--secret", "plainly", "--now", "1778070900"];
        let more = ["--front", front, "--url", "https://x.example.com/webhook/github?a=1&a=%202&b"];
        let output = router(&[&args[..], &more, &[body.to_str().unwrap()]].concat(), &[]);
        serde_json::from_str(printed(&output)).unwrap()
    };
    for front in ["url", "http", "rest", "alb", "alb-multi-value"] {
        let (text, base64) = (event(front, &json), event(front, &form));
        for (event, body) in [(&text, &json), (&base64, &form)] {
            let read = fronts::delivery(&event.to_string()).unwrap();
            assert_eq!(read.path, "/webhook/github", "{front}");
            assert_eq!(read.body, std::fs::read(body).unwrap(), "{front}");
        }
        assert_eq!(
            (&text["body"], &text["isBase64Encoded"]),
            (&json!("{\"a\": \"é\"}\n"), &json!(false))
        );
        // Only a REST API passes a form on as text.
        let body = std::fs::read_to_string(&form).unwrap();
        let body = if front == "rest" { body } else { BASE64_STANDARD.encode(body) };
        let is_base64 = front != "rest";
        assert_eq!(
            (&base64["body"], &base64["isBase64Encoded"]),
            (&json!(body), &json!(is_base64))
        );
        // A header name may be in any case. A list of one value equals that value.
        let headers = match front {
            "alb-multi-value" => &text["multiValueHeaders"],
            _ => &text["headers"],
        };
        let header = |name: &str| match &headers[name] {
            Value::Array(values) => values[0].clone(),
            value => value.clone(),
        };
        assert_eq!(header("x-github-event"), "push", "{front}");
        assert_eq!(header("content-type"), "application/json", "{front}");
        assert!(header("x-hub-signature-256").as_str().unwrap().starts_with("sha256="));
        assert!(header("host").as_str().unwrap().ends_with(match front {
            "url" => ".lambda-url.us-east-1.on.aws",
            "http" | "rest" => ".execute-api.us-east-1.amazonaws.com",
            _ => ".elb.amazonaws.com",
        }));
    }
    for (front, id) in [("url", "anonymous"), ("http", "123456789012")] {
        let event = event(front, &json);
        assert_eq!(
            (&event["version"], &event["rawPath"]),
            (&json!("2.0"), &json!("/webhook/github"))
        );
        assert_eq!(event["rawQueryString"], "a=1&a=%202&b");
        assert_eq!(event["queryStringParameters"], json!({ "a": "1, 2", "b": "" }));
        assert_eq!(event["requestContext"]["accountId"], id);
        assert_eq!(event["requestContext"]["http"]["method"], "POST");
        assert_eq!(event["requestContext"]["time"], "06/May/2026:12:35:00 +0000");
    }
    let rest = event("rest", &json);
    assert_eq!((&rest["httpMethod"], &rest["path"]), (&json!("POST"), &json!("/webhook/github")));
    assert_eq!(rest["queryStringParameters"], json!({ "a": " 2", "b": "" }));
    assert_eq!(rest["multiValueQueryStringParameters"], json!({ "a": ["1", " 2"], "b": [""] }));
    assert_eq!(rest["multiValueHeaders"]["x-github-event"], json!(["push"]));
    assert_eq!(rest["requestContext"]["path"], "/prod/webhook/github");
    let alb = event("alb", &json);
    assert_eq!(alb["queryStringParameters"], json!({ "a": "%202", "b": "" }));
    assert!(alb.get("multiValueHeaders").is_none());
    assert!(alb["requestContext"]["elb"]["targetGroupArn"].is_string());
    let multi = event("alb-multi-value", &json);
    assert_eq!(multi["multiValueQueryStringParameters"], json!({ "a": ["1", "%202"], "b": [""] }));
    assert!(multi.get("headers").is_none());
}
