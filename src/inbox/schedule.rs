//! The schedule of the inbox in Lambda: sends messages for the events that are due and have none.
//!
//! The list of the store has an event at the time at which its message counts as lost. So the list
//! brings only events whose message was not sent or is late, events whose owner died, at the end of
//! its lease, and events whose pause is longer than a message can wait. An entry that gets a
//! message moves to a later time first. So neither a later run nor one that overlaps with this one
//! sends another message soon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, future::join_all, stream};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::{Instance, abandoned, instance::PATIENCE, outage::BUSY};
use crate::{
    outcome::{Ending, Origin},
    queue::{self, Message, Queue},
    route::Route,
    router::{Budget, Cause, Handled, Health, look_again},
    store::{Due, Record, State, StoreError},
    telemetry,
};

/// Most entries that are read per page.
const PAGE: usize = 400;

/// Most requests to SQS at a time.
const REQUESTS: usize = 8;

/// Most entries that are read and moved at a time, for each request to SQS. Each needs a connection to
/// the store.
const ENTRIES: usize = 4;

/// Most destinations whose events are sent at a time.
const DESTINATIONS: usize = 2;

/// Longest time of a run, whatever the function's timeout is. The next run begins a minute after this
/// one.
const RUN: Duration = Duration::from_secs(50);

/// One run in this many also cleans up behind interrupted acceptances. The schedule runs each
/// minute, so that this happens once an hour on average.
const RUNS_PER_CLEANING: u32 = 60;

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The number of messages.
    pub sent: u32,
    /// The number of messages that SQS did not take. The next run finds their events again.
    pub not_sent: u32,
    /// The attempts that showed whether a destination is up, by their results. `failed` also counts
    /// the events of destinations that are no longer configured.
    pub delivered: u32,
    pub postponed: u32,
    pub failed: u32,
    /// The number of destinations that are down or have too much to do, so that their events wait.
    pub down: u32,
    /// True if there was no time for all events, the store did not answer, or a record cannot be
    /// read. The next run goes on.
    pub is_incomplete: bool,
    /// The age of the oldest event that got a message, or was tried in vain.
    #[serde(skip)]
    oldest: Duration,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.not_sent += other.not_sent;
        self.delivered += other.delivered;
        self.postponed += other.postponed;
        self.failed += other.failed;
        self.down += other.down;
        self.is_incomplete |= other.is_incomplete;
        self.oldest = self.oldest.max(other.oldest);
    }
}

/// A run that must end before its invocation does, and before the next run begins.
struct Run<'a> {
    until: Instant,
    instance: &'a Instance,
    queue: &'a Queue,
    budget: &'a (dyn Fn() -> Budget + Send + Sync),
    origin: &'a Origin,
    /// The time that an invocation must have left when an attempt begins: the time limit of an
    /// attempt, or half of the invocation's time if that is shorter.
    enough: Duration,
}

/// An entry that was moved to a later time, because its event gets a message.
struct Moved {
    entry: Due,
    message: Message,
    /// The age of the event.
    age: Duration,
}

/// The reason why a destination's events get no more messages in this run.
enum Stop {
    Down,
    Incomplete,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store cannot tell about accepted events");
        Self::Incomplete
    }
}

