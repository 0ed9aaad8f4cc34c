//! The settings and the HTTP client that all AWS clients share, and the secret that holds
//! variables.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
    profile::ProfileFileRegionProvider, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::{
    connection::{CaptureSmithyConnection, ConnectionMetadata},
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use futures_util::FutureExt as _;
use hyper_util::client::legacy::{Client, connect::capture_connection};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use crate::{
    http_client::{self, chain},
    resolver::Resolver,
};

const REGION: &str = "AWS_REGION";

/// Time limit for reading the secret. It is read once per process.
const SECRET_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the region, credentials and endpoints from the standard AWS variables and files,
/// together with the HTTP client of this binary. The settings are read once per process, at their
/// first use.
pub async fn sdk_config() -> &'static SdkConfig {
    static SDK_CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    // Boxed, so that the futures of the callers stay small.
    SDK_CONFIG.get_or_init(|| load().boxed()).await
}

async fn load() -> SdkConfig {
    let settings = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        // Each call has a time limit, which covers the body of the answer.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let settings = match holds_credentials() {
        true => settings.credentials_provider(EnvironmentVariableCredentialsProvider::new()),
        false => settings,
    };
    // An empty variable counts as not set, so the profile has the region. The SDK would take the
    // text for the name of a region.
    let settings = match std::env::var_os(REGION).is_some() && !is_set(REGION) {
        true => settings.region(ProfileFileRegionProvider::new()),
        false => settings,
    };
    settings.load().await
}

/// Returns whether the variables hold credentials, as in Lambda. Such credentials take precedence
/// over all other sources. So the others, such as a client of STS, need not be prepared.
fn holds_credentials() -> bool {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].iter().all(|name| is_set(name))
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.trim().is_empty())
}

/// Time limit for connecting if an SDK sets none. This is the SDKs' own default.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// TLS with the system's roots, as in the SDKs, or with the compiled-in roots if the system has
/// none. All SDKs share it, and so they can resume each other's TLS sessions.
///
/// In Lambda, the compiled-in roots are enough for AWS's own endpoints. To read the system's hundreds of files
/// would take longer than the rest of a cold start. SSL_CERT_FILE or SSL_CERT_DIR still replace them.
static TLS: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    if !is_set("AWS_LAMBDA_RUNTIME_API") || is_set("SSL_CERT_FILE") || is_set("SSL_CERT_DIR") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    http_client::tls(roots).map(Arc::new)
});

/// Returns the HTTP client for the AWS SDKs. It makes connections as the rest of this binary does.
pub fn http_client() -> SharedHttpClient {
    SharedHttpClient::new(SdkClient::default())
}

/// HTTP clients by connect timeout and read timeout. Each SDK chooses both.
#[derive(Debug, Default)]
struct SdkClient {
    connectors: Mutex<HashMap<(Duration, Option<Duration>), SharedHttpConnector>>,
}

impl HttpClient for SdkClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connecting = settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT);
        let waiting = settings.read_timeout();
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let connector = connectors.entry((connecting, waiting)).or_insert_with(|| {
            let tls = TLS.as_ref().map_err(Clone::clone);
            let client =
                tls.map(|tls| http_client::client(Arc::clone(tls), Resolver::open(), connecting));
            SharedHttpConnector::new(SdkConnector { client, waiting })
        });
        connector.clone()
    }
}

struct SdkConnector {
    client: Result<Client<http_client::Connector, SdkBody>, rustls::Error>,
    /// Time limit until an answer begins.
    waiting: Option<Duration>,
}

impl fmt::Debug for SdkConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SdkConnector")
    }
}

impl HttpConnector for SdkConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let failed = |error| HttpConnectorFuture::ready(Err(ConnectorError::user(error)));
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return failed(error.clone().into()),
        };
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return failed(error.into()),
        };
        // When an answer makes the SDK try again, the SDK closes the connection through `close`
        // below.
        let connection = capture_connection(&mut request);
        if let Some(captured) = request.extensions().get::<CaptureSmithyConnection>() {
            captured.set_connection_retriever(move || {
                let connection = connection.clone();
                connection.connection_metadata().as_ref()?;
                let close = move || {
                    if let Some(connection) = connection.connection_metadata().as_ref() {
                        connection.poison();
                    }
                };
                Some(ConnectionMetadata::builder().proxied(false).poison_fn(close).build())
            });
        }
        let (sent, waiting) = (client.request(request), self.waiting);
        HttpConnectorFuture::new(async move {
            let answered = match waiting {
                Some(waiting) => tokio::time::timeout(waiting, sent)
                    .await
                    .map_err(|late| ConnectorError::timeout(late.into()))?,
                None => sent.await,
            };
            let response = answered.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Describes an error without the request and the response. The SDK's own text quotes them, and
/// they may hold a payload.
pub fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E, R>: std::error::Error,
{
    if let (Some(refusal), Some(code)) = (error.as_service_error(), error.code()) {
        let id = refusal.meta().extra("aws_request_id").unwrap_or("unknown");
        return format!("{code} (request {id})");
    }
    with_remedy(error)
}

/// Describes an error of the AWS settings with its causes, and the remedy if one is known.
pub fn with_remedy(error: &dyn std::error::Error) -> String {
    let text = chain(error);
    // The SDK writes some causes as a list of several lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match REMEDIES.iter().find(|(fault, _)| text.contains(fault)) {
        Some((_, remedy)) => format!("{remedy} ({text})"),
        None => text,
    }
}

/// Texts of the SDK about missing settings, and the remedy for each.
const REMEDIES: [(&str, &str); 4] = [
    ("Missing Region", "set AWS_REGION"),
    ("missing signing region", "set AWS_REGION"),
    (
        "requires following cargo feature(s)",
        "this binary does not support the profile's kind of credentials: run \
         eval \"$(aws configure export-credentials --format env)\" to export them as variables",
    ),
    ("no credentials found in chain", "set AWS_PROFILE, or the variables of AWS's credentials"),
];

/// Reads the variables from a Secrets Manager secret, which holds a JSON object of strings
/// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>).
///
/// # Errors
/// Fails if the secret cannot be read or holds something else. The text never quotes the secret.
pub async fn secret_variables(arn: &str) -> Result<HashMap<String, String>, String> {
    let timeouts = TimeoutConfig::builder().operation_timeout(SECRET_TIMEOUT).build();
    let config = aws_sdk_secretsmanager::config::Builder::from(sdk_config().await)
        .timeout_config(timeouts)
        .build();
    let client = aws_sdk_secretsmanager::Client::from_conf(config);
    let got = client.get_secret_value().secret_id(arn).send().boxed().await;
    let got = got.map_err(|error| {
        let reason = describe(&error);
        let remedy = match REMEDIES.iter().any(|(_, remedy)| reason.starts_with(remedy)) {
            true => "",
            false => {
                ": look at its ARN, AWS_REGION, the credentials, the way to Secrets Manager, and the permission \
                 secretsmanager:GetSecretValue (and kms:Decrypt for a key of your own)"
            }
        };
        format!("cannot be read: {reason}{remedy}")
    })?;
    let text = got.secret_string().ok_or("holds bytes: it must hold a JSON object of strings")?;
    // The text of this error may quote a value.
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("must hold a JSON object of strings: see line {line}, column {column}")
    })
}
