//! What brought a delivery, and what became of it: the words of the records, the log and the metrics.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// What brought a delivery to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Its vendor sent it.
    Vendor,
    /// An operator, who named the key.
    Replay,
    /// An operator or a schedule, with all dead letters of a kind.
    BulkReplay,
}

impl Trigger {
    /// The words for it, in the log and for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vendor => "vendor",
            Self::Replay => "replay",
            Self::BulkReplay => "bulk replay",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered with this HTTP status.
    Status(u16),
    /// It could not be reached, and did not get the event.
    Unreachable,
    /// The call was refused, or never made, until somebody changes something: it did not get the
    /// event.
    Refused,
    /// It may have got the event, and did not answer in time.
    TimedOut,
    /// It may have got the event, and the connection broke.
    Broken,
}

impl Outcome {
    /// Whether the event may have been processed, or may still be.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken)
    }

    /// Whether another attempt may end otherwise. A redirect and most refusals stay what they are.
    ///
    /// Where there was no answer, another attempt may help: it is not known why the destination did
    /// not get the event, and a call that AWS refused succeeds once the role or the name is mended.
    pub fn is_worth_another(self) -> bool {
        const TOO_EARLY: u16 = 425;
        match self {
            Self::Status(status) => matches!(status, 408 | TOO_EARLY | 429 | 500..=599),
            Self::Unreachable | Self::Refused | Self::TimedOut | Self::Broken => true,
        }
    }
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
    pub const fn as_str(self) -> &'static str {
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
    /// Address of the sender, or of the proxy before the router.
    pub sender: Option<IpAddr>,
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
