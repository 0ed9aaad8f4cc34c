//! Limits the bytes that all connections hold. Bytes are counted from their arrival until they are
//! released.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::error::Error;

/// A body has made progress once it has received this many more bytes. Fewer bytes do not count.
const STEP: usize = 16 * 1024;

/// The limit on the bytes of bodies and replies, over all connections. If there is no room, bodies
/// that are still arriving are dropped, the slowest first. A complete body is never dropped.
pub struct Buffers {
    limit: usize,
    state: Mutex<State>,
    /// Notified whenever bytes are released.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// Bytes of complete bodies and of replies.
    kept: usize,
    /// Bytes of bodies that are still arriving.
    arriving: usize,
    /// Bytes of arriving bodies that are being dropped. `arriving` includes them.
    leaving: usize,
    /// Bytes of heads. They have a limit of their own, a quarter of the limit for bodies.
    heads: usize,
    bodies: HashMap<u64, Body>,
    /// Counts the beginnings of bodies and the additions to them, to order bodies by their last progress.
    clock: u64,
}

/// A body that is still arriving.
struct Body {
    bytes: usize,
    /// The `clock` at its beginning or its last whole step.
    progress: u64,
    /// Bytes since then.
    since: usize,
    /// Sends the order to stop. `None` once it was sent.
    drop: Option<oneshot::Sender<()>>,
}

/// A body's part of the buffers while the body arrives. Dropping this releases the bytes.
pub struct Arriving {
    buffers: Arc<Buffers>,
    id: u64,
    told_to_go: oneshot::Receiver<()>,
}

/// Bytes that are counted until the last clone is dropped.
struct Kept {
    bytes: Bytes,
    buffers: Arc<Buffers>,
}

/// The room for more bytes.
enum Room {
    Free,
    /// There will be room once the bodies that were told to stop have stopped.
    Soon,
}

impl Buffers {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), freed: Notify::new() })
    }

    /// Begins a body of at least `expected` bytes.
    ///
    /// # Errors
    /// Fails with [`Error::NoRoom`] if the body would not fit beside the kept bytes.
    pub fn begin(self: &Arc<Self>, expected: usize) -> Result<Arriving, Error> {
        let mut state = self.state();
        if state.kept.saturating_add(expected) > self.limit {
            return Err(Error::NoRoom);
        }
        let (drop, told_to_go) = oneshot::channel();
        let id = state.tick();
        state.bodies.insert(id, Body { bytes: 0, progress: id, since: 0, drop: Some(drop) });
        Ok(Arriving { buffers: Arc::clone(self), id, told_to_go })
    }

    /// Counts the bytes of a reply until they are sent. A reply is never refused, because its
    /// delivery has already ended.
    pub fn keep(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.state().kept += bytes.len();
        Bytes::from_owner(Kept { bytes, buffers: Arc::clone(self) })
    }

    /// Returns whether kept bytes use more than half of the limit.
    pub fn are_short(&self) -> bool {
        self.state().kept > self.limit / 2
    }

    /// Counts bytes of a head. Returns `false` if there is no room for them.
    pub fn take_for_heads(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let has_room = bytes == 0 || state.heads + bytes <= self.limit / 4;
        if has_room {
            state.heads += bytes;
        }
        has_room
    }

    pub fn give_back_of_heads(&self, bytes: usize) {
        self.state().heads -= bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Counts bytes of a body if there is room. Otherwise, drops slower bodies until there is room.
    fn add(&mut self, id: u64, bytes: usize, limit: usize) -> Result<Room, Error> {
        // Only the bytes that a body had when it was told to stop count as leaving.
        if self.bodies.get(&id).is_some_and(|body| body.drop.is_none()) {
            return Err(Error::SlowestBody);
        }
        let held = self.kept + self.arriving + bytes;
        while held - self.leaving > limit {
            let holding = self.bodies.iter().filter(|(_, body)| body.bytes > 0);
            let staying = holding.filter(|(_, body)| body.drop.is_some());
            match staying.min_by_key(|(_, body)| body.progress).map(|(id, _)| *id) {
                Some(slowest) if slowest != id => self.tell_to_go(slowest),
                Some(_) if self.bodies.len() > 1 => return Err(Error::SlowestBody),
                _ => return Err(Error::NoRoom),
            }
        }
        if held > limit {
            return Ok(Room::Soon);
        }
        let now = self.tick();
        if let Some(body) = self.bodies.get_mut(&id) {
            body.bytes += bytes;
            body.since += bytes;
            if body.since >= STEP {
                (body.since, body.progress) = (0, now);
            }
            self.arriving += bytes;
        }
        Ok(Room::Free)
    }

    fn tell_to_go(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id)
            && let Some(drop) = body.drop.take()
        {
            self.leaving += body.bytes;
            // If nobody receives the order, the body has stopped already.
            let _ = drop.send(());
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(body) = self.bodies.remove(&id) {
            self.arriving -= body.bytes;
            if body.drop.is_none() {
                self.leaving -= body.bytes;
            }
        }
    }
}

