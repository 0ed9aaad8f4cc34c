//! Delivers accepted events after their answers. Each destination has a lane of workers.
//!
//! A lane learns of an event in three ways. An acceptance in this process wakes it. It keeps the
//! times of the events that it postponed itself, and the ends of the leases that it met. And it
//! sweeps: it asks the store what is due, which finds the events of processes that died, and of
//! others that are busy. Whoever takes an event first delivers it.
//!
//! A destination that cannot be reached, or answers 503, closes its lane except for one probe at a
//! time. The first attempt of a process is a probe, too. A failed probe usually does not count for
//! the schedule of its event ([`Cause::Probe`] says when it does). So an outage uses up no
//! schedule, except for an entry of the schedule of each event that was tried when it began. The
//! first answer other than 503 opens the lane again.
//!
//! The lists of destinations that are not configured have no lane. `abandoned.rs` looks after them.
//!
//! In Lambda, there are no workers: `instance.rs` delivers what messages bring, and `schedule.rs`
//! sends messages for what is due and has none.

mod abandoned;
mod cleaning;
mod instance;
mod outage;
mod rooms;
mod schedule;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    cleaning::{clean, clean_up},
    outage::{BUSY, FIRST_PROBE, Gate, LAST_PROBE},
    rooms::Rooms,
};
pub use self::{
    instance::{Instance, Message},
    schedule::Sent,
};
use crate::{
    key::Key,
    outcome::{Ending, Origin, Trigger},
    route::Route,
    router::{Budget, Cause, Handled, Health, Router, Wake},
    store::{Due, StoreError},
    telemetry,
};

/// Average time between two sweeps of a lane. Each pause is random, from half to one and a half
/// times this average, so that many processes do not sweep together. A sweep is one query, or
/// sixteen in DynamoDB and in a Redis cluster.
const SWEEP: Duration = Duration::from_secs(10);

/// The same average in a process that accepts no events.
const IDLE_SWEEP: Duration = Duration::from_secs(300);

/// Most events that a sweep finds. They are tried in random order, so that processes that sweep at
/// the same time rarely try the same ones.
const SWEPT: usize = 256;

/// Largest number of the events that were just accepted and that a lane remembers. It is also the
/// largest number of those that are due later. While this many are due, the lane does not look at
/// what was just accepted. The store lists all events.
const REMEMBERED: usize = 4096;

/// Time by which the clock of a store may be behind.
const CLOCK_MARGIN: Duration = Duration::from_millis(5);

/// Creates the budget of one attempt.
pub type Budgets = Arc<dyn Fn() -> Budget + Send + Sync>;

/// The receivers through which acceptances wake the lanes.
pub struct Lanes(HashMap<Route, Woken>);

/// The events that were accepted.
struct Woken {
    events: mpsc::Receiver<Due>,
    /// True if an event was dropped because there was no room for it.
    is_behind: Arc<AtomicBool>,
}

/// Creates the lanes of the configured destinations, and the function that wakes them.
pub fn lanes(routes: impl IntoIterator<Item = Route>) -> (Wake, Lanes) {
    let (mut senders, mut lanes) = (HashMap::new(), HashMap::new());
    for route in routes {
        let (sender, events) = mpsc::channel(REMEMBERED);
        let is_behind = Arc::new(AtomicBool::new(false));
        senders.insert(route, (sender, Arc::clone(&is_behind)));
        lanes.insert(route, Woken { events, is_behind });
    }
    let wake = move |route: Route, due: Due| {
        if let Some((sender, is_behind)) = senders.get(&route)
            && sender.try_send(due).is_err()
        {
            is_behind.store(true, Ordering::Relaxed);
        }
    };
    (Arc::new(wake), Lanes(lanes))
}

/// Delivers accepted events with up to `workers` attempts at a time for each destination, until
/// `stop`. Then it waits for the attempts under way, and leaves the rest to the store.
pub async fn run(
    router: Arc<Router>,
    lanes: Lanes,
    workers: usize,
    budgets: Budgets,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for (route, woken) in lanes.0 {
        let mut lane = Lane::new(Arc::clone(&router), route, workers, Arc::clone(&budgets));
        if !router.accepts() {
            lane.slow_down();
        }
        tasks.spawn(lane.serve(woken, stop.clone()));
    }
    tasks.spawn(abandoned::search(Arc::clone(&router), budgets, stop.clone()));
    tasks.spawn(clean(router, stop));
    while tasks.join_next().await.is_some() {}
}

