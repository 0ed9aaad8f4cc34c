//! A verified event that is being delivered, and the data for its log line.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    limits::Room,
    outcome::{Ending, Origin, Times, Trigger},
    plan::Plan,
    telemetry::{self, Handled},
    trace::Trace,
};

/// A verified event that is being delivered.
pub(super) struct Job {
    pub delivery: Delivery,
    pub plan: Plan,
    pub by: Trigger,
    pub trace: Trace,
    /// The number of attempts of this delivery.
    pub attempts: u32,
    pub times: Times,
    /// False if the store did not say whether the result is stored. True before there is a result,
    /// and after another owner has taken over, although this result is not stored then.
    pub settled: bool,
    /// Room for the first attempt, if the job waited for it before it took the event.
    pub room: Option<Room>,
    origin: Origin,
    started: Instant,
    /// The wait for `room`, if it began before the job did.
    waited: Duration,
}

impl Job {
    pub fn new(mut delivery: Delivery, plan: Plan, by: Trigger, origin: Origin) -> Self {
        // These headers were checked already, and must be neither forwarded nor stored.
        for name in plan.secret_headers() {
            delivery.headers.remove(name);
        }
        let trace = Trace::of(&delivery, origin.trace.as_deref());
        let (attempts, times, settled, room) = (0, Times::default(), true, None);
        let (started, waited) = (Instant::now(), Duration::ZERO);
        Self { delivery, plan, by, trace, attempts, times, settled, room, origin, started, waited }
    }

    /// Returns the same job with the room for its first attempt, for which it has waited already.
    pub fn with_room(mut self, room: Option<Room>) -> Self {
        self.waited = room.as_ref().map(Room::waited).unwrap_or_default();
        self.times.room += self.waited;
        Self { room, ..self }
    }

    /// Logs and counts the result of the event.
    pub fn ended(&mut self, ending: Ending, error: Option<&Error>, reply: &Reply) {
        self.times.total = self.waited + self.started.elapsed();
        telemetry::handled(&Handled {
            delivery: &self.delivery,
            plan: &self.plan,
            origin: &self.origin,
            trace: &self.trace,
            ending,
            error,
            status: reply.status.as_u16(),
            trigger: self.by,
            attempts: self.attempts,
            settled: self.settled,
            times: self.times,
        });
    }
}

/// Runs a step, and adds its time to a total. An `async fn` would hold the step twice: as its argument, and as what
/// it waits for.
pub(super) fn timed<T>(
    total: &mut Duration,
    step: impl Future<Output = T>,
) -> impl Future<Output = T> {
    let started = Instant::now();
    step.inspect(move |_| *total += started.elapsed())
}
