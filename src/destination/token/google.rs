//! The three services of Google's that issue tokens: the metadata server, Google's STS and IAM
//! Credentials.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::super::tls_config;
use crate::{
    config::Federation,
    http_client::{self, Connector, chain},
    resolver::Resolver,
    secret::Secret,
};

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The header by which the metadata server and its callers know each other
/// (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

/// The permission of the access token: nothing but IAM Credentials.
const SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// Codes of errors in answers. Other texts of an answer may quote a token, so they are not shown.
const CODES: [&str; 14] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
];

/// A service of Google's that is asked.
#[derive(Debug, Clone, Copy)]
enum Service {
    Metadata,
    Sts,
    Iam,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Metadata => "the metadata server",
            Self::Sts => "Google's STS",
            Self::Iam => "IAM Credentials",
        }
    }

    /// Returns what an operator does about a refusal.
    fn remedy(self, status: StatusCode, code: Option<&str>) -> Option<&'static str> {
        match (self, status.as_u16(), code) {
            (Self::Metadata, 404, _) => Some("attach a service account to this service"),
            (Self::Sts, 400, Some("invalid_target")) => Some(
                "check `audience` of the credentials: the workload identity pool or its provider \
                 does not exist, or is disabled",
            ),
            (Self::Sts, 400 | 401 | 403, Some("invalid_request")) => {
                Some("create the credentials again with gcloud: they do not fit the provider")
            }
            (Self::Sts, 400 | 401 | 403, _) => Some(
                "check that the provider trusts this AWS account or issuer, and check its allowed \
                 audiences and its attribute condition",
            ),
            (Self::Iam, 400, _) => {
                Some("check GCP_AUDIENCE, and the service account in the credentials")
            }
            (Self::Iam, 403, _) => Some(
                "grant roles/iam.workloadIdentityUser on the service account to this identity of \
                 the pool, and enable iamcredentials.googleapis.com",
            ),
            (Self::Iam, 404, _) => Some("the service account in the credentials does not exist"),
            _ => None,
        }
    }
}

/// The client for Google's services.
pub(super) struct Google {
    client: Client<Connector, Full<Bytes>>,
}

