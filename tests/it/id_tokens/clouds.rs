//! Stand-ins for the services that issue and check tokens. Each one checks every field that it gets,
//! and keeps a complaint about what it would refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{aws, keys};

pub const PROVIDER: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws";
pub const ACCOUNT: &str = "router@project.iam.gserviceaccount.com";
pub const GOOGLE: &str = "https://accounts.google.com";
const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The behaviour of Google's STS.
#[derive(Clone)]
pub enum Sts {
    Works,
    /// Takes the request, and never answers.
    Hangs,
    /// Answers with this status and text. The word REQUEST in the text is replaced by the request
    /// that came.
    Answers(u16, &'static str),
    /// Works after this time.
    IsLate(Duration),
}

/// All services, each on a port of its own.
#[derive(Clone)]
pub struct Clouds {
    /// The private service.
    pub service: String,
    pub metadata_host: String,
    pub aws_sts: String,
    google_sts: String,
    iam: String,
    state: Arc<Mutex<State>>,
}

struct State {
    sts: Sts,
    /// A code with which AWS's STS refuses.
    aws: Option<&'static str>,
    /// An answer of IAM Credentials instead of a token.
    iam: Option<(u16, &'static str)>,
    /// Time in seconds for which an ID token is valid.
    life: i64,
    access_tokens: BTreeSet<String>,
    issued: usize,
    revoked: BTreeSet<String>,
    asked: usize,
    delivered: Vec<String>,
    used: BTreeSet<String>,
    /// True if the service refuses every token.
    is_closed: bool,
    /// The number of requests that the service refused.
    refused: usize,
    complaints: Vec<String>,
}

impl Clouds {
    pub async fn start() -> Self {
        let [service, metadata, aws_sts, google_sts, iam] = [(); 5].map(|()| {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            port.set_nonblocking(true).unwrap();
            port
        });
        let url = |port: &std::net::TcpListener| format!("http://{}", port.local_addr().unwrap());
        let clouds = Self {
            service: url(&service),
            metadata_host: metadata.local_addr().unwrap().to_string(),
            aws_sts: url(&aws_sts),
            google_sts: url(&google_sts),
            iam: url(&iam),
            state: Arc::new(Mutex::new(State {
                sts: Sts::Works,
                aws: None,
                iam: None,
                life: 3600,
                access_tokens: BTreeSet::new(),
                issued: 0,
                revoked: BTreeSet::new(),
                asked: 0,
                delivered: Vec::new(),
                used: BTreeSet::new(),
                is_closed: false,
                refused: 0,
                complaints: Vec::new(),
            })),
        };
        clouds.serve(service, private_service);
        clouds.serve(metadata, metadata_server);
        clouds.serve(aws_sts, aws::sts);
        clouds.serve(google_sts, token_exchange);
        clouds.serve(iam, iam_credentials);
        clouds
    }

    fn serve<F>(&self, port: std::net::TcpListener, handle: fn(Self, Request) -> F)
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let (port, clouds) = (tokio::net::TcpListener::from_std(port).unwrap(), self.clone());
        let app = axum::Router::new().fallback(move |request| handle(clouds.clone(), request));
        tokio::spawn(async move { axum::serve(port, app).await });
    }

    /// Returns the JSON that gcloud writes, with the addresses of these services.
    pub fn credentials(&self) -> Value {
        json!({
            "universe_domain": "googleapis.com",
            "type": "external_account",
            "audience": PROVIDER,
            "subject_token_type": AWS_REQUEST,
            "token_url": format!("{}/v1/token", self.google_sts),
            "credential_source": {
                "environment_id": "aws1",
                "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
                "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
                "regional_cred_verification_url":
                    "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
            },
            "service_account_impersonation_url":
                format!("{}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken", self.iam),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn complain(&self, complaint: String) {
        self.with(|state| state.complaints.push(complaint));
    }

    /// Sets how Google's STS behaves.
    pub fn sts(&self, sts: Sts) {
        self.with(|state| state.sts = sts);
    }

    /// Makes AWS's STS refuse with this code.
    pub fn aws(&self, code: &'static str) {
        self.with(|state| state.aws = Some(code));
    }

    pub fn code_of_aws(&self) -> Option<&'static str> {
        self.with(|state| state.aws)
    }

    /// Sets the answer of IAM Credentials; none: it works.
    pub fn iam(&self, answer: Option<(u16, &'static str)>) {
        self.with(|state| state.iam = answer);
    }

    /// Sets the life of the tokens that are issued from now on, in seconds.
    pub fn life(&self, seconds: i64) {
        self.with(|state| state.life = seconds);
    }

    /// Makes the service refuse all tokens that it has seen.
    pub fn revoke(&self) {
        self.with(|state| state.revoked = state.used.clone());
    }

    /// Makes the service refuse every token, also those that are not issued yet.
    pub fn close(&self, is_closed: bool) {
        self.with(|state| state.is_closed = is_closed);
    }

    /// Returns the number of requests that the service refused, and begins to count anew.
    pub fn refused(&self) -> usize {
        self.with(|state| std::mem::take(&mut state.refused))
    }

    /// Returns the number of requests for a token, and the number of tokens that were issued.
    pub fn tokens(&self) -> (usize, usize) {
        self.with(|state| (state.asked, state.issued))
    }

    /// Returns the bodies that the service accepted, and takes them away.
    pub fn delivered(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.delivered))
    }

    /// Returns the complaints, and takes them away.
    pub fn complaints(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.complaints))
    }

