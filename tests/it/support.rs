//! Helpers that the tests share: the binaries as processes, a recording HTTP sink, plans.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use axum::{body::Body, extract::Request, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Notify};
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    error::Error,
    key::hmac_sha256,
    plan::{Plan, plan},
};

pub const ROUTER: &str = env!("CARGO_BIN_EXE_webhook-router");
pub const PROCESSOR: &str = env!("CARGO_BIN_EXE_webhook-processor");

/// The article's payload.
pub const PAYLOAD: &str = r#"{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","amount":4200,"currency":"USD","details":{"invoice":"inv_123"}}"#;

/// Returns the path of a program in the Python environment that `make test` installs.
pub fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    assert!(path.exists(), "{} is missing: run `make test`, which installs it", path.display());
    path
}

/// Returns a command that calls cargo. Cargo's variables about the tests' own package are removed,
/// because build scripts would notice them as a change.
pub fn outside_of_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if of_a_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Returns Debian's libfaketime (<https://github.com/wolfcw/libfaketime>), which is preloaded into
/// a program to give it a wrong clock.
pub fn libfaketime() -> String {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(Path::new(&path).exists(), "{path} is missing: run `make test`, which installs it");
    path
}

/// A process that serves HTTP, killed by its id when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    log: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts `webhook-router serve` on a free port of loopback, with its log in a file.
    pub fn router(vars: &[(&str, &str)]) -> Self {
        let mut command = Command::new(ROUTER);
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        Self::start(command, vars)
    }

    pub fn start(mut command: Command, vars: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        command
            .env_clear()
            .envs(aws_vars())
            .envs([("STORE_URL", sqlite(folder.path())), ("FORWARD_BACKOFF_MS", "10".into())])
            .envs(vars.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let url = url.unwrap_or_else(|| {
            panic!(
                "{command:?} said {line:?}; its log:\n{}",
                std::fs::read_to_string(&log).unwrap()
            )
        });
        Self { child, url, log, _folder: Some(folder) }
    }

    pub fn webhook(&self) -> String {
        format!("{}/webhook", self.url)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the router has looked at what its configuration leads to, which it does after it
    /// listens.
    pub fn checked(&self) {
        const DONE: &str = "checked the services that the configuration names";
        crate::servers::wait_for(DONE, Path::new(""), || self.log().contains(DONE));
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL, so the process cannot do anything more.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            tells_nothing(&self.log());
        }
    }
}

/// Runs a command to its end. Its standard error is checked like any other log.
pub fn end_of(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    tells_nothing(&String::from_utf8_lossy(&output.stderr));
    output
}

/// Checks that a log has no secret of the tests, and no text that only a payload has.
pub fn tells_nothing(log: &str) {
    for marker in [
        "inv_123",
        "marker-in-the-payload",
        "plainly",
        "test-password",
        "dev-not-for-prod-change-me",
        "dGVzdC1vbmx5",
        "v1,",
        "the old one",
        "the new one",
        "of the secret, sixteen and more",
    ] {
        assert!(!log.contains(marker), "{marker} is in a log:\n{log}");
    }
}

pub fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("store.db").display())
}

/// Returns the variables that the AWS SDK needs in addition to an endpoint.
fn aws_vars() -> [(&'static str, &'static str); 4] {
    [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// A recording HTTP server for one test, as a Cloud Run service and as an Invoke API.
#[derive(Clone)]
pub struct Sink {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Answer>>,
    arrived: Arc<Notify>,
    /// Lets waiting requests continue.
    pub go: Arc<Notify>,
}

/// The answer of a sink.
#[derive(Clone)]
pub enum Answer {
    /// Answers 200, in the form of each kind of destination.
    Ok(&'static str),
    With(StatusCode, Vec<(&'static str, &'static str)>, Bytes),
    /// Waits for `go`, then answers 200.
    WhenTold,
    /// Waits for `go`, then answers with this status.
    RefusalWhenTold(StatusCode),
}

#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn is_invocation(&self) -> bool {
        self.path.starts_with("/2015-03-31/functions/")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the custom part of the client context.
    pub fn custom(&self) -> HashMap<String, String> {
        #[derive(Deserialize)]
        struct Context {
            custom: HashMap<String, String>,
        }
        let encoded = self.header("x-amz-client-context").unwrap();
        assert!(encoded.len() <= 3583);
        let json = BASE64_STANDARD.decode(encoded).unwrap();
        serde_json::from_slice::<Context>(&json).unwrap().custom
    }
}

impl Sink {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            received: Arc::default(),
            answer: Arc::new(Mutex::new(ok("done"))),
            arrived: Arc::default(),
            go: Arc::default(),
        };
        let service = sink.clone();
        let app = axum::Router::new().fallback(move |request| service.clone().handle(request));
        tokio::spawn(async move { axum::serve(listener, app).await });
        sink
    }

    /// Returns variables that make a router send everything here.
    pub fn vars(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("GCP_TARGET_URL", &self.url),
            ("AWS_TARGET_FUNCTION", "webhook-processor"),
            ("AWS_ENDPOINT_URL_LAMBDA", &self.url),
        ]
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }

    /// Waits until that many requests have arrived since the last `take`.
    pub async fn arrived(&self, count: usize) {
        loop {
            let arrived = self.arrived.notified();
            if self.received.lock().unwrap().len() >= count {
                return;
            }
            arrived.await;
        }
    }

    async fn handle(self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let path = parts.uri.path().to_owned();
        let received = Received { path, headers: parts.headers, body };
        let said = |text: &'static str| match received.is_invocation() {
            true => {
                let json = serde_json::json!({
                    "statusCode": 200,
                    "headers": { "content-type": "application/json" },
                    "body": text,
                });
                (StatusCode::OK, vec![], json.to_string().into())
            }
            false => (StatusCode::OK, vec![("content-type", "application/json")], text.into()),
        };
        self.received.lock().unwrap().push(received.clone());
        let answer = self.answer.lock().unwrap().clone();
        self.arrived.notify_waiters();
        let (status, headers, body) = match answer {
            Answer::Ok(text) => said(text),
            Answer::With(status, headers, body) => (status, headers, body),
            Answer::WhenTold => {
                self.go.notified().await;
                said("at last")
            }
            Answer::RefusalWhenTold(status) => {
                self.go.notified().await;
                (status, vec![], Bytes::from_static(b"no"))
            }
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(Body::from(body)).unwrap()
    }
}

