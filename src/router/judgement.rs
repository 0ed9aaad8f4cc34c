//! Judges the result of sending an event to its destination. Everything that the router concludes
//! from a result is in one place: [`judge`] has an arm for each kind of result.

use std::time::{Duration, SystemTime};

use http::{StatusCode, header::RETRY_AFTER};

use crate::{
    delivery::Reply,
    destination::{FailedAnswer, NoAnswer, SendError},
    error::Error,
    outcome::Outcome,
    store::Release,
};

/// The conclusions from one attempt.
#[derive(Debug)]
pub(super) struct Judgement {
    /// The answer to the sender. An event counts as delivered only after a 2xx.
    pub answer: Result<Reply, Error>,
    /// The outcome, for the record.
    pub outcome: Outcome,
    pub health: Health,
    /// The pause that the destination asks for. `None` if another attempt would not help.
    pub asked: Option<Duration>,
}

/// The health of a destination, judged by one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The destination answered, and not with 503.
    Up,
    /// The destination cannot be reached (the router may lack the credentials for it), or answers
    /// 503.
    Down,
    /// The destination has too much to do: Lambda throttles the function, and has not called it.
    Busy,
    /// There was no answer, or no attempt to reach it. Nothing new is known.
    Unknown,
}

impl Judgement {
    /// Returns when the key becomes free if no other attempt follows. After an unknown outcome, the
    /// destination may still be working on the event, so the key is held until the lease ends.
    pub fn release(&self) -> Release {
        if self.outcome.is_unknown() { Release::AtLeaseEnd } else { Release::Now }
    }
}

/// Judges the result of an attempt.
pub(super) fn judge(sent: Result<Reply, SendError>) -> Judgement {
    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
    // The sender gets the same status.
    const FAILED: Outcome = Outcome::Status(StatusCode::BAD_GATEWAY.as_u16());
    let error = match sent {
        Ok(reply) => return answered(reply),
        Err(error) => error,
    };
    let (outcome, health, asked, failure) = match error {
        SendError::NotSent(detail) => {
            (Outcome::Unreachable, Health::Down, AT_ONCE, Error::Unreachable(detail))
        }
        SendError::Throttled { detail, retry_after } => {
            let asked = Some(retry_after.unwrap_or_default());
            (Outcome::Unreachable, Health::Busy, asked, Error::Unreachable(detail))
        }
        SendError::Refused(detail) => {
            (Outcome::Refused, Health::Unknown, None, Error::NotHandedOver(detail))
        }
        SendError::Failed(failed) => {
            let FailedAnswer { detail, answer } = *failed;
            let failure = Error::DestinationFailed { detail, answer: answer.into() };
            (FAILED, Health::Up, AT_ONCE, failure)
        }
        SendError::Unknown(NoAnswer { timed_out: true, detail }) => {
            (Outcome::TimedOut, Health::Unknown, AT_ONCE, Error::TooSlow(detail))
        }
        SendError::Unknown(NoAnswer { timed_out: false, detail }) => {
            (Outcome::Broken, Health::Unknown, AT_ONCE, Error::Unreachable(detail))
        }
    };
    Judgement { answer: Err(failure), outcome, health, asked }
}

fn answered(reply: Reply) -> Judgement {
    let outcome = Outcome::Status(reply.status.as_u16());
    let health = match reply.status {
        StatusCode::SERVICE_UNAVAILABLE => Health::Down,
        _ => Health::Up,
    };
    let asked = outcome.is_worth_another().then(|| retry_after(&reply).unwrap_or_default());
    let is_success = reply.status.is_success();
    let answer = if is_success { Ok(reply) } else { Err(Error::Rejected(reply.into())) };
    Judgement { answer, outcome, health, asked }
}

/// Reads the time that a reply asks to wait, given in seconds or as a date (RFC 9110, section
/// 10.2.3).
fn retry_after(reply: &Reply) -> Option<Duration> {
    let value = reply.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(7);

    fn text() -> String {
        "why".to_owned()
    }

    fn unknown(timed_out: bool) -> SendError {
        SendError::Unknown(NoAnswer { timed_out, detail: text() })
    }

    fn reply(status: u16) -> Reply {
        Reply::text(StatusCode::from_u16(status).unwrap(), "said")
    }

    #[test]
    fn an_attempt_without_an_answer_is_judged_by_what_is_known_of_it() {
        let throttled = SendError::Throttled { detail: text(), retry_after: Some(SOON) };
        let failed =
            SendError::Failed(Box::new(FailedAnswer { detail: text(), answer: reply(500) }));
        let at_once = Some(Duration::ZERO);
        for (sent, outcome, health, asked, status) in [
            (SendError::NotSent(text()), Outcome::Unreachable, Health::Down, at_once, 502),
            (throttled, Outcome::Unreachable, Health::Busy, Some(SOON), 502),
            (SendError::Refused(text()), Outcome::Refused, Health::Unknown, None, 502),
            (failed, Outcome::Status(502), Health::Up, at_once, 502),
            (unknown(true), Outcome::TimedOut, Health::Unknown, at_once, 504),
            (unknown(false), Outcome::Broken, Health::Unknown, at_once, 502),
        ] {
            let judged = judge(Err(sent));
            let found = (judged.outcome, judged.health, judged.asked);
            assert_eq!(found, (outcome, health, asked));
            let failure = judged.answer.unwrap_err();
            assert_eq!(failure.reply().status, status, "{outcome:?}");
            assert!(failure.to_string().ends_with(": why"), "{failure}");
        }
    }

    #[test]
    fn only_an_unknown_outcome_holds_the_key() {
        let not_sent = SendError::NotSent(text());
        for (sent, release) in [
            (Err(unknown(true)), Release::AtLeaseEnd),
            (Err(unknown(false)), Release::AtLeaseEnd),
            (Err(not_sent), Release::Now),
            (Ok(reply(503)), Release::Now),
        ] {
            assert_eq!(judge(sent).release(), release);
        }
    }

    #[test]
    fn only_2xx_is_a_success() {
        for (status, is_success) in
            [(199, false), (200, true), (204, true), (299, true), (300, false), (404, false)]
        {
            let judged = judge(Ok(reply(status)));
            assert_eq!(judged.outcome, Outcome::Status(status));
            match judged.answer {
                Ok(reply) => assert!(is_success && reply.status == status),
                Err(Error::Rejected(reply)) => assert!(!is_success && reply.status == status),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn only_503_among_the_answers_says_that_a_destination_is_down() {
        for status in [200, 404, 429, 500, 502, 504] {
            assert_eq!(judge(Ok(reply(status))).health, Health::Up, "{status}");
        }
        assert_eq!(judge(Ok(reply(503))).health, Health::Down);
    }
}
