//! The trigger, the outcomes and the ending of a delivery: the words of the records, the log and
//! the metrics.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// The cause of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The vendor sent it.
    Vendor,
    /// The event was accepted, and its next attempt is due.
    Inbox,
    /// An operator replays a dead letter or an accepted event by its key.
    Replay,
    /// An operator or a schedule replays all dead letters or accepted events that match its filters.
    BulkReplay,
}

impl Trigger {
    /// Returns the words for the log and for the output of commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vendor => "vendor",
            Self::Inbox => "inbox",
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

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The destination answered with this HTTP status.
    Status(u16),
    /// The destination could not be reached, or had too much to do, and did not receive the event.
    Unreachable,
    /// The call was refused, and will be until an operator changes something. Or there was no time
    /// left to make the call. The destination did not receive the event.
    Refused,
    /// The destination's limits left no room in time, so the call was not made.
    Limited,
    /// The destination may have received the event, but did not answer in time.
    TimedOut,
    /// The destination may have received the event, but the connection broke.
    Broken,
}

impl Outcome {
    /// Returns whether the destination may have processed the event, or may still be processing it.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken)
    }

    /// Returns whether another attempt can end differently, now or in a later redrive. After a
    /// redirect and after most 4xx answers, it cannot.
    ///
    /// After every outcome without an answer, a redrive can end differently: even a call that AWS
    /// refused succeeds once the role or the name is corrected.
    pub fn is_worth_another(self) -> bool {
        const TOO_EARLY: u16 = 425;
        match self {
            Self::Status(status) => matches!(status, 408 | TOO_EARLY | 429 | 500..=599),
            Self::Unreachable | Self::Refused | Self::Limited | Self::TimedOut | Self::Broken => {
                true
            }
        }
    }
}

/// The result of handling a planned event once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The event is in the inbox, and was answered.
    Accepted,
    /// An attempt at an accepted event failed, and another one follows later.
    Postponed,
    Delivered,
    Duplicate,
    InProgress,
    OtherBody,
    /// No time was left to send the event, so nothing was changed.
    NoTime,
    /// The limits of the destination left no room in time, so nothing was sent.
    Limited,
    Failed,
    StoreUnavailable,
}

impl Ending {
    /// Returns the word for the log line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Postponed => "postponed",
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::InProgress => "in_progress",
            Self::OtherBody => "other_body",
            Self::NoTime => "no_time",
            Self::Limited => "limited",
            Self::Failed => "failed",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

/// The origin of a delivery: its sender and, in Lambda, its invocation. Outside Lambda, all fields
/// except `sender` have their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Address of the sender, or of the proxy in front of the router.
    pub sender: Option<IpAddr>,
    /// The request id of the invocation.
    pub request_id: Option<String>,
    /// The trace of the invocation, in the format of `X-Amzn-Trace-Id`.
    pub trace: Option<String>,
    /// True for the first invocation of this process.
    pub is_cold_start: bool,
}

/// The time spent on a delivery, by step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    pub total: Duration,
    pub store: Duration,
    /// The time for sending a message that wakes the function.
    pub queue: Duration,
    pub destination: Duration,
    /// The pauses between attempts.
    pub pauses: Duration,
    /// The waits for room at the destination.
    pub room: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_attempt_is_worth_it_unless_the_answer_is_final() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(Outcome::Status(status).is_worth_another(), "{status}");
        }
        for status in [200, 301, 400, 401, 404, 409, 410, 413, 422, 499, 600] {
            assert!(!Outcome::Status(status).is_worth_another(), "{status}");
        }
        for outcome in [
            Outcome::Unreachable,
            Outcome::Refused,
            Outcome::Limited,
            Outcome::TimedOut,
            Outcome::Broken,
        ] {
            assert!(outcome.is_worth_another(), "{outcome:?}");
        }
    }

    #[test]
    fn the_log_has_a_word_for_each_trigger_and_each_ending() {
        let triggers = [Trigger::Vendor, Trigger::Inbox, Trigger::Replay, Trigger::BulkReplay];
        let words = triggers.map(|trigger| trigger.to_string());
        assert_eq!(words, ["vendor", "inbox", "replay", "bulk replay"]);
        assert_eq!(Ending::Delivered.as_str(), "delivered");
        assert_eq!(Ending::StoreUnavailable.as_str(), "store_unavailable");
    }

    #[test]
    fn an_outcome_is_unknown_if_the_destination_may_have_the_event() {
        for (outcome, is_unknown) in [
            (Outcome::TimedOut, true),
            (Outcome::Broken, true),
            (Outcome::Unreachable, false),
            (Outcome::Refused, false),
            (Outcome::Limited, false),
            (Outcome::Status(502), false),
        ] {
            assert_eq!(outcome.is_unknown(), is_unknown, "{outcome:?}");
        }
    }
}
