//! The life of a delivery, from the first look at it to the answer. The only file that knows the
//! order of its steps, which docs/architecture.md draws.

mod attempt;
mod budget;
mod job;
mod retry;
mod settle;
#[cfg(test)]
mod tests;

use std::{fmt::Display, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};

pub use self::budget::Budget;
use self::{
    attempt::Verdict,
    job::{Job, timed},
    retry::Retries,
    settle::Forwarded,
};
use crate::{
    certificates::Certificates,
    config::{Config, Duplicates, Forward, Intake},
    delivery::{Delivery, Reply},
    destination::Destinations,
    error::Error,
    fault,
    outcome::{Ending, Origin, Trigger},
    plan::{Plan, Planned, admit, certificate_address, plan},
    store::{Claim, DeadLetter, KEPT_ATTEMPTS, Lease, State, Store, StoreError},
    telemetry,
};

const X_WEBHOOK_KEY: HeaderName = HeaderName::from_static("x-webhook-key");
const X_WEBHOOK_DESTINATION: HeaderName = HeaderName::from_static("x-webhook-destination");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Handles deliveries from plan to reply.
pub struct Router {
    intake: Intake,
    certificates: Certificates,
    store: Arc<dyn Store>,
    destinations: Destinations,
    dedup_ttl: Duration,
    duplicates: Duplicates,
    forward: Forward,
}

impl Router {
    pub fn new(config: &Config, store: Arc<dyn Store>, destinations: Destinations) -> Self {
        Self {
            intake: config.intake.clone(),
            certificates: Certificates::default(),
            store,
            destinations,
            dedup_ttl: config.dedup_ttl,
            duplicates: config.duplicates,
            forward: config.forward,
        }
    }

