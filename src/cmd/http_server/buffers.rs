//! The bytes that all connections hold, counted as they arrive and as long as they are kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::Error;

/// Bytes that renew a body's place in the order of dropping. A sender of fewer at a time is as slow
/// as one of none.
const STEP: usize = 16 * 1024;

/// A bound on the bytes of bodies and replies, over all connections. The bodies that still arrive
/// may be dropped, the slowest first; whatever has arrived is kept.
pub struct Buffers {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that are kept until their owner is done.
    kept: usize,
    /// Bytes of `bodies`.
    arriving: usize,
    bodies: HashMap<u64, Body>,
    /// Counts the beginnings and the steps of bodies.
    clock: u64,
}

/// A body that still arrives.
struct Body {
    bytes: usize,
    /// When it began, or its newest whole step had arrived.
    progress: u64,
    /// Bytes since then.
    since: usize,
    drop: oneshot::Sender<()>,
}

/// A body's part of the buffers while it arrives; given back when it is dropped.
pub struct Arriving {
    buffers: Arc<Buffers>,
    id: u64,
}

/// Bytes that are counted for as long as a clone of them lives.
struct Kept {
    bytes: Bytes,
    buffers: Arc<Buffers>,
}

impl Buffers {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// Begins a body of at least `expected` bytes. The receiver hears when it is dropped.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when it would not fit beside what is kept.
    pub fn begin(
        self: &Arc<Self>,
        expected: usize,
    ) -> Result<(Arriving, oneshot::Receiver<()>), Error> {
        let mut state = self.state();
        if state.kept.saturating_add(expected) > self.limit {
            return Err(Error::NoRoom);
        }
        let (drop, dropped) = oneshot::channel();
        let id = state.tick();
        state.bodies.insert(id, Body { bytes: 0, progress: id, since: 0, drop });
        Ok((Arriving { buffers: Arc::clone(self), id }, dropped))
    }

    /// Counts the bytes of a reply until they are sent. A reply is never refused: its event is done.
    pub fn keep(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.state().kept += bytes.len();
        Bytes::from_owner(Kept { bytes, buffers: Arc::clone(self) })
    }

    /// Whether what is kept leaves less than half to bodies that arrive.
    pub fn are_short(&self) -> bool {
        self.state().kept > self.limit / 2
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

    fn remove(&mut self, id: u64) -> Option<Body> {
        let body = self.bodies.remove(&id)?;
        self.arriving -= body.bytes;
        Some(body)
    }

    /// The body that holds bytes and has gone the longest time without a step.
    fn slowest(&self) -> Option<u64> {
        let holding = self.bodies.iter().filter(|(_, body)| body.bytes > 0);
        holding.min_by_key(|(_, body)| body.progress).map(|(id, _)| *id)
    }
}

impl Arriving {
    /// Counts bytes that have arrived, and drops slower bodies where there is no room for them.
    ///
    /// # Errors
    /// [`Error::SlowestBody`] when this one was or is the slowest, [`Error::NoRoom`] when no other
    /// can be dropped.
    pub fn add(&self, bytes: usize) -> Result<(), Error> {
        let mut state = self.buffers.state();
        while state.kept + state.arriving + bytes > self.buffers.limit {
            match state.slowest() {
                Some(id) if id != self.id => {
                    let slowest = state.remove(id);
                    // It may have come to its end meanwhile.
                    let _ = slowest.map(|body| body.drop.send(()));
                }
                Some(_) if state.bodies.len() > 1 => return Err(Error::SlowestBody),
                _ => return Err(Error::NoRoom),
            }
        }
        let now = state.tick();
        let body = state.bodies.get_mut(&self.id).ok_or(Error::SlowestBody)?;
        body.bytes += bytes;
        body.since += bytes;
        if body.since >= STEP {
            (body.since, body.progress) = (0, now);
        }
        state.arriving += bytes;
        Ok(())
    }

    /// Keeps the body, which has arrived: it is not dropped any more.
    ///
    /// # Errors
    /// [`Error::SlowestBody`] when it was dropped before its end was seen.
    pub fn complete(self, bytes: Bytes) -> Result<Bytes, Error> {
        let mut state = self.buffers.state();
        state.remove(self.id).ok_or(Error::SlowestBody)?;
        state.kept += bytes.len();
        drop(state);
        Ok(Bytes::from_owner(Kept { bytes, buffers: Arc::clone(&self.buffers) }))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.buffers.state().remove(self.id);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_without_progress_for_the_longest_time_is_dropped_first() {
        let buffers = Buffers::new(100_000);
        let (burst, mut burst_dropped) = buffers.begin(0).unwrap();
        burst.add(50_000).unwrap();
        let (honest, mut honest_dropped) = buffers.begin(0).unwrap();
        for _ in 0..10 {
            // One byte at a time is no progress, however large the burst was.
            burst.add(1).unwrap();
            honest.add(4_000).unwrap();
        }
        honest.add(10_000).unwrap();
        assert!(burst_dropped.try_recv().is_ok());
        assert!(honest_dropped.try_recv().is_err());
        assert!(matches!(burst.add(1), Err(Error::SlowestBody)));
        assert!(matches!(burst.complete(Bytes::new()), Err(Error::SlowestBody)));
        honest.add(50_000).unwrap();
    }

    #[test]
    fn what_is_kept_is_counted_until_the_last_clone_is_dropped() {
        let buffers = Buffers::new(1000);
        let (body, _dropped) = buffers.begin(600).unwrap();
        body.add(600).unwrap();
        let body = body.complete(Bytes::from(vec![0; 600])).unwrap();
        let slice = body.slice(0..1);
        drop(body);
        assert!(buffers.are_short());
        assert!(matches!(buffers.begin(500), Err(Error::NoRoom)));
        let (other, _dropped) = buffers.begin(0).unwrap();
        assert!(matches!(other.add(401), Err(Error::NoRoom)));
        drop(slice);
        assert!(!buffers.are_short());
        other.add(1000).unwrap();
        drop(other);
        assert_eq!(buffers.keep(Bytes::from(vec![0; 2000])).len(), 2000);
        let (whole, _dropped) = buffers.begin(1000).unwrap();
        whole.add(1000).unwrap();
    }

    #[test]
    fn bodies_that_hold_nothing_are_not_dropped() {
        let buffers = Buffers::new(1000);
        let (_waiting, mut dropped) = buffers.begin(0).unwrap();
        let (body, _dropped) = buffers.begin(0).unwrap();
        body.add(1000).unwrap();
        assert!(dropped.try_recv().is_err());
    }
}
