//! The work of the sample destination: it accepts every delivery of an event, and processes the
//! event once.
//!
//! Every receiver needs this protection, because the router sends an event again when the answer
//! got lost. The pattern is to store the key in the same transaction as the work. Here, the work is
//! only a receipt in SQLite. In your service, the work is for example to book a payment.
//!
//! It accepts events as Cloud Run gets them: a POST with the key in `Idempotency-Key`. It also
//! accepts both forms that a Lambda function gets: the body as payload, with the key in the client
//! context, or a Function URL's event, with the key in its headers.
//!
//! With secrets, it accepts only events that the router signed (FORWARD_SECRETS). Then the signed
//! `webhook-id` is the key, because nobody else can choose it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::{
    fronts,
    http_server::{self, Handler, Limits},
};
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    outcome::Origin,
    secret::Secret,
    signing,
    source::{Check, envelope},
};

/// Largest event that the server accepts. It equals the router's default limit.
const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
/// Largest numbers of open connections and of buffered bytes.
const MAX_CONNECTIONS: usize = 1024;
const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;
/// Largest difference between a signature's timestamp and now, as the libraries for Standard Webhooks
/// have it.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// Largest number of receipts in a listing, which shows the newest.
const LISTED: u32 = 1000;

/// A record of the deliveries of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub key: String,
    /// The way the event arrived: `http` or `invoke`.
    pub via: String,
    pub vendor: String,
    pub event_type: String,
    /// The number of the last attempt, counted by the router.
    pub attempt: String,
    pub content_type: String,
    /// The number of deliveries. Only the first was processed.
    pub deliveries: u32,
    pub bytes: u64,
    /// The SHA-256 hash of the body, in hex.
    pub sha256: String,
}

/// The sample destination.
pub struct Processor {
    receipts: Mutex<Connection>,
    /// An event is accepted only if it is signed with one of these secrets. If there are none,
    /// nothing is verified.
    secrets: Vec<Secret>,
}

