//! Copies of events for mirrors, sent after the answer of the real destination.
//!
//! Nothing about a mirror changes an answer, a record or a duration. So a copy has its own bytes,
//! which do not count for MAX_BUFFERED_BYTES: a mirror that hangs must not take the room of bodies
//! that arrive. All copies together have a limit of their own. A copy is sent once. One that finds no
//! room, or whose time has ended, is dropped and counted.
//!
//! ```text
//! serve                      copy ──────────────────────────────────────────▶ mirror
//! Lambda                     copy ── when the invocation's work is done ────▶ mirror
//! Lambda, with a queue       copy ── when the invocation's work is done ─┬──▶ message
//!                                                  does not fit into it ─┴──▶ mirror
//!                            message ── after the events of its batch ──────▶ mirror
//! ```

mod copy;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use chrono::Utc;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::copy::Copy;
pub use self::copy::Parcel;
use crate::{
    config::Mirroring,
    delivery::Delivery,
    destination::{self, Destination, Outgoing},
    fault,
    key::Key,
    plan::Plan,
    queue::{Message, Queue},
    route::Route,
    source::Source,
    telemetry::{self, Copied},
    trace::Trace,
};

/// Longest time for which the end of a server or of an invocation waits for copies.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Time after which a copy begins in `serve`. Until then, no copy takes processor time away from
/// the answer to the sender.
const AFTER_ANSWER: Duration = Duration::from_millis(10);

/// Most copies that are sent to a mirror at a time. The others wait.
const AT_ONCE: usize = 16;

/// If a mirror does not answer a copy in time, it gets no copies for this time. If the queue does
/// not take a copy, it gets none for this time. The reason is that in Lambda, an instance that
/// waits for a copy takes no other invocation.
const REST: Duration = Duration::from_secs(30);

const RESTS: &str = "the mirror did not answer an earlier copy in time";
const NO_ROOM: &str = "there is no room for it";

/// The reason why a copy that a message brings is dropped where no mirror is configured for it.
pub const NO_MIRROR: &str = "it has no mirror any more";

/// Age at which a message's copy is not sent any more. Otherwise, the copies for a slow mirror would
/// fill the queue for days.
const MAX_AGE: Duration = Duration::from_secs(900);

/// Unit in which the bytes of copies are counted.
const UNIT: usize = 1024;

/// Bytes that a copy needs in addition to its body and headers, rounded up.
const OVERHEAD: usize = 2048;

/// A mirror, and what the copies for it share.
struct Mirror {
    destination: Box<dyn Destination>,
    turns: Semaphore,
    rest: Rest,
}

impl Mirror {
    fn new(destination: Box<dyn Destination>) -> Self {
        Self { destination, turns: Semaphore::new(AT_ONCE), rest: Rest::default() }
    }

    async fn send(&self, Copy { delivery, plan }: &Copy, timeout: Duration) -> Copied {
        let _turn = self.turns.acquire().await;
        if self.rest.is_on() {
            return Copied::Dropped(RESTS);
        }
        let trace = Trace::of(delivery, None).headers;
        let event =
            Outgoing { delivery, plan, attempt: 1, trace: &trace, signer: None, is_copy: true };
        let began = Instant::now();
        match self.destination.send(&event, timeout).await {
            Ok(reply) if reply.status.is_success() => Copied::Sent,
            Ok(reply) => Copied::Failed(format!("the answer {}", reply.status.as_u16())),
            Err(error) => {
                // The time limit for a connection is shorter than that for a copy. So an error
                // after half of the timeout also counts as no answer in time.
                if began.elapsed() >= timeout / 2 {
                    self.rest.begin();
                }
                Copied::Failed(error.to_string())
            }
        }
    }

    /// Returns whether a copy is under way.
    fn is_asked(&self) -> bool {
        self.turns.available_permits() < AT_ONCE
    }
}

/// A pause after something that did not answer. It is measured by the wall clock, because the
/// monotonic clock may stop while Lambda freezes the process.
#[derive(Default)]
struct Rest(Mutex<Option<SystemTime>>);

