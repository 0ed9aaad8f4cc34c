//! The inbox in Lambda: delivers the events whose messages wake the function.
//!
//! An instance of the function lives on between its invocations. So it remembers which destinations
//! are down, as a lane of `serve` does.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::{CLOCK_MARGIN, outage::Gates};
use crate::{
    key::Key,
    limits::Room,
    outcome::{Origin, Trigger},
    route::Route,
    router::{Budget, Cause, Handled, Router},
    telemetry::Acceptances,
};

/// Most attempts at a time. A batch is usually not larger.
const AT_ONCE: usize = 10;

/// Longest time for which an attempt waits until its event is due. The clock of the process that
/// sent the message, or that of the store, may be ahead.
const SOON: Duration = Duration::from_secs(2);

/// Longest time for which an attempt waits until its destination may be tried. Without the wait, an
/// instance would take and delete message after message during a short failure, and their events
/// would wait until the list brings them. While an attempt waits, its instance takes no further
/// messages.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Most kilobytes of bodies of the events that are delivered at a time. A delivery needs several
/// times the memory of its body, and an instance has 256 MB by default.
const MEMORY: u32 = 8 * 1024;

/// Time for which a batch lasts longer if the store does not answer. Otherwise, a short failure
/// would use up the messages of a whole queue.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The state of an instance of the function.
pub struct Instance {
    pub(super) router: Arc<Router>,
    pub(super) gates: Gates,
    /// The time limit for one attempt.
    pub(super) attempt: Duration,
    /// The time limit for one operation of the store.
    pub(super) store_timeout: Duration,
    /// A permit for each kilobyte.
    memory: Semaphore,
    pub(super) acceptances: Acceptances,
}

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The name of the message in its batch.
    pub id: String,
    /// `None` if the message is not a key.
    pub key: Option<Key>,
    /// The destination of the event, if the message names it.
    pub destination: Option<Route>,
    /// A time at which the destination was up, if the message says so.
    pub up_at: Option<DateTime<Utc>>,
    /// The length of the event's body. Zero if the message does not say it.
    pub bytes: usize,
}

impl Message {
    /// Returns the memory that the event needs, in kilobytes. An event that needs more than there is gets
    /// all of it.
    fn units(&self) -> u32 {
        u32::try_from(self.bytes / 1024 + 1).map_or(MEMORY, |units| units.min(MEMORY))
    }
}

/// The result of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// The destination is down, has no room, or is unknown to this process, or the store is down. The list
    /// of the store brings the event later.
    Left,
    /// SQS must bring the message again.
    Again,
}

impl Instance {
    pub fn new(router: Arc<Router>, attempt: Duration, store_timeout: Duration) -> Self {
        let (gates, memory) = (Gates::default(), Semaphore::new(MEMORY as usize));
        let acceptances = Acceptances::default();
        Self { router, gates, attempt, store_timeout, memory, acceptances }
    }

    /// Delivers the events of a batch of messages, several at a time. `budget` returns the time for
    /// an attempt that begins now. Returns the names of the messages that SQS must bring again.
    pub async fn consume(
        self: &Arc<Self>,
        messages: Vec<Message>,
        budget: impl Fn() -> Budget,
        origin: &Origin,
    ) -> Vec<String> {
        let count = messages.len();
        let fates = messages.into_iter().enumerate().map(|(index, message)| {
            let (this, origin, budget) = (Arc::clone(self), origin.clone(), &budget);
            async move {
                let id = message.id.clone();
                let Some(key) = message.key else {
                    tracing::error!(message = id, "a message is not the key of an event");
                    return (id, Fate::Again);
                };
                let now = budget();
                // The first attempts begin even if there is little time.
                if index >= AT_ONCE && !now.has_time_for(self.attempt) {
                    return (id, Fate::Again);
                }
                // A task of its own keeps a panic from ending the other attempts.
                let delivering = async move { this.deliver(key, &message, now, origin).await };
                let fate = tokio::spawn(delivering.in_current_span()).await;
                // The place of a panic is in the log already.
                (id, fate.unwrap_or(Fate::Again))
            }
        });
        let fates: Vec<_> = stream::iter(fates).buffer_unordered(AT_ONCE).collect().await;
        let number = |fate| fates.iter().filter(|(_, of)| *of == fate).count();
        let (left, again) = (number(Fate::Left), number(Fate::Again));
        if left + again > 0 {
            tracing::warn!(messages = count, left, again, "messages whose events are not tried");
        }
        fates.into_iter().filter(|(_, fate)| *fate == Fate::Again).map(|(id, _)| id).collect()
    }

    /// Delivers the event of a message.
    async fn deliver(&self, key: Key, message: &Message, budget: Budget, origin: Origin) -> Fate {
        // While a configuration is rolled out, another process may know the destination.
        let is_known = |route| self.router.destinations().get(route).is_ok();
        if message.destination.is_some_and(|route| !is_known(route)) {
            return Fate::Left;
        }
        let mut handled = self.try_once(key, message, budget, &origin).await;
        if let Ok(Handled::NotDue(at)) = handled
            && let Ok(pause) = (at - Utc::now()).to_std()
            && pause <= SOON
        {
            tokio::time::sleep(pause + CLOCK_MARGIN).await;
            handled = self.try_once(key, message, budget, &origin).await;
        }
        match handled {
            Err(fate) => fate,
            // Without a stored result, the event is due when its lease ends, and the list brings
            // it. If this process dies, SQS brings the message again as well.
            Ok(Handled::Tried { .. }) => Fate::Done,
            // Another process has the event, or the list brings it.
            Ok(Handled::NotDue(_) | Handled::Gone) => Fate::Done,
            Ok(Handled::NoRoom(_)) => Fate::Left,
            // The store lists the event. A message that is to come again stays in flight until its
            // visibility timeout ends, and SQS stops a queue with 120,000 messages in flight.
            Ok(Handled::StoreUnavailable) => {
                tokio::time::sleep(STORE_PAUSE.min(budget.left())).await;
                Fate::Left
            }
            Ok(Handled::Unreadable) => Fate::Again,
        }
    }

