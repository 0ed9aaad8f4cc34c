//! The processor Lambda, through the Invoke API
//! (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider};
use aws_sdk_lambda::{
    Client,
    config::http::HttpResponse,
    error::{ConnectorError, DisplayErrorContext, SdkError},
    operation::invoke::{InvokeError, InvokeOutput},
    primitives::Blob,
    types::InvocationType,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{
    Destination, MAX_REPLY_BYTES, NoAnswer, SendError, aws_http_client, content_type, particulars,
};
use crate::{
    config::{AwsTarget, Invocation},
    delivery::{Delivery, Reply},
    plan::Plan,
};

/// Most bytes of a client context, counted in its base64 form.
const MAX_CLIENT_CONTEXT_BYTES: usize = 3583;

/// A function that takes the event as its payload.
pub struct Lambda {
    target: AwsTarget,
    /// Made for the first event, so that a cold start that needs none makes none.
    client: OnceCell<Client>,
}

impl Lambda {
    /// A destination with the region, credentials and endpoint of the standard AWS variables and
    /// files.
    pub fn new(target: AwsTarget) -> Self {
        Self { target, client: OnceCell::new() }
    }

    /// A destination with settings of the caller's.
    pub fn with_sdk_config(target: AwsTarget, sdk: &SdkConfig) -> Self {
        Self { target, client: OnceCell::new_with(Some(client(sdk))) }
    }

    async fn client(&self) -> &Client {
        self.client
            .get_or_init(|| async {
                let mut sdk = sdk_config().await;
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
                client(&sdk)
            })
            .await
    }

    async fn invoke(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        attempt: u32,
    ) -> Result<Reply, SendError> {
        let invocation = match self.target.invocation {
            Invocation::RequestResponse => InvocationType::RequestResponse,
            Invocation::Event => InvocationType::Event,
        };
        let answer = self
            .client()
            .await
            .invoke()
            .function_name(&self.target.function)
            .invocation_type(invocation)
            .client_context(client_context(delivery, plan, attempt))
            .payload(Blob::new(delivery.body.clone()))
            .send()
            .await;
        answer.map(reply).map_err(send_error)
    }
}

#[async_trait]
impl Destination for Lambda {
    async fn send(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        attempt: u32,
        timeout: Duration,
    ) -> Result<Reply, SendError> {
        let invoked = tokio::time::timeout(timeout, self.invoke(delivery, plan, attempt));
        invoked.await.unwrap_or_else(|_| Err(SendError::timed_out(timeout)))
    }
}

/// The standard AWS settings, with the HTTP client of this binary.
async fn sdk_config() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).http_client(aws_http_client()).load().await
}

fn client(sdk: &SdkConfig) -> Client {
    // The router counts attempts; the SDK's own would be hidden ones.
    let config =
        aws_sdk_lambda::config::Builder::from(sdk).retry_config(RetryConfig::disabled()).build();
    Client::from_conf(config)
}

/// The client context: what Cloud Run gets as headers, as `custom`.
fn client_context(delivery: &Delivery, plan: &Plan, attempt: u32) -> String {
    #[derive(Serialize)]
    struct ClientContext {
        custom: BTreeMap<&'static str, String>,
    }
    let mut custom: BTreeMap<_, _> = particulars(delivery, plan, attempt).into_iter().collect();
    if let Some(content_type) = content_type(delivery).and_then(|value| value.to_str().ok()) {
        custom.insert("content-type", content_type.into());
    }
    let mut context = ClientContext { custom };
    let encode = |context: &_| {
        let json = serde_json::to_string(context).unwrap_or_default();
        BASE64_STANDARD.encode(json)
    };
    // Only headers of abnormal length make it too long; the rest always fits.
    for dispensable in ["content-type", "tracestate", "x-amzn-trace-id"] {
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
    let payload = output.payload.map(|blob| Bytes::from(blob.into_inner())).unwrap_or_default();
    if let Some(answer) = HttpAnswer::read(&payload) {
        return answer;
    }
    let status = StatusCode::from_u16(output.status_code as u16).unwrap_or(StatusCode::OK);
    if payload.len() > MAX_REPLY_BYTES {
        let note = format!("reply of more than {MAX_REPLY_BYTES} bytes left out");
        return Reply::text(status, note);
    }
    let mut headers = HeaderMap::new();
    if !payload.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Reply { status, headers, body: payload }
}

/// The shape that a function behind API Gateway or a Function URL answers with
/// (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpAnswer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

impl HttpAnswer {
    fn read(payload: &[u8]) -> Option<Reply> {
        let answer: Self = serde_json::from_slice(payload).ok()?;
        let status = StatusCode::from_u16(answer.status_code).ok()?;
        let body = answer.body.unwrap_or_default();
        let body = if answer.is_base64_encoded {
            BASE64_STANDARD.decode(body).ok()?.into()
        } else {
            Bytes::from(body)
        };
        let content_type = answer
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()))
            .and_then(|(_, value)| HeaderValue::from_str(value).ok());
        let headers = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
        Some(Reply { status, headers, body })
    }
}

/// What an error of the Invoke call means for the event.
fn send_error(error: SdkError<InvokeError, HttpResponse>) -> SendError {
    let detail = DisplayErrorContext(&error).to_string();
    match error {
        // Lambda itself refused, and did not call the function; of its own failures (5xx) that is
        // not certain.
        SdkError::ServiceError(refusal) if refusal.raw().status().is_server_error() => {
            SendError::broken(detail)
        }
        SdkError::ServiceError(_) => SendError::NotSent(detail),
        SdkError::ConstructionFailure(_) => SendError::NotSent(detail),
        SdkError::DispatchFailure(failure)
            if failure.as_connector_error().is_some_and(never_connected) =>
        {
            SendError::NotSent(detail)
        }
        SdkError::TimeoutError(_) => SendError::Unknown(NoAnswer { timed_out: true, detail }),
        _ => SendError::broken(detail),
    }
}

/// Whether the connection was never made, so that not a byte was sent.
fn never_connected(error: &ConnectorError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    error.is_user()
}
