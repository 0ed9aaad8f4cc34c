//! The life of an accepted event: from the acceptance to the answer, and from the inbox to its end.
//!
//! ```text
//! accept ─── 200 accepted          take ─── attempt ─┬─ 2xx ─────────────────── finish: delivered
//!    │                              ▲                ├─ may work later ──────── postpone
//!    └── wakes a worker, or ────────┤                └─ will not change, or
//!        the store says it is due ──┘                   the schedule has ended ─ fail: dead letter
//! ```
//!
//! In Lambda, no worker runs after an answer. There, acceptances and postponements send a message,
//! which wakes the function when the event is due.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::timeout_at;

use super::{
    Budget, Router,
    job::{Job, timed},
    judgement::Health,
    retry::{Retries, Verdict},
    settle::{Forwarded, until_stored},
};
use crate::{
    error::Error,
    fault,
    key::Key,
    limits::Room,
    outcome::{Ending, Origin, Trigger},
    plan::Plan,
    queue::{MAX_DELAY, Message, Queue},
    route::Route,
    source::Answer,
    store::{
        Acceptance, Accepted, Attempt, Due, Lease, Postponed, Settled, StoreError, Take, Taken,
    },
    telemetry,
};

/// Time after which the message of an event that is due counts as lost.
const MESSAGE_LOST: Duration = Duration::from_secs(300);

/// Longest pause between two messages of an event that waits for its turn, as a multiple of
/// [`MESSAGE_LOST`]: half an hour.
const LONGEST_PAUSE: u32 = 6;

/// Returns the pause before somebody must look again at an event that gets a message now. It grows
/// with the age of the event, so that an event gets few messages while the function cannot deliver
/// all the events that wait.
pub fn look_again(age: Duration) -> Duration {
    age.clamp(message_lost(), message_lost() * LONGEST_PAUSE)
}

fn message_lost() -> Duration {
    fault::pause("FAULT_MESSAGE_LOST_MS", MESSAGE_LOST)
}

/// Tells the workers of a destination that an event was accepted, and when it is due. It must not
/// block. A lost call loses nothing, because the store lists the event.
pub type Wake = Arc<dyn Fn(Route, Due) + Send + Sync>;

/// The reason for an attempt at an event of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The time of the attempt has come.
    Due,
    /// The time has come, but nobody knows whether the destination is up. If it is down, the
    /// attempt does not count for the schedule, and the event stays due, unless the destination
    /// asks for a pause.
    Probe {
        /// The time since which the event is due: from the list, or now if nobody has read the
        /// list.
        since: DateTime<Utc>,
        /// The time of the destination's last answer to any event. If it is later than the event's
        /// previous attempt, the destination is not down for all events, and the attempt counts.
        up_at: Option<DateTime<Utc>>,
    },
    /// An operator asks for it, also before its time. If the destination is down, the attempt does
    /// not count, and the event is due now, or after the pause that the destination asks for.
    Operator,
}

impl Cause {
    /// Returns whether an attempt that finds the destination down does not count for the schedule.
    fn spares(self, previous: Option<&Attempt>) -> bool {
        match self {
            Self::Due => false,
            Self::Probe { up_at, .. } => {
                let tried_at = previous.map(|attempt| attempt.at);
                up_at.zip(tried_at).is_none_or(|(up_at, tried_at)| up_at <= tried_at)
            }
            Self::Operator => true,
        }
    }

    /// Returns the time of the next attempt, after one that ended at `at` and is followed by a pause.
    fn next_attempt(self, at: DateTime<Utc>, pause: Duration, counts: bool) -> DateTime<Utc> {
        match self {
            // The attempt does not count, and the destination asked for no pause. The event stays
            // due as before.
            Self::Probe { since, .. } if pause.is_zero() && !counts => since.min(at),
            _ => at + pause,
        }
    }
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
        /// The time since the event's acceptance.
        age: Duration,
        /// False if the store did not say whether the result is stored.
        settled: bool,
    },
    /// The event is not due before this time. It is under another lease until then, it waits for
    /// its next attempt, or it was given back without an attempt.
    NotDue(DateTime<Utc>),
    /// The event is not in the inbox any more.
    Gone,
    /// There was no room at the destination in time. The event is due.
    NoRoom(Error),
    /// The event's record cannot be read.
    Unreadable,
    StoreUnavailable,
}

