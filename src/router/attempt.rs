//! One attempt to send an event to its destination.

use std::time::Duration;

use chrono::Utc;

use super::{
    Budget, Router,
    job::{Job, timed},
    judgement::judge,
    retry::{Retries, Verdict},
};
use crate::{
    delivery::Reply,
    destination::{Outgoing, SendError},
    fault,
    limits::Room,
    store::{Attempt, KEPT_ATTEMPTS},
};

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
        let judged = judge(sent);
        job.attempts += 1;
        job.times.destination += took;
        attempts.push(Attempt {
            number,
            at,
            by: job.by,
            destination: job.plan.route,
            outcome: judged.outcome,
            milliseconds: took.as_millis() as u64,
        });
        attempts.drain(..attempts.len().saturating_sub(KEPT_ATTEMPTS));
        retries.decide(judged)
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
