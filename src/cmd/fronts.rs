//! The fronts of the function. A front is a Function URL, an API Gateway or an Application Load
//! Balancer. It turns a request into an event, and the function's answer into an HTTP response.
//!
//! lambda_http provides the types of the events and the shapes of the answers. This module converts an
//! event into a [`Delivery`] itself, because the conversion of lambda_http changes a delivery:
//! - It keeps only one value of a repeated header (REST API, load balancer with multi-value headers).
//! - It puts the stage before the path, and normalises the path.
//! - It replaces the sender's `X-Amzn-Trace-Id`.
//! - It panics on a `Host` header that is not a host, and on malformed base64.
//!
//! This module also converts the bodies of replies itself, because lambda_http decodes a text by its
//! charset.

use std::{collections::BTreeMap, convert::Infallible, fmt, future::ready};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderMap, Response};
use lambda_http::{
    Body, TransformResponse,
    aws_lambda_events::{
        alb::AlbTargetGroupRequest,
        apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
        query_map::QueryMap,
    },
    request::RequestOrigin,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::delivery::{Delivery, Reply};

/// A kind of front, identified by the shape of its events and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Front {
    /// A Function URL, or an HTTP API with payload format 2.0
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>).
    #[default]
    HttpApi,
    /// A REST API, or an HTTP API with payload format 1.0
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
    RestApi,
    /// An Application Load Balancer
    /// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>).
    LoadBalancer,
}

/// An error for an event that does not hold an HTTP request.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    #[error("not an event of a Function URL, an API Gateway or a load balancer")]
    Unknown,
    // The text of serde_json's error may quote the event, so only its position is shown.
    #[error("malformed event of {0}: line {line}, column {column}", line = .1.line(), column = .1.column())]
    Shape(Front, serde_json::Error),
    #[error("malformed event of {0}: its {1} is missing or malformed")]
    Part(Front, &'static str),
}

/// Reads the delivery in an event of any front.
///
/// # Errors
/// Fails if the event comes from no front, or if a part of it is missing or malformed.
pub fn delivery(event: &str) -> Result<Delivery, NotAnEvent> {
    Front::of(event).ok_or(NotAnEvent::Unknown)?.delivery(event)
}

