//! Copies of events for mirrors, sent after the answer of the real destination.
//!
//! Nothing about a mirror changes an answer, a record or a duration. So a copy has its own bytes,
//! which do not count for MAX_BUFFERED_BYTES: a mirror that hangs must not take the room of bodies
//! that arrive. All copies together hold as many bytes at most. A copy is sent once. One that finds
//! no room, or whose time has ended, is dropped and counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Mirroring,
    delivery::Delivery,
    destination::{self, Destination, NoAnswer, Outgoing, SendError},
    plan::Plan,
    route::Route,
    telemetry::{self, Copied},
};

/// Most copies that are sent to a mirror at a time. The others wait.
const AT_ONCE: usize = 16;

/// Time for which a mirror gets no copies after one that it did not answer in time. In Lambda, each
/// copy that is waited for keeps an instance from its next invocation.
const REST: Duration = Duration::from_secs(30);

const RESTS: &str = "the mirror did not answer an earlier copy in time";

/// Unit in which the bytes of copies are counted.
const UNIT: usize = 1024;

/// Bytes that a copy needs in addition to its body and headers, rounded up.
const OVERHEAD: usize = 2048;

/// A mirror, and what the copies for it share.
struct Mirror {
    destination: Box<dyn Destination>,
    turns: Semaphore,
    /// The end of the rest. It is measured by the wall clock, because Lambda stops the other one.
    rests_until: Mutex<SystemTime>,
}

impl Mirror {
    fn new(destination: Box<dyn Destination>) -> Self {
        let rests_until = Mutex::new(SystemTime::UNIX_EPOCH);
        Self { destination, turns: Semaphore::new(AT_ONCE), rests_until }
    }

    fn rest(&self) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now() + REST;
    }

    fn rests(&self) -> bool {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) > SystemTime::now()
    }
}

/// The mirrors, and the copies that wait or are under way.
pub struct Mirrors {
    percent: u8,
    common: Option<Arc<Mirror>>,
    own: BTreeMap<Route, Arc<Mirror>>,
    /// Time limit for one copy.
    timeout: Duration,
    room: Arc<Semaphore>,
    copies: TaskTracker,
    /// Ends the copies that wait or are under way.
    end: Mutex<CancellationToken>,
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
        Ok(Self {
            percent: config.percent,
            common: config.common.as_ref().map(create).transpose()?,
            own: own.collect::<Result<_, String>>()?,
            timeout,
            room: Arc::new(Semaphore::new(bytes / UNIT)),
            copies,
            end: Mutex::default(),
        })
    }

    /// Copies a delivered event to the mirror of its destination, if the event's byte says so. It
    /// returns at once.
    pub fn copy(
        &self,
        byte: u8,
        delivery: &Delivery,
        plan: &Plan,
        trace: &[(&'static str, String)],
    ) {
        let mirror = self.own.get(&plan.route).or(self.common.as_ref());
        let Some(mirror) = mirror.filter(|_| is_chosen(byte, self.percent)) else { return };
        let dropped = |why| telemetry::copied(&plan.key, plan.route, &Copied::Dropped(why));
        if mirror.rests() {
            return dropped(RESTS);
        }
        let kept = delivery.kept(&plan.signature_headers());
        let headers = kept.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let bytes = OVERHEAD + kept.body.len() + headers.sum::<usize>();
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) else {
            return dropped("there is no room for it");
        };
        let (plan, trace, mirror) = (plan.clone(), trace.to_vec(), Arc::clone(mirror));
        let (timeout, end) = (self.timeout, self.end());
        self.copies.spawn(async move {
            let _room = room;
            // The delivery's own bytes count for MAX_BUFFERED_BYTES as long as somebody holds them.
            let delivery = Delivery { body: Bytes::copy_from_slice(&kept.body), ..kept };
            let sending = async {
                let _turn = mirror.turns.acquire().await;
                if mirror.rests() {
                    return Copied::Dropped(RESTS);
                }
                let event = Outgoing {
                    delivery: &delivery,
                    plan: &plan,
                    attempt: 1,
                    trace: &trace,
                    signer: None,
                    is_copy: true,
                };
                match mirror.destination.send(&event, timeout).await {
                    Ok(reply) if reply.status.is_success() => Copied::Sent,
                    Ok(reply) => Copied::Failed(format!("the answer {}", reply.status.as_u16())),
                    Err(error) => {
                        if matches!(&error, SendError::Unknown(NoAnswer { timed_out: true, .. })) {
                            mirror.rest();
                        }
                        Copied::Failed(error.to_string())
                    }
                }
            };
            let copied = end.run_until_cancelled(sending).await;
            let copied = copied.unwrap_or_else(|| {
                mirror.rest();
                Copied::Dropped("its time has ended")
            });
            telemetry::copied(&plan.key, plan.route, &copied);
        });
    }

    /// Waits until no copy is left, at most for this long. Then it drops the rest.
    pub async fn finish(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.copies.wait()).await.is_ok() {
            return;
        }
        let next = CancellationToken::new();
        let end = std::mem::replace(&mut *self.lock(), next);
        end.cancel();
        // The tasks only count themselves now.
        self.copies.wait().await;
    }

    fn end(&self) -> CancellationToken {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
