//! What all AWS clients share: settings, HTTP, and the secret that holds variables.

use std::{collections::HashMap, time::Duration};

use aws_config::{BehaviorVersion, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::OnceCell;

/// Time to read the secret in, once for a process.
const SECRET_TIMEOUT: Duration = Duration::from_secs(5);

/// Region, credentials and endpoints of the standard AWS variables and files, with the HTTP client
/// of this binary; read once for a process, when first needed.
pub async fn sdk_config() -> &'static SdkConfig {
    static SDK_CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    SDK_CONFIG
        .get_or_init(|| async {
            aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await
        })
        .await
}

/// The HTTP client of the AWS SDKs: rustls with ring, as in all of this binary.
pub fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// What went wrong, without the request and the response, which the SDK's own text quotes: they may
/// hold a payload.
pub fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E, R>: std::error::Error,
{
    if let (Some(refusal), Some(code)) = (error.as_service_error(), error.code()) {
        let id = refusal.meta().extra("aws_request_id").unwrap_or("unknown");
        return format!("{code} (request {id})");
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    match REMEDIES.iter().find(|(fault, _)| text.contains(fault)) {
        Some((_, remedy)) => format!("{remedy} ({text})"),
        None => text,
    }
}

/// What the SDK says when its settings are wanting, and what to do then.
const REMEDIES: [(&str, &str); 4] = [
    ("Missing Region", "set AWS_REGION"),
    ("missing signing region", "set AWS_REGION"),
    (
        "requires following cargo feature(s)",
        "this profile's way to credentials is not built in: \
         eval \"$(aws configure export-credentials --format env)\" makes variables of them",
    ),
    ("no credentials found in chain", "set AWS_PROFILE, or the variables of AWS's credentials"),
];

/// The variables in a Secrets Manager secret: a JSON object of strings
/// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>).
///
/// # Errors
/// When it cannot be read, or is something else. The text never quotes the secret.
pub async fn secret_variables(arn: &str) -> Result<HashMap<String, String>, String> {
    let timeouts = TimeoutConfig::builder().operation_timeout(SECRET_TIMEOUT).build();
    let config = aws_sdk_secretsmanager::config::Builder::from(sdk_config().await)
        .timeout_config(timeouts)
        .build();
    let client = aws_sdk_secretsmanager::Client::from_conf(config);
    let got = client.get_secret_value().secret_id(arn).send().await;
    let got = got.map_err(|error| format!("cannot be read: {}", describe(&error)))?;
    let text = got.secret_string().ok_or("holds bytes: it must hold a JSON object of strings")?;
    // The error's own text may quote a value.
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("must hold a JSON object of strings: see line {line}, column {column}")
    })
}
