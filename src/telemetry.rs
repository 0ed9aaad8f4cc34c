//! The log: one line for each delivery, and never a secret, a signature or a payload in it.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context as _;
use tracing::Level;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    plan::Plan,
};

/// Longest name from a payload that is logged, in characters.
const MAX_NAME_CHARS: usize = 256;

/// Starts logging to standard error: text for a person on a terminal, JSON lines otherwise.
/// `RUST_LOG` chooses what is logged, `default` without it.
///
/// # Errors
/// When `RUST_LOG` cannot be read.
pub fn init(default: Level) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)
            .context("RUST_LOG must be error, warn, info, debug, trace or off, also by module")?,
        _ => EnvFilter::new(default.to_string()),
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if std::io::stderr().is_terminal() {
        registry.with(lines).try_init()?;
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    }
    Ok(())
}

/// Logs a request that no delivery could be read from, or that failed in a way it never should,
/// and answers it.
pub fn unread(error: &Error) -> Reply {
    let reply = error.reply();
    let status = reply.status.as_u16();
    if reply.status.is_server_error() {
        tracing::error!(status, reason = %error, "failed");
    } else {
        tracing::warn!(status, reason = %error, "refused");
    }
    reply
}

/// Logs a delivery that was refused before anything was touched.
pub fn refused(delivery: &Delivery, refusal: &Error, reply: &Reply) {
    let Delivery { method, path, body, .. } = delivery;
    let (status, bytes) = (reply.status.as_u16(), body.len());
    tracing::warn!(%method, path, bytes, status, reason = %refusal, "refused");
}

/// What became of a planned event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Delivered,
    Duplicate,
    InProgress,
    OtherBody,
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
            Self::Failed => "failed",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

/// Logs what became of a planned event.
pub fn handled(
    delivery: &Delivery,
    plan: &Plan,
    ending: Ending,
    error: Option<&Error>,
    reply: &Reply,
    took: Duration,
) {
    let (status, bytes) = (reply.status.as_u16(), delivery.body.len());
    let milliseconds = took.as_millis() as u64;
    let Plan { event, key, route, .. } = plan;
    let (vendor, event_type) = (cut(&event.vendor), cut(&event.event_type));
    let reason = error.map(ToString::to_string);
    match ending {
        Ending::Failed | Ending::StoreUnavailable => tracing::warn!(
            %key, vendor, event_type, destination = %route, outcome = ending.as_str(), status, bytes,
            milliseconds, reason, "delivery"
        ),
        Ending::Delivered | Ending::Duplicate | Ending::InProgress | Ending::OtherBody => {
            tracing::info!(
                %key, vendor, event_type, destination = %route, outcome = ending.as_str(), status, bytes,
                milliseconds, reason, "delivery"
            )
        }
    }
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
