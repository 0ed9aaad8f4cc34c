//! Writes the log: one line for each delivery. No line contains a secret, a signature or a payload.
//! In Lambda, CloudWatch makes metrics of the lines. In `serve`, Prometheus reads the metrics.

mod acceptances;
mod backlog;
mod embedded;
mod handled;
mod line;
mod metrics;
mod mirrors;

use std::{
    fmt::Display,
    io::{IsTerminal, Write as _},
    sync::OnceLock,
    time::Duration,
};

use serde::Serialize;
use serde_json::json;
use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

pub use self::{
    acceptances::Acceptances,
    backlog::Backlog,
    handled::{Handled, handled},
    mirrors::{Copied, copied},
};
use self::{line::Line, metrics::METRICS};
use crate::{
    config::{LOG, log_filter},
    delivery::{Delivery, Reply},
    error::Error,
    event::Event,
    outcome::Origin,
    plan::Plan,
    route::Route,
    store::Store,
};

/// Longest text from a sender that is logged, in characters: a name from a payload, a method or a
/// path.
const MAX_TEXT_CHARS: usize = 256;

/// The format of a delivery's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Text for a person.
    Text,
    Json,
    /// JSON with CloudWatch's embedded metrics.
    Embedded,
}

static FORMAT: OnceLock<Format> = OnceLock::new();

fn format() -> Format {
    FORMAT.get().copied().unwrap_or(Format::Text)
}