pub fn ok(body: &'static str) -> Answer {
    Answer::Ok(body)
}

pub fn status(status: StatusCode, body: &'static str) -> Answer {
    Answer::With(status, vec![("content-type", "application/json")], body.into())
}

/// An answer in the form that tests compare.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    pub status: u16,
    pub body: Bytes,
    pub headers: HeaderMap,
}

impl Got {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Returns the Standard Webhooks signature of an envelope.
pub fn sign(secret: &str, id: &str, time: i64, body: &str) -> String {
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{id}.{time}.{body}");
    format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(&key, &[signed.as_bytes()])))
}

/// Creates a client for loopback.
pub fn client() -> reqwest::Client {
    let tls = webhook_router::destination::tls_config(None).unwrap();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

pub async fn get(response: Result<reqwest::Response, reqwest::Error>) -> Got {
    let response = response.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Got { status, headers, body: response.bytes().await.unwrap() }
}

pub async fn post(client: &reqwest::Client, url: &str, body: impl Into<Bytes>) -> Got {
    get(client.post(url).body(body.into()).send().await).await
}

/// Creates a delivery of an envelope.
pub fn delivery(body: impl Into<Bytes>) -> Delivery {
    let (method, path) = (Method::POST, "/webhook".into());
    Delivery { method, path, query: None, headers: HeaderMap::new(), body: body.into() }
}

/// Returns the settings for planning, with a secret and without signatures.
pub fn intake(secret: &str) -> Intake {
    let vars = [("ROUTING_SECRET", secret), ("ALLOW_UNSIGNED", "true")];
    Intake::from_vars(lookup(&vars)).unwrap()
}

pub fn lookup(vars: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let vars: HashMap<_, _> =
        vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    move |name| vars.get(name).cloned()
}

/// Returns the plan of a delivery that is to be delivered.
pub fn planned(delivery: &Delivery, intake: &Intake, now: DateTime<Utc>) -> Result<Plan, Error> {
    plan(delivery, intake, None, now).map(|planned| planned.plan().expect("an event"))
}

/// Returns the plan of an event that no other test uses.
pub fn plan_of(event: &str) -> Plan {
    let body = format!(
        r#"{{"vendor":"stripe","event_type":{},"created_at":"2026-05-06T12:34:56Z"}}"#,
        serde_json::to_string(event).unwrap()
    );
    planned(&delivery(body), &intake("test-routing-secret"), Utc::now()).unwrap()
}

/// Returns a point in time, this many tenths of a second after a fixed day. The leases and
/// lifetimes of the tests are so long that none ends by a server's own clock.
pub fn at(tenths: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_780_000_000_000 + tenths * 100).unwrap()
}

/// A golden case of the Python router.
#[derive(Deserialize)]
pub struct Golden {
    pub secret: String,
    pub body_b64: String,
    pub family: String,
    pub cat: String,
    pub expect: Expected,
}

#[derive(Deserialize, Debug, PartialEq, Eq, Clone)]
pub struct Expected {
    pub status: u16,
    pub key: Option<String>,
    pub destination: Option<String>,
    pub created_at: Option<String>,
    pub digest: Option<String>,
}

impl Golden {
    pub fn all() -> Vec<Self> {
        let lines = include_str!("../parity/golden.jsonl").lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn body(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.body_b64).unwrap()
    }
}

/// Returns the settings of an AWS client for an emulator.
pub fn sdk(url: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(webhook_router::aws::http_client())
        .endpoint_url(url)
        .build()
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    std::net::TcpListener::bind(address).unwrap().local_addr().unwrap().port()
}
