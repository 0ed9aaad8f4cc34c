//! Subject tokens: the proof of an identity outside Google Cloud, which Google's STS exchanges.

use std::{path::Path, time::SystemTime};

use aws_config::{SdkConfig, retry::RetryConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_sts::{Client, error::ProvideErrorMetadata as _};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use url::Url;

use crate::{
    aws,
    config::{Federation, Subject},
    secret::Secret,
};

/// The header that binds a signed request to the provider. Nobody else can use the request.
const TARGET: &str = "x-goog-cloud-target-resource";

/// The algorithm of AWS's token. Google's STS knows RS256, and not AWS's other one
/// (<https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>).
const ALGORITHM: &str = "RS256";

/// Time in seconds for which AWS's token is valid. It is exchanged at once.
const SECONDS: i32 = 300;

/// Returns a subject token for the provider.
///
/// # Errors
/// Fails with the reason and the remedy, which quote neither credentials nor tokens.
pub(super) async fn token(federation: &Federation) -> Result<Secret, String> {
    let provider = federation.provider.as_str();
    match &federation.subject {
        Subject::AwsRequest { url } => {
            aws_request(aws::sdk_config().await, url, provider, SystemTime::now()).await
        }
        Subject::AwsToken => aws_token(aws::sdk_config().await, provider).await,
        Subject::File { path, field, .. } => {
            let (path, field) = (path.clone(), field.clone());
            // A file of Kubernetes is in memory, but another one may be on a slow disk.
            let read = move || from_file(&path, field.as_deref());
            tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
        }
    }
}

/// Signs a request for GetCallerIdentity with the credentials of this function or machine, and
/// writes it as Google expects it. Google sends the request, and learns the role from AWS's answer.
async fn aws_request(
    sdk: &SdkConfig,
    url: &str,
    provider: &str,
    now: SystemTime,
) -> Result<Secret, String> {
    let region = sdk.region().ok_or("set AWS_REGION")?;
    let credentials = sdk.credentials_provider().ok_or("set AWS_PROFILE")?;
    let credentials = credentials.provide_credentials().await;
    let credentials =
        credentials.map_err(|error| format!("no AWS credentials: {}", aws::with_remedy(&error)))?;
    let url = url.replace("{region}", region.as_ref());
    let url: Url = url.parse().map_err(|error| format!("{error}: {url}"))?;
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let unsigned = |error: &dyn std::fmt::Display| format!("the request cannot be signed: {error}");

    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region.as_ref())
        .name("sts")
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| unsigned(&error))?
        .into();
    let headers = [("host", host), (TARGET, provider)];
    let body = SignableBody::Bytes(&[]);
    let request = SignableRequest::new("POST", url.as_str(), headers.into_iter(), body)
        .map_err(|error| unsigned(&error))?;
    let (signature, _) = sign(request, &params).map_err(|error| unsigned(&error))?.into_parts();
    let header = |(name, value): (&str, &str)| json!({ "key": name, "value": value });
    let headers: Vec<_> = headers.into_iter().chain(signature.headers()).map(header).collect();
    let request = json!({ "url": url.as_str(), "method": "POST", "headers": headers });
    Ok(Secret::new(utf8_percent_encode(&request.to_string(), NON_ALPHANUMERIC).to_string()))
}

/// Gets a token of AWS's outbound identity federation
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>).
async fn aws_token(sdk: &SdkConfig, provider: &str) -> Result<Secret, String> {
    let config = aws_sdk_sts::config::Builder::from(sdk)
        // The router makes the attempts.
        .retry_config(RetryConfig::disabled())
        .build();
    let answer = Client::from_conf(config)
        .get_web_identity_token()
        // A provider without allowed audiences accepts its own name, with and without the scheme.
        .audience(format!("https:{provider}"))
        .signing_algorithm(ALGORITHM)
        .duration_seconds(SECONDS)
        .send()
        .await
        .map_err(|error| {
            let remedy = match error.code() {
                Some("AccessDenied") => ": allow sts:GetWebIdentityToken in this role's policy",
                Some(code) if code.starts_with("OutboundWebIdentityFederationDisabled") => {
                    ": run `aws iam enable-outbound-web-identity-federation`"
                }
                _ => "",
            };
            format!("AWS's STS: {}{remedy}", aws::describe(&error))
        })?;
    let token = answer.web_identity_token.ok_or("the answer of AWS's STS has no token")?;
    Ok(Secret::new(token))
}

fn from_file(path: &Path, field: Option<&str>) -> Result<Secret, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let token = match field {
        None => Some(text.trim().to_owned()),
        Some(field) => serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|object| object[field].as_str().map(str::to_owned)),
    };
    let token = token.filter(|token| !token.is_empty());
    token.map(Secret::new).ok_or_else(|| format!("{shown} holds no token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_token_or_has_it_in_a_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str, field: Option<&str>| {
            std::fs::write(&path, text).unwrap();
            from_file(&path, field).map(|token| token.expose().to_owned())
        };
        assert_eq!(read("a.b.c\n", None), Ok("a.b.c".into()));
        assert_eq!(read(r#"{"t":"a.b.c"}"#, Some("t")), Ok("a.b.c".into()));
        for (text, field) in [("", None), ("a.b.c", Some("t")), (r#"{"t":1}"#, Some("t"))] {
            let problem = read(text, field).unwrap_err();
            assert_eq!(problem, format!("{} holds no token", path.display()));
        }
        let problem = from_file(Path::new("/nowhere/token"), None).unwrap_err();
        assert!(problem.starts_with("/nowhere/token cannot be read"), "{problem}");
    }
}
