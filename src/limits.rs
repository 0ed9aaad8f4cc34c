//! Limits on what this process sends to each destination: how many attempts run at a time, and how
//! many begin per second.
//!
//! An attempt needs a [`Room`], whatever its cause is: a vendor's delivery, the inbox or a replay.
//! While a destination has no room, attempts wait. They get room in the order in which they came.
//!
//! ```text
//!                    a place               a moment
//!  wait ─ wait ─ ─▶ (max_concurrent) ───▶ (max_per_second) ───▶ Room: one attempt
//!    in order         ▲                                           │
//!                     └───────────── the attempt ends ────────────┘
//! ```
//!
//! Only the first in the queue waits for a place and then for a moment. So a moment is used as soon
//! as it is granted, and places that become free do not lead to a burst.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use tokio::{
    sync::{self, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use crate::{config::Limit, route::Route, telemetry};

/// A burst has at most the attempts of one second divided by this, and at least one attempt.
const BURST: u32 = 20;

/// An attempt may begin late by one second divided by this. The attempts that follow make up for
/// it, so that the rate is still reached. The timer is precise to a millisecond, and a busy machine
/// is less precise.
const LATENESS: u32 = 200;

/// Shortest and longest time after which a vendor is asked to come again.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);

/// The weight of the last attempt in the average time of an attempt.
const WEIGHT: f64 = 0.125;

/// The limits of all destinations.
pub struct Limits(HashMap<Route, Arc<Entrance>>);

/// The entrance to a destination that has limits.
struct Entrance {
    route: Route,
    limit: Limit,
    places: Option<Arc<Semaphore>>,
    moments: Option<DefaultDirectRateLimiter>,
    /// The turn of the first in the queue. This lock is fair.
    turn: sync::Mutex<()>,
    waiting: AtomicUsize,
    /// The average time of an attempt in seconds, once an attempt has ended.
    taken: Mutex<Option<f64>>,
}

/// The right to make one attempt at a destination. Dropping it makes
/// room for another attempt at the same time. Its share of the attempts per second is used up.
#[must_use = "an attempt must hold its room until it ends"]
pub struct Room {
    route: Route,
    waited: Duration,
    /// `None` if the destination has no limits.
    place: Option<Place>,
}

struct Place {
    entrance: Arc<Entrance>,
    since: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

/// There was no room in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    pub limit: Limit,
    pub waited: Duration,
    /// The time after which there is probably room.
    pub after: Duration,
}

impl Limits {
    /// Creates the limits of destinations. A destination that is not named has none.
    pub fn new(limits: impl IntoIterator<Item = (Route, Limit)>) -> Self {
        let limited = limits.into_iter().filter(|(_, limit)| !limit.is_none());
        Self(limited.map(|(route, limit)| (route, Entrance::new(route, limit))).collect())
    }

    /// Returns room for an attempt that begins now, if there is room and nobody waits for it.
    pub fn try_room(&self, route: Route) -> Option<Room> {
        match self.0.get(&route) {
            Some(entrance) => entrance.try_enter(),
            None => Some(Room::without_limits(route)),
        }
    }

    /// Waits for room for an attempt. A caller that gives up leaves the queue.
    pub fn room(&self, route: Route) -> impl Future<Output = Room> + Send + 'static {
        let entrance = self.0.get(&route).cloned();
        async move {
            match entrance {
                Some(entrance) => entrance.enter().await,
                None => Room::without_limits(route),
            }
        }
    }

    /// Waits for room for an attempt, for as long as the caller has patience.
    ///
    /// # Errors
    /// Fails if there is no room in time.
    pub async fn room_within(&self, route: Route, patience: Duration) -> Result<Room, NoRoom> {
        let Some(entrance) = self.0.get(&route) else { return Ok(Room::without_limits(route)) };
        let began = Instant::now();
        let entered = timeout(patience, Arc::clone(entrance).enter()).await;
        entered.map_err(|_| entrance.no_room(began.elapsed()))
    }
}

impl Entrance {
    fn new(route: Route, limit: Limit) -> Arc<Self> {
        let places = limit.max_concurrent.map(|most| Semaphore::new(most.get() as usize).into());
        let moments = limit.max_per_second.map(|most| RateLimiter::direct(quota(most)));
        Arc::new(Self {
            route,
            limit,
            places,
            moments,
            turn: sync::Mutex::default(),
            waiting: AtomicUsize::default(),
            taken: Mutex::default(),
        })
    }

    fn try_enter(self: &Arc<Self>) -> Option<Room> {
        let _turn = self.turn.try_lock().ok()?;
        let permit = match &self.places {
            Some(places) => Some(Arc::clone(places).try_acquire_owned().ok()?),
            None => None,
        };
        if let Some(moments) = &self.moments {
            moments.check().ok()?;
        }
        Some(self.room(permit, Duration::ZERO))
    }

