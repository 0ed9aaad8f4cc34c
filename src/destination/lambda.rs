//! The processor Lambda, through the Invoke API
//! (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_config::{
    Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_sdk_lambda::{
    Client,
    config::http::HttpResponse,
    error::{ConnectorError, SdkError},
    operation::invoke::{InvokeError, InvokeOutput},
    primitives::Blob,
    types::InvocationType,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use super::{
    Destination, NoAnswer, Outgoing, SendError, connect_timeout, content_type, particulars,
    signature_headers,
};
use crate::{
    aws,
    config::{AwsTarget, Invocation},
    delivery::Reply,
    json::Document,
};

/// The status of every kind of throttling
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors>).
const TOO_MANY_REQUESTS: u16 = 429;

/// Most bytes of a client context, counted in its base64 form.
const MAX_CLIENT_CONTEXT_BYTES: usize = 3583;

/// A function that takes the event as its payload.
pub struct Lambda {
    target: AwsTarget,
    timeout: Duration,
    /// Made for the first event, so that a cold start that needs none makes none.
    client: OnceCell<Client>,
}

impl Lambda {
    /// A destination with the credentials and endpoint of the standard AWS variables and files, and
    /// their region unless the target's ARN has one.
    ///
    /// An attempt gets `timeout`.
    pub fn new(target: AwsTarget, timeout: Duration) -> Self {
        Self { target, timeout, client: OnceCell::new() }
    }

    /// A destination with settings of the caller's.
    pub fn with_sdk_config(target: AwsTarget, timeout: Duration, sdk: &SdkConfig) -> Self {
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

    async fn invoke(&self, client: &Client, event: &Outgoing<'_>) -> Result<Reply, SendError> {
        let invocation = match self.target.invocation {
            Invocation::RequestResponse => InvocationType::RequestResponse,
            Invocation::Event => InvocationType::Event,
        };
        let answer = client
            .invoke()
            .function_name(&self.target.function)
            .invocation_type(invocation)
            .client_context(client_context(event))
            .payload(Blob::new(event.delivery.body.clone()))
            .send()
            .await;
        answer.map(reply).map_err(send_error)
    }
}

#[async_trait]
impl Destination for Lambda {
    async fn send(&self, event: &Outgoing<'_>, timeout: Duration) -> Result<Reply, SendError> {
        let deadline = Instant::now() + timeout;
        // Finding region and credentials sends nothing of the event.
        let Ok(client) = timeout_at(deadline, self.client()).await else {
            return Err(SendError::not_sent("the AWS settings could not be loaded in time".into()));
        };
        let invoked = timeout_at(deadline, self.invoke(client, event));
        invoked.await.unwrap_or_else(|_| Err(SendError::timed_out(timeout)))
    }
}

fn client(sdk: &SdkConfig, target: &AwsTarget, attempt_timeout: Duration) -> Client {
    let connecting = connect_timeout(attempt_timeout);
    let region = target.region().map(|region| Region::new(region.to_owned()));
    let config = aws_sdk_lambda::config::Builder::from(sdk)
        .region(region.or_else(|| sdk.region().cloned()))
        // The router counts attempts; the SDK's own would be hidden ones.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connecting).build())
        .build();
    Client::from_conf(config)
}

/// The client context: what Cloud Run gets as headers, as `custom`.
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
        if let Ok(value) = value.to_str() {
            // Several lines are one, as for every header (RFC 9110, section 5.2).
            let lines = custom.entry(name.to_string()).or_default();
            *lines = if lines.is_empty() { value.into() } else { format!("{lines}, {value}") };
        }
    }
    let mut context = ClientContext { custom };
    let encode = |context: &_| {
        let json = serde_json::to_string(context).unwrap_or_default();
        BASE64_STANDARD.encode(json)
    };
    // Only headers of abnormal length make it too long; the rest always fits.
    let dispensable = signature.iter().map(String::as_str);
    for dispensable in dispensable.chain(["content-type", "tracestate", "x-amzn-trace-id"]) {
        if encode(&context).len() > MAX_CLIENT_CONTEXT_BYTES {
            context.custom.remove(dispensable);
        }
    }
    encode(&context)
}

/// A function's answer as an HTTP reply.
fn reply(output: InvokeOutput) -> Reply {
    // The function threw or timed out. Its report has its insides, so it stays here.
    if let Some(error) = output.function_error() {
        tracing::warn!(error, "the processor Lambda failed");
        return Reply::text(StatusCode::BAD_GATEWAY, "destination failed");
    }
    let status = StatusCode::from_u16(output.status_code as u16).unwrap_or(StatusCode::OK);
    let payload = output.payload.map(|blob| Bytes::from(blob.into_inner())).unwrap_or_default();
    let reply = http_answer(&payload).unwrap_or_else(|| {
        let json = HeaderValue::from_static("application/json");
        let headers = (!payload.is_empty()).then_some((CONTENT_TYPE, json)).into_iter().collect();
        Reply { status, headers, body: payload }
    });
    super::limited(reply)
}

/// The answer in a payload shaped `{"statusCode": number, ...}`, as a function behind API Gateway or
/// a Function URL answers
/// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload>).
///
/// Once there is a status, nothing else about the payload may turn a failure into a success: what
/// cannot be read is a failure of the destination.
fn http_answer(payload: &[u8]) -> Option<Reply> {
    // This parser reads every depth that a payload may have, unlike serde_json.
    let document = Document::parse(payload).ok()?;
    let status = document.root().get("statusCode")?.as_f64()?;
    let unreadable = || Reply::text(StatusCode::BAD_GATEWAY, "destination failed");
    let Ok(answer) = serde_json::from_slice::<Value>(payload) else {
        return Some(unreadable());
    };
    let is_status = status.fract() == 0.0 && (100.0..600.0).contains(&status);
    let Some(Ok(status)) = is_status.then(|| StatusCode::from_u16(status as u16)) else {
        return Some(unreadable());
    };
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
    let headers = super::kept_headers(status, &headers.collect());
    Some(Reply { status, headers, body })
}

/// What an error of the Invoke call means for the event.
fn send_error(error: SdkError<InvokeError, HttpResponse>) -> SendError {
    let detail = aws::describe(&error);
    match error {
        // Lambda itself refused, and did not call the function; of its own failures (5xx) that is
        // not certain.
        SdkError::ServiceError(refusal) if refusal.raw().status().is_server_error() => {
            SendError::broken(detail)
        }
        SdkError::ServiceError(refusal) if refusal.raw().status().as_u16() == TOO_MANY_REQUESTS => {
            let retry_after = refusal.raw().headers().get("retry-after");
            let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
            SendError::NotSent { detail, retry_after: retry_after.map(Duration::from_secs) }
        }
        SdkError::ServiceError(_) => SendError::Refused(detail),
        SdkError::ConstructionFailure(_) => SendError::Refused(detail),
        SdkError::DispatchFailure(failure)
            if failure.as_connector_error().is_some_and(was_not_sent) =>
        {
            SendError::not_sent(detail)
        }
        SdkError::TimeoutError(_) => SendError::Unknown(NoAnswer { timed_out: true, detail }),
        _ => SendError::broken(detail),
    }
}

/// Whether not a byte was sent: the connection was never made, or it did not come to that, as
/// without credentials.
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
