//! Every reason why an event is not delivered, and the answer that the sender gets.
//!
//! The `Display` text of an [`Error`] has all details and goes to the log. The sender gets
//! [`Error::reply`], which reveals no internals.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};

use crate::{
    delivery::Reply,
    json::{JsonError, JsonFault},
    outcome::Ending,
    timestamp::TimestampError,
};

/// Seconds in `Retry-After` when the store or a vendor did not answer, when there was no time, or
/// when `serve` had no connection or memory left.
const RETRY_SECONDS: i64 = 5;

/// The answer to an invocation of an unknown kind.
const NOT_A_REQUEST: &str = "not an HTTP request: expected an event of a Function URL, an API \
     Gateway or a load balancer, such as the samples in events/; to replay dead letters, invoke the \
     function with {\"replay\": {\"all\": true}}; to make an inbox run, with {\"inbox\": \"due\"}; to \
     check its configuration, with {\"doctor\": true}";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{NOT_A_REQUEST}")]
    NotARequest,
    #[error("no such path")]
    UnknownPath,
    #[error("{vendor} is not served: set {variable}")]
    NotServed { vendor: String, variable: String },
    #[error("the method must be {allow}")]
    Method { allow: &'static str },
    #[error("the body is larger than {limit} bytes (MAX_BODY_BYTES)")]
    TooLarge { limit: usize },
    #[error("the body did not come in time")]
    SlowBody,
    #[error("the body was the slowest when all bodies reached MAX_BUFFERED_BYTES")]
    SlowestBody,
    #[error("all bodies and replies have reached MAX_BUFFERED_BYTES")]
    NoRoom,
    #[error("all connections have reached MAX_CONNECTIONS")]
    NoConnection,
    #[error("the body ended early")]
    IncompleteBody,
    #[error("signature {0}")]
    Signature(SignatureFault),
    #[error("cannot fetch from the vendor: {0}")]
    NotFetched(String),
    #[error(
        "unsigned, and {0} shows that the sender is not on this machine: set ENVELOPE_SECRETS, or \
         ALLOW_UNSIGNED=true to accept it anyway"
    )]
    NotFromHere(&'static str),
    #[error("Idempotency-Key is not the signed webhook-id")]
    OtherName,
    #[error("invalid json: {0}")]
    InvalidJson(JsonError),
    #[error("invalid json: not an object")]
    NotAnObject,
    #[error("missing required fields: {}", listed(.0))]
    MissingFields(Vec<MissingField>),
    #[error("{0} holds a lone surrogate")]
    LoneSurrogate(&'static str),
    #[error("{0}")]
    CreatedAt(TimestampError),
    #[error("in progress until {}", .until.to_rfc3339_opts(SecondsFormat::Millis, true))]
    InFlight { until: DateTime<Utc>, now: DateTime<Utc> },
    #[error("the idempotency key came with another body before")]
    OtherBody,
    #[error("no time is left to send it")]
    NoTime,
    /// The limits of the destination left no room in time. Nothing was sent.
    #[error("{destination} had no room within {:.1} s: it gets {limits}", .waited.as_secs_f64())]
    Limited {
        destination: String,
        limits: String,
        waited: Duration,
        /// The time after which there is probably room.
        after: Duration,
    },
    #[error("the store does not answer: {0}")]
    Store(String),
    /// The destination did not accept the event, and the store has no dead letter of this failure.
    #[error("{failure}; {why}")]
    NotKept { failure: Box<Self>, why: &'static str, until: DateTime<Utc> },
    #[error("the destination answered {}", .0.status)]
    Rejected(Box<Reply>),
    #[error("the destination cannot be reached: {0}")]
    Unreachable(String),
    /// The destination reports that it failed, or its answer cannot be read. The answer is for the
    /// operator only.
    #[error("the destination failed: {detail}")]
    DestinationFailed { detail: String, answer: Box<Reply> },
    /// The destination's service or the router itself refuses the call.
    #[error("the event cannot be handed over: {0}")]
    NotHandedOver(String),
    #[error("the destination is too slow: {0}")]
    TooSlow(String),
    #[error("bug: a panic")]
    Panic,
}

/// A required field of the envelope that is missing or has a wrong value. The sender learns only
/// its name, which is what the Python router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MissingField {
    #[error("{0}")]
    Absent(&'static str),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{name} is {found}; expected a string{}", example(.name))]
    NoString { name: &'static str, found: &'static str },
}

impl MissingField {
    fn name(self) -> &'static str {
        match self {
            Self::Absent(name) | Self::Empty(name) | Self::NoString { name, .. } => name,
        }
    }
}

/// Returns an example for `created_at`, the only field that is often sent with another type.
fn example(name: &str) -> &'static str {
    if name == "created_at" { " such as 2026-05-06T12:34:56Z" } else { "" }
}

