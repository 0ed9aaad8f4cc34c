//! The sample destination: a service that may get an event twice and processes it once.
//!
//! Every receiver needs such a guard, because a router whose answer got lost has to send again.
//! The pattern: note the key in the same transaction as the work. Here the work is the note
//! itself, a receipt in SQLite; in a service of yours it is the booking.
//!
//! It takes events as Cloud Run gets them (a POST with the key in `Idempotency-Key`), and as a
//! Lambda does, in both forms: the body as payload with the key in the client context, or a Function
//! URL's event with the key among its headers. It does so in Lambda, or with an Invoke API of its
//! own, so that both destinations can be tried on one machine.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};
use lambda_runtime::{LambdaEvent, service_fn};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::{
    env, function_url,
    http_server::{self, Handler, Limits},
    serve::stop_signal,
};
use crate::{
    delivery::{Delivery, Reply},
    outcome::Origin,
};

/// Largest event that is taken; the router's own default limit.
const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
/// Most connections and bytes at a time.
const MAX_CONNECTIONS: usize = 1024;
const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;
/// Most receipts that a listing shows, the newest.
const LISTED: u32 = 1000;

/// What was received of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub key: String,
    /// How it came: `http` or `invoke`.
    pub via: String,
    pub vendor: String,
    pub event_type: String,
    /// The attempt that came last, counted by the router.
    pub attempt: String,
    pub content_type: String,
    /// How often it came; it was processed the first time.
    pub deliveries: u32,
    pub bytes: u64,
    /// SHA-256 of the body, in hex.
    pub sha256: String,
}

/// The sample destination.
pub struct Processor {
    receipts: Mutex<Connection>,
}

impl Processor {
    /// Keeps its receipts in a file, or in memory at `:memory:`.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(path: &str) -> rusqlite::Result<Self> {
        let receipts = Connection::open(path)?;
        receipts.execute_batch(
            "CREATE TABLE IF NOT EXISTS receipts (
                 key TEXT PRIMARY KEY, via TEXT, vendor TEXT, event_type TEXT, attempt TEXT,
                 content_type TEXT, deliveries INTEGER, bytes INTEGER, sha256 TEXT
             )",
        )?;
        Ok(Self { receipts: Mutex::new(receipts) })
    }

    /// Answers a request of HTTP.
    pub fn handle(&self, request: &Delivery) -> Reply {
        let is_invoke = request.path.starts_with("/2015-03-31/functions/");
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/healthz") => Reply::text(StatusCode::OK, "ok"),
            (&Method::GET, "/receipts") => answer(self.receipts()),
            (&Method::POST, _) if is_invoke => {
                let reply = self.invoked(client_context(&request.headers), &request.body);
                let queued = request.header("x-amz-invocation-type") == Some("Event");
                if queued { Reply::text(StatusCode::ACCEPTED, "") } else { reply }
            }
            (&Method::POST, _) => self.receive("http", &request.body, header(request)),
            _ => Reply::text(StatusCode::NOT_FOUND, "POST an event, or GET /receipts"),
        }
    }

    /// Answers an invocation. Only one without a client context may be a Function URL's event: with
    /// one, whatever the body looks like, it is the body.
    fn invoked(&self, custom: Option<HashMap<String, String>>, payload: &[u8]) -> Reply {
        let request = custom.is_none().then(|| std::str::from_utf8(payload).ok()).flatten();
        match request.map(function_url::delivery) {
            Some(Ok(request)) => self.receive("invoke", &request.body, header(&request)),
            _ => {
                let custom = custom.unwrap_or_default();
                let text = |name: &str| custom.get(name).cloned().unwrap_or_default();
                self.receive("invoke", payload, text)
            }
        }
    }

    fn receive(&self, via: &str, body: &[u8], text: impl Fn(&str) -> String) -> Reply {
        let sha256 = hex::encode(Sha256::digest(body));
        // `cargo lambda watch` drops the client context; the body then stands for the event.
        let key = Some(text("idempotency-key")).filter(|key| !key.is_empty());
        let receipt = Receipt {
            key: key.unwrap_or_else(|| format!("sha256:{sha256}")),
            via: via.into(),
            vendor: text("x-webhook-vendor"),
            event_type: text("x-webhook-event-type"),
            attempt: text("x-webhook-attempt"),
            content_type: text("content-type"),
            deliveries: 1,
            bytes: body.len() as u64,
            sha256,
        };
        let noted = self.note(&receipt);
        if let Ok(deliveries) = &noted {
            let Receipt { key, via, vendor, event_type, bytes, .. } = &receipt;
            tracing::info!(key, via, vendor, event_type, bytes, deliveries, "received");
        }
        answer(noted.map(|deliveries| serde_json::json!({ "processed": deliveries == 1 })))
    }

    /// Notes the receipt, and says how often the event has come. One statement is one
    /// transaction, so of two deliveries at once one sees the other.
    fn note(&self, receipt: &Receipt) -> rusqlite::Result<u32> {
        let Receipt { key, via, vendor, event_type, attempt, content_type, bytes, sha256, .. } =
            receipt;
        self.connection().query_row(
            "INSERT INTO receipts VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8)
             ON CONFLICT (key) DO UPDATE SET deliveries = deliveries + 1, attempt = ?5
             RETURNING deliveries",
            params![key, via, vendor, event_type, attempt, content_type, *bytes as i64, sha256],
            |row| row.get(0),
        )
    }

    /// What was received, the newest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn receipts(&self) -> rusqlite::Result<Vec<Receipt>> {
        let connection = self.connection();
        let mut query =
            connection.prepare("SELECT * FROM receipts ORDER BY rowid DESC LIMIT ?1")?;
        query.query_map([LISTED], Receipt::read)?.collect()
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipt {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get("key")?,
            via: row.get("via")?,
            vendor: row.get("vendor")?,
            event_type: row.get("event_type")?,
            attempt: row.get("attempt")?,
            content_type: row.get("content_type")?,
            deliveries: row.get("deliveries")?,
            bytes: row.get::<_, i64>("bytes")?.unsigned_abs(),
            sha256: row.get("sha256")?,
        })
    }
}