    async fn enter(self: Arc<Self>) -> Room {
        if let Some(room) = self.try_enter() {
            return room;
        }
        let began = Instant::now();
        let waiting = Waiting::begin(&self);
        let turn = self.turn.lock().await;
        let permit = match &self.places {
            // The semaphore is never closed.
            Some(places) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        };
        if let Some(moments) = &self.moments {
            while let Err(not_yet) = moments.check() {
                sleep(not_yet.wait_time_from(moments.clock().now())).await;
            }
        }
        drop((turn, waiting));
        let waited = began.elapsed();
        telemetry::waited_for_room(self.route, waited);
        self.room(permit, waited)
    }

    fn room(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>, waited: Duration) -> Room {
        let (entrance, since) = (Arc::clone(self), Instant::now());
        let place = Some(Place { entrance, since, _permit: permit });
        Room { route: self.route, waited, place }
    }

    /// Describes the failure of an attempt that has just stopped waiting.
    fn no_room(&self, waited: Duration) -> NoRoom {
        telemetry::no_room(self.route);
        // This attempt waits again when the vendor comes again, so it counts, too.
        let waiting = self.waiting.load(Ordering::Relaxed) as f64 + 1.0;
        let taken = self.taken().unwrap_or(waited.as_secs_f64());
        let over = |most: Option<NonZeroU32>, each: f64| {
            most.map_or(0.0, |most| waiting * each / f64::from(most.get()))
        };
        let Limit { max_concurrent, max_per_second } = self.limit;
        let seconds = over(max_concurrent, taken).max(over(max_per_second, 1.0));
        let after = Duration::try_from_secs_f64(seconds).unwrap_or(LATEST);
        NoRoom { limit: self.limit, waited, after: after.clamp(SOONEST, LATEST) }
    }

    fn taken(&self) -> Option<f64> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the time of an attempt to the average.
    fn add(&self, last: Duration) {
        let last = last.as_secs_f64();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = Some(taken.map_or(last, |average| average + WEIGHT * (last - average)));
    }
}

impl Room {
    fn without_limits(route: Route) -> Self {
        Self { route, waited: Duration::ZERO, place: None }
    }

    /// Returns whether the room is at this destination.
    pub fn is_at(&self, route: Route) -> bool {
        self.route == route
    }

    /// Gives up a room that came too late.
    pub fn too_late(self) -> NoRoom {
        let waited = self.waited;
        match &self.place {
            Some(place) => place.entrance.no_room(waited),
            None => NoRoom { limit: Limit::default(), waited, after: SOONEST },
        }
    }

    /// Gives the room back after an attempt. Its time counts in the average.
    pub fn end_attempt(self) {
        let Some(Place { entrance, since, .. }) = &self.place else { return };
        entrance.add(since.elapsed());
    }