    /// The same router with certificates from elsewhere.
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, ..self }
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Answers and logs a delivery that its head alone forbids, before its body of `length` bytes
    /// is read.
    pub fn refuse(&self, delivery: &Delivery, length: u64) -> Option<Reply> {
        let refusal = admit(delivery, length, &self.intake).err()?;
        Some(telemetry::refused(delivery, &Origin::default(), &refusal))
    }

    /// Answers a vendor's delivery. Never fails: every error becomes a reply here, once.
    pub async fn handle(&self, delivery: Delivery, origin: Origin, budget: Budget) -> Reply {
        if delivery.path == "/healthz" {
            return health(&delivery.method);
        }
        match self.plan(&delivery, budget).await {
            Ok(Planned::Deliver(plan)) => {
                let mut job = Job::new(delivery, *plan, Trigger::Vendor, origin);
                self.process(&mut job, budget).await.1
            }
            Ok(Planned::Handshake(reply)) => {
                telemetry::handshake(&delivery, &origin, &reply);
                reply
            }
            Ok(Planned::Filtered { event, reply }) => {
                telemetry::filtered(&delivery, &origin, &event);
                reply
            }
            Err(refusal) => telemetry::refused(&delivery, &origin, &refusal),
        }
    }

    /// Plans a delivery, with the certificate that it is signed with.
    async fn plan(&self, delivery: &Delivery, budget: Budget) -> Result<Planned, Error> {
        let certificate = match certificate_address(delivery, &self.intake)? {
            Some(address) => Some(self.certificates.get(&address).await?),
            None => None,
        };
        plan(delivery, &self.intake, certificate.as_deref(), budget.now)
    }

    /// Delivers a dead letter again, with the same claim and the same attempts. The delivery was
    /// verified when it came in. Returns its ending, and whether the store knows of it.
    pub async fn replay(
        &self,
        letter: DeadLetter,
        by: Trigger,
        origin: Origin,
        budget: Budget,
    ) -> (Ending, bool) {
        let DeadLetter { key, details, delivery, .. } = letter;
        let route = details.route;
        let source = self.intake.sources.at(&delivery.path).ok().cloned();
        let plan = Plan::kept(details.into(), key, route, source);
        let mut job = Job::new(delivery, plan, by, origin);
        (self.process(&mut job, budget).await.0, job.settled)
    }

    /// Lets a planned event live its life, and makes one log line and one reply of it.
    async fn process(&self, job: &mut Job, budget: Budget) -> (Ending, Reply) {
        let lived = self.live(job, budget).await;
        let (ending, reply) = match &lived {
            Ok((ending, reply)) => (*ending, reply.clone()),
            Err(error) => (error.ending(), error.reply()),
        };
        job.ended(ending, lived.as_ref().err(), &reply);
        let reply = job.plan.wish().apply(reply);
        let reply = reply
            .with_header(X_WEBHOOK_KEY, header_value(&job.plan.key))
            .with_header(X_WEBHOOK_DESTINATION, header_value(&job.plan.route));
        (ending, reply)
    }

    /// The life of a planned event: one claim, attempts while the lease is ours, one settling.
    async fn live(&self, job: &mut Job, budget: Budget) -> Result<(Ending, Reply), Error> {
        if budget.left().is_zero() {
            return Err(Error::NoTime);
        }
        let claim = timed(&mut job.times.store, self.claim(&mut job.plan, budget)).await;
        let claim = claim.map_err(|error| Error::Store(error.to_string()))?;
        // The route of the event's first claim stays its route.
        job.plan.route = claim.route().unwrap_or(job.plan.route);
        match claim {
            Claim::Won(lease) => {
                let forwarded = self.forward(job, &lease, budget).await;
                let settled = self.settle(job, &lease, forwarded, budget).await;
                settled.map(|reply| (Ending::Delivered, reply))
            }
            Claim::Delivered(record) => Ok((Ending::Duplicate, self.repeat(record.state))),
            Claim::InFlight { until, .. } => Err(Error::InFlight { until, now: budget.now }),
            Claim::OtherBody { .. } => Err(Error::OtherBody),
        }
    }

    /// Claims the key of a plan: the one under the secret before a rotation, if that has a record.
    async fn claim(&self, plan: &mut Plan, budget: Budget) -> Result<Claim, StoreError> {
        if let Some(previous) = plan.previous_key
            && self.store.get(&previous, budget.now).await?.is_some()
        {
            plan.key = previous;
        }
        fault::point("before claim");
        let claim = self.store.claim(plan, budget.now, budget.lease_until).await;
        fault::point("after claim");
        claim
    }

    /// Makes attempts until a verdict ends them.
    async fn forward(&self, job: &mut Job, lease: &Lease, budget: Budget) -> Forwarded {
        let mut attempts = lease.attempts.clone();
        let mut retries = Retries::new(&self.forward, budget.forward_until);
        let result = loop {
            let number = attempts.last().map_or(1, |last| last.number + 1);
            let (attempt, verdict) = self.attempt(job, number, &mut retries, budget).await;
            attempts.push(attempt);
            attempts.drain(..attempts.len().saturating_sub(KEPT_ATTEMPTS));
            match verdict {
                Verdict::Delivered(reply) => break Ok(reply),
                Verdict::GiveUp { failure, release } => break Err((failure, release)),
                Verdict::TryAgain { after, failure } => {
                    telemetry::tried(&job.plan, number, &failure, after);
                    timed(&mut job.times.pauses, tokio::time::sleep(after)).await;
                    // The machine may have been suspended meanwhile, for longer than the lease.
                    if budget.left().is_zero() {
                        break Err((failure, retries.release()));
                    }
                }
            }
        };
        Forwarded { result, attempts }
    }

    /// Answers a duplicate: with a sentence, or with the first reply where that is wanted and kept.
    fn repeat(&self, state: State) -> Reply {
        let reply = match state {
            // One that was kept before a change of DUPLICATE_REPLY to `ignored` stays unused.
            State::Delivered { reply: Some(reply), .. } if self.duplicates.replay => reply,
            _ => Reply::text(StatusCode::OK, "duplicate ignored"),
        };
        reply.with_header(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))
    }
}

/// Says that the process is up; it asks nothing of the store.
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