/// The result of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Drained {
    pub delivered: u32,
    pub postponed: u32,
    pub failed: u32,
    /// The destinations that were down, so that events for them may be left.
    pub down: Vec<Route>,
    /// The destinations that had too much to do, so that events for them may be left.
    pub busy: Vec<Route>,
    /// True if the store did not answer, a result could not be stored, or a record cannot be read.
    pub is_incomplete: bool,
}

/// Delivers the events that are due, and cleans up.
pub async fn drain(
    router: Arc<Router>,
    workers: usize,
    budgets: Budgets,
    stop: CancellationToken,
) -> Drained {
    let mut tasks = JoinSet::new();
    for route in router.destinations().routes() {
        let lane = Lane::new(Arc::clone(&router), route, workers, Arc::clone(&budgets));
        tasks.spawn(lane.drain(stop.clone()));
    }
    let mut sum = Drained::default();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(drained) => {
                sum.delivered += drained.delivered;
                sum.postponed += drained.postponed;
                sum.failed += drained.failed;
                sum.down.extend(drained.down);
                sum.busy.extend(drained.busy);
                sum.is_incomplete |= drained.is_incomplete;
            }
            // The place of the panic is in the log already.
            Err(_panic) => sum.is_incomplete = true,
        }
    }
    sum.down.sort();
    sum.busy.sort();
    let budget = || (!stop.is_cancelled()).then(|| budgets());
    let abandoned = abandoned::settle(&router, budget, &Origin::default()).await;
    sum.failed += abandoned.failed;
    sum.is_incomplete |= abandoned.is_incomplete;
    clean_up(&router, &stop).await;
    sum
}

/// The workers of a destination.
struct Lane {
    router: Arc<Router>,
    route: Route,
    workers: usize,
    budgets: Budgets,
    running: JoinSet<(Key, Handled)>,
    rooms: Rooms,
    /// Events that are due, as far as this process knows.
    queue: VecDeque<Due>,
    /// Events that this process knows to be due later: events that it accepted or postponed, and
    /// events that were under another lease.
    later: BTreeSet<(Instant, Due)>,
    /// Events whose records cannot be read. This process does not try them again, so that they do not
    /// block the others.
    unreadable: HashSet<Key>,
    gate: Gate,
    /// The probes in a row that the destination refused because it has too much to do.
    refusals: u32,
    /// The events of the probes since the lane closed.
    probed: HashSet<Key>,
    next_sweep: Instant,
    /// The average time between two sweeps.
    every: Duration,
    /// True if there may be more events than the last sweep returned.
    has_more: bool,
    summary: Drained,
}

impl Lane {
    fn new(router: Arc<Router>, route: Route, workers: usize, budgets: Budgets) -> Self {
        Self {
            router,
            route,
            workers,
            budgets,
            running: JoinSet::new(),
            rooms: Rooms::default(),
            queue: VecDeque::new(),
            later: BTreeSet::new(),
            unreadable: HashSet::new(),
            gate: Gate::Unknown,
            refusals: 0,
            probed: HashSet::new(),
            next_sweep: Instant::now(),
            every: SWEEP,
            has_more: false,
            summary: Drained::default(),
        }
    }

    /// Makes the lane sweep rarely. Its next sweep comes at a random time, so that processes that
    /// start together do not ask the store together.
    fn slow_down(&mut self) {
        self.every = IDLE_SWEEP;
        self.next_sweep = Instant::now() + around(SWEEP * 3);
    }

