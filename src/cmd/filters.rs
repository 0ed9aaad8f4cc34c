//! The options that select dead letters and accepted events by vendor, time and destination.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use clap::Args;

use crate::{redelivery::Filter, route::Route};

/// Options that select dead letters or accepted events.
#[derive(Args, Clone)]
pub struct Filters {
    /// Select only events from this vendor. Case does not matter.
    #[arg(long)]
    vendor: Option<String>,
    /// Select only dead letters that failed, or accepted events that were accepted, since this time
    /// (2026-05-06T12:34:56Z) or within this period (2h, 3days).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Select only events for this destination, for example `gcp`.
    #[arg(long, value_name = "NAME")]
    destination: Option<Route>,
}

impl Filters {
    pub fn are_none(&self) -> bool {
        self.vendor.is_none() && self.since.is_none() && self.destination.is_none()
    }
}

impl From<Filters> for Filter {
    fn from(Filters { vendor, since, destination }: Filters) -> Self {
        Self { vendor, destination, since }
    }
}

/// Parses a time, or a duration before now.
pub(super) fn parse_since(text: &str) -> Result<DateTime<Utc>, String> {
    let ago =
        humantime::parse_duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    let time = ago.map(Ok).unwrap_or_else(|| humantime::parse_rfc3339_weak(text));
    let remedy =
        || "must be a time in UTC, such as 2026-05-06T12:34:56Z, or a duration, such as 2h".into();
    time.map(DateTime::from).map_err(|_| remedy())
}