impl Instance {
    /// Sends messages for the events that are due and have none, while there is time. `budget`
    /// returns the time that is left.
    pub async fn send_due(
        self: &Arc<Self>,
        queue: &Queue,
        budget: impl Fn() -> Budget + Send + Sync,
        origin: &Origin,
    ) -> Sent {
        let until = Instant::now() + RUN;
        let enough = self.attempt.min(budget().left() / 2);
        let run = Run { until, instance: self, queue, budget: &budget, origin, enough };
        let routes: Vec<_> = self.router.destinations().routes().collect();
        // This comes first, because the rest of a run may need all the time. It does not run beside the
        // rest, because each concurrent request needs a connection.
        let pending =
            telemetry::count_pending(self.router.store(), &routes, &self.acceptances).await;
        let has_time = || Some(budget()).filter(|_| !run.left().is_zero());
        // Only a few destinations at a time, because each of them has many requests.
        let sending = stream::iter(routes.iter().copied().map(|route| run.send(route)));
        let sending = sending.buffered(DESTINATIONS).collect::<Vec<_>>();
        let settling = abandoned::settle(&self.router, has_time, origin);
        let (results, abandoned) = tokio::join!(sending, settling);
        let mut sum = Sent::default();
        for sent in &results {
            sum.add(*sent);
        }
        sum.failed += abandoned.failed;
        sum.is_incomplete |= abandoned.is_incomplete;
        let seen = |route| {
            let of_route = routes.iter().zip(&results).find(|(one, _)| **one == route);
            of_route.map_or(Duration::ZERO, |(_, sent)| sent.oldest)
        };
        telemetry::pending(pending, seen);
        if rand::random_ratio(1, RUNS_PER_CLEANING) {
            let cleaning = self.router.store().sweep(Utc::now());
            // The next cleaning goes on.
            if let Ok(Err(error)) = timeout(run.left(), cleaning).await {
                tracing::warn!(%error, "the store could not be cleaned");
            }
        }
        sum
    }
}