    /// Delivers events until `stop`.
    async fn serve(mut self, mut woken: Woken, stop: CancellationToken) {
        loop {
            self.begin_attempts();
            let has_room = self.queue.len() < REMEMBERED;
            let next_look = self.next_look();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(joined) = self.running.join_next() => self.ended(joined.ok()),
                () = self.rooms.next() => {}
                Some(due) = woken.events.recv(), if has_room => {
                    if due.at <= Utc::now() {
                        self.queue.push_back(due);
                    } else {
                        self.remember(due);
                    }
                }
                () = sleep_until(next_look) => {
                    self.has_more |= woken.is_behind.swap(false, Ordering::Relaxed);
                    self.look().await;
                }
            }
        }
        self.rooms = Rooms::default();
        while let Some(joined) = self.running.join_next().await {
            self.ended(joined.ok());
        }
    }

    /// Delivers what is due now.
    async fn drain(mut self, stop: CancellationToken) -> Drained {
        while !(stop.is_cancelled() || self.gives_up() || self.summary.is_incomplete) {
            if self.queue.is_empty() {
                self.sweep().await;
            }
            self.begin_attempts();
            let pause = self.gate.pause();
            let is_probe_later = !self.queue.is_empty() && !pause.is_zero();
            if self.running.is_empty() && !self.rooms.are_awaited() && !is_probe_later {
                break;
            }
            tokio::select! {
                Some(joined) = self.running.join_next() => self.ended(joined.ok()),
                () = self.rooms.next() => {}
                () = tokio::time::sleep(pause), if is_probe_later => {}
                () = stop.cancelled() => break,
            }
        }
        while let Some(joined) = self.running.join_next().await {
            self.ended(joined.ok());
        }
        match self.refusals {
            _ if !self.gate.is_closed() => {}
            0 => self.summary.down.push(self.route),
            _ => self.summary.busy.push(self.route),
        }
        self.summary.is_incomplete |= !self.unreadable.is_empty();
        self.summary
    }

    /// Returns whether a drain stops, and leaves the remaining events to the next one. It goes on
    /// for some time if the destination is only busy, because a busy destination takes an event now
    /// and then.
    fn gives_up(&self) -> bool {
        self.gate.is_closed() && !(1..BUSY).contains(&self.refusals)
    }

    /// Begins as many attempts as there are workers, events and room at the destination. Unless the
    /// destination is up, it begins one probe at a time.
    fn begin_attempts(&mut self) {
        let (workers, is_probe) = match &self.gate {
            Gate::Open { .. } => (self.workers, false),
            gate if gate.is_probe_due() => (1, true),
            _ => (0, true),
        };
        while self.running.len() < workers
            && !self.queue.is_empty()
            && let Some(room) = self.rooms.take(self.router.limits(), self.route)
            && let Some(Due { at, key }) = self.next_event(is_probe)
        {
            let (router, budgets) = (Arc::clone(&self.router), Arc::clone(&self.budgets));
            let cause = match is_probe {
                true => Cause::Probe { since: at, up_at: self.gate.up_at() },
                false => Cause::Due,
            };
            self.running.spawn(async move {
                let (by, origin) = (Trigger::Inbox, Origin::default());
                (key, router.deliver_accepted(key, cause, by, origin, budgets(), Some(room)).await)
            });
        }
        let more = workers.saturating_sub(self.running.len()).min(self.queue.len());
        self.rooms.wait_for(more, self.router.limits(), self.route);
    }

    /// Returns the event of the next attempt. The destination may answer some events with 503, and
    /// others well. So a probe takes any event that was not tried since the lane closed.
    fn next_event(&mut self, is_probe: bool) -> Option<Due> {
        if !is_probe {
            return self.queue.pop_front();
        }
        let is_untried = |due: &Due| !self.probed.contains(&due.key);
        let untried =
            (0..self.queue.len()).filter(|index| self.queue.get(*index).is_some_and(is_untried));
        let event = match untried.choose(&mut rand::rng()) {
            Some(index) => self.queue.remove(index)?,
            None => {
                let event = self.queue.pop_front()?;
                self.probed.clear();
                event
            }
        };
        self.probed.insert(event.key);
        Some(event)
    }

    /// Handles the end of an attempt. `ended` is `None` after a panic.
    fn ended(&mut self, ended: Option<(Key, Handled)>) {
        let Some((key, handled)) = ended else {
            // The place of the panic is in the log already.
            self.summary.is_incomplete = true;
            return;
        };
        match handled {
            Handled::Tried { ending, route, due, health, settled, .. } => {
                match ending {
                    Ending::Delivered => self.summary.delivered += 1,
                    Ending::Postponed => self.summary.postponed += 1,
                    _ => self.summary.failed += 1,
                }
                self.summary.is_incomplete |= !settled;
                if let Some(at) = due {
                    self.remember(Due { at, key });
                }
                // An old entry of the list may lead to an event of another destination.
                if route == self.route {
                    self.learn(health);
                }
            }
            Handled::NotDue(at) => self.remember(Due { at, key }),
            Handled::NoRoom(_) => self.remember(Due { at: Utc::now(), key }),
            Handled::Gone => {}
            Handled::Unreadable => {
                self.unreadable.insert(key);
            }
            Handled::StoreUnavailable => {
                self.summary.is_incomplete = true;
                // The event is still in the store, like all others.
                self.queue.clear();
                self.has_more = false;
                self.next_sweep = Instant::now() + around(FIRST_PROBE);
            }
        }
    }

    /// Remembers when an event is due, if there is room.
    fn remember(&mut self, due: Due) {
        if self.later.len() < REMEMBERED {
            // By the store's clock, the event may be due a moment later.
            let pause = (due.at - Utc::now()).to_std().unwrap_or_default() + CLOCK_MARGIN;
            self.later.insert((Instant::now() + pause, due));
        }
    }

    /// Closes or opens the lane by the health that an attempt has shown.
    fn learn(&mut self, health: Health) {
        match health {
            Health::Up | Health::Down => self.refusals = 0,
            Health::Unknown if self.refusals == 0 => {}
            // After a refusal, an attempt without an answer counts as another refusal. Attempts
            // that began before the first refusal are no probes, and do not count.
            Health::Busy | Health::Unknown => self.refusals += u32::from(self.gate.is_probe_due()),
        }
        if self.gate.learn(self.route, health) {
            self.probed.clear();
            self.next_sweep = Instant::now();
        }
    }

    /// Returns the time at which the lane must look for work.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = self.next_sweep;
        if let Some((due, _)) = self.later.first() {
            next = next.min(*due);
        }
        match &self.gate {
            // There is nothing to do before the next probe.
            gate if !gate.is_probe_due() => now + gate.pause(),
            // The probe is under way.
            gate if gate.is_closed() && !self.running.is_empty() => now + LAST_PROBE,
            _ if self.queue.is_empty() && self.has_more => now,
            _ => next,
        }
    }

    /// Looks for work: among the events that this process remembers, and if it is time, in the store.
    async fn look(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.later.first().copied().filter(|(due, _)| *due <= now) {
            self.later.remove(&first);
            self.queue.push_back(first.1);
        }
        let is_due = self.next_sweep <= now || (self.queue.is_empty() && self.has_more);
        if is_due || (self.gate.is_closed() && self.queue.is_empty()) {
            self.sweep().await;
        }
    }

    /// Asks the store what is due.
    async fn sweep(&mut self) {
        self.next_sweep = Instant::now() + around(self.every);
        self.has_more = false;
        match self.due().await {
            Ok((mut due, has_more)) => {
                self.has_more = has_more;
                due.retain(|due| self.queue.iter().all(|queued| queued.key != due.key));
                due.shuffle(&mut rand::rng());
                self.queue.extend(due);
            }
            Err(error) => {
                tracing::error!(destination = %self.route, %error, "accepted events cannot be listed");
                self.summary.is_incomplete = true;
            }
        }
    }

    /// Returns the first events that are due and can be read, and whether there may be more. Reads
    /// past the events that cannot be read.
    async fn due(&self) -> Result<(Vec<Due>, bool), StoreError> {
        let (now, mut last) = (Utc::now(), None);
        loop {
            let mut page = self.router.store().due(self.route, Some(now), last, SWEPT).await?;
            if last.is_none() {
                let oldest = page.first().and_then(|Due { at, .. }| (now - *at).to_std().ok());
                telemetry::overdue(self.route, oldest.unwrap_or_default());
            }
            last = page.last().copied();
            let is_full = page.len() >= SWEPT;
            page.retain(|Due { key, .. }| !self.unreadable.contains(key));
            if !page.is_empty() || !is_full {
                return Ok((page, is_full));
            }
        }
    }
}

/// Returns a random time between half and one and a half of an average.
fn around(average: Duration) -> Duration {
    average.mul_f64(0.5 + rand::random::<f64>())
}

#[cfg(test)]
mod tests;
