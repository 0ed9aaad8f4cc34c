//! One attempt to hand an event to its destination, and the one verdict on it.

use std::time::Duration;

use chrono::Utc;

use super::{
    Budget, Router,
    job::{Job, timed},
    retry::Retries,
};
use crate::{
    delivery::Reply,
    destination::{NoAnswer, Outgoing, SendError},
    error::Error,
    fault,
    outcome::Outcome,
    store::{Attempt, Release},
};

/// What an attempt means for its event.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered(Reply),
    TryAgain { after: Duration, failure: Error },
    GiveUp { failure: Error, release: Release },
}

impl Router {
    /// Tries once, as the `number`-th attempt of the event's life, for as long as there is time.
    pub(super) async fn attempt(
        &self,
        job: &mut Job,
        number: u32,
        retries: &mut Retries,
        budget: Budget,
    ) -> (Attempt, Verdict) {
        let at = Utc::now();
        let mut took = Duration::ZERO;
        fault::point("before send");
        let sent = timed(&mut took, self.send(job, number, budget)).await;
        fault::point("after send");
        job.attempts += 1;
        job.times.destination += took;
        let attempt = Attempt {
            number,
            at,
            by: job.by,
            destination: job.plan.route,
            outcome: outcome(&sent),
            milliseconds: took.as_millis() as u64,
        };
        (attempt, retries.judge(sent))
    }

    async fn send(&self, job: &Job, number: u32, budget: Budget) -> Result<Reply, SendError> {
        let destination = self.destinations.get(job.plan.route)?;
        let left = budget.left();
        if left.is_zero() {
            return Err(SendError::Refused("no time was left to send it".into()));
        }
        let Job { delivery, plan, trace, .. } = job;
        let event = Outgoing { delivery, plan, attempt: number, trace: &trace.headers };
        destination.send(&event, left.min(self.forward.timeout)).await
    }
}

/// What the record says of an attempt.
fn outcome(sent: &Result<Reply, SendError>) -> Outcome {
    match sent {
        Ok(reply) => Outcome::Status(reply.status.as_u16()),
        Err(SendError::NotSent { .. } | SendError::Refused(_)) => Outcome::Unreachable,
        Err(SendError::Unknown(NoAnswer { timed_out: true, .. })) => Outcome::TimedOut,
        Err(SendError::Unknown(_)) => Outcome::Broken,
    }
}

/// What the sender is told of an attempt. Only 2xx makes an event delivered.
pub(super) fn answer(sent: Result<Reply, SendError>) -> Result<Reply, Error> {
    match sent {
        Ok(reply) if reply.status.is_success() => Ok(reply),
        Ok(reply) => Err(Error::Rejected(reply.into())),
        Err(SendError::NotSent { detail, .. } | SendError::Refused(detail)) => {
            Err(Error::Unreachable(detail))
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
        let not_sent = SendError::NotSent { detail: text(), retry_after: None };
        for (sent, recorded, answered) in [
            (not_sent, Outcome::Unreachable, 502),
            (SendError::Refused(text()), Outcome::Unreachable, 502),
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
