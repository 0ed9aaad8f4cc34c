//! The log: one line for each delivery, and never a secret, a signature or a payload in it. In
//! Lambda, the same line carries CloudWatch's metrics; in `serve`, Prometheus reads them.

mod embedded;
mod metrics;

use std::{
    io::{IsTerminal, Write as _},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

use self::metrics::METRICS;
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    event::Event,
    outcome::{Ending, Origin, Times, Trigger},
    plan::Plan,
    trace::Trace,
};

/// Longest text of a sender's choice that is logged, in characters: a name from a payload, a
/// method or a path.
const MAX_TEXT_CHARS: usize = 256;

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

fn format() -> Format {
    FORMAT.get().copied().unwrap_or(Format::Text)
}

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
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        if format == Format::Embedded {
            // Whoever caused it gets an answer, so Lambda does not count it as an error.
            let mut line = line("ERROR", "bug: a panic");
            line["place"] = place.into();
            embedded::add_count(&mut line, "panics", 1);
            print_line(&line);
        } else {
            METRICS.panicked();
            tracing::error!(place, "bug: a panic");
        }
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

/// Logs a request that ended in a panic, and answers it.
pub fn panicked() -> Reply {
    let reply = Error::Panic.reply();
    tracing::error!(status = reply.status.as_u16(), reason = %Error::Panic, "failed");
    reply
}

/// Logs a delivery that was refused before anything was touched, and answers it.
pub fn refused(delivery: &Delivery, origin: &Origin, refusal: &Error) -> Reply {
    let reply = refusal.reply();
    let Delivery { method, path, body, .. } = delivery;
    let (method, path) = (cut(method.as_str()), cut(path));
    let (status, bytes) = (reply.status.as_u16(), body.len());
    let cold_start = origin.is_cold_start;
    if format() != Format::Embedded {
        METRICS.refused(status);
    }
    tracing::warn!(method, path, bytes, status, cold_start, reason = %refusal, "refused");
    reply
}

/// Logs a vendor's question that was answered, and was no event.
pub fn handshake(delivery: &Delivery, origin: &Origin, reply: Reply) -> Reply {
    let (method, path) = (cut(delivery.method.as_str()), cut(&delivery.path));
    let (status, cold_start) = (reply.status.as_u16(), origin.is_cold_start);
    tracing::info!(method, path, status, cold_start, "handshake");
    reply
}

/// Logs and counts an event that the rules of its source leave out.
pub fn filtered(delivery: &Delivery, origin: &Origin, event: &Event) {
    let (vendor, event_type) = (cut(&event.vendor), cut(&event.event_type));
    let (path, cold_start) = (cut(&delivery.path), origin.is_cold_start);
    if format() == Format::Embedded {
        let mut line = line("INFO", "filtered");
        line["path"] = path.into();
        line["vendor"] = vendor.into();
        line["event_type"] = event_type.into();
        line["cold_start"] = cold_start.into();
        embedded::add_count(&mut line, "filtered", 1);
        print_line(&line);
    } else {
        METRICS.filtered(vendor);
        tracing::info!(path, vendor, event_type, cold_start, "filtered");
    }
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
    pub source: Trigger,
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
    /// Who brought it.
    source: &'static str,
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
        source: handled.source.as_str(),
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
    match format() {
        Format::Embedded => write(&line, is_bad, true),
        Format::Json => {
            METRICS.delivered(&line);
            write(&line, is_bad, false);
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

/// Writes the line of a delivery where that level is logged; with metrics in it, always.
fn write(fields: &Line<'_>, is_bad: bool, has_metrics: bool) {
    let (level, enabled) = if is_bad {
        ("WARN", tracing::enabled!(Level::WARN))
    } else {
        ("INFO", tracing::enabled!(Level::INFO))
    };
    if !enabled && !has_metrics {
        return;
    }
    let mut line = line(level, "delivery");
    if let (Some(line), Ok(Value::Object(fields))) =
        (line.as_object_mut(), serde_json::to_value(fields))
    {
        line.extend(fields);
    }
    if has_metrics {
        // A dimension of few values; the name as it was sent is beside it.
        line["vendor"] = metrics::vendor(fields.vendor).into();
        line["vendor_name"] = fields.vendor.into();
        embedded::add_delivery(&mut line, fields.settled);
    }
    print_line(&line);
}

/// Logs what came of a replay in Lambda. `left` dead letters are still there, where that is known:
/// after a replay of all.
pub fn redriven(summary: &impl Serialize, left: Option<u32>) {
    let mut line = line("INFO", "redrive");
    line["summary"] = json!(summary);
    if let Some(left) = left {
        embedded::add_count(&mut line, "dead_letters", left);
    }
    print_line(&line);
}

/// A line of the log, as those of others look.
fn line(level: &str, message: &str) -> Value {
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    json!({ "timestamp": timestamp, "level": level, "message": message })
}

/// Prints a line in one piece.
fn print_line(line: &Value) {
    // When nobody reads the log, there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
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

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT_CHARS).map_or(text, |(end, _)| &text[..end])
}
