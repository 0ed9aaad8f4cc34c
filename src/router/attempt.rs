//! One attempt to send an event to its destination, and the verdict on it.

use std::time::Duration;

use chrono::Utc;
use http::StatusCode;

use super::{
    Budget, Router,
    job::{Job, timed},
    retry::Retries,
};
use crate::{
    delivery::Reply,
    destination::{FailedAnswer, NoAnswer, Outgoing, SendError},
    error::Error,
    fault,
    limits::Room,
    outcome::Outcome,
    store::{Attempt, KEPT_ATTEMPTS, Release},
};

/// The consequence of an attempt for its event.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered(Reply),
    TryAgain { after: Duration, failure: Error },
    GiveUp { failure: Error, release: Release },
}

impl Router {
    /// Makes the next attempt of the event's life, within the time that is left, and adds it to the
    /// attempts that the record keeps. The room is free again when the attempt has ended.
    pub(super) async fn attempt(
        &self,
        job: &mut Job,
        room: Room,
        attempts: &mut Vec<Attempt>,
        retries: &mut Retries,
        budget: Budget,
    ) -> Verdict {
        let number = attempts.last().map_or(1, |last| last.number + 1);
        let at = Utc::now();
        let mut took = Duration::ZERO;
        fault::point("before send");
        let sent = timed(&mut took, self.send(job, number, budget)).await;
        room.end_attempt();
        fault::point("after send");
        job.attempts += 1;
        job.times.destination += took;
        attempts.push(Attempt {
            number,
            at,
            by: job.by,
            destination: job.plan.route,
            outcome: outcome(&sent),
            milliseconds: took.as_millis() as u64,
        });
        attempts.drain(..attempts.len().saturating_sub(KEPT_ATTEMPTS));
        retries.judge(sent)
    }

    async fn send(&self, job: &Job, number: u32, budget: Budget) -> Result<Reply, SendError> {
        let destination = self.destinations.get(job.plan.route)?;
        let left = budget.left();
        if left.is_zero() {
            return Err(SendError::Refused("no time was left to send it".into()));
        }
        let Job { delivery, plan, trace, .. } = job;
        let signer = self.signer.as_ref();
        let (attempt, trace, is_copy) = (number, &trace.headers[..], false);
        let event = Outgoing { delivery, plan, attempt, trace, signer, is_copy };
        destination.send(&event, left.min(self.forward.timeout)).await
    }
}

/// Returns the outcome of an attempt, for the record.
fn outcome(sent: &Result<Reply, SendError>) -> Outcome {
    match sent {
        Ok(reply) => Outcome::Status(reply.status.as_u16()),
        Err(SendError::NotSent(_) | SendError::Throttled { .. }) => Outcome::Unreachable,
        Err(SendError::Refused(_)) => Outcome::Refused,
        // The sender gets the same status.
        Err(SendError::Failed(_)) => Outcome::Status(StatusCode::BAD_GATEWAY.as_u16()),
        Err(SendError::Unknown(NoAnswer { timed_out: true, .. })) => Outcome::TimedOut,
        Err(SendError::Unknown(_)) => Outcome::Broken,
    }
}

/// Returns the answer to the sender after an attempt. An event counts as delivered only after a
/// 2xx.
pub(super) fn answer(sent: Result<Reply, SendError>) -> Result<Reply, Error> {
    match sent {
        Ok(reply) if reply.status.is_success() => Ok(reply),
        Ok(reply) => Err(Error::Rejected(reply.into())),
        Err(SendError::NotSent(detail) | SendError::Throttled { detail, .. }) => {
            Err(Error::Unreachable(detail))
        }
        Err(SendError::Refused(detail)) => Err(Error::NotHandedOver(detail)),
        Err(SendError::Failed(failed)) => {
            let FailedAnswer { detail, answer } = *failed;
            Err(Error::DestinationFailed { detail, answer: answer.into() })
        }
        Err(SendError::Unknown(NoAnswer { timed_out: true, detail })) => {
            Err(Error::TooSlow(detail))
        }
        Err(SendError::Unknown(NoAnswer { detail, .. })) => Err(Error::Unreachable(detail)),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_attempt_is_recorded_and_answered_by_what_is_known_of_it() {
        let text = || "why".to_owned();
        let unknown = |timed_out| SendError::Unknown(NoAnswer { timed_out, detail: text() });
        let throttled = SendError::Throttled { detail: text(), retry_after: None };
        for (sent, recorded, answered) in [
            (SendError::NotSent(text()), Outcome::Unreachable, 502),
            (throttled, Outcome::Unreachable, 502),
            (SendError::Refused(text()), Outcome::Refused, 502),
            (unknown(true), Outcome::TimedOut, 504),
            (unknown(false), Outcome::Broken, 502),
        ] {
            assert_eq!(outcome(&Err(sent.clone())), recorded);
            let failure = answer(Err(sent)).unwrap_err();
            assert_eq!(failure.reply().status, answered, "{recorded:?}");
            assert!(failure.to_string().ends_with(": why"), "{failure}");
        }
    }

    #[test]
    fn only_2xx_is_a_success() {
        for (status, is_success) in
            [(199, false), (200, true), (204, true), (299, true), (300, false), (404, false)]
        {
            let sent = Ok(Reply::text(StatusCode::from_u16(status).unwrap(), "said"));
            assert_eq!(outcome(&sent), Outcome::Status(status));
            match answer(sent) {
                Ok(reply) => assert!(is_success && reply.status == status),
                Err(Error::Rejected(reply)) => assert!(!is_success && reply.status == status),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