/// Runs the processor: in Lambda when that started it, as an HTTP server otherwise.
///
/// # Errors
/// When the file or the address cannot be used.
pub async fn run() -> anyhow::Result<()> {
    let variable = |name| env(name).filter(|value| !value.is_empty());
    let path = variable("PROCESSOR_DB").unwrap_or_else(|| ":memory:".into());
    let processor = Processor::open(&path)
        .with_context(|| format!("cannot open {path} (PROCESSOR_DB): its folder must exist"))?;
    let processor = Arc::new(processor);
    if super::started_by_lambda() {
        return run_in_lambda(processor).await;
    }
    let address: SocketAddr = match variable("PORT") {
        Some(port) => {
            let port: u16 = port.parse().context("PORT must be a number from 0 to 65535")?;
            (Ipv4Addr::UNSPECIFIED, port).into()
        }
        None => (Ipv4Addr::LOCALHOST, 9090).into(),
    };
    let listener =
        http_server::bind(address).with_context(|| format!("cannot listen on {address} (PORT)"))?;
    let stop = stop_signal()?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(serve(listener, processor, stop).await?)
}

/// Serves a processor on a listener until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    processor: Arc<Processor>,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let vital = axum::Router::new();
    let limits = Limits::new(MAX_CONNECTIONS, MAX_BUFFERED_BYTES);
    http_server::serve_deliveries(listener, vital, processor, MAX_BODY_BYTES, limits, stop).await
}

impl Handler for Arc<Processor> {
    /// Every request may have a body.
    fn refuse(&self, _: &Delivery, _: u64, _: &Origin) -> Option<Reply> {
        None
    }

    async fn deliver(self, request: Delivery, _: Origin) -> Reply {
        self.handle(&request)
    }
}

async fn run_in_lambda(processor: Arc<Processor>) -> anyhow::Result<()> {
    let function = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let processor = Arc::clone(&processor);
        async move {
            let LambdaEvent { payload, context } = event;
            let custom = context.client_context.map(|context| context.custom);
            let reply = match (custom, function_url::delivery(payload.get())) {
                // From its own Function URL, or from a router that makes such events.
                (None, Ok(request)) => processor.handle(&request),
                (custom, _) => processor.invoked(custom, payload.get().as_bytes()),
            };
            Ok::<_, lambda_runtime::Error>(function_url::response(reply))
        }
    });
    lambda_runtime::run(function).await.map_err(anyhow::Error::from_boxed)
}

/// A look-up of headers; the empty text stands for one that is absent.
fn header(request: &Delivery) -> impl Fn(&str) -> String {
    |name| request.header(name).unwrap_or_default().to_owned()
}

/// The custom part of the header that the Invoke API takes the client context in.
fn client_context(headers: &HeaderMap) -> Option<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct ClientContext {
        custom: HashMap<String, String>,
    }
    let encoded = headers.get("x-amz-client-context").map(|value| value.as_bytes());
    let json = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let context = json.and_then(|json| serde_json::from_slice::<ClientContext>(&json).ok());
    context.map(|context| context.custom)
}

fn answer(result: rusqlite::Result<impl Serialize>) -> Reply {
    match result.map(|value| serde_json::to_string(&value)) {
        Ok(Ok(json)) => Reply::text(StatusCode::OK, json)
            .with_header(CONTENT_TYPE, http::HeaderValue::from_static("application/json")),
        Ok(Err(error)) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
