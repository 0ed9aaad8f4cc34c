//! Converts a delivery into the event that a front of a Lambda function would send. Names, accounts
//! and addresses are made up.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde_json::{Map, Value, json};

use crate::delivery::Delivery;

const ACCOUNT: &str = "123456789012";
const REQUEST_ID: &str = "11111111-2222-3333-4444-555555555555";
const SOURCE_IP: &str = "203.0.113.7";
const USER_AGENT: &str = concat!("webhook-router/", env!("CARGO_PKG_VERSION"));

/// The service in front of a Lambda function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Front {
    /// A Function URL (payload format 2.0).
    Url,
    /// An HTTP API of API Gateway (payload format 2.0).
    Http,
    /// A REST API of API Gateway (proxy integration, v1).
    Rest,
    /// An Application Load Balancer.
    Alb,
    /// An Application Load Balancer with multi-value headers.
    AlbMultiValue,
}

impl Front {
    /// Returns the event of a delivery that comes in at `now`.
    pub fn event(self, delivery: &Delivery, now: DateTime<Utc>) -> Value {
        let mut delivery = delivery.clone();
        for (name, value) in [
            ("host", self.host()),
            ("user-agent", USER_AGENT),
            ("x-forwarded-for", SOURCE_IP),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
        ] {
            delivery.headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        match self {
            Self::Url | Self::Http => self.payload_2(&delivery, now),
            Self::Rest => self.payload_1(&delivery, now),
            Self::Alb => load_balancer(&delivery, ["headers", "queryStringParameters"], last),
            Self::AlbMultiValue => {
                let members = ["multiValueHeaders", "multiValueQueryStringParameters"];
                load_balancer(&delivery, members, listed)
            }
        }
    }

    fn host(self) -> &'static str {
        match self {
            Self::Url => "abcdefghijklmnopqrstuvwxyz012345.lambda-url.us-east-1.on.aws",
            Self::Http | Self::Rest => "abcdef0123.execute-api.us-east-1.amazonaws.com",
            Self::Alb | Self::AlbMultiValue => "example-0123456789.us-east-1.elb.amazonaws.com",
        }
    }

    fn api_id(self) -> Option<&'static str> {
        self.host().split('.').next()
    }

    /// Returns an event with payload format 2.0
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
    fn payload_2(self, delivery: &Delivery, now: DateTime<Utc>) -> Value {
        let Delivery { method, path, query, headers, .. } = delivery;
        let (account, route) = match self {
            Self::Url => ("anonymous", "$default".to_owned()),
            _ => (ACCOUNT, format!("{method} {path}")),
        };
        let (body, is_base64) = body(delivery, is_text(headers));
        let mut event = json!({
            "version": "2.0",
            "routeKey": route,
            "rawPath": path,
            "rawQueryString": query.as_deref().unwrap_or_default(),
            "headers": object(&pairs(headers), folded),
            "requestContext": {
                "accountId": account,
                "apiId": self.api_id(),
                "domainName": self.host(),
                "domainPrefix": self.api_id(),
                "http": {
                    "method": method.as_str(),
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": SOURCE_IP,
                    "userAgent": USER_AGENT,
                },
                "requestId": REQUEST_ID,
                "routeKey": route,
                "stage": "$default",
                "time": time(now),
                "timeEpoch": now.timestamp_millis(),
            },
            "body": body,
            "isBase64Encoded": is_base64,
        });
        if let Some(query) = query {
            event["queryStringParameters"] = object(&decoded(query), folded);
        }
        event
    }

    /// Returns an event of a REST API
    /// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>).
    fn payload_1(self, delivery: &Delivery, now: DateTime<Utc>) -> Value {
        let Delivery { method, path, query, headers, .. } = delivery;
        // A REST API encodes only binary media types, and it has none by default.
        let (body, is_base64) = body(delivery, true);
        let headers = pairs(headers);
        let parameters = query.as_deref().map(decoded);
        let of_parameters = |join: Join| parameters.as_ref().map(|pairs| object(pairs, join));
        json!({
            "resource": "/{proxy+}",
            "path": path,
            "httpMethod": method.as_str(),
            "headers": object(&headers, last),
            "multiValueHeaders": object(&headers, listed),
            "queryStringParameters": of_parameters(last),
            "multiValueQueryStringParameters": of_parameters(listed),
            "pathParameters": { "proxy": path.trim_start_matches('/') },
            "stageVariables": null,
            "requestContext": {
                "accountId": ACCOUNT,
                "apiId": self.api_id(),
                "domainName": self.host(),
                "domainPrefix": self.api_id(),
                "httpMethod": method.as_str(),
                "identity": { "sourceIp": SOURCE_IP, "userAgent": USER_AGENT },
                "path": format!("/prod{path}"),
                "protocol": "HTTP/1.1",
                "requestId": REQUEST_ID,
                "requestTime": time(now),
                "requestTimeEpoch": now.timestamp_millis(),
                "resourceId": "abc123",
                "resourcePath": "/{proxy+}",
                "stage": "prod",
            },
            "body": body,
            "isBase64Encoded": is_base64,
        })
    }
}

/// Returns the event of a load balancer, which leaves parameters percent-encoded
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>).
fn load_balancer(delivery: &Delivery, members: [&str; 2], join: Join) -> Value {
    let Delivery { method, path, query, headers, .. } = delivery;
    let (body, is_base64) = body(delivery, is_text(headers));
    let parameters = query.iter().flat_map(|query| query.split('&'));
    let parameters = parameters.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let target = format!(
        "arn:aws:elasticloadbalancing:us-east-1:{ACCOUNT}:targetgroup/webhook-router/0123456789abcdef"
    );
    let mut event = json!({
        "requestContext": { "elb": { "targetGroupArn": target } },
        "httpMethod": method.as_str(),
        "path": path,
        "body": body,
        "isBase64Encoded": is_base64,
    });
    let [header_member, parameter_member] = members;
    event[header_member] = object(&pairs(headers), join);
    event[parameter_member] = object(&parameters.collect::<Vec<_>>(), join);
    event
}

/// Returns the body as the event's text, and whether the text is base64.
fn body(delivery: &Delivery, is_text: bool) -> (String, bool) {
    match std::str::from_utf8(&delivery.body) {
        Ok(text) if is_text => (text.to_owned(), false),
        _ => (BASE64_STANDARD.encode(&delivery.body), true),
    }
}

/// Returns whether a body with these headers is passed on as text. A form is passed on as base64.
fn is_text(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let value = String::from_utf8_lossy(value).to_ascii_lowercase();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let texts = ["application/json", "application/javascript", "application/xml"];
    let is_listed = media_type.starts_with("text/") || texts.contains(&media_type);
    is_listed && !headers.contains_key(CONTENT_ENCODING)
}

/// Joins the values of one name.
type Join = fn(&[&str]) -> Value;

fn folded(values: &[&str]) -> Value {
    values.join(",").into()
}

fn last(values: &[&str]) -> Value {
    values.last().copied().into()
}

fn listed(values: &[&str]) -> Value {
    json!(values)
}

fn object(pairs: &[(String, String)], join: Join) -> Value {
    let values = |name: &str| {
        let of_name = pairs.iter().filter(|(other, _)| other == name);
        of_name.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let members = pairs.iter().map(|(name, _)| (name.clone(), join(&values(name))));
    Value::Object(members.collect::<Map<_, _>>())
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn decoded(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Writes a time as `06/May/2026:12:34:57 +0000`.
fn time(time: DateTime<Utc>) -> String {
    time.format("%d/%b/%Y:%H:%M:%S %z").to_string()
}