impl Front {
    /// Returns the front that an event comes from. It looks at few members, so that the function
    /// can answer even a malformed event in its front's shape.
    pub fn of(event: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Event {
            request_context: RequestContext,
            http_method: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct RequestContext {
            elb: Option<IgnoredAny>,
            http: Option<IgnoredAny>,
        }
        let Event { request_context, http_method } = serde_json::from_str(event).ok()?;
        match (request_context, http_method) {
            (RequestContext { elb: Some(_), .. }, _) => Some(Self::LoadBalancer),
            (RequestContext { http: Some(_), .. }, _) => Some(Self::HttpApi),
            (_, Some(_)) => Some(Self::RestApi),
            _ => None,
        }
    }

    /// Reads the delivery in an event of this front.
    ///
    /// # Errors
    /// Fails if a part of the event is missing or malformed.
    pub fn delivery(self, event: &str) -> Result<Delivery, NotAnEvent> {
        match self {
            Self::HttpApi => self.http_api(self.read(event)?),
            Self::RestApi => self.rest_api(self.read(event)?),
            Self::LoadBalancer => self.load_balancer(self.read(event)?),
        }
    }

    fn read<Event: DeserializeOwned>(self, event: &str) -> Result<Event, NotAnEvent> {
        serde_json::from_str(event).map_err(|error| NotAnEvent::Shape(self, error))
    }

    fn http_api(self, event: ApiGatewayV2httpRequest) -> Result<Delivery, NotAnEvent> {
        let path = event.raw_path.ok_or(NotAnEvent::Part(self, "rawPath"))?;
        Ok(Delivery {
            method: event.request_context.http.method,
            // The path always begins with the stage, even behind a custom domain. Only `$default`
            // is never in the path.
            path: without_stage(path, event.request_context.stage.as_deref()),
            query: event.raw_query_string.filter(|query| !query.is_empty()),
            headers: event.headers,
            body: self.body(event.body, event.is_base64_encoded)?,
        })
    }

    fn rest_api(self, event: ApiGatewayProxyRequest) -> Result<Delivery, NotAnEvent> {
        let path = event.path.ok_or(NotAnEvent::Part(self, "path"))?;
        let context = event.request_context;
        // A REST API removes the stage from `path`, but not from the context's path. An HTTP API
        // with payload format 1.0 removes it from neither, so both are equal. Then the stage is
        // removed here.
        let stage = context.stage.filter(|_| context.path.as_ref() == Some(&path));
        // API Gateway has decoded the parameters.
        let parameters =
            parameters(event.query_string_parameters, event.multi_value_query_string_parameters);
        let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
        Ok(Delivery {
            method: event.http_method,
            path: without_stage(path, stage.as_deref()),
            query: Some(query).filter(|query| !query.is_empty()),
            headers: all_headers(event.headers, event.multi_value_headers),
            body: self.body(event.body, event.is_base64_encoded)?,
        })
    }

    fn load_balancer(self, event: AlbTargetGroupRequest) -> Result<Delivery, NotAnEvent> {
        let path = event.path.ok_or(NotAnEvent::Part(self, "path"))?;
        // A load balancer leaves the parameters as the sender encoded them.
        let parameters =
            parameters(event.query_string_parameters, event.multi_value_query_string_parameters);
        let query: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(Delivery {
            method: event.http_method,
            path,
            query: Some(query.join("&")).filter(|query| !query.is_empty()),
            headers: all_headers(event.headers, event.multi_value_headers),
            body: self.body(event.body, event.is_base64_encoded)?,
        })
    }

    fn body(self, body: Option<String>, is_base64: bool) -> Result<Bytes, NotAnEvent> {
        let text = body.unwrap_or_default();
        if !is_base64 {
            return Ok(text.into());
        }
        let bytes = BASE64_STANDARD.decode(text);
        bytes.map(Bytes::from).map_err(|_| NotAnEvent::Part(self, "base64 body"))
    }

    /// Converts a reply into the answer that this front reads.
    pub async fn answer(self, reply: Reply) -> impl Serialize {
        let body = match std::str::from_utf8(&reply.body) {
            Ok(text) if !is_longer_as_json(text) => Body::Text(text.into()),
            _ => Body::Binary(reply.body.into()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = reply.status;
        // JSON cannot hold a value that is not UTF-8.
        let headers = reply.headers.iter();
        let headers = headers.filter(|(_, value)| std::str::from_utf8(value.as_bytes()).is_ok());
        *response.headers_mut() =
            headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let origin = match self {
            Self::HttpApi => RequestOrigin::ApiGatewayV2,
            Self::RestApi => RequestOrigin::ApiGatewayV1,
            Self::LoadBalancer => RequestOrigin::Alb,
        };
        let shaped: TransformResponse<'_, String, Infallible> =
            TransformResponse::Response(origin, Box::pin(ready(response)));
        let Ok(shaped) = shaped.await;
        shaped
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpApi => "a Function URL or an HTTP API (payload format 2.0)",
            Self::RestApi => "a REST API or an HTTP API (payload format 1.0)",
            Self::LoadBalancer => "a load balancer",
        })
    }
}

/// Removes the name of a stage from the beginning of a path.
fn without_stage(path: String, stage: Option<&str>) -> String {
    let stage = stage.filter(|stage| *stage != "$default");
    let rest = stage.and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage));
    match rest {
        Some("") => "/".into(),
        Some(rest) if rest.starts_with('/') => rest.into(),
        _ => path,
    }
}

/// Collects all values of all headers. A load balancer sends either `headers` or
/// `multiValueHeaders`. A REST API sends both, and `headers` has only one value of each header.
fn all_headers(headers: HeaderMap, mut multi_value: HeaderMap) -> HeaderMap {
    for (name, value) in headers.iter() {
        if !multi_value.contains_key(name) {
            multi_value.insert(name.clone(), value.clone());
        }
    }
    multi_value
}

/// Returns the parameters of a query, sorted by name, because the event does not keep their order.
fn parameters(single: QueryMap, multi_value: QueryMap) -> Vec<(String, String)> {
    let parameters = if multi_value.is_empty() { single } else { multi_value };
    // The iterator of `QueryMap` panics on a name without values, so serde reads the parameters.
    let by_name: BTreeMap<String, Vec<String>> =
        serde_json::to_value(parameters).and_then(serde_json::from_value).unwrap_or_default();
    let pairs = by_name
        .into_iter()
        .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)));
    pairs.collect()
}

/// Smallest size of a text that may be sent as base64. A REST API without `binaryMediaTypes` passes
/// base64 on without decoding it, so shorter texts are always sent as text.
const LONG_TEXT: usize = 256 * 1024;

