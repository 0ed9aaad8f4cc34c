//! The log: one line for each delivery, and never a secret, a signature or a payload in it. In
//! Lambda, the same line carries CloudWatch's metrics; in `serve`, Prometheus reads them.

mod metrics;
mod trace;

use std::{
    io::{IsTerminal, Write as _},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

use self::metrics::METRICS;
pub use self::trace::Trace;
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    plan::Plan,
};

/// Longest name from a payload that is logged, in characters.
const MAX_NAME_CHARS: usize = 256;

/// How the line of a delivery looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For a person.
    Text,
    Json,
    /// With CloudWatch's embedded metrics.
    Embedded,
}

static FORMAT: OnceLock<Format> = OnceLock::new();

/// Starts logging to standard error: text for a person on a terminal, JSON lines otherwise, in
/// Lambda with metrics. `RUST_LOG` chooses what is logged, `default` without it.
///
/// # Errors
/// When `RUST_LOG` cannot be read.
pub fn init(default: Level, in_lambda: bool) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)
            .context("RUST_LOG must be error, warn, info, debug, trace or off, also by module")?,
        _ => EnvFilter::new(default.to_string()),
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    // What others would tell beyond that holds bodies, headers and credentials.
    let is_harmless = filter_fn(|metadata| {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) || *metadata.level() <= Level::INFO
    });
    let registry = tracing_subscriber::registry().with(filter).with(is_harmless);
    let format = match (in_lambda, std::io::stderr().is_terminal()) {
        (true, _) => Format::Embedded,
        (false, true) => Format::Text,
        (false, false) => Format::Json,
    };
    let _ = FORMAT.set(format);
    // The message of a panic may quote what it was about, a payload say.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "bug: a panic");
    }));
    if format == Format::Text {
        registry.with(lines).try_init()?;
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    }
    Ok(())
}

/// The content type of [`prometheus`]
/// (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of this process, as Prometheus reads them.
pub fn prometheus() -> String {
    METRICS.text()
}

/// Logs a request that no delivery could be read from, or that failed in a way it never should,
/// and answers it.
pub fn unread(error: &Error) -> Reply {
    let reply = error.reply();
    let status = reply.status.as_u16();
    if reply.status.is_server_error() {
        tracing::error!(status, reason = %error, "failed");
    } else {
        METRICS.refused(status);
        tracing::warn!(status, reason = %error, "refused");
    }
    reply
}

/// Logs a delivery that was refused before anything was touched.
pub fn refused(delivery: &Delivery, origin: &Origin, refusal: &Error, reply: &Reply) {
    let Delivery { method, path, body, .. } = delivery;
    let (status, bytes) = (reply.status.as_u16(), body.len());
    let cold_start = origin.is_cold_start;
    if FORMAT.get() != Some(&Format::Embedded) {
        METRICS.refused(status);
    }
    tracing::warn!(%method, path, bytes, status, cold_start, reason = %refusal, "refused");
}

/// What became of a planned event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Delivered,
    Duplicate,
    InProgress,
    OtherBody,
    /// It came when there was no time left to send it, and nothing was touched.
    NoTime,
    Failed,
    StoreUnavailable,
}

impl Ending {
    /// The word in the log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::InProgress => "in_progress",
            Self::OtherBody => "other_body",
            Self::NoTime => "no_time",
            Self::Failed => "failed",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

/// Where a delivery came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// That of the invocation, in Lambda.
    pub request_id: Option<String>,
    /// The trace of the invocation, as `X-Amzn-Trace-Id` is written.
    pub trace: Option<String>,
    /// Whether its invocation is the first that this process has.
    pub is_cold_start: bool,
}

/// Where the time of a delivery went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    pub total: Duration,
    pub store: Duration,
    pub destination: Duration,
    /// Between attempts.
    pub pauses: Duration,
}

/// What became of a delivery, for the log and the metrics.
pub struct Handled<'a> {
    pub delivery: &'a Delivery,
    pub plan: &'a Plan,
    pub origin: &'a Origin,
    pub trace: &'a Trace,
    pub ending: Ending,
    pub error: Option<&'a Error>,
    pub status: u16,
    /// Of this delivery.
    pub attempts: u32,
    /// Whether the result could be stored.
    pub settled: bool,
    pub times: Times,
}

/// The line of a delivery. All times are milliseconds.
#[derive(Serialize)]
struct Line<'a> {
    key: String,
    vendor: &'a str,
    event_type: &'a str,
    destination: &'static str,
    outcome: &'static str,
    status: u16,
    attempts: u32,
    bytes: usize,
    milliseconds: f64,
    store_milliseconds: f64,
    destination_milliseconds: f64,
    pause_milliseconds: f64,
    /// What is left: the router's own.
    self_milliseconds: f64,
    settled: bool,
    cold_start: bool,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda_trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Logs what became of a planned event, and counts it.
