//! The line of a delivery, and its metrics.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::json;
use tracing::Level;

use super::{Format, METRICS, cut, embedded, format, line::Line, print_line};
use crate::{
    delivery::Delivery,
    error::Error,
    outcome::{Ending, Origin, Times, Trigger},
    plan::Plan,
    route::Route,
    trace::Trace,
};

/// The result of a delivery, for the log and the metrics.
pub struct Handled<'a> {
    pub delivery: &'a Delivery,
    pub plan: &'a Plan,
    pub origin: &'a Origin,
    pub trace: &'a Trace,
    pub ending: Ending,
    pub error: Option<&'a Error>,
    pub status: u16,
    pub trigger: Trigger,
    /// The number of attempts of this delivery.
    pub attempts: u32,
    /// False if the store did not say whether the result is stored.
    pub settled: bool,
    pub times: Times,
}

/// The members of a delivery's line. AWS charges for each byte of the log, so the members that rarely
/// say anything are there only when they do.
#[derive(Serialize)]
pub(super) struct Members<'a> {
    key: String,
    /// Absent for an envelope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<&'a str>,
    pub(super) vendor: &'a str,
    event_type: &'a str,
    pub(super) destination: Route,
    pub(super) outcome: &'static str,
    status: u16,
    /// The cause of the delivery.
    trigger: &'static str,
    pub(super) attempts: u32,
    pub(super) bytes: usize,
    pub(super) milliseconds: Milliseconds,
    pub(super) store_milliseconds: Milliseconds,
    #[serde(skip_serializing_if = "Milliseconds::is_zero")]
    queue_milliseconds: Milliseconds,
    pub(super) destination_milliseconds: Milliseconds,
    #[serde(skip_serializing_if = "Milliseconds::is_zero")]
    pause_milliseconds: Milliseconds,
    #[serde(skip_serializing_if = "Milliseconds::is_zero")]
    room_milliseconds: Milliseconds,
    /// The rest of the time, which the router itself took.
    self_milliseconds: Milliseconds,
    #[serde(skip_serializing_if = "is_true")]
    pub(super) settled: bool,
    #[serde(skip_serializing_if = "is_false")]
    cold_start: bool,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda_trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A duration that is written in milliseconds, with two decimal places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Milliseconds(Duration);

impl Milliseconds {
    fn as_f64(self) -> f64 {
        (self.0.as_secs_f64() * 1e5).round() / 1e2
    }

    pub(super) fn as_seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

/// Logs and counts the result of a planned event.
pub fn handled(handled: &Handled<'_>) {
    let members = Members::of(handled);
    let is_bad = matches!(
        handled.ending,
        Ending::Failed | Ending::StoreUnavailable | Ending::NoTime | Ending::Limited
    );
    match format() {
        Format::Embedded => print_line(members.embedded(is_bad)),
        Format::Json => {
            METRICS.delivered(&members);
            let is_logged = if is_bad {
                tracing::enabled!(Level::WARN)
            } else {
                tracing::enabled!(Level::INFO)
            };
            if is_logged {
                print_line(members.line(is_bad));
            }
        }
        Format::Text => {
            METRICS.delivered(&members);
            let Members { key, source, vendor, event_type, destination, .. } = &members;
            let Members { outcome, status, attempts, reason, .. } = &members;
            let milliseconds = members.milliseconds.as_f64();
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        key,
                        source,
                        vendor,
                        event_type,
                        %destination,
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

impl<'a> Members<'a> {
    fn of(handled: &'a Handled<'_>) -> Self {
        let Handled { delivery, plan, origin, trace, ending, error, times, .. } = *handled;
        let others = times.store + times.queue + times.destination + times.pauses + times.room;
        Self {
            key: plan.key.to_string(),
            source: plan.source_name(),
            vendor: cut(&plan.event.vendor),
            event_type: cut(&plan.event.event_type),
            destination: plan.route,
            outcome: ending.as_str(),
            status: handled.status,
            trigger: handled.trigger.as_str(),
            attempts: handled.attempts,
            bytes: delivery.body.len(),
            milliseconds: Milliseconds(times.total),
            store_milliseconds: Milliseconds(times.store),
            queue_milliseconds: Milliseconds(times.queue),
            destination_milliseconds: Milliseconds(times.destination),
            pause_milliseconds: Milliseconds(times.pauses),
            room_milliseconds: Milliseconds(times.room),
            self_milliseconds: Milliseconds(times.total.saturating_sub(others)),
            settled: handled.settled,
            cold_start: origin.is_cold_start,
            trace_id: &trace.id,
            lambda_trace_id: trace.lambda_id.as_deref(),
            request_id: origin.request_id.as_deref(),
            reason: error.map(ToString::to_string),
        }
    }

    fn line(&self, is_bad: bool) -> Line {
        Line::new(if is_bad { "WARN" } else { "INFO" }, "delivery").with(self)
    }

    /// Returns the line for CloudWatch. It is written at any level, because metrics are made of it.
    fn embedded(&self, is_bad: bool) -> Line {
        let line = self.line(is_bad);
        if self.settled {
            return line.with(&embedded::function());
        }
        line.with(&json!({ "unsettled": 1 })).with(&embedded::metrics(&["unsettled"]))
    }
}

// serde requires this signature of the function.
fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !value
}