impl Run<'_> {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min((self.budget)().left())
    }

    /// Returns whether there is time to read and to move another entry. If no time is left after that to
    /// send its message, the entry is moved back, in the time for settling.
    fn has_time(&self) -> bool {
        self.left() > 2 * self.instance.store_timeout
    }

    /// Sends the messages for the events of a destination.
    async fn send(&self, route: Route) -> Sent {
        let mut sent = Sent::default();
        match self.send_all(route, &mut sent).await {
            Ok(()) => {}
            Err(Stop::Down) => sent.down = 1,
            Err(Stop::Incomplete) => sent.is_incomplete = true,
        }
        sent
    }

    async fn send_all(&self, route: Route, sent: &mut Sent) -> Result<(), Stop> {
        let store = self.instance.router.store();
        let (mut health, mut last, mut refusals) = (None, None, 0);
        loop {
            let page = store.due(route, Some(Utc::now()), last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(*end);
            let mut entries = page.into_iter();
            while health.is_none()
                && let Some(entry) = entries.next()
            {
                health = self.try_out(route, entry, sent).await?;
                if health == Some(Health::Busy) {
                    health = None;
                    refusals += 1;
                    if refusals == BUSY {
                        return Err(Stop::Down);
                    }
                }
            }
            let up_at = (health == Some(Health::Up)).then(Utc::now);
            let entries: Vec<_> = entries.collect();
            let chunks: Vec<_> = entries.chunks(queue::AT_ONCE).map(<[Due]>::to_vec).collect();
            let has_stopped = AtomicBool::new(false);
            let stop = || has_stopped.store(true, Ordering::Relaxed);
            // Requests that have begun are not cut off, so that the entries that they moved get
            // their messages.
            let chunks = chunks
                .into_iter()
                .take_while(|_| !has_stopped.load(Ordering::Relaxed) && self.has_time());
            let count = entries.len().div_ceil(queue::AT_ONCE);
            let requests = chunks.map(|entries| self.request(route, up_at, entries));
            let mut requests = stream::iter(requests).buffer_unordered(REQUESTS);
            let mut made = 0;
            while let Some(of_request) = requests.next().await {
                made += 1;
                match of_request {
                    Ok(of_request) => {
                        sent.add(of_request);
                        if of_request.not_sent > 0 {
                            stop();
                        }
                    }
                    Err(Stop::Down | Stop::Incomplete) => stop(),
                }
            }
            if made < count || has_stopped.load(Ordering::Relaxed) {
                return Err(Stop::Incomplete);
            }
        }
    }

    /// Makes an attempt at the event of an entry, and returns what it shows of the destination.
    /// Returns nothing if no attempt was made.
    async fn try_out(
        &self,
        route: Route,
        entry: Due,
        sent: &mut Sent,
    ) -> Result<Option<Health>, Stop> {
        // The event of an attempt that is cut short may have been delivered all the same, and would be
        // delivered again.
        if self.left().is_zero() || (self.budget)().left() < self.enough {
            return Err(Stop::Incomplete);
        }
        let patience = self.left().saturating_sub(self.instance.attempt).min(PATIENCE);
        let cause = self.instance.gates.cause_soon(route, None, patience).await;
        let Some(cause) = cause else { return Err(Stop::Down) };
        let budget = (self.budget)();
        match self.instance.attempt(entry.key, Some(route), cause, budget, self.origin, None).await
        {
            Handled::Tried { ending, route: tried, health, age, settled, .. } => {
                match ending {
                    Ending::Delivered => sent.delivered += 1,
                    Ending::Postponed => {
                        sent.postponed += 1;
                        sent.oldest = sent.oldest.max(age);
                    }
                    _ => sent.failed += 1,
                }
                sent.is_incomplete |= !settled;
                match health {
                    Health::Down if tried == route => Err(Stop::Down),
                    _ => Ok((tried == route).then_some(health)),
                }
            }
            // The list may lag a little. If there is no room, nothing was sent.
            Handled::NotDue(_) | Handled::Gone | Handled::NoRoom(_) => Ok(None),
            Handled::Unreadable => {
                sent.is_incomplete = true;
                self.put_off(route, entry).await?;
                Ok(None)
            }
            Handled::StoreUnavailable => Err(Stop::Incomplete),
        }
    }

    /// Sends the messages for some entries with one request. Fails if the store answers about none
    /// of them.
    async fn request(
        &self,
        route: Route,
        up_at: Option<DateTime<Utc>>,
        entries: Vec<Due>,
    ) -> Result<Sent, Stop> {
        let count = entries.len();
        let messages = entries.into_iter().map(|entry| self.message(route, up_at, entry));
        let messages = stream::iter(messages.collect::<Vec<_>>()).buffer_unordered(ENTRIES);
        let (mut moved, mut errors) = (Vec::new(), Vec::new());
        for message in messages.collect::<Vec<_>>().await {
            match message {
                Ok(message) => moved.extend(message),
                Err(error) => errors.push(error),
            }
        }
        if errors.len() == count
            && let Some(error) = errors.pop()
        {
            return Err(error.into());
        }
        let oldest = moved.iter().map(|moved| moved.age).max().unwrap_or_default();
        let messages: Vec<_> = moved.iter().map(|moved| moved.message.clone()).collect();
        // The entries that failed have no message, and are still due.
        let (sent, is_incomplete) = (messages.len() as u32, !errors.is_empty() || !self.has_time());
        let mut sent = Sent { sent, oldest, is_incomplete, ..Sent::default() };
        let is_late = self.left().is_zero();
        let result = match messages.is_empty() || is_late {
            true => Ok(()),
            false => self.queue.send_patiently(&messages, self.left()).await,
        };
        if let Err(unsent) = &result {
            telemetry::unsent(unsent.count, unsent);
            sent.not_sent = unsent.count as u32;
            sent.sent -= sent.not_sent;
        }
        if is_late {
            (sent.sent, sent.is_incomplete) = (0, true);
        }
        if is_late || result.is_err() {
            // The next run tries again. A message that was sent all the same does no harm.
            let store = self.instance.router.store();
            let now = Utc::now();
            join_all(moved.iter().map(|moved| store.relist(route, moved.entry, now, now))).await;
        }
        Ok(sent)
    }

    /// If the event of an entry is due, moves the entry to a later time, and returns a message for
    /// the event. Returns `None` if another run has moved the entry, if the entry leads to no event
    /// that is due, or if there is no time.
    async fn message(
        &self,
        route: Route,
        up_at: Option<DateTime<Utc>>,
        entry: Due,
    ) -> Result<Option<Moved>, StoreError> {
        if !self.has_time() {
            return Ok(None);
        }
        let (store, now) = (self.instance.router.store(), Utc::now());
        let record = match store.get(&entry.key, now).await {
            Ok(record) => record,
            Err(StoreError::Corrupt(what)) => {
                tracing::error!(key = %entry.key, what, "an accepted event cannot be read");
                return self.put_off(route, entry).await.map(|()| None);
            }
            Err(error) => return Err(error),
        };
        let Some(Record { accepted: Some(accepted), details: Some(details), state, .. }) = record
        else {
            // The list may lag a little. In a Redis cluster, an interrupted acceptance may have
            // left the entry. In that case, this attempt makes the store mark the entry, and the
            // next one, a minute or more later, removes it.
            let budget = (self.budget)();
            self.instance.attempt(entry.key, None, Cause::Due, budget, self.origin, None).await;
            return Ok(None);
        };
        let (State::Waiting { due: until } | State::InFlight { until, .. }) = state else {
            return Ok(None);
        };
        if until > now {
            store.relist(route, entry, now, until).await?;
            return Ok(None);
        }
        let age = (now - accepted.at).to_std().unwrap_or_default();
        let moved = store.relist(route, entry, now, now + look_again(age)).await?;
        // Without a source, the vendor is the next best.
        let source = details.source.as_deref().unwrap_or(&details.vendor);
        let message = Message::new(entry.key, details.route, Some(source), accepted.bytes);
        let message = message.with_up_at(up_at);
        Ok(moved.map(|entry| Moved { entry, message, age }))
    }

    /// Puts off an event whose record cannot be read, so that it does not hold up the others.
    async fn put_off(&self, route: Route, entry: Due) -> Result<(), StoreError> {
        let now = Utc::now();
        let later = now + look_again(Duration::MAX);
        self.instance.router.store().relist(route, entry, now, later).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::{
        config::Config,
        delivery::Reply,
        destination::Destinations,
        router::Router,
        store,
        testing::{self, Reaction, Sink},
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_run_begins_no_attempt_that_would_be_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        let sink = Sink::start(|_| Reaction::Answers(Reply::text(StatusCode::OK, "done"))).await;
        let vars = [
            ("STORE_URL", url.as_str()),
            ("GCP_TARGET_URL", &sink.url),
            ("ROUTE_THRESHOLD", "256"),
            ("ALLOW_UNSIGNED", "true"),
            ("ANSWER", "accepted"),
        ];
        let config = Config::from_vars(testing::lookup(&vars)).unwrap();
        let destinations = Destinations::new(&config.targets, 10 * SECOND).unwrap();
        let store = store::open(&config.store).await.unwrap();
        let router = Arc::new(Router::new(&config, store, destinations));
        let body = r#"{"vendor":"acme","event_type":"paid","created_at":"2026-05-06T12:34:56Z"}"#;
        let event = testing::delivery("/webhook", &[], body);
        let accepted =
            router.handle(event, Origin::default(), Budget::new(30 * SECOND, SECOND)).await;
        assert_eq!(accepted.body, "accepted");

        let instance = Arc::new(Instance::new(router, 10 * SECOND, SECOND));
        let queue = Queue::with_sdk_config(sink.url.clone(), &testing::sdk_config(&sink.url));
        // At its beginning, the invocation has 16 s. So an attempt needs 8 s.
        for (left, delivered) in [(6 * SECOND, 0), (12 * SECOND, 1)] {
            let is_first = AtomicBool::new(true);
            let budget = || {
                let at_first = is_first.swap(false, Ordering::Relaxed);
                Budget::new(if at_first { 16 * SECOND } else { left }, SECOND)
            };
            let sent = instance.send_due(&queue, budget, &Origin::default()).await;
            assert_eq!((sent.delivered, sent.is_incomplete), (delivered, delivered == 0));
            assert_eq!(sink.take().len(), delivered as usize);
        }
    }
}
