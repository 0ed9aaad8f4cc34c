//! The processor Lambda, through the Invoke API
//! (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_config::{
    Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_sdk_lambda::{
    Client,
    config::{
        endpoint::{DefaultResolver, Params, ResolveEndpoint},
        http::HttpResponse,
    },
    error::{ConnectorError, ProvideErrorMetadata as _, SdkError},
    operation::invoke::{InvokeError, InvokeOutput},
    primitives::Blob,
    types::InvocationType,
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeTransmitInterceptorContextRef},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};
use url::Url;

use super::{
    Destination, FailedAnswer, NoAnswer, Outgoing, SendError, connect_timeout,
    payload::{self, Handed},
};
use crate::{
    aws,
    config::{Invocation, LambdaTarget},
    delivery::Reply,
    json::{Document, JsonError},
};

/// The status of every kind of throttling
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors>).
const TOO_MANY_REQUESTS: u16 = 429;

/// Maximum length in characters of a function's error kind (`Unhandled` or `Handled`) in a message.
const MAX_ERROR_CHARS: usize = 64;

/// Maximum length in characters of a content type in a message about an answer that is not AWS's.
const MAX_CONTENT_TYPE_CHARS: usize = 64;

/// A function that receives the event as its payload.
pub struct Lambda {
    target: LambdaTarget,
    timeout: Duration,
    /// Created for the first event, so that a cold start without one does not pay for it.
    client: OnceCell<Client>,
}

impl Lambda {
    /// Creates a destination with the credentials, endpoint and region of the standard AWS
    /// variables and files. A region in the target's ARN takes precedence.
    ///
    /// `timeout` limits one attempt.
    pub fn new(target: LambdaTarget, timeout: Duration) -> Self {
        Self { target, timeout, client: OnceCell::new() }
    }

    /// Creates a destination with the caller's AWS settings.
    pub fn with_sdk_config(target: LambdaTarget, timeout: Duration, sdk: &SdkConfig) -> Self {
        let client = OnceCell::new_with(Some(client(sdk, &target, timeout)));
        Self { target, timeout, client }
    }

    async fn client(&self) -> &Client {
        self.client
            .get_or_init(|| async {
                let mut sdk = aws::sdk_config().await.clone();
                if let Some(role) = &self.target.role_arn {
                    let provider = AssumeRoleProvider::builder(role.clone())
                        .session_name("webhook-router")
                        .configure(&sdk)
                        .build()
                        .await;
                    sdk = sdk
                        .into_builder()
                        .credentials_provider(
                            aws_sdk_lambda::config::SharedCredentialsProvider::new(provider),
                        )
                        .build();
                }
                client(&sdk, &self.target, self.timeout)
            })
            .await
    }

    async fn invoke(
        &self,
        client: &Client,
        event: &Outgoing<'_>,
        sending: &Sending,
    ) -> Result<Reply, SendError> {
        let invocation = match self.target.invocation {
            Invocation::RequestResponse => InvocationType::RequestResponse,
            Invocation::Event => InvocationType::Event,
        };
        let Handed { payload, client_context } = payload::handed(event, &self.target)?;
        let answer = client
            .invoke()
            .function_name(&self.target.function)
            .invocation_type(invocation)
            .set_client_context(client_context)
            .payload(Blob::new(payload))
            .customize()
            .interceptor(sending.clone())
            .send()
            .boxed()
            .await;
        answer.map_err(send_error).and_then(reply)
    }
}

#[async_trait]
impl Destination for Lambda {
    async fn send(&self, event: &Outgoing<'_>, timeout: Duration) -> Result<Reply, SendError> {
        let deadline = Instant::now() + timeout;
        // Loading the AWS settings and credentials sends nothing of the event.
        let Ok(client) = timeout_at(deadline, self.client()).await else {
            return Err(SendError::NotSent("the AWS settings could not be loaded in time".into()));
        };
        let sending = Sending::default();
        let invoked = timeout_at(deadline, self.invoke(client, event, &sending)).await;
        match invoked.unwrap_or_else(|_| Err(SendError::timed_out(timeout))) {
            Err(SendError::Unknown(answer)) if !sending.has_begun() => {
                let late = "the AWS credentials could not be loaded in time".to_owned();
                Err(SendError::NotSent(if answer.timed_out { late } else { answer.detail }))
            }
            result => result,
        }
    }
}

/// Notes that a call has loaded its credentials, and begins to send its request.
#[derive(Debug, Default, Clone)]
struct Sending(Arc<AtomicBool>);

