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
    Destination, FailedAnswer, MAX_REPLY_BYTES, NoAnswer, Outgoing, SendError, connect_timeout,
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
        Ok(reply) if reply.body.len() > MAX_REPLY_BYTES => Ok(super::left_out(reply.status)),
        Ok(reply) => Ok(reply),
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
        // A service error is an answer of Lambda itself. With a failure of its own (5xx), Lambda
        // may have called the function. With any other error, it has not.
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
mod tests;
