//! The life of a delivery, from the first look at it to the answer. The only file that knows the
//! order of things.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::{
    certificates::Certificates,
    config::{Config, Duplicates, Forward, Intake},
    delivery::{Delivery, Reply},
    destination::{Destinations, NoAnswer, Outgoing, SendError},
    error::Error,
    fault,
    plan::{Plan, Planned, certificate_address, plan},
    retry::Retries,
    store::{
        Attempt, Claim, DeadLetter, Delivered, Failure, KEPT_ATTEMPTS, Lease, Outcome, Release,
        Settled, Source, State, Store, StoreError,
    },
    telemetry::{self, Ending, Handled, Origin, Times, Trace},
};

/// Longest reason that a dead letter keeps, in characters.
const MAX_DETAIL_CHARS: usize = 1000;

/// How much longer a lease lasts than all that its owner may do.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// Tries to store a result outside Lambda, for which the lease leaves time.
const SETTLE_TRIES: u32 = 4;
/// Pause before a result that could not be stored is stored again; it doubles each time.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

const X_WEBHOOK_KEY: HeaderName = HeaderName::from_static("x-webhook-key");
const X_WEBHOOK_DESTINATION: HeaderName = HeaderName::from_static("x-webhook-destination");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Takes deliveries, and answers them.
pub struct Router {
    intake: Intake,
    certificates: Certificates,
    store: Arc<dyn Store>,
    destinations: Destinations,
    dedup_ttl: Duration,
    duplicates: Duplicates,
    forward: Forward,
}

/// A verified event on its way.
struct Job {
    delivery: Delivery,
    plan: Plan,
    /// Who brought it.
    by: Source,
    origin: Origin,
    trace: Trace,
    started: Instant,
    /// Of this delivery.
    attempts: u32,
    times: Times,
    /// Whether the store knows the result, from this router or from another owner.
    settled: bool,
}

impl Job {
    fn new(
        mut delivery: Delivery,
        plan: Plan,
        by: Source,
        origin: Origin,
        started: Instant,
    ) -> Self {
        // They were checked, and must be neither forwarded nor kept.
        for name in plan.secret_headers() {
            delivery.headers.remove(name);
        }
        let trace = Trace::of(&delivery, origin.trace.as_deref());
        let (attempts, times, settled) = (0, Times::default(), true);
        Self { delivery, plan, by, origin, trace, started, attempts, times, settled }
    }
}