    /// Returns how long the attempt waited for the room.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a Entrance);

impl<'a> Waiting<'a> {
    fn begin(entrance: &'a Entrance) -> Self {
        entrance.waiting.fetch_add(1, Ordering::Relaxed);
        telemetry::waits_for_room(entrance.route, 1);
        Self(entrance)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        telemetry::waits_for_room(self.0.route, -1);
    }
}

/// Returns the quota of a rate. A burst makes up for attempts that began late. The pace is a little
/// below the rate, so that no second has more attempts than the rate, even with a whole burst.
fn quota(rate: NonZeroU32) -> Quota {
    let burst = (1 + rate.get().div_ceil(LATENESS)).min(rate.get() / BURST).max(1);
    let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(rate.get() - (burst - 1))).allow_burst(at_least_one(burst))
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream::FuturesUnordered};
    use tokio::task::JoinSet;

    use super::*;

    const GCP: Route = Route::GCP;

    fn limits(max_concurrent: u32, max_per_second: u32) -> Arc<Limits> {
        let max_concurrent = NonZeroU32::new(max_concurrent);
        let max_per_second = NonZeroU32::new(max_per_second);
        Limits::new([(GCP, Limit { max_concurrent, max_per_second })]).into()
    }

    #[test]
    fn a_burst_is_at_most_a_twentieth_of_a_second_s_worth() {
        for (rate, burst) in
            [(1, 1), (19, 1), (39, 1), (40, 2), (200, 2), (201, 3), (1000, 6), (10_000, 51)]
        {
            let quota = quota(NonZeroU32::new(rate).unwrap());
            assert_eq!(quota.burst_size().get(), burst, "{rate}");
            assert!(burst <= (rate / 20).max(1));
            // A second that begins with a whole burst has no more than the rate.
            let others = Duration::from_secs(1).as_nanos() / quota.replenish_interval().as_nanos();
            assert!((u128::from(rate - burst)..=u128::from(rate - burst + 1)).contains(&others));
        }
    }

    #[tokio::test]
    async fn a_destination_without_limits_always_has_room() {
        let limits = limits(1, 0);
        let rooms: Vec<_> = (0..1000).map(|_| limits.try_room(Route::AWS)).collect();
        assert!(rooms.iter().flatten().all(|room| room.is_at(Route::AWS)) && rooms.len() == 1000);
        let _full = limits.room(GCP).await;
        assert!(limits.try_room(GCP).is_none() && limits.try_room(Route::AWS).is_some());
        let room = limits.room_within(Route::AWS, Duration::ZERO).await.unwrap();
        assert_eq!(room.waited(), Duration::ZERO);
    }

    #[tokio::test]
    async fn rooms_are_given_in_order_and_never_too_many() {
        let limits = limits(3, 0);
        let full: Vec<_> = (0..3).map(|_| limits.try_room(GCP).unwrap()).collect();
        let mut waits: Vec<_> = (0..50).map(|_| Box::pin(limits.room(GCP))).collect();
        for wait in &mut waits {
            // Each takes its place in the queue.
            assert!(timeout(Duration::ZERO, wait).await.is_err());
        }
        assert_eq!(limits.0[&GCP].waiting.load(Ordering::Relaxed), 50);
        drop(full);
        let mut waits: FuturesUnordered<_> =
            waits.into_iter().enumerate().map(|(i, wait)| async move { (i, wait.await) }).collect();
        let mut order = Vec::new();
        while let Some((number, room)) = waits.next().await {
            assert!(limits.try_room(GCP).is_none() || number >= 47);
            order.push(number);
            drop(room);
        }
        assert!(order.is_sorted() && order.len() == 50, "{order:?}");
        assert_eq!(limits.0[&GCP].waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_queue_and_the_others_go_on() {
        let limits = limits(1, 0);
        let first = limits.try_room(GCP).unwrap();
        let mut waits = JoinSet::new();
        for _ in 0..10 {
            waits.spawn(limits.room(GCP));
        }
        tokio::task::yield_now().await;
        waits.abort_all();
        while waits.join_next().await.is_some() {}
        let moment = Duration::from_millis(10);
        let NoRoom { waited, after, .. } = limits.room_within(GCP, moment).await.err().unwrap();
        assert!(waited >= moment && after == SOONEST);
        drop(first);
        assert!(limits.try_room(GCP).is_some());
    }

    #[tokio::test]
    async fn attempts_begin_at_the_rate() {
        let limits = limits(0, 500);
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..250 {
            drop(limits.room(GCP).await);
            times.push(began.elapsed());
        }
        // Any quarter of a second has at most its share and a burst.
        for (index, from) in times.iter().enumerate() {
            let until = *from + Duration::from_millis(250);
            let count = times[index..].iter().filter(|time| **time < until).count();
            assert!(count <= 125 + 4, "{count} from {from:?}");
        }
        assert!(times[249] >= Duration::from_millis(490), "{:?}", times[249]);
    }

    #[tokio::test]
    async fn only_attempts_count_in_the_average_time() {
        let limits = limits(1, 0);
        let entrance = &limits.0[&GCP];
        // Rooms that nobody needs any more say nothing about attempts.
        let unneeded = async || {
            drop(limits.try_room(GCP));
            drop(limits.room(GCP).await);
            drop(limits.room_within(GCP, Duration::from_secs(1)).await);
            let _ = limits.try_room(GCP).map(Room::too_late);
        };
        unneeded().await;
        assert_eq!(entrance.taken(), None);
        for seconds in [None, Some(8.0)] {
            *entrance.taken.lock().unwrap() = seconds;
            limits.try_room(GCP).unwrap().end_attempt();
            let average = entrance.taken().unwrap();
            let share = seconds.map_or(0.0, |seconds| seconds * (1.0 - WEIGHT));
            assert!((share..share + 0.5).contains(&average), "{average}");
            unneeded().await;
            assert_eq!(entrance.taken(), Some(average));
        }
        // The place is free again.
        assert!(limits.try_room(GCP).is_some());
    }

    #[tokio::test]
    async fn the_time_to_come_again_grows_with_the_queue() {
        let limits = limits(2, 10);
        let entrance = &limits.0[&GCP];
        let after = |waiting, taken| {
            entrance.waiting.store(waiting, Ordering::Relaxed);
            *entrance.taken.lock().unwrap() = taken;
            entrance.no_room(Duration::from_secs(4)).after.as_secs_f64().round()
        };
        // The rate decides, unless the attempts take long.
        assert_eq!(after(0, Some(0.01)), 1.0);
        assert_eq!(after(99, Some(0.01)), 10.0);
        assert_eq!(after(99, Some(1.0)), 50.0);
        assert_eq!(after(100_000, Some(1.0)), 300.0);
        // No attempt has ended yet.
        assert_eq!(after(9, None), 20.0);
    }
}
