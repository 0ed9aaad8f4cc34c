//! The life of an accepted event: from the acceptance to the answer, and from the inbox to its end.
//!
//! ```text
//! accept ─── 200 accepted          take ─── attempt ─┬─ 2xx ─────────────────── finish: delivered
//!    │                              ▲                ├─ may work later ──────── postpone
//!    └── wakes a worker, or ────────┤                └─ will not change, or
//!        the store says it is due ──┘                   the schedule has ended ─ fail: dead letter
//! ```

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    Budget, Router,
    attempt::Verdict,
    job::{Job, timed},
    retry::{Health, Retries},
    settle::{Forwarded, until_stored},
};
use crate::{
    error::Error,
    fault,
    key::Key,
    outcome::{Ending, Origin, Trigger},
    plan::Plan,
    route::Route,
    source::Answer,
    store::{Acceptance, Accepted, Due, Lease, Postponed, Settled, StoreError, Take, Taken},
};

/// Tells the workers of a destination that an event was accepted, and when it is due. It must not
/// block. A lost call loses nothing, because the store lists the event.
pub type Wake = Arc<dyn Fn(Route, Due) + Send + Sync>;

/// The reason for an attempt at an event of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The time of the attempt has come.
    Due,
    /// The time has come, but nobody knows whether the destination is up. If it is down, the
    /// attempt does not count for the schedule, and the event stays due since this time.
    Probe(DateTime<Utc>),
    /// An operator asks for it, also before its time. If the destination is down, the attempt does
    /// not count, and the event is due now.
    Operator,
}

/// The result of handling an event of the inbox.
#[derive(Debug)]
pub enum Handled {
    /// An attempt was made.
    Tried {
        ending: Ending,
        route: Route,
        /// The reason why the event was not delivered.
        failure: Option<Error>,
        /// The time of the next attempt, if the event was postponed.
        due: Option<DateTime<Utc>>,
        health: Health,
        /// False only if the store could not be told the result.
        settled: bool,
    },
    /// Until this time, the event is under another lease, or waits for its next attempt.
    NotDue(DateTime<Utc>),
    /// The event is not in the inbox any more.
    Gone,
    /// The event's record cannot be read.
    Unreadable,
    StoreUnavailable,
}

impl Router {
    /// Returns the same router with workers that are told of acceptances.
    pub fn with_wake(self, wake: Wake) -> Self {
        Self { wake: Some(wake), ..self }
    }

    /// Returns whether some events are answered at once.
    pub fn accepts(&self) -> bool {
        let answers = self.intake.sources.iter().filter_map(|source| source.rules.answer);
        answers.chain([self.intake.answer]).any(|answer| answer == Answer::Accepted)
    }

    /// Takes a planned event into the inbox.
    pub(super) async fn accept(
        &self,
        job: &mut Job,
        budget: Budget,
    ) -> Result<Accepted, StoreError> {
        let kept = job.delivery.kept(&job.plan.signature_headers());
        let due = self.first_due(budget);
        let accepted = async {
            self.find_previous(&mut job.plan, budget).await?;
            fault::point("before accept");
            let accepted = self.store.accept(&job.plan, &kept, budget.now, due).await;
            fault::point("after accept");
            accepted
        };
        timed(&mut job.times.store, accepted).await
    }

    /// Returns when the first attempt at an event that is accepted now is due.
    fn first_due(&self, budget: Budget) -> DateTime<Utc> {
        budget.now + self.schedule.first().copied().unwrap_or_default()
    }

    /// Tells the workers of an accepted event.
    pub(super) fn wake(&self, plan: &Plan, budget: Budget) {
        if let Some(wake) = &self.wake {
            wake(plan.route, Due { at: self.first_due(budget), key: plan.key });
        }
    }

    /// Takes an event of the inbox, makes one attempt, and stores the result.
    pub async fn deliver_accepted(
        &self,
        key: Key,
        cause: Cause,
        by: Trigger,
        budget: Budget,
    ) -> Handled {
        let early = cause == Cause::Operator;
        fault::point("before take");
        let take = self.store.take(&key, early, budget.now, budget.lease_until).await;
        fault::point("after take");
        match take {
            Ok(Take::Won(taken)) => self.live_on(*taken, cause, by, budget).await,
            Ok(Take::NotDue(at)) => Handled::NotDue(at),
            Ok(Take::Gone) => Handled::Gone,
            Err(error) => {
                tracing::error!(%key, %error, "an accepted event cannot be taken");
                match error {
                    StoreError::Corrupt(_) => Handled::Unreadable,
                    StoreError::Timeout(_) | StoreError::Failed(_) => Handled::StoreUnavailable,
                }
            }
        }
    }

    /// Makes one attempt at an event that is taken, and stores the result.
    async fn live_on(&self, taken: Taken, cause: Cause, by: Trigger, budget: Budget) -> Handled {
        let Taken { lease, mut accepted, delivery } = taken;
        if budget.left().is_zero() {
            return self.give_back(&lease, accepted, budget).await;
        }
        let source = self.intake.sources.at(&delivery.path).ok().cloned();
        let route = lease.details.route;
        let mut plan = Plan::kept(lease.details.clone().into(), lease.key, route, source);
        plan.answer = Answer::Accepted;
        let mut job = Job::new(delivery, plan, by, Origin::default());
        let pause = self.schedule.get(accepted.tries as usize + 1).copied();
        let mut retries = Retries::scheduled(pause, cause != Cause::Due);
        let mut attempts = lease.attempts.clone();
        let verdict = self.attempt(&mut job, &mut attempts, &mut retries, budget).await;
        let health = retries.health();
        let result = match verdict {
            Verdict::TryAgain { after, failure } => {
                let at = Utc::now();
                accepted.tries += u32::from(retries.counts());
                let due = match cause {
                    // A destination that is down asks for no pause of its own.
                    Cause::Probe(since) if after.is_zero() && !retries.counts() => since.min(at),
                    _ => at + after,
                };
                let postponed = Postponed { at, due, accepted, attempts };
                let postpone = || self.store.postpone(&lease, &postponed);
                let postpone = until_stored(&lease, postpone, budget);
                let settled = timed(&mut job.times.store, postpone).await;
                job.settled = settled.is_some();
                let due = (settled == Some(Settled::Stored)).then_some(postponed.due);
                job.ended(Ending::Postponed, Some(&failure), &failure.reply());
                return Handled::Tried {
                    ending: Ending::Postponed,
                    route,
                    failure: Some(failure),
                    due,
                    health,
                    settled: job.settled,
                };
            }
            Verdict::Delivered(reply) => Ok(reply),
            Verdict::GiveUp { failure, release } => Err((failure, release)),
        };
        let settled = self.settle(&mut job, &lease, Forwarded { result, attempts }, budget).await;
        let (ending, failure) = match settled {
            Ok(reply) => {
                job.ended(Ending::Delivered, None, &reply);
                (Ending::Delivered, None)
            }
            Err(failure) => {
                job.ended(failure.ending(), Some(&failure), &failure.reply());
                (failure.ending(), Some(failure))
            }
        };
        Handled::Tried { ending, route, failure, due: None, health, settled: job.settled }
    }

    /// Gives an event back without an attempt, because taking it took too long. A machine that was
    /// suspended may have lost its lease.
    async fn give_back(&self, lease: &Lease, accepted: Acceptance, budget: Budget) -> Handled {
        let (at, attempts) = (Utc::now(), lease.attempts.clone());
        let unchanged = Postponed { at, due: at, accepted, attempts };
        until_stored(lease, || self.store.postpone(lease, &unchanged), budget).await;
        Handled::NotDue(at)
    }
}