/// Starts logging to standard error: text for a person on a terminal, and JSON lines otherwise. In
/// Lambda, the lines have metrics. `RUST_LOG` sets the filter. `default` applies if `RUST_LOG` is
/// not set or is malformed. The configuration reports a malformed one.
///
/// # Errors
/// Fails if logging was started before.
pub fn init(default: Level, in_lambda: bool) -> anyhow::Result<()> {
    let chosen = std::env::var(LOG).ok().and_then(|text| log_filter(&text).ok());
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(default.to_string()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    // Debug lines of other crates may contain bodies, headers or credentials.
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
    // The message of a panic may quote the data that caused it, such as a payload.
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        if format == Format::Embedded {
            // The sender gets an answer after a panic, so Lambda does not count an error.
            let line = Line::new("ERROR", "bug: a panic");
            let line = line.with(&json!({ "place": place, "panics": 1 }));
            print_line(line.with(&embedded::metrics(&["panics"])));
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

/// Returns this process's metrics and the store's undelivered events, as Prometheus reads them.
/// `routes` are the configured destinations.
pub async fn prometheus(backlog: &Backlog, store: &dyn Store, routes: &[Route]) -> String {
    METRICS.text(backlog.read(store, routes).await)
}

/// Logs a request that ended in a panic, and answers it.
pub fn panicked() -> Reply {
    let reply = Error::Panic.reply();
    tracing::error!(status = reply.status.as_u16(), reason = %Error::Panic, "failed");
    reply
}

/// Logs the input of an invocation that holds no HTTP request, and returns its answer.
pub fn unreadable(origin: &Origin, reason: &dyn Display) -> Reply {
    let reply = Error::NotARequest.reply();
    let (status, sender) = (reply.status.as_u16(), sender(origin));
    let (unknown, cold_start) = ("unknown", origin.is_cold_start);
    tracing::warn!(
        method = unknown, path = unknown, sender, bytes = 0, status, cold_start, %reason, "refused"
    );
    reply
}

/// Logs a delivery that was refused before the store was touched, with its sender's address, and
/// answers it.
pub fn refused(delivery: &Delivery, origin: &Origin, refusal: &Error) -> Reply {
    let reply = refusal.reply();
    let Delivery { method, path, body, .. } = delivery;
    let (method, path) = (cut(method.as_str()), cut(path));
    let (status, bytes) = (reply.status.as_u16(), body.len());
    let (sender, cold_start) = (sender(origin), origin.is_cold_start);
    if format() != Format::Embedded {
        METRICS.refused(status);
    }
    tracing::warn!(
        method, path, sender, bytes, status, cold_start, reason = %refusal, "refused"
    );
    reply
}

/// Logs a handshake: a vendor's question that was answered, and is not an event.
pub fn handshake(delivery: &Delivery, origin: &Origin, reply: Reply) -> Reply {
    let (method, path) = (cut(delivery.method.as_str()), cut(&delivery.path));
    let (status, cold_start) = (reply.status.as_u16(), origin.is_cold_start);
    tracing::info!(method, path, status, cold_start, "handshake");
    reply
}

/// Logs and counts an event that the rules of its source leave out.
pub fn filtered(delivery: &Delivery, origin: &Origin, event: &Event) {
    let (vendor, event_type) = (cut(&event.vendor), cut(&event.event_type));
    let source = event.source.as_deref();
    let (path, cold_start) = (cut(&delivery.path), origin.is_cold_start);
    if format() == Format::Embedded {
        let line = Line::new("INFO", "filtered").with(&json!({
            "path": path,
            "source": source,
            "vendor": vendor,
            "event_type": event_type,
            "cold_start": cold_start,
            "filtered": 1,
        }));
        print_line(line.with(&embedded::metrics(&["filtered"])));
    } else {
        METRICS.filtered(source, vendor);
        tracing::info!(path, source, vendor, event_type, cold_start, "filtered");
    }
}

/// Logs the result of a replay in Lambda. `left` is the number of dead letters that remain. It is
/// known only after a replay of all.
pub fn redriven(summary: &impl Serialize, left: Option<u32>) {
    let mut line = Line::new("INFO", "redrive").with(&json!({ "summary": summary }));
    if let Some(left) = left {
        line = line.with(&json!({ "dead_letters": left }));
        line = line.with(&embedded::metrics(&["dead_letters"]));
    }
    print_line(line);
}

/// Logs the result of a run of the inbox's schedule.
pub fn scheduled(summary: &impl Serialize) {
    print_line(Line::new("INFO", "inbox").with(&json!({ "summary": summary })));
}

/// The number and age of the accepted events that are not delivered, by destination.
pub struct Pending(Vec<(Route, usize, f64)>);

/// Counts the accepted events that are not delivered, for the configured destinations and for all
/// others that have some. The result is empty if the store does not answer.
pub async fn count_pending(
    store: &dyn Store,
    routes: &[Route],
    acceptances: &Acceptances,
) -> Pending {
    Pending(backlog::pending(store, routes, acceptances).await)
}

/// Logs the number and age of the accepted events that are not delivered. `seen` returns the age of
/// the oldest event that the caller has seen. That event may be beyond those that are counted. The
/// alarms watch the largest values among all destinations.
pub fn pending(pending: Pending, seen: impl Fn(Route) -> Duration) {
    for (destination, count, oldest) in pending.0 {
        let line = Line::new("INFO", "pending").with(&json!({
            "destination": destination,
            "pending": count,
            "oldest_pending_seconds": oldest.max(seen(destination).as_secs_f64()),
        }));
        print_line(line.with(&embedded::metrics(&["pending", "oldest_pending_seconds"])));
    }
}

/// Prints a line in one piece.
fn print_line(line: Line) {
    // If the log cannot be written, there is no other place to report that.
    let _ = std::io::stderr().lock().write_all(&line.into_bytes());
}

/// Logs and counts messages that were not sent. The list of the store brings their events later.
pub fn unsent(count: usize, reason: &dyn Display) {
    if format() == Format::Embedded {
        let line = Line::new("WARN", "messages not sent");
        let line = line.with(&json!({ "reason": reason.to_string(), "messages_not_sent": count }));
        print_line(line.with(&embedded::metrics(&["messages_not_sent"])));
    } else {
        tracing::warn!(count, %reason, "messages not sent");
    }
}

/// Adds to the number of attempts that wait for room at a destination.
pub fn waits_for_room(destination: Route, count: i64) {
    METRICS.waits_for_room(destination, count);
}

/// Records how long an attempt waited for room at a destination.
pub fn waited_for_room(destination: Route, waited: Duration) {
    METRICS.waited_for_room(destination, waited);
}

/// Counts an attempt that found no room at a destination in time.
pub fn no_room(destination: Route) {
    METRICS.no_room(destination);
}

/// Records how long the first due event of an inbox has been due.
pub fn overdue(destination: Route, overdue: Duration) {
    METRICS.overdue(destination, overdue);
}

/// Logs a failed attempt that another attempt follows.
pub fn tried(plan: &Plan, number: u32, error: &Error, pause: Duration) {
    let (key, destination) = (plan.key, plan.route);
    let pause_milliseconds = pause.as_millis() as u64;
    tracing::warn!(
        %key, %destination, attempt = number, reason = %error, pause_milliseconds, "tried"
    );
}

/// Returns the sender's address. A parsed address cannot contain text that a sender chooses.
fn sender(origin: &Origin) -> String {
    origin.sender.map_or_else(|| "unknown".into(), |address| address.to_canonical().to_string())
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT_CHARS).map_or(text, |(end, _)| &text[..end])
}