    #[track_caller]
    pub fn expect_no_complaints(&self) {
        assert_eq!(self.complaints(), Vec::<String>::new());
    }

    /// Returns an ID token of the service account.
    fn id_token(&self, audience: &str) -> String {
        self.with(|state| {
            state.issued += 1;
            let (now, serial) = (Utc::now().timestamp(), state.issued);
            keys::GOOGLE.sign(&json!({
                "iss": GOOGLE,
                "aud": audience,
                "sub": "115599",
                "email": ACCOUNT,
                "iat": now,
                "exp": now + state.life,
                "serial": serial,
            }))
        })
    }
}

pub fn reply(status: u16, text: &str) -> Response {
    Response::builder().status(status).body(Body::from(text.to_owned())).unwrap()
}

async fn parts(request: Request) -> (http::request::Parts, Bytes) {
    let (parts, body) = request.into_parts();
    (parts, axum::body::to_bytes(body, usize::MAX).await.unwrap())
}

/// Returns the token of the only `Authorization`.
fn bearer(headers: &HeaderMap) -> Result<&str, String> {
    let values: Vec<_> = headers.get_all("authorization").iter().collect();
    let [value] = values[..] else { return Err(format!("{} authorizations", values.len())) };
    value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).ok_or("no bearer".into())
}

/// A private Cloud Run service: it runs only with an ID token of the service account.
async fn private_service(clouds: Clouds, request: Request) -> Response {
    let (parts, body) = parts(request).await;
    let token = bearer(&parts.headers).map(str::to_owned);
    let verified = token.and_then(|token| {
        let claims = keys::GOOGLE.verify(&token, GOOGLE, &clouds.service)?;
        let is_revoked = clouds.with(|state| state.is_closed || state.revoked.contains(&token));
        (claims["email"] == ACCOUNT && !is_revoked).then_some(token).ok_or("another caller".into())
    });
    match verified {
        Ok(token) => {
            clouds.with(|state| {
                state.used.insert(token);
                state.delivered.push(String::from_utf8(body.to_vec()).unwrap());
            });
            reply(200, "done")
        }
        Err(fault) => {
            clouds.with(|state| state.refused += 1);
            if fault != "another caller" {
                clouds.complain(format!("the service: {fault}"));
            }
            reply(401, "who are you?")
        }
    }
}

async fn metadata_server(clouds: Clouds, request: Request) -> Response {
    const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/identity";
    clouds.with(|state| state.asked += 1);
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let is_known = request.method() == "GET"
        && request.uri().path() == PATH
        && query.len() == 2
        && query.get("format").is_some_and(|format| format == "full")
        && request.headers().get("metadata-flavor").is_some_and(|flavor| flavor == "Google");
    let (true, Some(audience)) = (is_known, query.get("audience")) else {
        clouds.complain(format!("the metadata server does not know {request:?}"));
        return reply(403, "no");
    };
    let mut answer = reply(200, &clouds.id_token(audience));
    answer.headers_mut().insert("metadata-flavor", "Google".parse().unwrap());
    answer
}