impl Arriving {
    /// Counts bytes that have arrived. If there is no room for them, slower bodies are dropped, and
    /// this call waits until they have stopped.
    ///
    /// # Errors
    /// Fails with [`Error::SlowestBody`] if this body is the slowest or was told to stop, and with
    /// [`Error::NoRoom`] if there is no other body to drop.
    pub async fn add(&mut self, bytes: usize) -> Result<(), Error> {
        let buffers = Arc::clone(&self.buffers);
        loop {
            let freed = buffers.freed.notified();
            if let Room::Free = buffers.state().add(self.id, bytes, buffers.limit)? {
                return Ok(());
            }
            tokio::select! {
                () = freed => {}
                () = self.told_to_go() => return Err(Error::SlowestBody),
            }
        }
    }

    /// Waits until this body must stop.
    pub async fn told_to_go(&mut self) {
        let _ = (&mut self.told_to_go).await;
    }

    /// Keeps the body, which is complete. It is never dropped from now on.
    ///
    /// # Errors
    /// Fails with [`Error::SlowestBody`] if the body was told to stop before its end was seen.
    pub fn complete(mut self, bytes: Bytes) -> Result<Bytes, Error> {
        if self.told_to_go.try_recv().is_ok() {
            return Err(Error::SlowestBody);
        }
        let mut state = self.buffers.state();
        state.remove(self.id);
        state.kept += bytes.len();
        drop(state);
        Ok(Bytes::from_owner(Kept { bytes, buffers: Arc::clone(&self.buffers) }))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.buffers.state().remove(self.id);
        self.buffers.freed.notify_waiters();
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.buffers.state().kept -= self.bytes.len();
        self.buffers.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_body_without_progress_for_the_longest_time_is_dropped_first() {
        let buffers = Buffers::new(100_000);
        let mut burst = buffers.begin(0).unwrap();
        burst.add(50_000).await.unwrap();
        let mut honest = buffers.begin(0).unwrap();
        for _ in 0..10 {
            // One byte at a time does not count as progress, however large the burst was.
            burst.add(1).await.unwrap();
            honest.add(4_000).await.unwrap();
        }
        let (added, ()) = tokio::join!(honest.add(10_000), async {
            burst.told_to_go().await;
            drop(burst);
        });
        added.unwrap();
        honest.add(50_000).await.unwrap();
        assert!(matches!(honest.add(1).await, Err(Error::NoRoom)));
    }

    #[tokio::test]
    async fn bytes_wait_until_those_of_a_dropped_body_are_given_back() {
        let buffers = Buffers::new(1000);
        let mut slow = buffers.begin(0).unwrap();
        slow.add(600).await.unwrap();
        let mut fast = buffers.begin(0).unwrap();
        assert!(fast.add(600).now_or_never().is_none(), "the slow body is still there");
        assert!(matches!(slow.complete(Bytes::new()), Err(Error::SlowestBody)));
        fast.add(1000).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_was_told_to_stop_gets_no_more_room() {
        let buffers = Buffers::new(100);
        let mut slow = buffers.begin(0).unwrap();
        slow.add(60).await.unwrap();
        let mut fast = buffers.begin(0).unwrap();
        fast.add(30).await.unwrap();
        assert!(fast.add(20).now_or_never().is_none(), "the slow body is still there");
        // There is room for these bytes, but they would not count as leaving.
        assert!(matches!(slow.add(5).await, Err(Error::SlowestBody)));
        drop(slow);
        assert_eq!(buffers.state().leaving, 0);
        fast.add(70).await.unwrap();
        assert!(matches!(fast.add(1).await, Err(Error::NoRoom)));
    }

    #[tokio::test]
    async fn what_is_kept_is_counted_until_the_last_clone_is_dropped() {
        let buffers = Buffers::new(1000);
        let mut body = buffers.begin(600).unwrap();
        body.add(600).await.unwrap();
        let body = body.complete(Bytes::from(vec![0; 600])).unwrap();
        let slice = body.slice(0..1);
        drop(body);
        assert!(buffers.are_short());
        assert!(matches!(buffers.begin(500), Err(Error::NoRoom)));
        let mut other = buffers.begin(0).unwrap();
        assert!(matches!(other.add(401).await, Err(Error::NoRoom)));
        drop(slice);
        assert!(!buffers.are_short());
        other.add(1000).await.unwrap();
        drop(other);
        assert_eq!(buffers.keep(Bytes::from(vec![0; 2000])).len(), 2000);
        buffers.begin(1000).unwrap().add(1000).await.unwrap();
    }

    #[tokio::test]
    async fn bodies_that_hold_nothing_are_not_dropped() {
        let buffers = Buffers::new(1000);
        let waiting = buffers.begin(0).unwrap();
        buffers.begin(0).unwrap().add(1000).await.unwrap();
        assert!(waiting.complete(Bytes::new()).is_ok());
    }
}
