//! Counts the bytes of a request's head while it arrives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffers::Buffers;

/// Bytes of a head that every connection may use freely. Further bytes are counted over all
/// connections.
const FREE: usize = 16 * 1024;

/// The head of a connection's next request.
pub struct Head {
    buffers: Arc<Buffers>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of the head that have arrived.
    arrived: usize,
    /// True after the head, while the body of a request is being read. Bytes that arrive then
    /// belong to the body.
    is_read: bool,
}

/// The mark that a request's body is being read. Once it is dropped, arriving bytes count as the
/// next head.
pub struct Reading {
    head: Arc<Head>,
}

impl Head {
    pub fn new(buffers: Arc<Buffers>) -> Arc<Self> {
        Arc::new(Self { buffers, state: Mutex::default() })
    }

    /// Counts bytes that have arrived. Returns `false` if there is no room for them.
    pub fn add(&self, bytes: usize) -> bool {
        let mut state = self.state();
        if state.is_read {
            return true;
        }
        let before = state.counted();
        state.arrived += bytes;
        let more = state.counted() - before;
        let has_room = self.buffers.take_for_heads(more);
        if !has_room {
            state.arrived -= bytes;
        }
        has_room
    }

    /// Releases the bytes of a head that has been read completely.
    pub fn read(self: &Arc<Self>) -> Reading {
        let mut state = self.state();
        self.buffers.give_back_of_heads(state.counted());
        *state = State { arrived: 0, is_read: true };
        drop(state);
        Reading { head: Arc::clone(self) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn counted(&self) -> usize {
        self.arrived.saturating_sub(FREE)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.head.state().is_read = false;
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.buffers.give_back_of_heads(self.state().counted());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_beyond_their_free_part_share_a_quarter_of_the_buffers() {
        let buffers = Buffers::new(4 * 10_000);
        let (first, second) = (Head::new(Arc::clone(&buffers)), Head::new(Arc::clone(&buffers)));
        assert!(first.add(FREE + 6_000));
        assert!(second.add(FREE + 4_000));
        assert!(!second.add(1));
        let reading = first.read();
        assert!(second.add(6_000));
        // Bodies are counted elsewhere.
        assert!(first.add(1_000_000));
        drop(reading);
        assert!(first.add(FREE));
        assert!(!first.add(1));
        drop(second);
        assert!(first.add(10_000));
    }
}
