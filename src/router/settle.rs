//! Stores the result of an event, while there is time.

use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, timeout_at};

use super::{
    Budget, Router,
    job::{Job, timed},
};
use crate::{
    delivery::Reply,
    error::Error,
    fault,
    outcome::Outcome,
    source::Answer,
    store::{
        Attempt, DeadLetter, Delivered, Excerpt, Failure, Lease, Release, Settled, StoreError,
    },
};

/// Longest failure text that a dead letter keeps, in characters.
const MAX_DETAIL_CHARS: usize = 1000;

/// Pause before the second try to store a result. It doubles for each further try.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// The result of all attempts.
pub(super) struct Forwarded {
    pub result: Result<Reply, (Error, Release)>,
    /// The attempts of this claim and of earlier ones, as the record keeps them.
    pub attempts: Vec<Attempt>,
}

impl Router {
    /// Stores the event as delivered or as a dead letter, and returns the answer to the sender.
    ///
    /// A success remains a success when it cannot be stored, and when another owner has taken over.
    /// After a failure, the sender gets the destination's answer only if the dead letter is stored.
    pub(super) async fn settle(
        &self,
        job: &mut Job,
        lease: &Lease,
        forwarded: Forwarded,
        budget: Budget,
    ) -> Result<Reply, Error> {
        let Forwarded { result, attempts } = forwarded;
        match result {
            Ok(reply) => {
                let delivered = Delivered {
                    at: Utc::now(),
                    ttl: self.dedup_ttl.max(job.plan.retry_horizon()),
                    // The sender of an accepted event got another reply.
                    reply: (job.plan.answer == Answer::Delivered && self.duplicates.keeps(&reply))
                        .then(|| reply.clone()),
                    attempts,
                };
                let until = match job.plan.answer {
                    Answer::Delivered => budget.answer_until(),
                    Answer::Accepted => budget.store_until(),
                };
                let finish = until_stored(lease, || self.store.finish(lease, &delivered), until);
                job.settled = timed(&mut job.times.store, finish).await.is_some();
                Ok(reply)
            }
            Err((failure, release)) => {
                let letter = dead_letter(job, lease, &failure, attempts);
                let until = budget.store_until();
                let fail = until_stored(lease, || self.store.fail(lease, &letter, release), until);
                let settled = timed(&mut job.times.store, fail).await;
                job.settled = settled.is_some();
                match settled {
                    Some(Settled::Stored) => Err(failure),
                    // The event has another owner, or is gone, and no record contains this failure.
                    Some(Settled::LeaseLost) => {
                        Err(not_kept(failure, "the event has another owner, or is gone", lease))
                    }
                    None => {
                        Err(not_kept(failure, "the event's dead letter could not be stored", lease))
                    }
                }
            }
        }
    }
}

fn not_kept(failure: Error, why: &'static str, lease: &Lease) -> Error {
    Error::NotKept { failure: failure.into(), why, until: lease.until }
}

fn dead_letter(job: &Job, lease: &Lease, failure: &Error, attempts: Vec<Attempt>) -> DeadLetter {
    let outcome = match failure {
        Error::Limited { .. } => Outcome::Limited,
        _ => attempts.last().map_or(Outcome::Unreachable, |last| last.outcome),
    };
    let answer = failure.destinations_answer().map(|answer| Excerpt::of(answer).into());
    let detail = failure.to_string().chars().take(MAX_DETAIL_CHARS).collect();
    DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: Utc::now(),
        failure: Failure { outcome, detail, answer },
        attempts,
        delivery: job.delivery.kept(&job.plan.signature_headers()),
    }
}

/// Repeats a write of the lease's owner until it succeeds or time runs out. Returns `None` if the
/// result could not be stored. In that case, the sender of a delivered event still gets the
/// destination's answer. The store does not know the result. So an accepted event comes again after
/// the lease, by the list of the inbox. Any other event comes again only if its vendor sends it
/// again although it was answered.
pub(super) async fn until_stored<F>(
    lease: &Lease,
    write: impl Fn() -> F,
    until: Instant,
) -> Option<Settled>
where
    F: Future<Output = Result<Settled, StoreError>>,
{
    let key = lease.key;
    let mut pause = SETTLE_PAUSE;
    loop {
        fault::point("before settle");
        // The answer must be ready before the sender, or Lambda, stops waiting for it.
        let settled = timeout_at(until, write()).await;
        fault::point("after settle");
        let out_of_time = || StoreError::Failed("no time was left to store it".into());
        match settled.unwrap_or_else(|_| Err(out_of_time())) {
            Ok(settled) => {
                if settled == Settled::LeaseLost {
                    tracing::warn!(%key, "the lease was lost: the event has another owner, or is gone");
                }
                return Some(settled);
            }
            Err(error) if Instant::now() + pause < until => {
                tracing::warn!(%key, %error, "the result could not be stored yet");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => {
                tracing::error!(%key, %error, "the result could not be stored");
                return None;
            }
        }
    }
}