/// The time that a delivery may take.
///
/// ```text
/// claim                     forward_until                    lease_until
///   ├ attempt ─ pause ─ attempt ──┤                               │
///   │                             ├ finish or fail ┤              │
///   │                             │    settling    │    margin    │ claim: a successor takes over;
///   ▼                             ▼                ▼              ▼ from now on, a finish or fail
///   the key is ours    no attempt is under way     the answer       of ours changes nothing
/// ```
///
/// An owner that dies anywhere on this line leaves the lease behind it; nobody starts before its
/// end. A failure that is certain frees the key at once, and one that is not leaves the lease, too.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When the delivery came in.
    pub now: DateTime<Utc>,
    /// When forwarding must have ended, by a clock that stands still while the machine is
    /// suspended.
    forward_until: Instant,
    /// Time to store the result in, from the end of forwarding on.
    settling: Duration,
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
            settling,
            lease_until: now + forwarding + settling + LEASE_MARGIN,
        }
    }

    /// Time left for forwarding. The wall clock is asked as well: a machine that was suspended, or a
    /// function that was frozen, may wake up when another owner has taken over.
    fn left(&self) -> Duration {
        let until = self.lease_until - self.settling - LEASE_MARGIN;
        let by_wall_clock = (until - Utc::now()).to_std().unwrap_or_default();
        self.forward_until.saturating_duration_since(Instant::now()).min(by_wall_clock)
    }

    /// Whether a whole attempt could be made.
    pub fn has_time_for(&self, attempt: Duration) -> bool {
        self.left() >= attempt
    }

    /// The budget of a delivery outside Lambda.
    pub fn configured(config: &Config) -> Self {
        Self::new(config.forward.budget, config.store.timeout * SETTLE_TRIES)
    }
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

    /// Answers a vendor's delivery. Never fails: every error becomes a reply here, once.
    pub async fn handle(&self, delivery: Delivery, origin: Origin, budget: Budget) -> Reply {
        if delivery.path == "/healthz" {
            return health(&delivery);
        }
        let started = Instant::now();
        match self.plan(&delivery, budget).await {
            Ok(Planned::Deliver(plan)) => {
                let mut job = Job::new(delivery, *plan, Source::Vendor, origin, started);
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
            Err(refusal) => {
                let reply = refusal.reply();
                telemetry::refused(&delivery, &origin, &refusal, &reply);
                reply
            }
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
    /// verified when it came in.
    /// Also says whether the store knows of it.
    pub async fn replay(
        &self,
        letter: DeadLetter,
        by: Source,
        origin: Origin,
        budget: Budget,
    ) -> (Ending, bool) {
        let DeadLetter { key, details, delivery, .. } = letter;
        let route = details.route;
        let source = self.intake.sources.at(&delivery.path).ok().cloned();
        let plan = Plan::kept(details.into(), key, route, source);
        let mut job = Job::new(delivery, plan, by, origin, Instant::now());
        (self.process(&mut job, budget).await.0, job.settled)
    }

    /// Claims the event and delivers it, or says why not; logs what became of it.
    async fn process(&self, job: &mut Job, budget: Budget) -> (Ending, Reply) {
        let claiming = Instant::now();
        let claim = if budget.left().is_zero() {
            Ok(None)
        } else {
            self.claim(&mut job.plan, budget).await.map(Some)
        };
        job.times.store = claiming.elapsed();
        let (ending, result) = match claim {
            Ok(None) => (Ending::NoTime, Err(Error::NoTime)),
            Ok(Some(Claim::Won(lease))) => {
                // The route of the event's first claim stays its route.
                job.plan.route = lease.details.route;
                let result = self.deliver(job, lease, budget).await;
                (if result.is_ok() { Ending::Delivered } else { Ending::Failed }, result)
            }
            Ok(Some(Claim::InFlight { until, route })) => {
                job.plan.route = route;
                (Ending::InProgress, Err(Error::InFlight { until, now: budget.now }))
            }
            Ok(Some(Claim::Delivered(record))) => {
                job.plan.route = record.details.map_or(job.plan.route, |details| details.route);
                (Ending::Duplicate, Ok(self.duplicate(record.state)))
            }
            Ok(Some(Claim::OtherBody { route })) => {
                job.plan.route = route;
                (Ending::OtherBody, Err(Error::OtherBody))
            }
            Err(error) => (Ending::StoreUnavailable, Err(Error::Store(error.to_string()))),
        };
        let reply = result.as_ref().map_or_else(Error::reply, Reply::clone);
        job.times.total = job.started.elapsed();
        telemetry::handled(&Handled {
            delivery: &job.delivery,
            plan: &job.plan,
            origin: &job.origin,
            trace: &job.trace,
            ending,
            error: result.as_ref().err(),
            status: reply.status.as_u16(),
            source: job.by,
            attempts: job.attempts,
            settled: job.settled,
            times: job.times,
        });
        let reply = job.plan.wish().apply(reply);
        let reply = reply
            .with_header(X_WEBHOOK_KEY, header_value(&job.plan.key))
            .with_header(X_WEBHOOK_DESTINATION, HeaderValue::from_static(job.plan.route.as_str()));
        (ending, reply)
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

    /// Forwards an event that is ours, and settles its record.
    async fn deliver(&self, job: &mut Job, lease: Lease, budget: Budget) -> Result<Reply, Error> {
        let mut attempts = lease.attempts.clone();
        let mut retries = Retries::new(&self.forward, budget.forward_until);
        let mut release = Release::Now;
        let (outcome, result) = loop {
            let number = attempts.last().map_or(1, |last| last.number + 1);
            let started = Instant::now();
            let (attempt, sent) = self.attempt(job, number, budget).await;
            job.attempts += 1;
            job.times.destination += started.elapsed();
            let outcome = attempt.outcome;
            if outcome.is_unknown() {
                release = Release::AtLeaseEnd;
            }
            attempts.push(attempt);
            attempts.drain(..attempts.len().saturating_sub(KEPT_ATTEMPTS));
            let pause = retries.next(&sent);
            let result = answer(sent);
            match (&result, pause) {
                (Err(error), Some(pause)) => {
                    telemetry::tried(&job.plan, number, error, pause);
                    tokio::time::sleep(pause).await;
                    job.times.pauses += pause;
                }
                _ => break (outcome, result),
            }
        };
        let result_to_store = match &result {
            Ok(reply) => Ok(Delivered {
                at: Utc::now(),
                ttl: self.dedup_ttl.max(job.plan.retry_horizon()),
                reply: self.duplicates.keeps(reply).then(|| reply.clone()),
                attempts,
            }),
            Err(error) => {
                let detail = error.to_string().chars().take(MAX_DETAIL_CHARS).collect();
                let letter = DeadLetter {
                    key: lease.key,
                    details: lease.details.clone(),
                    failed_at: Utc::now(),
                    failure: Failure { outcome, detail },
                    attempts,
                    delivery: job.delivery.clone(),
                };
                Err((letter, release))
            }
        };
        let started = Instant::now();
        let settled = self.settle(&lease, &result_to_store, budget).await;
        job.settled = settled.is_some();
        job.times.store += started.elapsed();
        match result {
            // Another owner's write is no letter of this failure.
            Err(failure) if settled != Some(Settled::Stored) => {
                Err(Error::NotKept { failure: failure.into(), until: lease.until })
            }
            result => result,
        }
    }

    /// One try to hand the event to its destination.
    async fn attempt(
        &self,
        job: &Job,
        number: u32,
        budget: Budget,
    ) -> (Attempt, Result<Reply, SendError>) {
        let (at, started, destination) = (Utc::now(), Instant::now(), job.plan.route);
        let left = budget.left();
        fault::point("before send");
        let sent = match self.destinations.get(destination) {
            Ok(_) if left.is_zero() => {
                Err(SendError::Refused("no time was left to send it".into()))
            }
            Ok(destination) => {
                let timeout = left.min(self.forward.timeout);
                let Job { delivery, plan, trace, .. } = job;
                let trace = &trace.headers;
                let event = Outgoing { delivery, plan, attempt: number, trace };
                destination.send(&event, timeout).await
            }
            Err(error) => Err(error),
        };
        fault::point("after send");
        let outcome = match &sent {
            Ok(reply) => Outcome::Status(reply.status.as_u16()),
            Err(SendError::NotSent { .. } | SendError::Refused(_)) => Outcome::Unreachable,
            Err(SendError::Unknown(NoAnswer { timed_out: true, .. })) => Outcome::TimedOut,
            Err(SendError::Unknown(_)) => Outcome::Broken,
        };
        let milliseconds = started.elapsed().as_millis() as u64;
        (Attempt { number, at, by: job.by, destination, outcome, milliseconds }, sent)
    }

    /// Stores what came of a delivery, again while there is time. Returns nothing when the store
    /// could not be told. Then what was delivered is delivered all the same, and what failed is
    /// claimed anew by the vendor's next delivery, once the lease has run out.
    async fn settle(
        &self,
        lease: &Lease,
        result: &Result<Delivered, (DeadLetter, Release)>,
        budget: Budget,
    ) -> Option<Settled> {
        let key = lease.key;
        let until = Instant::now().min(budget.forward_until) + budget.settling;
        let mut pause = SETTLE_PAUSE;
        loop {
            fault::point("before settle");
            let settling = async {
                match result {
                    Ok(delivered) => self.store.finish(lease, delivered).await,
                    Err((letter, release)) => self.store.fail(lease, letter, *release).await,
                }
            };
            // The answer must not wait for longer than the sender, or Lambda, waits for it.
            let settled = timeout_at(until, settling).await;
            fault::point("after settle");
            let out_of_time = || StoreError::Failed("no time was left to store it".into());
            match settled.unwrap_or_else(|_| Err(out_of_time())) {
                Ok(settled) => {
                    if settled == Settled::LeaseLost {
                        tracing::warn!(%key, "the lease was lost to another owner");
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

    /// The answer to a duplicate: a sentence, or the first reply where that is wanted and kept.
    fn duplicate(&self, state: State) -> Reply {
        let reply = match state {
            // Kept while DUPLICATE_REPLY was `replay`, it stays unused after a change to `ignored`.
            State::Delivered { reply: Some(reply), .. } if self.duplicates.replay => reply,
            _ => Reply::text(StatusCode::OK, "duplicate ignored"),
        };
        reply.with_header(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))
    }
}

/// What came of an attempt, as the sender is told. Only 2xx makes an event delivered.
fn answer(sent: Result<Reply, SendError>) -> Result<Reply, Error> {
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