impl Google {
    /// Creates a client. `timeout` limits connecting.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub(super) fn new(timeout: Duration) -> Result<Self, String> {
        let client = http_client::client(Arc::new(tls_config(None)?), Resolver::open(), timeout);
        Ok(Self { client })
    }

    /// Gets an ID token of the service account of the machine that this program runs on
    /// (<https://cloud.google.com/compute/docs/instances/verifying-instance-identity>).
    pub(super) async fn identity(&self, host: &str, audience: &str) -> Result<String, String> {
        const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/identity";
        let query = Serializer::new(String::new())
            .append_pair("audience", audience)
            .append_pair("format", "full")
            .finish();
        let request = Request::get(format!("http://{host}{PATH}?{query}")).header(FLAVOR, GOOGLE);
        let (headers, body) = self.ask(Service::Metadata, request, String::new()).await?;
        if headers.get(FLAVOR) != Some(&GOOGLE) {
            return Err(format!("{host} is no metadata server of Google Cloud"));
        }
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    /// Exchanges a subject token for an access token
    /// (<https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>).
    pub(super) async fn exchange(
        &self,
        federation: &Federation,
        subject: &Secret,
    ) -> Result<Secret, String> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
        }
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
            .append_pair("audience", &federation.provider)
            .append_pair("scope", SCOPE)
            .append_pair("subject_token_type", federation.subject.token_type())
            .append_pair("subject_token", subject.expose())
            .finish();
        let request = post(&federation.token_url, "application/x-www-form-urlencoded");
        let (_, body) = self.ask(Service::Sts, request, form).await?;
        let answer: Answer = read(Service::Sts, &body)?;
        Ok(Secret::new(answer.access_token))
    }

    /// Gets an ID token of a service account
    /// (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateIdToken>).
    pub(super) async fn id_token(
        &self,
        federation: &Federation,
        access: &Secret,
        audience: &str,
    ) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", access.expose()))
            .map_err(|_| format!("{} answered no access token", Service::Sts.name()))?;
        bearer.set_sensitive(true);
        let request = post(&federation.id_token_url, "application/json");
        // With the email, the log of the Cloud Run service shows which service account called it.
        let body = json!({ "audience": audience, "includeEmail": true });
        let request = request.header(AUTHORIZATION, bearer);
        let (_, body) = self.ask(Service::Iam, request, body.to_string()).await?;
        let answer: Answer = read(Service::Iam, &body)?;
        Ok(answer.token)
    }

    /// Sends a request, and returns the answer if it is a 200. Redirects are not followed: a token
    /// would go elsewhere.
    async fn ask(
        &self,
        service: Service,
        request: http::request::Builder,
        body: String,
    ) -> Result<(HeaderMap, Bytes), String> {
        let name = service.name();
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let response = self.client.request(request).await;
        let response = response
            .map_err(|error| format!("{name} ({host}) cannot be reached: {}", chain(&error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|error| format!("the answer of {name} ({host}) broke: {error}"))?;
        let (status, body) = (parts.status, body.to_bytes());
        if status == StatusCode::OK {
            return Ok((parts.headers, body));
        }
        let code = code(&body);
        let mut text = format!("{name} ({host}) answered {}", status.as_u16());
        if let Some(code) = code {
            text += &format!(" {code}");
        }
        if let Some(remedy) = service.remedy(status, code) {
            text += &format!(": {remedy}");
        }
        Err(text)
    }
}

fn post(url: &Url, content_type: &'static str) -> http::request::Builder {
    Request::post(url.as_str()).header(CONTENT_TYPE, content_type)
}

/// Reads an answer. The error does not quote it.
fn read<'a, T: Deserialize<'a>>(service: Service, body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|_| format!("the answer of {} has no token", service.name()))
}

/// Returns the known code of an error: `{"error": "CODE"}` of Google's STS, or
/// `{"error": {"status": "CODE"}}` of IAM Credentials.
fn code(body: &[u8]) -> Option<&'static str> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = &body["error"];
    let code = error.as_str().or_else(|| error["status"].as_str())?;
    CODES.into_iter().find(|known| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_code_of_an_error_is_shown() {
        for (body, expected) in [
            (r#"{"error":"invalid_grant","error_description":"plainly"}"#, Some("invalid_grant")),
            (r#"{"error":{"code":403,"status":"PERMISSION_DENIED"}}"#, Some("PERMISSION_DENIED")),
            (r#"{"error":"plainly"}"#, None),
            (r#"{"error":{"message":"plainly"}}"#, None),
            ("[]", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(code(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_refusal_has_a_remedy_and_an_outage_has_none() {
        for (service, status, code, remedy) in [
            (Service::Sts, 400, Some("invalid_target"), Some("does not exist, or is disabled")),
            (Service::Sts, 400, Some("invalid_request"), Some("create the credentials again")),
            (Service::Sts, 400, Some("invalid_grant"), Some("attribute condition")),
            (Service::Sts, 401, None, Some("attribute condition")),
            (Service::Sts, 503, None, None),
            (Service::Iam, 400, None, Some("GCP_AUDIENCE")),
            (Service::Iam, 403, None, Some("roles/iam.workloadIdentityUser")),
            (Service::Iam, 404, None, Some("does not exist")),
            (Service::Iam, 429, Some("RESOURCE_EXHAUSTED"), None),
            (Service::Metadata, 404, None, Some("attach a service account")),
            (Service::Metadata, 500, None, None),
        ] {
            let found = service.remedy(StatusCode::from_u16(status).unwrap(), code);
            let is_it = match (found, remedy) {
                (Some(found), Some(part)) => found.contains(part),
                (found, part) => found.is_none() && part.is_none(),
            };
            assert!(is_it, "{service:?} {status}: {found:?}");
        }
    }
}