impl Router {
    /// Returns the same router with workers that are told of acceptances.
    pub fn with_wake(self, wake: Wake) -> Self {
        Self { wake: Some(wake), ..self }
    }

    /// Returns the same router with a queue that wakes the function.
    pub fn with_queue(self, queue: Arc<Queue>) -> Self {
        Self { queue: Some(queue), ..self }
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
        let look = self.look(budget.now, due);
        let accepted = async {
            self.find_previous(&mut job.plan, budget).await?;
            fault::point("before accept");
            let accepted = self.store.accept(&job.plan, &kept, budget.now, due, look).await;
            fault::point("after accept");
            accepted
        };
        timed(&mut job.times.store, accepted).await
    }

    /// Returns when the first attempt at an event that is accepted now is due.
    fn first_due(&self, budget: Budget) -> DateTime<Utc> {
        budget.now + self.schedule.first().copied().unwrap_or_default()
    }

    /// Tells the workers that an event was accepted, and sends the message that wakes the function.
    /// Each is done only if it is configured.
    pub(super) async fn wake(&self, job: &mut Job, budget: Budget) {
        let due = self.first_due(budget);
        if let Some(wake) = &self.wake {
            wake(job.plan.route, Due { at: due, key: job.plan.key });
        }
        self.send_message(job, budget.now, due, budget).await;
    }

    /// Returns the time in the list for an event whose next attempt is due at `due`. An event that gets
    /// a message is listed at the time at which the message counts as lost.
    fn look(&self, now: DateTime<Utc>, due: DateTime<Utc>) -> DateTime<Utc> {
        let is_up = self.queue.as_ref().is_some_and(|queue| queue.is_up());
        if is_up && self.gets_message(now, due) { due + message_lost() } else { due }
    }

    /// Returns whether a message brings an event that is next due at `due`. Longer delays than SQS
    /// allows are left to the list.
    fn gets_message(&self, now: DateTime<Utc>, due: DateTime<Utc>) -> bool {
        self.queue.is_some() && (due - now).to_std().unwrap_or_default() <= MAX_DELAY
    }

