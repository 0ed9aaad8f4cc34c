//! The life of a delivery, from the first look at it to the answer. The only file that knows the
//! order of things.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::{
    config::{Config, Intake},
    delivery::{Delivery, Reply},
    destination::{Destinations, NoAnswer, SendError},
    error::Error,
    plan::{Plan, plan},
    store::{
        Attempt, Claim, DeadLetter, Delivered, Failure, KEPT_ATTEMPTS, Lease, Outcome, Settled,
        Store, StoreError,
    },
    telemetry,
};

/// Largest reply that a record keeps, in bytes.
const REPLY_KEEP_BYTES: usize = 64 * 1024;

const X_WEBHOOK_KEY: HeaderName = HeaderName::from_static("x-webhook-key");
const X_WEBHOOK_DESTINATION: HeaderName = HeaderName::from_static("x-webhook-destination");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Takes deliveries, and answers them.
pub struct Router {
    intake: Intake,
    store: Arc<dyn Store>,
    destinations: Destinations,
    dedup_ttl: Duration,
    attempt_timeout: Duration,
}

/// The time that a delivery may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When the delivery came in.
    pub now: DateTime<Utc>,
    /// When forwarding must have ended.
    forward_until: Instant,
    /// When the key may be taken over. Later than `forward_until`, so that no other owner starts
    /// while this one may still be sending.
    lease_until: DateTime<Utc>,
}

impl Budget {
    /// A budget from now on: `forwarding` for the attempts, and a lease that outlives them by
    /// `margin`, which is time for the store.
    pub fn new(forwarding: Duration, margin: Duration) -> Self {
        let now = Utc::now();
        Self {
            now,
            forward_until: Instant::now() + forwarding,
            lease_until: now + forwarding + margin,
        }
    }
}

impl Router {
    pub fn new(config: &Config, store: Arc<dyn Store>, destinations: Destinations) -> Self {
        Self {
            intake: config.intake.clone(),
            store,
            destinations,
            dedup_ttl: config.dedup_ttl,
            attempt_timeout: config.forward.timeout,
        }
    }

    /// Answers a delivery. Never fails: every error becomes a reply here, once.
    pub async fn handle(&self, delivery: Delivery, budget: Budget) -> Reply {
        if delivery.path == "/healthz" {
            return health(&delivery);
        }
        let started = Instant::now();
        let mut plan = match plan(&delivery, &self.intake, budget.now) {
            Ok(plan) => plan,
            Err(refusal) => {
                let reply = refusal.reply();
                telemetry::refused(&delivery, &refusal, &reply);
                return reply;
            }
        };
        let (outcome, result) = self.process(&delivery, &mut plan, budget).await;
        let reply = result.as_ref().map_or_else(Error::reply, Reply::clone);
        telemetry::handled(
            &delivery,
            &plan,
            outcome,
            result.as_ref().err(),
            &reply,
            started.elapsed(),
        );
        reply
            .with_header(X_WEBHOOK_KEY, header_value(&plan.key))
            .with_header(X_WEBHOOK_DESTINATION, HeaderValue::from_static(plan.route.as_str()))
    }

    /// Claims the event and delivers it, or says why not. From the claim on, the plan has the
    /// route of the event's first claim.
    async fn process(
        &self,
        delivery: &Delivery,
        plan: &mut Plan,
        budget: Budget,
    ) -> (telemetry::Outcome, Result<Reply, Error>) {
        use telemetry::Outcome;
        match self.store.claim(plan, budget.now, budget.lease_until).await {
            Ok(Claim::Won(lease)) => {
                plan.route = lease.details.route;
                let result = self.deliver(delivery, plan, lease, budget).await;
                (if result.is_ok() { Outcome::Delivered } else { Outcome::Failed }, result)
            }
            Ok(Claim::InFlight { until, route }) => {
                plan.route = route;
                (Outcome::InProgress, Err(Error::InFlight { until, now: budget.now }))
            }
            Ok(Claim::Delivered(record)) => {
                plan.route = record.details.route;
                (Outcome::Duplicate, Ok(duplicate()))
            }
            Err(error) => (Outcome::StoreUnavailable, Err(Error::Store(error.to_string()))),
        }
    }