pub fn handled(handled: &Handled<'_>) {
    let Handled { delivery, plan, origin, trace, ending, error, times, .. } = *handled;
    let own = times.total.saturating_sub(times.store + times.destination + times.pauses);
    let line = Line {
        key: plan.key.to_string(),
        vendor: cut(&plan.event.vendor),
        event_type: cut(&plan.event.event_type),
        destination: plan.route.as_str(),
        outcome: ending.as_str(),
        status: handled.status,
        attempts: handled.attempts,
        bytes: delivery.body.len(),
        milliseconds: milliseconds(times.total),
        store_milliseconds: milliseconds(times.store),
        destination_milliseconds: milliseconds(times.destination),
        pause_milliseconds: milliseconds(times.pauses),
        self_milliseconds: milliseconds(own),
        settled: handled.settled,
        cold_start: origin.is_cold_start,
        trace_id: &trace.id,
        lambda_trace_id: trace.lambda_id.as_deref(),
        request_id: origin.request_id.as_deref(),
        reason: error.map(ToString::to_string),
    };
    let is_bad = matches!(ending, Ending::Failed | Ending::StoreUnavailable | Ending::NoTime);
    match FORMAT.get().copied().unwrap_or(Format::Text) {
        Format::Embedded => write(&line, is_bad, Some(embedded_metrics())),
        Format::Json => {
            METRICS.delivered(&line);
            write(&line, is_bad, None);
        }
        Format::Text => {
            METRICS.delivered(&line);
            let Line { key, vendor, event_type, destination, outcome, status, .. } = &line;
            let (attempts, milliseconds, reason) = (line.attempts, line.milliseconds, &line.reason);
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        key,
                        vendor,
                        event_type,
                        destination,
                        outcome,
                        status,
                        attempts,
                        milliseconds,
                        reason,
                        "delivery"
                    )
                };
            }
            if is_bad { log!(warn) } else { log!(info) }
        }
    }
}

/// Writes the line of a delivery, in one piece, where that level is logged.
fn write(line: &Line<'_>, is_bad: bool, metrics: Option<serde_json::Value>) {
    let (level, enabled) = if is_bad {
        ("WARN", tracing::enabled!(Level::WARN))
    } else {
        ("INFO", tracing::enabled!(Level::INFO))
    };
    // The metrics are in the line, and do not depend on what is read of the log.
    if !enabled && metrics.is_none() {
        return;
    }
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut object = json!({ "timestamp": timestamp, "level": level, "message": "delivery" });
    if let (Some(object), Ok(serde_json::Value::Object(fields))) =
        (object.as_object_mut(), serde_json::to_value(line))
    {
        object.extend(fields);
        if let Some(metrics) = metrics {
            object.insert("_aws".into(), metrics);
            object.insert("deliveries".into(), 1.into());
            object.insert("unsettled".into(), u8::from(!line.settled).into());
            object.insert("function".into(), function().into());
            // A dimension of few values; the name as it was sent is beside it.
            object.insert("vendor".into(), metrics::vendor(line.vendor).into());
            object.insert("vendor_name".into(), line.vendor.into());
        }
    }
    print_line(&object);
}

/// The metrics in the line of a delivery. Each one has its price for each value of its dimensions, so
/// what nobody is alarmed by is in the line alone
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
fn embedded_metrics() -> serde_json::Value {
    let milliseconds = |name: &str| json!({ "Name": name, "Unit": "Milliseconds" });
    let count = |name: &str| json!({ "Name": name, "Unit": "Count" });
    json!({
        "Timestamp": Utc::now().timestamp_millis(),
        "CloudWatchMetrics": [
            {
                "Namespace": NAMESPACE,
                "Dimensions": [["function", "destination", "vendor", "outcome"]],
                "Metrics": [
                    count("deliveries"),
                    milliseconds("milliseconds"),
                    milliseconds("store_milliseconds"),
                    milliseconds("destination_milliseconds"),
                ],
            },
            {
                "Namespace": NAMESPACE,
                "Dimensions": [["function", "outcome"]],
                "Metrics": [count("deliveries"), milliseconds("store_milliseconds")],
            },
            {
                "Namespace": NAMESPACE,
                "Dimensions": [["function"]],
                "Metrics": [count("unsettled")],
            },
        ],
    })
}

/// CloudWatch's name for the metrics of this function.
const NAMESPACE: &str = "webhook-router";

/// Logs what came of a replay in Lambda. `left` dead letters are still there, where that is known:
/// after a replay of all.
pub fn redriven(summary: &impl Serialize, left: Option<u32>) {
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut line = json!({
        "timestamp": timestamp,
        "level": "INFO",
        "message": "redrive",
        "summary": summary,
        "function": function(),
    });
    if let Some(left) = left {
        line["dead_letters"] = left.into();
        line["_aws"] = json!({
            "Timestamp": Utc::now().timestamp_millis(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["function"]],
                "Metrics": [{ "Name": "dead_letters", "Unit": "Count" }],
            }],
        });
    }
    print_line(&line);
}

/// The name of this function.
fn function() -> String {
    std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default()
}

fn print_line(object: &serde_json::Value) {
    // When nobody reads the log, there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(format!("{object}\n").as_bytes());
}

/// With three digits of fraction.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Logs an attempt that is followed by another.
pub fn tried(plan: &Plan, number: u32, error: &Error, pause: Duration) {
    let (key, destination) = (plan.key, plan.route);
    let pause_milliseconds = pause.as_millis() as u64;
    tracing::warn!(
        %key, %destination, attempt = number, reason = %error, pause_milliseconds, "tried"
    );
}

fn cut(name: &str) -> &str {
    name.char_indices().nth(MAX_NAME_CHARS).map_or(name, |(end, _)| &name[..end])
}
