//! The life of a delivery, from the first look at it to the answer. The only file that knows the
//! order of things.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
        Store,
    },
    telemetry::{self, Ending},
};

/// Largest reply that a record keeps, in bytes.
const REPLY_KEEP_BYTES: usize = 64 * 1024;

/// How much longer a lease lasts than all that its owner may do.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Pause before a result that could not be stored is stored again.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

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
    /// Results that could not be stored since the process started.
    unsettled: AtomicU64,
}

/// The time that a delivery may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When the delivery came in.
    pub now: DateTime<Utc>,
    /// When forwarding must have ended.
    forward_until: Instant,
    /// When the result must be stored. Later than `forward_until`.
    settle_until: Instant,
    /// When the key may be taken over. Later than `forward_until`, so that no other owner starts
    /// while this one may still be sending.
    lease_until: DateTime<Utc>,
}

impl Budget {
    /// A budget from now on: `forwarding` for the attempts, `settling` for storing the result, and
    /// a lease that outlives both by a second.
    pub fn new(forwarding: Duration, settling: Duration) -> Self {
        let (now, started) = (Utc::now(), Instant::now());
        Self {
            now,
            forward_until: started + forwarding,
            settle_until: started + forwarding + settling,
            lease_until: now + forwarding + settling + LEASE_MARGIN,
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
            unsettled: AtomicU64::new(0),
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
        let (ending, result) = self.process(&delivery, &mut plan, budget).await;
        let reply = result.as_ref().map_or_else(Error::reply, Reply::clone);
        telemetry::handled(
            &delivery,
            &plan,
            ending,
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
    ) -> (Ending, Result<Reply, Error>) {
        match self.store.claim(plan, budget.now, budget.lease_until).await {
            Ok(Claim::Won(lease)) => {
                plan.route = lease.details.route;
                let result = self.deliver(delivery, plan, lease, budget).await;
                (if result.is_ok() { Ending::Delivered } else { Ending::Failed }, result)
            }
            Ok(Claim::InFlight { until, route }) => {
                plan.route = route;
                (Ending::InProgress, Err(Error::InFlight { until, now: budget.now }))
            }
            Ok(Claim::Delivered(record)) => {
                plan.route = record.details.map_or(plan.route, |details| details.route);
                (Ending::Duplicate, Ok(duplicate()))
            }
            Err(error) => (Ending::StoreUnavailable, Err(Error::Store(error.to_string()))),
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

        let result_to_store = match &result {
            Ok(reply) => Ok(Delivered {
                at: Utc::now(),
                ttl: self.dedup_ttl,
                reply: (reply.body.len() <= REPLY_KEEP_BYTES).then(|| reply.clone()),
                attempts,
            }),
            Err(error) => Err(DeadLetter {
                key: lease.key,
                details: lease.details.clone(),
                failed_at: Utc::now(),
                failure: Failure {
                    outcome,
                    detail: error.to_string().chars().take(1000).collect(),
                },
                attempts,
                delivery: delivery.clone(),
            }),
        };
        self.settle(&lease, &result_to_store, budget).await;
        result
    }

    /// Stores what came of a delivery, again while there is time. A result that could not be
    /// stored changes nothing for the sender: what was delivered is delivered, and what failed is
    /// claimed anew when the lease has run out.
    async fn settle(&self, lease: &Lease, result: &Result<Delivered, DeadLetter>, budget: Budget) {
        let key = lease.key;
        loop {
            let settled = match result {
                Ok(delivered) => self.store.finish(lease, delivered).await,
                Err(letter) => self.store.fail(lease, letter).await,
            };
            match settled {
                Ok(Settled::Stored) => return,
                Ok(Settled::LeaseLost) => {
                    return tracing::warn!(%key, "the lease was lost to another owner");
                }
                Err(error) if Instant::now() + SETTLE_PAUSE < budget.settle_until => {
                    tracing::warn!(%key, %error, "the result could not be stored yet");
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                Err(error) => {
                    let unsettled_total = self.unsettled.fetch_add(1, Ordering::Relaxed) + 1;
                    return tracing::error!(
                        %key, %error, unsettled_total, "the result could not be stored"
                    );
                }
            }
        }
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
