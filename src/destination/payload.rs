//! The payload of an invocation, in both forms: the body itself, or a Function URL's event.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::Utc;
use http::{
    HeaderValue,
    header::{CONTENT_LENGTH, HOST, USER_AGENT},
};
use serde::{Serialize, de::IgnoredAny};

use super::{Outgoing, SendError, content_type, headers, particulars, signature_headers};
use crate::config::{Invocation, LambdaTarget, Payload};

/// Most bytes of a client context, counted in its base64 form.
const MAX_CLIENT_CONTEXT_BYTES: usize = 3583;

/// Most bytes of a payload
/// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
const fn max_payload_bytes(invocation: Invocation) -> usize {
    match invocation {
        Invocation::RequestResponse => 6 * 1024 * 1024,
        Invocation::Event => 1024 * 1024,
    }
}

/// The host name in the Function URL events that the router makes. No server has this name.
const HOST_NAME: &str = "webhook-router";

/// The input of a function.
pub(super) struct Handed {
    pub payload: Bytes,
    /// The client context. `None` if the payload is a Function URL's event, whose headers hold the
    /// same data. So a receiver can tell the two forms apart, whatever the body contains.
    pub client_context: Option<String>,
}

/// Builds the payload in the target's form. Lambda refuses a payload that is not JSON, so a body
/// that is not JSON goes as a Function URL's event.
///
/// # Errors
/// Fails with [`SendError::Refused`] if the payload is too large for Lambda.
pub(super) fn handed(event: &Outgoing<'_>, target: &LambdaTarget) -> Result<Handed, SendError> {
    let body = &event.delivery.body;
    let handed = if target.payload == Payload::Body && is_json(body) {
        Handed { payload: body.clone(), client_context: Some(client_context(event)) }
    } else {
        let payload = function_url_event(event)
            .map_err(|error| SendError::Refused(format!("the payload cannot be made: {error}")))?;
        Handed { payload, client_context: None }
    };
    let (length, limit) = (handed.payload.len(), max_payload_bytes(target.invocation));
    if length > limit {
        return Err(SendError::Refused(format!(
            "the payload of {length} bytes does not fit: Lambda takes at most {limit} bytes with \
             AWS_TARGET_INVOCATION={:?}",
            target.invocation
        )));
    }
    Ok(handed)
}

fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Builds the event that a Function URL would make of the request that Cloud Run gets, in payload
/// format 2.0 (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads>).
///
/// The path is `/`, as for a target without a path. The path of the vendor's request matters only
/// to the router.
fn function_url_event(event: &Outgoing<'_>) -> serde_json::Result<Bytes> {
    let body = &event.delivery.body;
    let mut headers = headers(event);
    headers.insert(HOST, HeaderValue::from_static(HOST_NAME));
    headers.insert(CONTENT_LENGTH, body.len().into());
    let mut lines = BTreeMap::new();
    for (name, value) in &headers {
        add_line(&mut lines, name.as_str(), value);
    }
    let text = std::str::from_utf8(body);
    let now = Utc::now();
    let made = FunctionUrlEvent {
        version: "2.0",
        route_key: DEFAULT,
        raw_path: "/",
        raw_query_string: "",
        headers: lines,
        request_context: RequestContext {
            // The value for a URL without authentication.
            account_id: "anonymous",
            api_id: HOST_NAME,
            domain_name: HOST_NAME,
            domain_prefix: HOST_NAME,
            http: Http {
                method: "POST",
                path: "/",
                protocol: "HTTP/1.1",
                // As with Cloud Run, the sender's address is not passed on.
                source_ip: "0.0.0.0",
                user_agent: headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()),
            },
            request_id: format!("{}/{}", event.plan.key, event.attempt),
            route_key: DEFAULT,
            stage: DEFAULT,
            time: now.format("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            time_epoch: now.timestamp_millis(),
        },
        is_base64_encoded: text.is_err(),
        body: text.map_or_else(|_| BASE64_STANDARD.encode(body).into(), Cow::Borrowed),
    };
    serde_json::to_vec(&made).map(Bytes::from)
}

/// The only route and stage that a Function URL has.
const DEFAULT: &str = "$default";

