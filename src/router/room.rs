//! Waits for room at a destination, while there is time for an attempt after it.

use tokio::time::Instant;

use super::{Budget, Router, job::Job};
use crate::{
    error::Error,
    limits::{Limits, NoRoom, Room},
    route::Route,
};

impl Router {
    /// Returns the limits of the destinations.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for room at a destination, while there is time for a whole attempt.
    ///
    /// # Errors
    /// Fails with [`Error::Limited`] if there is no room in time.
    pub async fn room(&self, route: Route, budget: Budget) -> Result<Room, Error> {
        let patience = budget.left().saturating_sub(self.forward.timeout);
        let room = self.limits.room_within(route, patience).await;
        let room = room.and_then(|room| match room.waited() {
            // The machine may have been suspended during the wait, for longer than the lease.
            waited if !waited.is_zero() && budget.left().is_zero() => Err(room.too_late()),
            _ => Ok(room),
        });
        room.map_err(|NoRoom { limit, waited, after }| {
            let (destination, limits) = (route.to_string(), limit.to_string());
            Error::Limited { destination, limits, waited, after }
        })
    }

    /// Returns room for the next attempt of a job, and adds the wait to the job's times.
    pub(super) async fn room_of(&self, job: &mut Job, budget: Budget) -> Result<Room, Error> {
        if let Some(room) = job.room.take() {
            return Ok(room);
        }
        let began = Instant::now();
        let room = self.room(job.plan.route, budget).await;
        if room.as_ref().map_or(true, |room| !room.waited().is_zero()) {
            job.times.room += began.elapsed();
        }
        room
    }
}
