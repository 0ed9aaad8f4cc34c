//! Counts the copies for mirrors, apart from the deliveries.

use serde_json::json;

use super::{Format, METRICS, embedded, format, line::Line, print_line};
use crate::{key::Key, route::Route};

/// The end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    Sent,
    /// The mirror did not take it, for this reason.
    Failed(String),
    /// The copy was not sent, for this reason.
    Dropped(&'static str),
}

impl Copied {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed(_) => "failed",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// Logs and counts a copy.
pub fn copied(key: &Key, destination: Route, copied: &Copied) {
    let outcome = copied.outcome();
    let reason = match copied {
        Copied::Sent => None,
        Copied::Failed(reason) => Some(reason.as_str()),
        Copied::Dropped(reason) => Some(*reason),
    };
    let is_embedded = format() == Format::Embedded;
    if !is_embedded {
        METRICS.copied(destination, outcome);
    }
    match reason {
        None => tracing::debug!(%key, %destination, outcome, "mirror"),
        Some(reason) if is_embedded => {
            let line = Line::new("WARN", "mirror").with(&json!({
                "key": key.to_string(),
                "destination": destination,
                "outcome": outcome,
                "reason": reason,
                "copies_not_mirrored": 1,
            }));
            print_line(line.with(&embedded::metrics(&["copies_not_mirrored"])));
        }
        Some(reason) => tracing::warn!(%key, %destination, outcome, reason, "mirror"),
    }
}