    /// Sends the message that brings an event at `due`. If that fails, the list brings it later.
    async fn send_message(
        &self,
        job: &mut Job,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        budget: Budget,
    ) {
        let Some(queue) = self.queue.as_ref().filter(|_| self.gets_message(now, due)) else {
            return;
        };
        let (Plan { key, route, .. }, bytes) = (&job.plan, job.delivery.body.len());
        let delay = (due - Utc::now()).to_std().unwrap_or_default();
        let message = Message::new(*key, *route, job.plan.source_name(), bytes).with_delay(delay);
        let sent = timeout_at(budget.settle_until(), queue.send(message));
        let sent = timed(&mut job.times.queue, sent).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(unsent)) => telemetry::unsent(unsent.count, &unsent),
            Err(late) => telemetry::unsent(1, &late),
        }
    }

    /// Returns the queue that wakes the function.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    /// Takes an event of the inbox, makes one attempt, and stores the result. `room` is for the attempt.
    /// If it is `None` or room at another destination, the attempt waits for room while it holds the
    /// event's lease.
    pub async fn deliver_accepted(
        &self,
        key: Key,
        cause: Cause,
        by: Trigger,
        origin: Origin,
        budget: Budget,
        room: Option<Room>,
    ) -> Handled {
        let early = cause == Cause::Operator;
        fault::point("before take");
        let take = self.store.take(&key, early, budget.now, budget.lease_until).await;
        fault::point("after take");
        match take {
            Ok(Take::Won(taken)) => {
                let source = self.intake.sources.at(&taken.delivery.path).ok().cloned();
                let Taken { lease, accepted, delivery } = *taken;
                let mut plan = lease.details.clone().plan(lease.key, source);
                plan.answer = Answer::Accepted;
                // An operator's replay is not copied.
                plan.mirror_byte = accepted.mirror_byte.filter(|_| !early);
                let room = room.filter(|room| room.is_at(lease.details.route));
                let job = Job::new(delivery, plan, by, origin).with_room(room);
                self.live_on(job, lease, accepted, cause, budget).await
            }
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
    async fn live_on(
        &self,
        mut job: Job,
        lease: Lease,
        mut accepted: Acceptance,
        cause: Cause,
        budget: Budget,
    ) -> Handled {
        let age = (budget.now - accepted.at).to_std().unwrap_or_default();
        if budget.left().is_zero() {
            return Handled::NotDue(self.give_back(&lease, accepted, budget).await);
        }
        let route = job.plan.route;
        let room = match self.room_of(&mut job, budget).await {
            Ok(room) => room,
            Err(no_room) => {
                self.give_back(&lease, accepted, budget).await;
                return Handled::NoRoom(no_room);
            }
        };
        let pause = self.schedule.get(accepted.tries as usize + 1).copied();
        let mut attempts = lease.attempts.clone();
        let mut retries = Retries::scheduled(pause, cause.spares(attempts.last()));
        let verdict = self.attempt(&mut job, room, &mut attempts, &mut retries, budget).await;
        let is_postponed = matches!(verdict, Verdict::TryAgain { .. });
        let mut due = None;
        let result = match verdict {
            Verdict::TryAgain { after, failure } => {
                let (at, counts) = (Utc::now(), retries.counts());
                accepted.tries += u32::from(counts);
                let next = cause.next_attempt(at, after, counts);
                // If the attempt does not count, no message is sent, so the list has the time
                // itself.
                let look = if counts { self.look(at, next) } else { next };
                let postponed = Postponed { at, due: next, look, accepted, attempts };
                due = self.postpone(&mut job, &lease, &postponed, budget).await;
                if let Some(due) = due.filter(|_| counts) {
                    self.send_message(&mut job, at, due, budget).await;
                }
                Err(failure)
            }
            Verdict::Delivered(reply) => {
                self.settle(&mut job, &lease, Forwarded { result: Ok(reply), attempts }, budget)
                    .await
            }
            Verdict::GiveUp { failure, release } => {
                let result = Err((failure, release));
                self.settle(&mut job, &lease, Forwarded { result, attempts }, budget).await
            }
        };
        let ending = match &result {
            Ok(_) => Ending::Delivered,
            Err(_) if is_postponed => Ending::Postponed,
            Err(failure) => failure.ending(),
        };
        match &result {
            Ok(reply) => {
                job.ended(ending, None, reply);
                self.copy(&job);
            }
            Err(failure) => job.ended(ending, Some(failure), &failure.reply()),
        }
        let (failure, health, settled) = (result.err(), retries.health(), job.settled);
        Handled::Tried { ending, route, failure, due, health, age, settled }
    }

    /// Stores the time of an event's next attempt. Returns this time, or `None` if the store did
    /// not say that it is stored.
    async fn postpone(
        &self,
        job: &mut Job,
        lease: &Lease,
        postponed: &Postponed,
        budget: Budget,
    ) -> Option<DateTime<Utc>> {
        let postpone =
            until_stored(lease, || self.store.postpone(lease, postponed), budget.store_until());
        let settled = timed(&mut job.times.store, postpone).await;
        job.settled = settled.is_some();
        (settled == Some(Settled::Stored)).then_some(postponed.due)
    }

    /// Gives an event back without an attempt, because there was no time or no room for it. If the
    /// machine was suspended, the lease may be lost, and nothing is changed then. Returns the time
    /// at which the event is due.
    async fn give_back(
        &self,
        lease: &Lease,
        accepted: Acceptance,
        budget: Budget,
    ) -> DateTime<Utc> {
        let (at, attempts) = (Utc::now(), lease.attempts.clone());
        let unchanged = Postponed { at, due: at, look: at, accepted, attempts };
        until_stored(lease, || self.store.postpone(lease, &unchanged), budget.store_until()).await;
        at
    }
}