/// Google's STS.
async fn token_exchange(clouds: Clouds, request: Request) -> Response {
    let (parts, body) = parts(request).await;
    clouds.with(|state| state.asked += 1);
    match clouds.with(|state| state.sts.clone()) {
        Sts::Works => {}
        Sts::Hangs => std::future::pending().await,
        Sts::IsLate(by) => tokio::time::sleep(by).await,
        Sts::Answers(status, text) => {
            let came = String::from_utf8(body.to_vec()).unwrap();
            let mut answer = reply(status, &text.replace("REQUEST", &came));
            answer.headers_mut().insert("location", clouds.service.parse().unwrap());
            return answer;
        }
    }
    let refuse = |fault: String| {
        clouds.complain(format!("Google's STS: {fault}"));
        reply(400, r#"{"error":"invalid_grant"}"#)
    };
    let is_form = parts
        .headers
        .get("content-type")
        .is_some_and(|form| form == "application/x-www-form-urlencoded");
    if parts.method != "POST"
        || parts.uri != "/v1/token"
        || !is_form
        || parts.headers.contains_key("authorization")
    {
        return refuse(format!("does not know {parts:?}"));
    }
    let mut fields: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    let subject = fields.remove("subject_token").unwrap_or_default();
    let kind = fields.remove("subject_token_type").unwrap_or_default();
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("audience", PROVIDER),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "https://www.googleapis.com/auth/iam"),
    ];
    if fields != expected {
        return refuse(format!("does not know {fields:?}"));
    }
    let role = match kind.as_str() {
        AWS_REQUEST => caller(&clouds, &subject).await,
        JWT => keys::AWS
            .verify(&subject, aws::ISSUER, &format!("https:{PROVIDER}"))
            .map(|claims| claims["sub"].as_str().unwrap_or_default().to_owned()),
        other => Err(format!("does not know the type {other}")),
    };
    match role {
        Ok(role) if [aws::ROLE, aws::ROLE_IN_TOKENS].contains(&role.as_str()) => {}
        Ok(other) => return refuse(format!("does not trust {other}")),
        Err(fault) => return refuse(fault),
    }
    let access = clouds.with(|state| {
        let access = format!("plainly-an-access-token-{}", state.access_tokens.len());
        state.access_tokens.insert(access.clone());
        access
    });
    let answer = json!({
        "access_token": access,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3599,
    });
    reply(200, &answer.to_string())
}

/// Sends a signed request to AWS's STS, and returns the role that AWS names.
async fn caller(clouds: &Clouds, subject: &str) -> Result<String, String> {
    let subject = percent_decode_str(subject).decode_utf8().map_err(|error| error.to_string())?;
    let signed: Value = serde_json::from_str(&subject).map_err(|error| error.to_string())?;
    let host = format!("sts.{}.amazonaws.com", aws::REGION);
    let query = "Action=GetCallerIdentity&Version=2011-06-15";
    if signed["url"] != format!("https://{host}/?{query}") || signed["method"] != "POST" {
        return Err(format!("does not send {signed}"));
    }
    let mut headers = HeaderMap::new();
    for header in signed["headers"].as_array().into_iter().flatten() {
        let (name, value) = (header["key"].as_str().unwrap(), header["value"].as_str().unwrap());
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "authorization",
        "host",
        "x-amz-date",
        "x-amz-security-token",
        "x-goog-cloud-target-resource",
    ];
    if names != expected
        || headers["host"] != host
        || headers["x-goog-cloud-target-resource"] != PROVIDER
    {
        return Err(format!("does not send {headers:?}"));
    }
    let request = crate::support::client().post(format!("{}/?{query}", clouds.aws_sts));
    let answer = request.headers(headers).timeout(Duration::from_secs(10)).send().await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("AWS answered {}", answer.status()));
    }
    let text = answer.text().await.map_err(|error| error.to_string())?;
    let role = text.split_once("<Arn>").and_then(|(_, rest)| rest.split_once("</Arn>"));
    role.map(|(role, _)| role.to_owned()).ok_or("AWS names no role".into())
}

async fn iam_credentials(clouds: Clouds, request: Request) -> Response {
    let (parts, body) = parts(request).await;
    let path = format!("/v1/projects/-/serviceAccounts/{ACCOUNT}:generateIdToken");
    let is_json = parts.headers.get("content-type").is_some_and(|json| json == "application/json");
    let access = bearer(&parts.headers).unwrap_or_default().to_owned();
    let is_known = clouds.with(|state| state.access_tokens.contains(&access));
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let audience = asked["audience"].as_str().unwrap_or_default();
    let is_expected = asked == json!({ "audience": audience, "includeEmail": true });
    if parts.method != "POST" || parts.uri != *path || !is_json || !is_known || !is_expected {
        clouds.complain(format!("IAM Credentials does not know {parts:?} {asked}"));
        return reply(401, r#"{"error":{"status":"UNAUTHENTICATED"}}"#);
    }
    if let Some((status, text)) = clouds.with(|state| state.iam) {
        return reply(status, &text.replace("REQUEST", &access));
    }
    reply(200, &json!({ "token": clouds.id_token(audience) }).to_string())
}