impl Rest {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(SystemTime::now() + REST);
    }

    fn is_on(&self) -> bool {
        let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        end.is_some_and(|end| end > SystemTime::now())
    }
}

/// The mirrors, and the copies that wait or are under way.
pub struct Mirrors {
    percent: u8,
    common: Option<Arc<Mirror>>,
    own: BTreeMap<Route, Arc<Mirror>>,
    /// Time limit for one copy.
    timeout: Duration,
    /// The number of [`UNIT`]s that all copies have together.
    units: u32,
    room: Arc<Semaphore>,
    copies: TaskTracker,
    /// Ends the copies that wait or are under way.
    end: Mutex<CancellationToken>,
    /// True while copies may begin.
    begin: watch::Sender<bool>,
    /// True if copies begin only when [`Self::finish`] waits for them.
    waits: bool,
    queue: Option<(Arc<Queue>, Rest)>,
}

impl Mirrors {
    /// Creates the mirrors. They connect at their first use. `timeout` limits one copy, and `bytes`
    /// all copies together.
    ///
    /// # Errors
    /// Fails if a mirror's URL cannot be used.
    pub fn new(config: &Mirroring, timeout: Duration, bytes: usize) -> Result<Self, String> {
        let create =
            |place| destination::create(place, timeout).map(|mirror| Arc::new(Mirror::new(mirror)));
        let own = config.own.iter();
        let own = own.map(|(route, place)| Ok::<_, String>((*route, create(place)?)));
        let copies = TaskTracker::new();
        // A closed tracker can be waited for. It still takes tasks.
        copies.close();
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Ok(Self {
            percent: config.percent,
            common: config.common.as_ref().map(create).transpose()?,
            own: own.collect::<Result<_, String>>()?,
            timeout,
            units,
            room: Arc::new(Semaphore::new(units as usize)),
            copies,
            end: Mutex::default(),
            begin: watch::Sender::new(true),
            waits: false,
            queue: None,
        })
    }

    /// Returns the same mirrors, whose copies begin when [`Self::finish`] waits for them.
    pub fn at_the_end(self) -> Self {
        Self { begin: watch::Sender::new(false), waits: true, ..self }
    }

    /// Returns the same mirrors, whose copies go through a queue.
    pub fn with_queue(self, queue: Arc<Queue>) -> Self {
        Self { queue: Some((queue, Rest::default())), ..self }
    }

