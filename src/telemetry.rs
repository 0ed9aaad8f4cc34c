//! The log: one line for each delivery, and never a secret, a signature or a payload in it.

use std::{io::IsTerminal, time::Duration};

use tracing::Level;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    plan::Plan,
};

/// Starts logging to standard error: text for a person on a terminal, JSON lines otherwise.
/// `RUST_LOG` chooses what is logged, `default` without it.
pub fn init(default: Level) {
    let filter = EnvFilter::builder().with_default_directive(default.into()).from_env_lossy();
    let text = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, as in a test, changes nothing.
    let _ = if text {
        registry.with(lines.with_target(false)).try_init()
    } else {
        registry.with(lines.json().flatten_event(true).with_target(false)).try_init()
    };
}

/// Logs a delivery that was refused before anything was touched.
pub fn refused(delivery: &Delivery, refusal: &Error, reply: &Reply) {
    let Delivery { method, path, body, .. } = delivery;
    let (status, bytes) = (reply.status.as_u16(), body.len());
    tracing::warn!(%method, path, bytes, status, reason = %refusal, "refused");
}

/// What became of a planned event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    Duplicate,
    InProgress,
    Failed,
    StoreUnavailable,
}

impl Outcome {
    /// The word in the log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::InProgress => "in_progress",
            Self::Failed => "failed",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

/// Logs what became of a planned event.
pub fn handled(
    delivery: &Delivery,
    plan: &Plan,
    outcome: Outcome,
    error: Option<&Error>,
    reply: &Reply,
    took: Duration,
) {
    let (status, bytes) = (reply.status.as_u16(), delivery.body.len());
    let milliseconds = took.as_millis() as u64;
    let Plan { event, key, route, .. } = plan;
    let (vendor, event_type) = (&event.vendor, &event.event_type);
    let reason = error.map(ToString::to_string);
    match outcome {
        Outcome::Failed | Outcome::StoreUnavailable => tracing::warn!(
            %key, vendor, event_type, destination = %route, outcome = outcome.as_str(), status, bytes,
            milliseconds, reason, "delivery"
        ),
        Outcome::Delivered | Outcome::Duplicate | Outcome::InProgress => tracing::info!(
            %key, vendor, event_type, destination = %route, outcome = outcome.as_str(), status, bytes,
            milliseconds, reason, "delivery"
        ),
    }
}