    /// Forwards an event that is ours, and settles its record.
    async fn deliver(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        lease: Lease,
        budget: Budget,
    ) -> Result<Reply, Error> {
        let mut attempts = lease.attempts.clone();
        let number = attempts.last().map_or(1, |last| last.number + 1);
        let (attempt, result) = self.attempt(delivery, plan, number, budget).await;
        let outcome = attempt.outcome;
        attempts.push(attempt);
        attempts.drain(..attempts.len().saturating_sub(KEPT_ATTEMPTS));

        let settled = match &result {
            Ok(reply) => {
                let reply = (reply.body.len() <= REPLY_KEEP_BYTES).then(|| reply.clone());
                let delivered = Delivered { at: Utc::now(), ttl: self.dedup_ttl, reply, attempts };
                self.store.finish(&lease, &delivered).await
            }
            Err(error) => {
                let failure = Failure { outcome, detail: error.to_string() };
                let letter = DeadLetter {
                    key: lease.key,
                    details: lease.details.clone(),
                    failed_at: Utc::now(),
                    failure,
                    attempts,
                    delivery: delivery.clone(),
                };
                self.store.fail(&lease, &letter).await
            }
        };
        note_unsettled(plan, settled);
        result
    }

    /// One try to hand the event to its destination.
    async fn attempt(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        number: u32,
        budget: Budget,
    ) -> (Attempt, Result<Reply, Error>) {
        let (at, started) = (Utc::now(), Instant::now());
        let left = budget.forward_until.saturating_duration_since(started);
        let sent = if left.is_zero() {
            Err(SendError::NotSent("no time was left to send it".into()))
        } else {
            match self.destinations.get(plan.route) {
                Ok(destination) => {
                    let timeout = left.min(self.attempt_timeout);
                    destination.send(delivery, plan, number, timeout).await
                }
                Err(error) => Err(error),
            }
        };
        let (outcome, result) = match sent {
            Ok(reply) => {
                let success = reply.status.is_success();
                let outcome = Outcome::Status(reply.status.as_u16());
                (outcome, if success { Ok(reply) } else { Err(Error::Rejected(reply.into())) })
            }
            Err(SendError::NotSent(detail)) => {
                (Outcome::Unreachable, Err(Error::Unreachable(detail)))
            }
            Err(SendError::Unknown(NoAnswer { timed_out: true, detail })) => {
                (Outcome::TimedOut, Err(Error::TooSlow(detail)))
            }
            Err(SendError::Unknown(NoAnswer { detail, .. })) => {
                (Outcome::Broken, Err(Error::Unreachable(detail)))
            }
        };
        let milliseconds = started.elapsed().as_millis() as u64;
        (Attempt { number, at, outcome, milliseconds }, result)
    }
}

/// A record that could not be settled changes nothing for the sender: what was delivered is
/// delivered, and what failed is claimed anew when the lease has run out.
fn note_unsettled(plan: &Plan, settled: Result<Settled, StoreError>) {
    let key = plan.key;
    match settled {
        Ok(Settled::Stored) => {}
        Ok(Settled::LeaseLost) => tracing::warn!(%key, "the lease was lost to another owner"),
        Err(error) => tracing::error!(%key, %error, "the result could not be stored"),
    }
}

fn duplicate() -> Reply {
    Reply::text(StatusCode::OK, "duplicate ignored")
        .with_header(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))
}

/// Says that the process is up; it asks nothing of the store.
fn health(delivery: &Delivery) -> Reply {
    if delivery.method == Method::GET || delivery.method == Method::HEAD {
        Reply::text(StatusCode::OK, "ok")
    } else {
        Error::Method { allow: "GET, HEAD" }.reply()
    }
}

fn header_value(value: &impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).unwrap_or(HeaderValue::from_static(""))
}