impl Sending {
    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Sending {
    fn name(&self) -> &'static str {
        "Sending"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn client(sdk: &SdkConfig, target: &LambdaTarget, attempt_timeout: Duration) -> Client {
    let connecting = connect_timeout(attempt_timeout);
    let region = target.region().map(|region| Region::new(region.to_owned()));
    let config = aws_sdk_lambda::config::Builder::from(sdk)
        .region(region.or_else(|| sdk.region().cloned()))
        // The router makes and counts the attempts. Retries of the SDK would not be counted.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connecting).build())
        .build();
    Client::from_conf(config)
}

/// Returns the URL at which a target's API is called.
///
/// # Errors
/// Fails with the reason for which there is no URL: an unknown region, for example.
pub async fn endpoint(target: &LambdaTarget, sdk: &SdkConfig) -> Result<Url, String> {
    let region = target.region().or_else(|| sdk.region().map(AsRef::as_ref));
    let own = std::env::var("AWS_ENDPOINT_URL_LAMBDA").ok().filter(|url| !url.is_empty());
    let params = Params::builder()
        .set_region(region.map(str::to_owned))
        .set_endpoint(own.or_else(|| sdk.endpoint_url().map(str::to_owned)))
        .build()
        .map_err(|error| error.to_string())?;
    let endpoint = DefaultResolver::new();
    let endpoint = ResolveEndpoint::resolve_endpoint(&endpoint, &params).await;
    let url = endpoint.map_err(|error| error.to_string())?.url().parse();
    url.map_err(|error: url::ParseError| error.to_string())
}

/// Converts a function's answer to an HTTP reply.
///
/// # Errors
/// Fails with [`SendError::Failed`] if the function threw an error or timed out, or when its answer
/// cannot be read.
fn reply(output: InvokeOutput) -> Result<Reply, SendError> {
    let status = u16::try_from(output.status_code).ok().and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
    let payload = output.payload.map(|blob| Bytes::from(blob.into_inner())).unwrap_or_default();
    let failed = |detail: String, body: Bytes| {
        let answer = Reply { status, headers: HeaderMap::new(), body };
        SendError::Failed(Box::new(FailedAnswer { detail, answer }))
    };
    if let Some(error) = output.function_error {
        let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
        return Err(failed(format!("the function ended in an error ({error})"), payload));
    }
    match answer(status, payload.clone()) {
        Ok(reply) => Ok(super::limited(reply)),
        Err(unreadable) => {
            let detail = format!("the answer {} cannot be read: {unreadable}", status.as_u16());
            Err(failed(detail, payload))
        }
    }
}

/// Reasons why a payload says nothing about the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Json(#[from] JsonError),
    #[error("its statusCode is not an integer from 100 to 599")]
    Status,
    #[error("it holds text or a number that cannot be represented")]
    Value,
}

/// Reads the reply from the payload of a function that did not fail.
///
/// A payload shaped `{"statusCode": number, ...}` is an HTTP answer, as a function behind API
/// Gateway or a Function URL gives it
/// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload>). Any
/// other JSON is a success, and so is an empty payload.
///
/// # Errors
/// Fails if the payload is none of these. It may report a failure, so it must not count as a
/// success.
fn answer(invoked: StatusCode, payload: Bytes) -> Result<Reply, Unreadable> {
    if payload.is_empty() {
        return Ok(Reply { status: invoked, headers: HeaderMap::new(), body: payload });
    }
    // This parser takes the last of equal names, and limits the depth for the parser below.
    let document = Document::parse(&payload)?;
    let Some(status) = document.root().get("statusCode") else {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        return Ok(Reply { status: invoked, headers, body: payload });
    };
    // The digits are read as an integer: as a float, 199.99999999999999999 would be 200.
    let digits = status.as_text().filter(|_| status.as_str().is_none());
    let number = digits.and_then(|digits| digits.parse().ok());
    let status = number.filter(|number| (100..600).contains(number)).map(StatusCode::from_u16);
    let Some(Ok(status)) = status else { return Err(Unreadable::Status) };

    let mut json = serde_json::Deserializer::from_slice(&payload);
    json.disable_recursion_limit();
    let answer = Value::deserialize(&mut json).map_err(|_| Unreadable::Value)?;
    let body = match &answer["body"] {
        Value::Null => Bytes::new(),
        Value::String(text) => {
            let decoded = (answer["isBase64Encoded"] == true).then(|| BASE64_STANDARD.decode(text));
            match decoded {
                Some(Ok(bytes)) => bytes.into(),
                _ => text.clone().into(),
            }
        }
        other => other.to_string().into(),
    };
    let headers = answer["headers"].as_object().into_iter().flatten();
    let headers = headers.filter_map(|(name, value)| {
        let value = HeaderValue::from_str(value.as_str()?).ok()?;
        Some((HeaderName::try_from(name).ok()?, value))
    });
    Ok(Reply { status, headers: super::kept_headers(status, &headers.collect()), body })
}

/// Converts an error of the Invoke call by what it means for the event.
fn send_error(error: SdkError<InvokeError, HttpResponse>) -> SendError {
    let detail = foreign_answer(&error).unwrap_or_else(|| aws::describe(&error));
    match error {
        // Lambda itself refused, and did not call the function. That is not certain for Lambda's
        // own failures (5xx).
        SdkError::ServiceError(refusal) if refusal.raw().status().is_server_error() => {
            SendError::broken(detail)
        }
        SdkError::ServiceError(refusal) if refusal.raw().status().as_u16() == TOO_MANY_REQUESTS => {
            let retry_after = refusal.raw().headers().get("retry-after");
            let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
            SendError::Throttled { detail, retry_after: retry_after.map(Duration::from_secs) }
        }
        SdkError::ServiceError(_) => SendError::Refused(detail),
        SdkError::ConstructionFailure(_) => SendError::Refused(detail),
        SdkError::DispatchFailure(failure)
            if failure.as_connector_error().is_some_and(was_not_sent) =>
        {
            SendError::NotSent(detail)
        }
        SdkError::TimeoutError(_) => SendError::Unknown(NoAnswer { timed_out: true, detail }),
        _ => SendError::broken(detail),
    }
}

/// Describes an answer that is not in the form of AWS's API, such as the HTML page of a proxy.
/// Returns `None` for an answer in that form.
fn foreign_answer(error: &SdkError<InvokeError, HttpResponse>) -> Option<String> {
    let response = error.raw_response().filter(|_| error.code().is_none())?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(CONTENT_TYPE.as_str()).unwrap_or("no content type");
    let content_type: String = content_type.chars().take(MAX_CONTENT_TYPE_CHARS).collect();
    Some(format!(
        "the Invoke endpoint answered {status} ({content_type}), and not in the form of AWS's API: \
         look at AWS_ENDPOINT_URL_LAMBDA, and at proxies on the way"
    ))
}

/// Returns whether no byte was sent: no connection was made, or the call failed before that, for
/// example because there were no credentials.
fn was_not_sent(error: &ConnectorError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        if error.is::<std::io::Error>() {
            return false;
        }
        cause = error.source();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(payload: &str) -> Result<Reply, Unreadable> {
        answer(StatusCode::OK, Bytes::copy_from_slice(payload.as_bytes()))
    }

    #[test]
    fn nothing_unreadable_is_a_success() {
        let deep = |levels: usize| {
            format!(r#"{{"statusCode":200,"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        let long = format!(r#"{{"statusCode":200,"a":{}}}"#, "7".repeat(4400));
        let status = [
            r#""200""#, r#""500""#, "null", "true", "[200]", "{}", "200.5", "0", "99", "600",
            "-200", "1e400", "2e99",
        ]
        .map(|status| format!(r#"{{"statusCode":{status},"body":"no"}}"#));
        let unreadable = [
            "no",
            "{",
            "NaN",
            " ",
            r#"{"statusCode":500,"body":"no","retry":NaN}"#,
            r#"{"statusCode":200,"retry":NaN}"#,
            r#"{"statusCode":200,"retry":-Infinity}"#,
            r#"{"statusCode":200} {"statusCode":500}"#,
            r#"{"statusCode":200,"statusCode":"500"}"#,
            r#"{"statusCode":200.0}"#,
            r#"{"statusCode":2e2}"#,
            r#"{"statusCode":199.99999999999999999}"#,
            r#"{"statusCode":200.00000000000000001}"#,
            r#"{"statusCode":200,"body":"\ud800"}"#,
            r#"{"statusCode":200,'body':1}"#,
            &long,
            &deep(980),
        ];
        let all = unreadable.into_iter().chain(status.iter().map(String::as_str));
        for payload in all {
            assert!(answered(payload).is_err(), "{}", &payload[..payload.len().min(80)]);
        }
        let no_text = Bytes::from_static(b"{\"statusCode\":200,\"body\":\"\xff\"}");
        assert!(answer(StatusCode::OK, no_text).is_err());
    }

    #[test]
    fn what_can_be_read_counts_by_its_status() {
        let deep = format!(r#"{{"statusCode":201,"body":{}{}}}"#, "[".repeat(900), "]".repeat(900));
        for (payload, status) in [
            (r#"{"statusCode":200,"body":"ok"}"#, 200),
            (r#"{"statusCode":"500","statusCode":204}"#, 204),
            (r#"{"statusCode":599}"#, 599),
            (r#"{"statusCode":100}"#, 100),
            (&deep, 201),
            // The payload is not an HTTP answer, so the whole payload is the reply.
            (r#"{"body":"\ud800"}"#, 200),
            (r#"[{"statusCode":500}]"#, 200),
            (r#"{"answer":{"statusCode":500}}"#, 200),
            ("null", 200),
            ("", 200),
        ] {
            let reply = answered(payload).unwrap();
            assert_eq!(reply.status.as_u16(), status, "{payload:.80}");
        }
        assert_eq!(answer(StatusCode::ACCEPTED, Bytes::new()).unwrap().status, 202);
    }

    #[test]
    fn a_body_is_text_or_base64_or_json() {
        for (payload, body) in [
            (r#"{"statusCode":200}"#, ""),
            (r#"{"statusCode":200,"body":null}"#, ""),
            (r#"{"statusCode":200,"body":"a,b"}"#, "a,b"),
            (r#"{"statusCode":200,"body":"YSxi","isBase64Encoded":true}"#, "a,b"),
            (r#"{"statusCode":200,"body":"YSxi","isBase64Encoded":false}"#, "YSxi"),
            (r#"{"statusCode":200,"body":"no base64!","isBase64Encoded":true}"#, "no base64!"),
            (r#"{"statusCode":200,"body":{"a":1}}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(answered(payload).unwrap().body, body, "{payload}");
        }
        let headers = r#"{"Content-Type":"text/csv","Retry-After":"7","X-N":1,"a b":"c"}"#;
        let reply = answered(&format!(r#"{{"statusCode":503,"headers":{headers}}}"#)).unwrap();
        assert_eq!(reply.headers.len(), 2);
        assert_eq!(reply.headers[CONTENT_TYPE], "text/csv");
        assert_eq!(reply.headers["retry-after"], "7");
        assert_eq!(answered("7").unwrap().headers[CONTENT_TYPE], "application/json");
        assert!(answered("").unwrap().headers.is_empty());
    }

    #[test]
    fn a_function_that_failed_or_cannot_be_read_is_tried_again() {
        let output = |status, error: Option<&str>, payload: &str| {
            let output = InvokeOutput::builder().status_code(status).payload(Blob::new(payload));
            match reply(output.set_function_error(error.map(str::to_owned)).build()) {
                Ok(reply) => Ok((reply.status.as_u16(), reply.body)),
                Err(SendError::Failed(failed)) => Err((failed.detail, failed.answer.body)),
                Err(other) => panic!("{other}"),
            }
        };
        let failed = |detail: &str, body: &'static str| Err((detail.to_owned(), Bytes::from(body)));
        let thrown = r#"{"statusCode":200}"#;
        let detail = "the function ended in an error (Unhandled)";
        assert_eq!(output(200, Some("Unhandled"), thrown), failed(detail, thrown));
        let unreadable = r#"{"statusCode":"200"}"#;
        let detail =
            "the answer 200 cannot be read: its statusCode is not an integer from 100 to 599";
        assert_eq!(output(200, None, unreadable), failed(detail, unreadable));
        assert_eq!(output(200, None, "7"), Ok((200, "7".into())));
        assert_eq!(output(202, None, ""), Ok((202, Bytes::new())));
        assert_eq!(output(-1, None, ""), Ok((502, Bytes::new())));
        let large = format!(r#"{{"statusCode":201,"body":"{}"}}"#, "1".repeat(4 * 1024 * 1024 + 1));
        let left_out = "reply of more than 4194304 bytes left out";
        assert_eq!(output(200, None, &large), Ok((201, left_out.into())));
    }

    #[test]
    fn what_lambda_itself_refuses_was_not_sent() {
        let refused = |status: u16, retry_after: Option<&'static str>| {
            let status = status.try_into().unwrap();
            let mut raw = HttpResponse::new(status, aws_smithy_types::body::SdkBody::empty());
            if let Some(seconds) = retry_after {
                raw.headers_mut().insert("retry-after", seconds);
            }
            let error = InvokeError::unhandled("a test's");
            send_error(SdkError::service_error(error, raw))
        };
        assert!(matches!(refused(404, None), SendError::Refused(_)));
        assert!(matches!(refused(403, Some("7")), SendError::Refused(_)));
        let wait = |refusal| match refusal {
            SendError::Throttled { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(refused(429, None)), None);
        assert_eq!(wait(refused(429, Some("7"))), Some(Duration::from_secs(7)));
        assert_eq!(wait(refused(429, Some("later"))), None);
        // Lambda may have called the function.
        let timed_out = |error| match error {
            SendError::Unknown(NoAnswer { timed_out, .. }) => timed_out,
            other => panic!("{other:?}"),
        };
        assert!(!timed_out(refused(500, None)) && !timed_out(refused(599, None)));
        assert!(timed_out(send_error(SdkError::timeout_error("a test's"))));
        let construction = send_error(SdkError::construction_failure("a test's"));
        assert!(matches!(construction, SendError::Refused(_)));
    }

    #[test]
    fn a_call_that_came_to_no_connection_was_not_sent() {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            send_error(SdkError::dispatch_failure(ConnectorError::other(error, None)))
        };
        assert!(matches!(failed("no credentials".into()), SendError::NotSent(_)));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(failed(reset.into()), SendError::Unknown(_)));
    }
}
