//! The life of a delivery, from the request to the answer. This file has the order of the steps of
//! a delivery, and `accepted.rs` that of an accepted event. docs/architecture.md draws both.

mod accepted;
mod attempt;
mod budget;
mod job;
mod judgement;
mod retry;
mod room;
mod settle;
#[cfg(test)]
mod tests;

use std::{fmt::Display, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::timeout_at;

pub use self::{
    accepted::{Cause, Handled, Wake, look_again},
    budget::Budget,
    judgement::Health,
};
use self::{
    job::{Job, timed},
    retry::{Retries, Verdict},
    settle::Forwarded,
};
use crate::{
    config::{Config, Duplicates, Forward, Intake},
    delivery::{Delivery, Reply},
    destination::Destinations,
    error::Error,
    fault,
    fetcher::Fetcher,
    limits::Limits,
    mirror::{Mirrors, NO_MIRROR, Parcel},
    outcome::{Ending, Origin, Trigger},
    plan::{Plan, Planned, admit, needs, plan},
    queue::Queue,
    route::Route,
    signing::Signer,
    source::{Answer, Fetch, Fetched},
    store::{Accepted, Claim, DeadLetter, Lease, State, Store, StoreError},
    telemetry::{self, Copied},
};

const X_WEBHOOK_KEY: HeaderName = HeaderName::from_static("x-webhook-key");
const X_WEBHOOK_DESTINATION: HeaderName = HeaderName::from_static("x-webhook-destination");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The result of a replay.
#[derive(Debug)]
pub struct Replay {
    pub ending: Ending,
    /// The reason why the event was not delivered.
    pub failure: Option<Error>,
    pub route: Route,
    /// False if the store did not say whether the result is stored.
    pub settled: bool,
}

/// Handles deliveries from plan to reply.
pub struct Router {
    intake: Intake,
    fetcher: Fetcher,
    store: Arc<dyn Store>,
    destinations: Destinations,
    limits: Limits,
    dedup_ttl: Duration,
    duplicates: Duplicates,
    forward: Forward,
    signer: Option<Signer>,
    /// RETRY_SCHEDULE.
    schedule: Vec<Duration>,
    wake: Option<Wake>,
    queue: Option<Arc<Queue>>,
    mirrors: Option<Arc<Mirrors>>,
}

impl Router {
    pub fn new(config: &Config, store: Arc<dyn Store>, destinations: Destinations) -> Self {
        Self {
            intake: config.intake.clone(),
            fetcher: Fetcher::default(),
            store,
            destinations,
            limits: Limits::new(config.targets.iter().map(|target| (target.name, target.limit))),
            dedup_ttl: config.dedup_ttl,
            duplicates: config.duplicates,
            forward: config.forward,
            signer: config.signer.clone(),
            schedule: config.inbox.schedule.clone(),
            wake: None,
            queue: None,
            mirrors: None,
        }
    }

    /// Returns the same router with another fetcher.
    pub fn with_fetcher(self, fetcher: Fetcher) -> Self {
        Self { fetcher, ..self }
    }

    /// Returns the same router with mirrors.
    pub fn with_mirrors(self, mirrors: Arc<Mirrors>) -> Self {
        Self { mirrors: Some(mirrors), ..self }
    }

    pub fn mirrors(&self) -> Option<&Mirrors> {
        self.mirrors.as_deref()
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns the configured destinations.
    pub fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Refuses and logs a delivery by its head alone, before its body of `length` bytes is read.
    /// Returns `None` if the head is acceptable.
    pub fn refuse(&self, delivery: &Delivery, length: u64, origin: &Origin) -> Option<Reply> {
        let refusal = admit(delivery, length, &self.intake).err()?;
        Some(telemetry::refused(delivery, origin, &refusal))
    }

    /// Answers a vendor's delivery. It never fails: every error becomes a reply.
    pub async fn handle(&self, delivery: Delivery, origin: Origin, budget: Budget) -> Reply {
        if delivery.path == "/healthz" {
            return health(&delivery.method);
        }
        match self.plan(&delivery, budget).await {
            Ok(Planned::Deliver(plan)) => {
                let mut job = Job::new(delivery, *plan, Trigger::Vendor, origin);
                // Boxed, so that the callers' futures, which are moved several times, stay small.
                self.process(&mut job, budget).boxed().await.1
            }
            Ok(Planned::Confirm { fetch, reply }) => match self.fetch(&fetch, budget).await {
                Ok(_) => telemetry::handshake(&delivery, &origin, reply),
                Err(failure) => telemetry::refused(&delivery, &origin, &failure),
            },
            Ok(Planned::Handshake(reply)) => telemetry::handshake(&delivery, &origin, reply),
            Ok(Planned::Filtered { event, reply }) => {
                telemetry::filtered(&delivery, &origin, &event);
                reply
            }
            Err(refusal) => telemetry::refused(&delivery, &origin, &refusal),
        }
    }

    /// Plans a delivery. If the signature needs the vendor's certificate or key, fetches it first.
    async fn plan(&self, delivery: &Delivery, budget: Budget) -> Result<Planned, Error> {
        let fetched = match needs(delivery, &self.intake, budget.now)? {
            Some(fetch) => Some(self.fetch(&fetch, budget).await?),
            None => None,
        };
        plan(delivery, &self.intake, fetched.as_deref(), budget.now)
    }

    async fn fetch(&self, fetch: &Fetch, budget: Budget) -> Result<Arc<Fetched>, Error> {
        let fetched = timeout_at(budget.forward_until, self.fetcher.get(fetch)).boxed().await;
        fetched.unwrap_or_else(|_| Err(Error::NotFetched("no time is left".into())))
    }

    /// Delivers a dead letter again, with the same claim and the same attempts as a vendor's
    /// delivery. The delivery was verified when it came in.
    pub async fn replay(
        &self,
        letter: DeadLetter,
        by: Trigger,
        origin: Origin,
        budget: Budget,
    ) -> Replay {
        let DeadLetter { key, details, delivery, .. } = letter;
        let source = self.intake.sources.at(&delivery.path).ok().cloned();
        let plan = details.plan(key, source);
        let mut job = Job::new(delivery, plan, by, origin);
        let (ending, failure) = match self.process(&mut job, budget).await.0 {
            Ok(ending) => (ending, None),
            Err(error) => (error.ending(), Some(error)),
        };
        Replay { ending, failure, route: job.plan.route, settled: job.settled }
    }

    /// Delivers a planned event, and turns the result into one log line and one reply.
    async fn process(&self, job: &mut Job, budget: Budget) -> (Result<Ending, Error>, Reply) {
        let (ending, reply) = match self.deliver(job, budget).await {
            Ok((ending, reply)) => (Ok(ending), reply),
            Err(error) => {
                let reply = error.reply();
                (Err(error), reply)
            }
        };
        let word = ending.as_ref().map_or_else(Error::ending, |ending| *ending);
        job.ended(word, ending.as_ref().err(), &reply);
        if let Ok(Ending::Delivered) = ending {
            self.copy(job);
        }
        let reply = job.plan.wish().apply(reply);
        let reply = reply
            .with_header(X_WEBHOOK_KEY, header_value(&job.plan.key))
            .with_header(X_WEBHOOK_DESTINATION, header_value(&job.plan.route));
        (ending, reply)
    }

    /// Delivers a planned event: claims the key, makes attempts while the lease lasts, and settles
    /// the result. An event that is answered at once is only stored here: `accepted.rs` has the rest
    /// of its life.
    async fn deliver(&self, job: &mut Job, budget: Budget) -> Result<(Ending, Reply), Error> {
        if budget.left().is_zero() {
            return Err(Error::NoTime);
        }
        if job.by != Trigger::Vendor {
            // A dead letter for which there is no room stays as it is.
            job.room = Some(self.room_of(job, budget).await?);
        }
        let claim = match job.plan.answer {
            Answer::Delivered => {
                timed(&mut job.times.store, self.claim(&mut job.plan, budget)).await
            }
            Answer::Accepted => match self.accept(job, budget).await {
                Ok(Accepted::Stored { route }) => {
                    job.plan.route = route;
                    self.wake(job, budget).await;
                    return Ok((Ending::Accepted, Reply::text(StatusCode::OK, "accepted")));
                }
                Ok(Accepted::Taken(claim)) => Ok(*claim),
                Err(error) => Err(error),
            },
        };
        let claim = claim.map_err(|error| Error::Store(error.to_string()))?;
        // An event keeps the route of its first claim.
        job.plan.route = claim.route().unwrap_or(job.plan.route);
        match claim {
            Claim::Won(lease) => {
                let forwarded = self.forward(job, &lease, budget).await;
                let settled = self.settle(job, &lease, forwarded, budget).await;
                settled.map(|reply| (Ending::Delivered, reply))
            }
            Claim::Delivered(record) => Ok((Ending::Duplicate, self.repeat(record.state))),
            Claim::Accepted { .. } => Ok((Ending::Duplicate, duplicate())),
            Claim::InFlight { until, .. } => Err(Error::InFlight { until, now: budget.now }),
            Claim::OtherBody { .. } => Err(Error::OtherBody),
        }
    }

    /// Claims the key of a plan. If the key under the previous routing secret has a record, that
    /// key is claimed instead.
    async fn claim(&self, plan: &mut Plan, budget: Budget) -> Result<Claim, StoreError> {
        self.find_previous(plan, budget).await?;
        fault::point("before claim");
        let claim = self.store.claim(plan, budget.now, budget.lease_until).await;
        fault::point("after claim");
        claim
    }

    /// Changes the key of a plan to the one under the previous routing secret, if that has a record.
    async fn find_previous(&self, plan: &mut Plan, budget: Budget) -> Result<(), StoreError> {
        if let Some(previous) = plan.previous_key
            && self.store.get(&previous, budget.now).await?.is_some()
        {
            plan.key = previous;
        }
        Ok(())
    }

    /// Makes attempts until a verdict ends them. Each attempt waits for room at the destination first.
    async fn forward(&self, job: &mut Job, lease: &Lease, budget: Budget) -> Forwarded {
        let mut attempts = lease.attempts.clone();
        let mut retries = Retries::new(&self.forward, budget.forward_until);
        let mut failed = None;
        let result = loop {
            let room = match self.room_of(job, budget).await {
                Ok(room) => room,
                // There is no time for another attempt. The last one decides the answer.
                Err(no_room) => break Err((failed.unwrap_or(no_room), retries.release())),
            };
            match self.attempt(job, room, &mut attempts, &mut retries, budget).await {
                Verdict::Delivered(reply) => break Ok(reply),
                Verdict::GiveUp { failure, release } => break Err((failure, release)),
                Verdict::TryAgain { after, failure } => {
                    let number = attempts.last().map_or(1, |last| last.number);
                    telemetry::tried(&job.plan, number, &failure, after);
                    timed(&mut job.times.pauses, tokio::time::sleep(after)).await;
                    // The machine may have been suspended during the pause, for longer than the
                    // lease.
                    if budget.left().is_zero() {
                        break Err((failure, retries.release()));
                    }
                    failed = Some(failure);
                }
            }
        };
        Forwarded { result, attempts }
    }

    /// Lets a mirror have a copy of an event that was just delivered. Nothing waits for the mirror.
    fn copy(&self, job: &Job) {
        if let (Some(mirrors), Some(byte)) = (&self.mirrors, job.plan.mirror_byte) {
            mirrors.copy(byte, &job.delivery, &job.plan, &job.trace.headers);
        }
    }

    /// Lets a mirror have a copy that a message of the queue has brought. Nothing waits for the mirror.
    pub fn bring(self: &Arc<Self>, parcel: Parcel) {
        let Some(mirrors) = &self.mirrors else {
            let dropped = Copied::Dropped(NO_MIRROR);
            return telemetry::copied(&parcel.key, parcel.destination, &dropped);
        };
        let this = Arc::clone(self);
        mirrors.bring(parcel, move |path| this.intake.sources.at(path).ok().cloned());
    }

    /// Answers a duplicate: with the first reply if that is configured and the reply was kept, else
    /// with `duplicate ignored`.
    fn repeat(&self, state: State) -> Reply {
        let reply = match state {
            // A reply that was kept before DUPLICATE_REPLY changed to `ignored` is not used.
            State::Delivered { reply: Some(reply), .. } if self.duplicates.replay => reply,
            _ => return duplicate(),
        };
        reply.with_header(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))
    }
}

/// Returns the answer to a duplicate that does not get the first reply.
fn duplicate() -> Reply {
    let reply = Reply::text(StatusCode::OK, "duplicate ignored");
    reply.with_header(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))
}

/// Reports that the process is up, without asking the store.
pub fn health(method: &Method) -> Reply {
    if method == Method::GET || method == Method::HEAD {
        Reply::text(StatusCode::OK, "ok")
    } else {
        Error::Method { allow: "GET, HEAD" }.reply()
    }
}

fn header_value(value: &impl Display) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).unwrap_or(HeaderValue::from_static(""))
}