/// Returns whether a long text is longer as a JSON string than as base64. The encoded answer is
/// limited to 6 MB by Lambda, and to 1 MB by a load balancer.
fn is_longer_as_json(text: &str) -> bool {
    if text.len() < LONG_TEXT {
        return false;
    }
    let escaped: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0x00..=0x1f => 6,
            _ => 1,
        })
        .sum();
    escaped > text.len().div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
    use serde_json::{Value, json};

    use super::*;

    fn read(event: &Value) -> Delivery {
        delivery(&event.to_string()).unwrap()
    }

    fn answered(front: Front, reply: Reply) -> Value {
        let answering = async { serde_json::to_value(front.answer(reply).await).unwrap() };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(answering)
    }

    /// Returns the event that each front creates for the same request.
    fn events() -> [(Front, Value); 3] {
        let v2 = json!({
            "rawPath": "/webhook", "requestContext": { "http": { "method": "POST" }, "stage": "$default" },
            "body": "{}",
        });
        let v1 = json!({
            "path": "/webhook", "httpMethod": "POST",
            "requestContext": { "httpMethod": "POST", "path": "/prod/webhook", "stage": "prod" },
            "body": "{}",
        });
        let alb = json!({
            "path": "/webhook", "httpMethod": "POST", "requestContext": { "elb": {} }, "body": "{}",
        });
        [(Front::HttpApi, v2), (Front::RestApi, v1), (Front::LoadBalancer, alb)]
    }

    #[test]
    fn each_front_is_known_by_its_event() {
        for (front, event) in events() {
            assert_eq!(Front::of(&event.to_string()), Some(front));
            let Delivery { method, path, query, headers, body } = read(&event);
            assert_eq!((method, path.as_str(), query), (Method::POST, "/webhook", None));
            assert_eq!((headers.len(), &body[..]), (0, &b"{}"[..]));
        }
    }

    #[test]
    fn the_bytes_of_a_body_are_those_that_were_sent() {
        for (front, mut event) in events() {
            for (text, is_base64, bytes) in [
                ("/wAN", true, &b"\xff\x00\r"[..]),
                ("", true, b""),
                ("{ \"a\": \"\u{e9}\" }\r\n", false, "{ \"a\": \"\u{e9}\" }\r\n".as_bytes()),
            ] {
                (event["body"], event["isBase64Encoded"]) = (json!(text), json!(is_base64));
                assert_eq!(read(&event).body, bytes, "{front:?}");
            }
            event["body"] = Value::Null;
            assert_eq!(read(&event).body, "");
        }
    }

    #[test]
    fn an_event_of_no_front_is_refused() {
        for other in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"requestContext": 1}"#,
            r#"{"requestContext": {}}"#,
            r#"{"httpMethod": "POST"}"#,
            r#"{"requestContext": {"http": null}}"#,
        ] {
            assert_eq!(Front::of(other), None, "{other}");
            assert!(matches!(delivery(other), Err(NotAnEvent::Unknown)));
        }
    }

    #[test]
    fn a_stage_is_taken_off_where_the_front_put_it() {
        let v2 = |path: &str, stage: &str| {
            let context = json!({ "http": { "method": "GET" }, "stage": stage });
            read(&json!({ "rawPath": path, "requestContext": context })).path
        };
        for (path, stage, left) in [
            ("/prod/webhook", "prod", "/webhook"),
            ("/prod", "prod", "/"),
            ("/prod/", "prod", "/"),
            ("/production/webhook", "prod", "/production/webhook"),
            ("/webhook/webhook/stripe", "webhook", "/webhook/stripe"),
            ("/$default/webhook", "$default", "/$default/webhook"),
            ("/webhook", "$default", "/webhook"),
        ] {
            assert_eq!(v2(path, stage), left, "{path} {stage}");
        }
        let v1 = |path: &str, full: &str, stage: &str| {
            let context = json!({ "httpMethod": "GET", "path": full, "stage": stage });
            read(&json!({ "path": path, "httpMethod": "GET", "requestContext": context })).path
        };
        for (path, full, stage, left) in [
            // A REST API is called at its own address, and behind a domain.
            ("/webhook/stripe", "/prod/webhook/stripe", "prod", "/webhook/stripe"),
            ("/webhook/stripe", "/webhook/webhook/stripe", "webhook", "/webhook/stripe"),
            ("/webhook/stripe", "/webhook/stripe", "prod", "/webhook/stripe"),
            // An HTTP API.
            ("/prod/webhook/stripe", "/prod/webhook/stripe", "prod", "/webhook/stripe"),
        ] {
            assert_eq!(v1(path, full, stage), left, "{path} {full} {stage}");
        }
    }

    #[test]
    fn no_value_of_a_repeated_header_is_lost() {
        let multi = json!({ "X-Signature": ["one", "two"], "Host": ["a host?"] });
        for (front, event) in events().into_iter().skip(1) {
            for single in [json!({ "X-Signature": "two" }), json!(null), json!({ "other": "x" })] {
                let mut event = event.clone();
                (event["multiValueHeaders"], event["headers"]) = (multi.clone(), single.clone());
                let headers = read(&event).headers;
                let values: Vec<_> = headers.get_all("x-signature").iter().collect();
                assert_eq!(values, ["one", "two"], "{front:?}");
                assert_eq!(headers.contains_key("other"), single.get("other").is_some());
            }
        }
    }

    #[test]
    fn a_query_is_raw_or_rebuilt_from_its_parameters() {
        let [v2, v1, alb] = events().map(|(_, event)| event);
        let query = |mut event: Value, name: &str, value: Value| {
            event[name] = value;
            read(&event).query
        };
        let raw = "b=%2F&a=x+y&b=2";
        assert_eq!(query(v2.clone(), "rawQueryString", json!(raw)).as_deref(), Some(raw));
        assert_eq!(query(v2, "rawQueryString", json!("")), None);
        let single = "queryStringParameters";
        let multi = "multiValueQueryStringParameters";
        let decoded = json!({ "b": ["/", "2"], "a": ["x y"], "c": [] });
        assert_eq!(query(v1.clone(), multi, decoded).as_deref(), Some("a=x+y&b=%2F&b=2"));
        assert_eq!(query(v1.clone(), single, json!({ "a": "1,2" })).as_deref(), Some("a=1%2C2"));
        assert_eq!(query(v1, single, json!(null)), None);
        let encoded = json!({ "b": ["%2F", "2"], "a": ["x+y"], "c": [] });
        assert_eq!(query(alb.clone(), multi, encoded).as_deref(), Some("a=x+y&b=%2F&b=2"));
        assert_eq!(query(alb, single, json!({})), None);
    }

    #[test]
    fn an_unreadable_event_is_an_error_that_names_its_front() {
        for (front, event) in events() {
            for (name, value, said) in [
                ("rawPath", json!(null), "its rawPath is missing"),
                ("path", json!(null), "its path is missing"),
                ("isBase64Encoded", json!(true), "its base64 body is missing or malformed"),
                ("headers", json!({ "a\nb": "secret" }), "line 1, column"),
                ("body", json!(1), "line 1, column"),
            ] {
                let mut event = event.clone();
                if event.get(name).is_none() && name.ends_with("ath") {
                    continue;
                }
                event[name] = value;
                let error = delivery(&event.to_string()).unwrap_err().to_string();
                let expected = format!("malformed event of {front}: ");
                assert!(error.starts_with(&expected) && error.contains(said), "{error}");
                assert!(!error.contains("secret"));
            }
        }
    }

    #[test]
    fn a_reply_has_its_front_s_shape() {
        let reply = Reply::text(StatusCode::BAD_REQUEST, "invalid json");
        let plain = "text/plain; charset=utf-8";
        for (front, headers, multi_value) in [
            (Front::HttpApi, json!({ "content-type": plain }), json!({})),
            (Front::RestApi, json!({}), json!({ "content-type": [plain] })),
            (
                Front::LoadBalancer,
                json!({ "content-type": plain }),
                json!({ "content-type": [plain] }),
            ),
        ] {
            let answer = answered(front, reply.clone());
            assert_eq!(
                (&answer["headers"], &answer["multiValueHeaders"]),
                (&headers, &multi_value)
            );
            assert_eq!(answer["statusCode"], 400);
            assert_eq!(
                (&answer["body"], &answer["isBase64Encoded"]),
                (&json!("invalid json"), &json!(false))
            );
            let described = (front == Front::LoadBalancer).then(|| json!("400 Bad Request"));
            assert_eq!(answer.get("statusDescription"), described.as_ref());
        }
    }

    #[test]
    fn the_bytes_of_a_reply_are_its_own_whatever_their_type_says() {
        let bytes: &[u8] = b"d\xe9j\xe0 vu";
        let latin = HeaderValue::from_static("text/plain; charset=iso-8859-1");
        let quotes = "\"".repeat(LONG_TEXT);
        for (body, text) in [
            (bytes, None),
            ("déjà vu".as_bytes(), Some("déjà vu")),
            (b"", Some("")),
            (b"\"\x01\x02\x03", Some("\"\x01\x02\x03")),
            (&quotes.as_bytes()[1..], Some(&quotes[1..])),
            (quotes.as_bytes(), None),
        ] {
            for (front, _) in events() {
                let reply = Reply {
                    status: StatusCode::OK,
                    headers: HeaderMap::from_iter([(CONTENT_TYPE, latin.clone())]),
                    body: Bytes::copy_from_slice(body),
                };
                let answer = answered(front, reply);
                assert_eq!(answer["isBase64Encoded"], text.is_none());
                match text {
                    Some(text) => assert_eq!(answer["body"], text),
                    None => assert_eq!(answer["body"], BASE64_STANDARD.encode(body)),
                }
            }
        }
    }

    #[test]
    fn a_header_that_json_cannot_hold_is_left_out() {
        let reply = Reply::text(StatusCode::OK, "done")
            .with_header(CONTENT_TYPE, HeaderValue::from_bytes(b"text/\xe9").unwrap());
        for (front, _) in events() {
            let answer = answered(front, reply.clone());
            assert!(!answer.to_string().contains("content-type"), "{answer}");
            assert_eq!(answer["body"], "done");
        }
    }
}
