//! The room at a destination that a lane waits for.

use tokio::task::JoinSet;

use crate::{
    limits::{Limits, Room},
    route::Route,
};

/// The room at a destination that a lane waits for. A lane takes an event only when there is room for
/// its attempt, so that no event waits under a lease.
#[derive(Default)]
pub(super) struct Rooms {
    waits: JoinSet<Room>,
    /// The room that the last wait brought.
    came: Option<Room>,
}

impl Rooms {
    /// Returns room for an attempt that begins now, if there is any.
    pub fn take(&mut self, limits: &Limits, route: Route) -> Option<Room> {
        self.came.take().or_else(|| limits.try_room(route))
    }

    /// Begins to wait for room for this many attempts, in the background. Gives up room that no
    /// attempt needs any more.
    pub fn wait_for(&mut self, attempts: usize, limits: &Limits, route: Route) {
        self.came = None;
        if attempts == 0 {
            self.waits.abort_all();
        }
        while self.waits.len() < attempts {
            self.waits.spawn(limits.room(route));
        }
    }

    /// Returns whether the lane waits for room.
    pub fn are_awaited(&self) -> bool {
        !self.waits.is_empty()
    }

    /// Waits until a wait ends, and keeps the room that it brought. Never returns if the lane waits
    /// for no room. A caller that stops waiting loses no room.
    pub async fn next(&mut self) {
        match self.waits.join_next().await {
            Some(waited) => self.came = waited.ok(),
            None => std::future::pending().await,
        }
    }
}