    /// Makes an attempt at the event of a message, once its destination may get one. Fails with the
    /// fate of the message if no attempt may begin.
    async fn try_once(
        &self,
        key: Key,
        message: &Message,
        mut budget: Budget,
        origin: &Origin,
    ) -> Result<Handled, Fate> {
        let (cause, room) = self.enter(message, budget).await.ok_or(Fate::Left)?;
        // An event that waits for its destination needs no memory yet.
        let _memory = match self.memory.try_acquire_many(message.units()) {
            Ok(memory) => memory,
            Err(_) => {
                let memory = self.memory.acquire_many(message.units()).await;
                let memory = memory.expect("the semaphore is never closed");
                if !budget.has_time_for(self.attempt) {
                    if let (Some(destination), Cause::Probe { .. }) = (message.destination, cause) {
                        self.gates.return_turn(destination);
                    }
                    return Err(Fate::Again);
                }
                memory
            }
        };
        budget.now = Utc::now();
        Ok(self.attempt(key, message.destination, cause, budget, origin, room).await)
    }

    /// Waits until an attempt at the event of a message may begin, and returns its cause and its
    /// room. Returns `None` if the destination is down, or has no room in time. If the message
    /// names no destination, the record says which one it is, and the room is found later.
    async fn enter(&self, message: &Message, budget: Budget) -> Option<(Cause, Option<Room>)> {
        match message.destination {
            Some(destination) => {
                let (cause, room) = self.admit(destination, message.up_at, budget).await?;
                Some((cause, Some(room)))
            }
            None => Some((Cause::Due, None)),
        }
    }

    /// Waits until an attempt at a destination may begin, and returns its cause and its room. Returns
    /// `None` if the destination is down, or has no room in time.
    async fn admit(
        &self,
        destination: Route,
        up_at: Option<DateTime<Utc>>,
        budget: Budget,
    ) -> Option<(Cause, Room)> {
        let has_time = budget.left() > PATIENCE + self.attempt;
        let patience = if has_time { PATIENCE } else { Duration::ZERO };
        let cause = self.gates.cause_soon(destination, up_at, patience).await?;
        match self.router.room(destination, budget).await {
            // The destination may have gone down during the wait.
            Ok(room) if cause == Cause::Due && !room.waited().is_zero() => {
                Some((self.gates.cause(destination, up_at)?, room))
            }
            Ok(room) => Some((cause, room)),
            Err(_no_room) => {
                if matches!(cause, Cause::Probe { .. }) {
                    self.gates.return_turn(destination);
                }
                None
            }
        }
    }

    /// Makes an attempt at an event that is due, and learns from it. `destination` is the destination
    /// whose gate gave the cause.
    pub(super) async fn attempt(
        &self,
        key: Key,
        destination: Option<Route>,
        cause: Cause,
        budget: Budget,
        origin: &Origin,
        room: Option<Room>,
    ) -> Handled {
        let (by, origin) = (Trigger::Inbox, origin.clone());
        let handled = self.router.deliver_accepted(key, cause, by, origin, budget, room).await;
        match (&handled, cause, destination) {
            (Handled::Tried { route, health, .. }, ..) => self.gates.learn(*route, *health),
            // A message that is late or doubled must not use up the turn of a probe.
            (_, Cause::Probe { .. }, Some(destination)) => self.gates.return_turn(destination),
            _ => {}
        }
        handled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config, destination::Destinations, router::Health, store, testing::lookup,
    };

    #[tokio::test]
    async fn a_destination_that_goes_down_during_the_wait_for_room_gets_no_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        let vars = [
            ("STORE_URL", url.as_str()),
            ("GCP_TARGET_URL", "https://x.dev"),
            ("ROUTE_THRESHOLD", "256"),
            ("GCP_MAX_CONCURRENT", "1"),
        ];
        let config = Config::from_vars(lookup(&vars)).unwrap();
        let store = store::open(&config.store).await.unwrap();
        let router = Arc::new(Router::new(&config, store, Destinations::default()));
        let instance =
            Instance::new(Arc::clone(&router), config.forward.timeout, config.store.timeout);
        for (health, may_begin) in [(Health::Down, false), (Health::Up, true)] {
            instance.gates.learn(Route::GCP, Health::Up);
            let full = router.limits().try_room(Route::GCP).unwrap();
            let meanwhile = async {
                instance.gates.learn(Route::GCP, health);
                drop(full);
            };
            let admitted = instance.admit(Route::GCP, None, Budget::configured(&config));
            let (admitted, ()) = tokio::join!(biased; admitted, meanwhile);
            let cause = admitted.map(|(cause, _room)| cause);
            assert_eq!(cause, may_begin.then_some(Cause::Due), "{health:?}");
        }
    }
}