fn listed(fields: &[impl ToString]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reasons to reject a signature. The log names the reason; the sender does not learn it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    #[error("missing")]
    Missing,
    #[error("wrong")]
    Wrong,
    #[error("stale")]
    Stale,
    #[error("covers the called URL: set PUBLIC_URL")]
    NoUrl,
}

impl Error {
    /// Returns the ending of a planned event that failed with this error.
    pub fn ending(&self) -> Ending {
        match self {
            Self::InFlight { .. } => Ending::InProgress,
            Self::OtherBody => Ending::OtherBody,
            Self::NoTime => Ending::NoTime,
            Self::Limited { .. } => Ending::Limited,
            Self::Store(_) => Ending::StoreUnavailable,
            _ => Ending::Failed,
        }
    }

    /// Returns the destination's own answer, when it gave one.
    pub fn destinations_answer(&self) -> Option<&Reply> {
        match self {
            Self::Rejected(answer) | Self::DestinationFailed { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Returns the answer to the sender.
    pub fn reply(&self) -> Reply {
        use StatusCode as Status;
        match self {
            Self::NotARequest => Reply::text(Status::BAD_REQUEST, NOT_A_REQUEST),
            Self::UnknownPath | Self::NotServed { .. } => {
                Reply::text(Status::NOT_FOUND, "not found")
            }
            Self::Method { allow } => Reply::text(Status::METHOD_NOT_ALLOWED, "method not allowed")
                .with_header(ALLOW, HeaderValue::from_static(allow)),
            Self::TooLarge { limit } => {
                Reply::text(Status::PAYLOAD_TOO_LARGE, format!("larger than {limit} bytes"))
            }
            Self::SlowBody | Self::SlowestBody => {
                Reply::text(Status::REQUEST_TIMEOUT, "body too slow")
            }
            Self::IncompleteBody => Reply::text(Status::BAD_REQUEST, "body incomplete"),
            Self::Signature(_) => Reply::text(Status::UNAUTHORIZED, "invalid signature"),
            Self::NotFromHere(_) => Reply::text(Status::FORBIDDEN, "forbidden"),
            Self::OtherName => {
                Reply::text(Status::BAD_REQUEST, "idempotency key differs from webhook-id")
            }
            Self::InvalidJson(JsonError {
                fault: JsonFault::TooDeep | JsonFault::IntegerTooLong,
                ..
            }) => Reply::text(Status::BAD_REQUEST, self.to_string()),
            Self::InvalidJson(_) | Self::NotAnObject => {
                Reply::text(Status::BAD_REQUEST, "invalid json")
            }
            Self::MissingFields(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
                let text = format!("missing required fields: {}", names.join(", "));
                Reply::text(Status::BAD_REQUEST, text)
            }
            Self::LoneSurrogate(_) | Self::CreatedAt(_) => {
                Reply::text(Status::BAD_REQUEST, self.to_string())
            }
            // Another delivery of the event is under way, and its answer tells the vendor the
            // result.
            Self::InFlight { until, now } => retry_after(
                Reply::text(Status::CONFLICT, "in progress"),
                seconds_between(*now, *until),
            ),
            // Many vendors treat a 4xx as final. Nothing keeps this event, so passing on the
            // destination's 4xx would lose it.
            Self::NotKept { until, .. } => retry_after(
                Reply::text(Status::SERVICE_UNAVAILABLE, "try again later"),
                seconds_between(Utc::now(), *until),
            ),
            Self::Limited { after, .. } => retry_after(
                Reply::text(Status::SERVICE_UNAVAILABLE, "try again later"),
                after.as_secs_f64().ceil() as i64,
            ),
            Self::OtherBody => Reply::text(
                Status::UNPROCESSABLE_ENTITY,
                "idempotency key reused with another body",
            ),
            Self::Store(_)
            | Self::NoTime
            | Self::NoRoom
            | Self::NoConnection
            | Self::NotFetched(_) => retry_after(
                Reply::text(Status::SERVICE_UNAVAILABLE, "try again later"),
                RETRY_SECONDS,
            ),
            Self::Rejected(reply) => {
                // A 410 makes some vendors delete the subscription. A destination that answers 3xx
                // did not process the event.
                let is_error = reply.status.is_client_error() || reply.status.is_server_error();
                let status = match reply.status {
                    Status::GONE => Status::BAD_GATEWAY,
                    status if is_error => status,
                    _ => Status::BAD_GATEWAY,
                };
                Reply { status, ..Reply::clone(reply) }
            }
            // The destination's own answer may reveal its internals.
            Self::DestinationFailed { .. } => {
                Reply::text(Status::BAD_GATEWAY, "destination failed")
            }
            Self::Unreachable(_) | Self::NotHandedOver(_) => {
                Reply::text(Status::BAD_GATEWAY, "destination unreachable")
            }
            Self::TooSlow(_) => Reply::text(Status::GATEWAY_TIMEOUT, "destination too slow"),
            Self::Panic => Reply::text(Status::INTERNAL_SERVER_ERROR, "internal error"),
        }
    }
}

/// Returns whole seconds, rounded up, so that `end` has passed after them.
fn seconds_between(start: DateTime<Utc>, end: DateTime<Utc>) -> i64 {
    (end - start).as_seconds_f64().ceil() as i64
}

fn retry_after(reply: Reply, seconds: i64) -> Reply {
    reply.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn answered(status: u16) -> Error {
        let reply = Reply::text(StatusCode::from_u16(status).unwrap(), "said");
        Error::Rejected(reply.into())
    }

    fn limited(after: Duration) -> Error {
        let (destination, limits, waited) = ("gcp".into(), String::new(), Duration::ZERO);
        Error::Limited { destination, limits, waited, after }
    }

    fn asked(error: &Error) -> Option<String> {
        let reply = error.reply();
        reply.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_destinations_answer_is_passed_on_unless_a_vendor_would_misread_it() {
        for (status, sent) in [
            (400, 400),
            (404, 404),
            (410, 502),
            (422, 422),
            (500, 500),
            (503, 503),
            (301, 502),
            (304, 502),
            (101, 502),
        ] {
            let reply = answered(status).reply();
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (sent, &b"said"[..]), "{status}");
        }
    }

    #[test]
    fn a_failure_reveals_no_internals() {
        let text = || "plainly internal".to_owned();
        let answer = Box::new(Reply::text(StatusCode::OK, text()));
        for (failure, status, said) in [
            (Error::Unreachable(text()), 502, "destination unreachable"),
            (Error::NotHandedOver(text()), 502, "destination unreachable"),
            (Error::TooSlow(text()), 504, "destination too slow"),
            (Error::DestinationFailed { detail: text(), answer }, 502, "destination failed"),
            (Error::Store(text()), 503, "try again later"),
            (Error::NotFetched(text()), 503, "try again later"),
        ] {
            let reply = failure.reply();
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, said.as_bytes()));
            // The log has the details.
            assert!(failure.to_string().contains("plainly internal"));
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        let now = DateTime::UNIX_EPOCH;
        for (milliseconds, seconds) in
            [(30_000, "30"), (29_001, "30"), (1, "1"), (0, "1"), (-9, "1")]
        {
            let until = now + TimeDelta::milliseconds(milliseconds);
            assert_eq!(asked(&Error::InFlight { until, now }).as_deref(), Some(seconds));
        }
        assert_eq!(asked(&limited(Duration::from_millis(1500))).as_deref(), Some("2"));
        assert_eq!(asked(&Error::NoTime).as_deref(), Some("5"));
        let until = Utc::now() + TimeDelta::seconds(90);
        let not_kept = Error::NotKept { failure: answered(422).into(), why: "why", until };
        let wait: u32 = asked(&not_kept).unwrap().parse().unwrap();
        assert!((85..=90).contains(&wait), "{wait}");
        assert_eq!(not_kept.reply().status, 503);
        assert_eq!(asked(&Error::OtherBody), None);
    }

    #[test]
    fn an_ending_says_what_became_of_the_event() {
        let now = DateTime::UNIX_EPOCH;
        for (error, ending) in [
            (Error::InFlight { until: now, now }, Ending::InProgress),
            (Error::OtherBody, Ending::OtherBody),
            (Error::NoTime, Ending::NoTime),
            (limited(Duration::ZERO), Ending::Limited),
            (Error::Store(String::new()), Ending::StoreUnavailable),
            (answered(500), Ending::Failed),
        ] {
            assert_eq!(error.ending(), ending);
        }
    }

    #[test]
    fn only_an_answer_of_the_destination_is_kept_for_the_operator() {
        let answer = Box::new(Reply::text(StatusCode::OK, "said"));
        let failed = Error::DestinationFailed { detail: String::new(), answer };
        assert_eq!(failed.destinations_answer().unwrap().body, "said");
        assert_eq!(answered(422).destinations_answer().unwrap().status, 422);
        assert!(Error::Unreachable(String::new()).destinations_answer().is_none());
    }

    #[test]
    fn missing_fields_are_named_to_the_sender_without_the_reason() {
        let fields = vec![
            MissingField::Absent("vendor"),
            MissingField::Empty("event_type"),
            MissingField::NoString { name: "created_at", found: "a number" },
        ];
        let error = Error::MissingFields(fields);
        assert_eq!(error.reply().body, "missing required fields: vendor, event_type, created_at");
        assert_eq!(
            error.to_string(),
            "missing required fields: vendor, event_type is empty, created_at is a number; \
             expected a string such as 2026-05-06T12:34:56Z"
        );
    }
}