    /// Copies a delivered event to the mirror of its destination, if the event's byte says so. It
    /// returns at once.
    pub fn copy(
        self: &Arc<Self>,
        byte: u8,
        delivery: &Delivery,
        plan: &Plan,
        trace: &[(&'static str, String)],
    ) {
        let mirror = self.mirror_of(plan.route).filter(|_| is_chosen(byte, self.percent));
        let Some(mirror) = mirror else { return };
        if mirror.rest.is_on() {
            return telemetry::copied(&plan.key, plan.route, &Copied::Dropped(RESTS));
        }
        let copy = Copy::new(delivery, plan, trace);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units(copy.bytes()));
        let Ok(room) = room else {
            return telemetry::copied(&plan.key, plan.route, &Copied::Dropped(NO_ROOM));
        };
        let this = Arc::clone(self);
        self.spawn(plan.key, plan.route, async move {
            let (_room, copy) = (room, copy.apart());
            if this.enqueue(&copy).await {
                return None;
            }
            Some(mirror.send(&copy, this.timeout).await)
        });
    }

    /// Sends a copy that a message has brought. It returns at once. `source` finds the source that
    /// has a given path.
    pub fn bring(
        self: &Arc<Self>,
        parcel: Parcel,
        source: impl FnOnce(&str) -> Option<Arc<Source>> + Send + 'static,
    ) {
        let (key, destination) = (parcel.key, parcel.destination);
        let Some(mirror) = self.mirror_of(destination) else {
            return telemetry::copied(&key, destination, &Copied::Dropped(NO_MIRROR));
        };
        let this = Arc::clone(self);
        self.spawn(key, destination, async move {
            let units = units(parcel.bytes);
            if units > this.units {
                return Some(Copied::Dropped(NO_ROOM));
            }
            // Copies of a batch are in memory already, packed. To drop them would free nothing, so
            // they wait for room.
            let _room = this.room.acquire_many(units).await;
            Some(match parcel.unpack(source) {
                Some((_, sent_at)) if Utc::now() > sent_at + max_age() => {
                    Copied::Dropped("it was in the queue for too long")
                }
                Some((copy, _)) => mirror.send(&copy, this.timeout).await,
                None => Copied::Dropped("its message cannot be read"),
            })
        });
    }

    /// Waits until no copy is left, at most for this long. Then it drops the rest.
    pub async fn finish(&self, patience: Duration) {
        self.begin.send_replace(true);
        if tokio::time::timeout(patience, self.copies.wait()).await.is_err() {
            // If there was no time for one whole copy, the timeout says nothing about the mirrors.
            if patience >= self.timeout {
                let mirrors = self.own.values().chain(&self.common);
                mirrors.filter(|mirror| mirror.is_asked()).for_each(|mirror| mirror.rest.begin());
            }
            std::mem::take(&mut *self.lock()).cancel();
            // The cancelled tasks end at once. Each only counts its copy.
            self.copies.wait().await;
        }
        self.begin.send_replace(!self.waits);
    }

    fn mirror_of(&self, destination: Route) -> Option<Arc<Mirror>> {
        self.own.get(&destination).or(self.common.as_ref()).cloned()
    }

    /// Sends a copy when its time has come, and counts it. A copy that went into a message is counted
    /// by the process that gets the message.
    fn spawn(
        &self,
        key: Key,
        destination: Route,
        sending: impl Future<Output = Option<Copied>> + Send + 'static,
    ) {
        let (mut begin, end) = (self.begin.subscribe(), self.lock().clone());
        let pause = if self.waits { Duration::ZERO } else { AFTER_ANSWER };
        self.copies.spawn(async move {
            let sending = async {
                tokio::time::sleep(pause).await;
                let _ = begin.wait_for(|may_begin| *may_begin).await;
                sending.await
            };
            let late = Some(Copied::Dropped("its time has ended"));
            let copied = end.run_until_cancelled(sending).await.unwrap_or(late);
            if let Some(copied) = copied {
                telemetry::copied(&key, destination, &copied);
            }
        });
    }

    /// Puts a copy into a message. Returns false if there is no queue, it does not take the copy, or
    /// the copy does not fit into a message.
    async fn enqueue(&self, copy: &Copy) -> bool {
        let Some((queue, rest)) = self.queue.as_ref().filter(|(_, rest)| !rest.is_on()) else {
            return false;
        };
        let Some(Parcel { key, destination, bytes, copy }) = copy.pack() else { return false };
        let message = Message::of_copy(key, destination, bytes, copy);
        let sent = queue.send_copy(message, self.timeout).await;
        if let Err(error) = &sent {
            tracing::warn!(%key, %error, "SQS does not take copies for mirrors");
            rest.begin();
        }
        sent.is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn max_age() -> Duration {
    fault::pause("FAULT_COPY_AGE_MS", MAX_AGE)
}

/// Returns the number of units that a copy of this size needs.
fn units(bytes: usize) -> u32 {
    u32::try_from((OVERHEAD + bytes).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Returns whether an event with this byte is one of the chosen percent. With a higher percent, the
/// same events are chosen, and more.
fn is_chosen(byte: u8, percent: u8) -> bool {
    u16::from(byte) * 100 < u16::from(percent) * 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_chooses_about_as_many_of_a_hundred() {
        let chosen =
            |percent| (0..=255).filter(|byte| is_chosen(*byte, percent)).collect::<Vec<_>>();
        for (percent, count) in [(0, 0), (1, 3), (25, 64), (50, 128), (99, 254), (100, 256)] {
            assert_eq!(chosen(percent).len(), count, "{percent}");
        }
        for percent in 1..=100 {
            let (fewer, more) = (chosen(percent - 1), chosen(percent));
            assert!(more.starts_with(&fewer) && more.len() > fewer.len(), "{percent}");
        }
    }
}