/// A Function URL's event. The type of `aws_lambda_events` lacks `routeKey` and `stage`, which some
/// frameworks require.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionUrlEvent<'a> {
    version: &'static str,
    route_key: &'static str,
    raw_path: &'static str,
    raw_query_string: &'static str,
    headers: BTreeMap<String, String>,
    request_context: RequestContext<'a>,
    body: Cow<'a, str>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'static str,
    api_id: &'static str,
    domain_name: &'static str,
    domain_prefix: &'static str,
    http: Http<'a>,
    request_id: String,
    route_key: &'static str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'static str,
    path: &'static str,
    protocol: &'static str,
    source_ip: &'static str,
    user_agent: Option<&'a str>,
}

/// Adds a line of a header. Several lines of one header are joined (RFC 9110, section 5.2).
fn add_line(headers: &mut BTreeMap<String, String>, name: &str, value: &HeaderValue) {
    if let Ok(value) = value.to_str() {
        let lines = headers.entry(name.to_owned()).or_default();
        *lines = if lines.is_empty() { value.to_owned() } else { format!("{lines}, {value}") };
    }
}

/// Builds the client context. Its `custom` entries are the headers that Cloud Run gets, without the
/// user agent.
fn client_context(event: &Outgoing<'_>) -> String {
    #[derive(Serialize)]
    struct ClientContext {
        custom: BTreeMap<String, String>,
    }
    let particulars = particulars(event).into_iter().map(|(name, value)| (name.to_owned(), value));
    let mut custom: BTreeMap<_, _> = particulars.collect();
    if let Some(content_type) = content_type(event.delivery).and_then(|value| value.to_str().ok()) {
        custom.insert("content-type".into(), content_type.into());
    }
    let signature: Vec<_> = signature_headers(event).map(|(name, _)| name.to_string()).collect();
    for (name, value) in signature_headers(event) {
        add_line(&mut custom, name.as_str(), value);
    }
    let mut context = ClientContext { custom };
    let encode = |context: &_| {
        let json = serde_json::to_string(context).unwrap_or_default();
        BASE64_STANDARD.encode(json)
    };
    // Only unusually long headers make the context too long. The entries that are not in this
    // list, such as the router's signature, always fit.
    let dispensable = signature.iter().map(String::as_str);
    for dispensable in dispensable.chain([
        "content-type",
        "tracestate",
        "x-cloud-trace-context",
        "x-amzn-trace-id",
    ]) {
        if encode(&context).len() > MAX_CLIENT_CONTEXT_BYTES {
            context.custom.remove(dispensable);
        }
    }
    encode(&context)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        config::Config, delivery::Delivery, event::Identity, route::Route, secret::Secret,
        signing::Signer, testing,
    };

    fn target(vars: &[(&str, &str)]) -> LambdaTarget {
        let common = [("AWS_TARGET_FUNCTION", "p"), ("ROUTE_THRESHOLD", "0")];
        let vars = testing::lookup(&[&common, vars].concat());
        let targets = Config::from_vars(vars).unwrap().targets;
        targets.get(Route::AWS).unwrap().lambda().unwrap().clone()
    }

    fn handed_to(target: &LambdaTarget, delivery: &Delivery) -> Result<Handed, SendError> {
        let plan = testing::plan(Identity::Content, "one");
        handed(&Outgoing { attempt: 3, ..testing::outgoing(delivery, &plan) }, target)
    }

    #[test]
    fn a_body_that_is_json_goes_as_it_came_and_any_other_as_a_request() {
        for (body, goes_as_it_came) in [
            (&b"{\"a\":\"\\ud800\"}"[..], true),
            (b"7", true),
            (b"a=b", false),
            (b"", false),
            (b"{\"a\":NaN}", false),
            (b"\"\xff\"", false),
        ] {
            let body = Bytes::from_static(body);
            let came = Delivery { body: body.clone(), ..testing::delivery("/webhook", &[], "") };
            let handed = handed_to(&target(&[]), &came).unwrap();
            assert_eq!(handed.client_context.is_some(), goes_as_it_came, "{body:?}");
            assert_eq!(handed.payload == body, goes_as_it_came, "{body:?}");
            if !goes_as_it_came {
                let event: Value = serde_json::from_slice(&handed.payload).unwrap();
                assert_eq!(event["isBase64Encoded"], std::str::from_utf8(&body).is_err());
                assert_eq!(event["headers"]["content-length"], body.len().to_string());
                assert_eq!(event["headers"]["x-webhook-attempt"], "3");
            }
            let as_request = target(&[("AWS_TARGET_PAYLOAD", "request")]);
            assert!(handed_to(&as_request, &came).unwrap().client_context.is_none());
        }
    }

    #[test]
    fn a_payload_of_exactly_the_limit_is_taken() {
        let as_event = [("AWS_TARGET_INVOCATION", "Event"), ("AWS_TARGET_PAYLOAD", "request")];
        for (vars, limit) in [(&[][..], 6_291_456), (&as_event, 1_048_576)] {
            let target = target(vars);
            let of = |length: usize| {
                let body = format!("\"{}\"", "x".repeat(length - 2));
                let delivery = testing::delivery("/webhook", &[], &body);
                handed_to(&target, &delivery).map(|handed| handed.payload.len())
            };
            // The bytes that a request adds to a body of about this length.
            let added = of(limit - 1000).unwrap() - (limit - 1000);
            assert_eq!(of(limit - added), Ok(limit));
            let refused = of(limit - added + 1).unwrap_err().to_string();
            assert!(refused.contains(&format!("payload of {} bytes", limit + 1)), "{refused}");
        }
    }

    #[test]
    fn lines_of_a_header_are_joined() {
        let came = [("x-one", "a"), ("x-one", "b"), ("x-two", "c")];
        let mut lines = BTreeMap::new();
        for (name, value) in &testing::delivery("/", &came, "").headers {
            add_line(&mut lines, name.as_str(), value);
        }
        let lines: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(lines, [("x-one", "a, b"), ("x-two", "c")]);
    }

    #[test]
    fn a_client_context_always_has_the_router_s_own_signature() {
        let secret = |byte| format!("whsk_{}", BASE64_STANDARD.encode([byte; 32]));
        let secrets: Vec<_> = (1..=8).map(|byte| Secret::new(secret(byte))).collect();
        let signer = Signer::new(&secrets).unwrap();
        let mut plan = testing::plan(Identity::Content, "one");
        // JSON escapes each of these characters with another one.
        plan.event.vendor = "\"".repeat(300);
        plan.event.event_type = "\\".repeat(300);
        let longest = || "\"".repeat(512);
        let trace = [
            ("traceparent", format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16))),
            ("tracestate", longest()),
            ("x-amzn-trace-id", longest()),
            ("x-cloud-trace-context", longest()),
        ];
        let delivery = testing::delivery("/", &[("content-type", &"c".repeat(3000))], "7");
        let (delivery, plan, trace, signer) = (&delivery, &plan, &trace[..], signer.as_ref());
        let event = Outgoing { delivery, plan, attempt: 3, trace, signer, is_copy: false };
        let context = handed(&event, &target(&[])).unwrap().client_context.unwrap();
        assert!(context.len() <= 3583, "{}", context.len());
        let context: Value =
            serde_json::from_slice(&BASE64_STANDARD.decode(context).unwrap()).unwrap();
        let signature = context["custom"]["webhook-signature"].as_str().unwrap();
        assert_eq!(signature.split(' ').count(), 8);
        for name in ["idempotency-key", "webhook-id", "webhook-timestamp", "traceparent"] {
            assert!(context["custom"][name].is_string(), "{name}");
        }
    }

    #[test]
    fn a_client_context_leaves_out_what_does_not_fit() {
        let custom = |came: &[(&'static str, &str)]| {
            let handed = handed_to(&target(&[]), &testing::delivery("/", came, "7")).unwrap();
            let context = handed.client_context.unwrap();
            assert!(context.len() <= 3583, "{}", context.len());
            let context: Value =
                serde_json::from_slice(&BASE64_STANDARD.decode(context).unwrap()).unwrap();
            context["custom"].as_object().unwrap().clone()
        };
        let short = custom(&[("content-type", "text/csv")]);
        assert_eq!(
            (&short["content-type"], &short["x-webhook-vendor"]),
            (&"text/csv".into(), &"acme".into())
        );
        // Find the longest content type that fits. Base64 encodes three bytes at a time, so one
        // that is three characters longer does not fit.
        let room = (1..3000).rev().find(|length| {
            custom(&[("content-type", &"c".repeat(*length))]).contains_key("content-type")
        });
        let longest = room.unwrap();
        let base64 = |custom: &serde_json::Map<String, Value>| {
            let json = serde_json::json!({ "custom": custom }).to_string();
            BASE64_STANDARD.encode(json).len()
        };
        let mut full = custom(&[("content-type", &"c".repeat(longest))]);
        assert!(base64(&full) <= 3583);
        full.insert("content-type".into(), "c".repeat(longest + 3).into());
        assert!(base64(&full) > 3583);
    }
}