impl Processor {
    /// Opens the file for the receipts. The path `:memory:` keeps them in memory.
    ///
    /// # Errors
    /// Fails if the file cannot be used.
    pub fn open(path: &str) -> rusqlite::Result<Self> {
        let receipts = Connection::open(path)?;
        receipts.execute_batch(
            "CREATE TABLE IF NOT EXISTS receipts (
                 key TEXT PRIMARY KEY, via TEXT, vendor TEXT, event_type TEXT, attempt TEXT,
                 content_type TEXT, deliveries INTEGER, bytes INTEGER, sha256 TEXT
             )",
        )?;
        Ok(Self { receipts: Mutex::new(receipts), secrets: Vec::new() })
    }

    /// Returns the same processor, which accepts only events that one of these secrets signed.
    pub fn with_secrets(self, secrets: Vec<Secret>) -> Self {
        Self { secrets, ..self }
    }

    /// Answers an HTTP request.
    pub fn handle(&self, request: &Delivery) -> Reply {
        let is_invoke = request.path.starts_with("/2015-03-31/functions/");
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/healthz") => Reply::text(StatusCode::OK, "ok"),
            (&Method::GET, "/receipts") => answer(self.receipts()),
            (&Method::POST, _) if is_invoke => {
                let reply = self.invoked(client_context(&request.headers), &request.body);
                let queued = request.header("x-amz-invocation-type") == Some("Event");
                if queued { Reply::text(StatusCode::ACCEPTED, "") } else { payload(reply) }
            }
            (&Method::POST, _) => self.receive("http", &request.body, header(request)),
            _ => Reply::text(StatusCode::NOT_FOUND, "POST an event, or GET /receipts"),
        }
    }

    /// Answers an invocation. A payload with a client context is always the body itself. Without
    /// one, it may be an event of a front.
    pub fn invoked(&self, custom: Option<HashMap<String, String>>, payload: &[u8]) -> Reply {
        let request = custom.is_none().then(|| std::str::from_utf8(payload).ok()).flatten();
        match request.map(fronts::delivery) {
            Some(Ok(request)) => self.receive("invoke", &request.body, header(&request)),
            _ => {
                let custom = custom.unwrap_or_default();
                let text = |name: &str| custom.get(name).cloned().unwrap_or_default();
                self.receive("invoke", payload, text)
            }
        }
    }

    fn receive(&self, via: &str, body: &[u8], text: impl Fn(&str) -> String) -> Reply {
        let key = match self.verify(body, &text) {
            Ok(key) => key,
            Err(refusal) => {
                tracing::warn!(via, bytes = body.len(), error = %refusal, "refused");
                return refusal.reply();
            }
        };
        let sha256 = hex::encode(Sha256::digest(body));
        // `cargo lambda watch` drops the client context. The hash of the body then identifies the
        // event.
        let key = Some(key).filter(|key| !key.is_empty());
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

    /// Checks that the router signed an event, if there are secrets, and returns the event's key. It
    /// is empty if nothing names the event.
    fn verify(&self, body: &[u8], text: impl Fn(&str) -> String) -> Result<String, Error> {
        if self.secrets.is_empty() {
            return Ok(text("idempotency-key"));
        }
        let headers = signing::HEADERS.into_iter().filter_map(|name| {
            let value = HeaderValue::try_from(text(name)).ok()?;
            Some((HeaderName::from_static(name), value))
        });
        let delivery = Delivery {
            method: Method::POST,
            path: envelope::PATH.to_owned(),
            query: None,
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body),
        };
        let (secrets, now, tolerance) = (&self.secrets[..], Utc::now(), TOLERANCE);
        let check =
            Check { delivery: &delivery, secrets, url: None, tolerance, now, fetched: None };
        envelope::verify(&check)?;
        let [id, ..] = signing::HEADERS;
        Ok(text(id))
    }

    /// Stores the receipt, and returns the number of the event's deliveries. One statement is one
    /// transaction, so the later of two concurrent deliveries sees the earlier.
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

    /// Returns the receipts, the newest first.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
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

/// Serves a processor on a listener until `stop` completes.
pub async fn serve(
    listener: TcpListener,
    processor: Arc<Processor>,
    stop: impl Future<Output = ()>,
) {
    let vital = axum::Router::new();
    let limits = Limits::new(MAX_CONNECTIONS, MAX_BUFFERED_BYTES);
    http_server::serve_deliveries(listener, vital, processor, MAX_BODY_BYTES, limits, stop).await;
}

impl Handler for Arc<Processor> {
    /// Refuses no request.
    fn refuse(&self, _: &Delivery, _: u64, _: &Origin) -> Option<Reply> {
        None
    }

    async fn deliver(self, request: Delivery, _: Origin) -> Reply {
        self.handle(&request)
    }
}

/// Returns a function that looks up headers. It returns an empty text for an absent header.
fn header(request: &Delivery) -> impl Fn(&str) -> String {
    |name| request.header(name).unwrap_or_default().to_owned()
}

/// Returns the custom part of the client context, which the Invoke API takes in a header.
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

/// Returns a refusal as a function gives it: in the payload of an invocation that worked.
fn payload(reply: Reply) -> Reply {
    if reply.status.is_success() {
        return reply;
    }
    let body = String::from_utf8_lossy(&reply.body);
    let payload = serde_json::json!({ "statusCode": reply.status.as_u16(), "body": body });
    Reply::text(StatusCode::OK, payload.to_string())
}

fn answer(result: rusqlite::Result<impl Serialize>) -> Reply {
    match result.map(|value| serde_json::to_string(&value)) {
        Ok(Ok(json)) => Reply::text(StatusCode::OK, json)
            .with_header(CONTENT_TYPE, http::HeaderValue::from_static("application/json")),
        Ok(Err(error)) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
