//! The pause while a destination is down.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::around;
use crate::{
    route::Route,
    router::{Cause, Health},
};

/// Average pause after the failure that closed a gate, and after an error of the store. The pause
/// before the next probe doubles after each failed probe.
pub(super) const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Largest average of the pause between two probes.
pub(super) const LAST_PROBE: Duration = Duration::from_secs(30);

/// Attempts that a destination may refuse in a row because it has too much to do. After that, a drain or
/// a run of the schedule leaves its events to the next one.
pub(super) const BUSY: u32 = 5;

/// Permission to send accepted events to a destination.
#[derive(Default)]
pub(super) enum Gate {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// The destination is up, as far as this process knows.
    Open {
        /// The time of its last answer, if this process got one.
        up_at: Option<DateTime<Utc>>,
    },
    /// The destination is down, or has too much to do. There is one probe at a time, or one in each
    /// interval between probes if a probe takes longer.
    Closed {
        /// The number of failed probes.
        probes: u32,
        /// By the wall clock, which continues while Lambda freezes the process.
        next_probe: DateTime<Utc>,
        failed_at: DateTime<Utc>,
        /// The time of the last answer before the gate closed, if this process got one.
        up_at: Option<DateTime<Utc>>,
    },
}

impl Gate {
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Returns the time of the destination's last answer, if this process got one.
    pub fn up_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Unknown => None,
            Self::Open { up_at } | Self::Closed { up_at, .. } => *up_at,
        }
    }

    /// Returns whether a probe may begin.
    pub fn is_probe_due(&self) -> bool {
        self.pause().is_zero()
    }

    /// Returns the time until the next probe.
    pub fn pause(&self) -> Duration {
        let Self::Closed { next_probe, .. } = self else { return Duration::ZERO };
        // The clock may have been set back.
        (*next_probe - Utc::now()).to_std().unwrap_or_default().min(2 * LAST_PROBE)
    }

    /// Learns from an attempt. Returns true if the destination is up again.
    pub fn learn(&mut self, destination: Route, health: Health) -> bool {
        let (now, up_at, is_probe_due) = (Utc::now(), self.up_at(), self.is_probe_due());
        match (health, &mut *self) {
            (Health::Down | Health::Busy, Self::Open { .. } | Self::Unknown) => {
                if health == Health::Down {
                    tracing::warn!(%destination, "down; its accepted events wait");
                } else {
                    tracing::warn!(%destination, "busy; its accepted events wait a second");
                }
                let next_probe = now + around(FIRST_PROBE);
                *self = Self::Closed { probes: 0, next_probe, failed_at: now, up_at };
            }
            // The pause does not grow: the destination works, and takes an event now and then.
            (Health::Busy, Self::Closed { probes, next_probe, failed_at, .. }) => {
                let soon = now + around(FIRST_PROBE);
                *next_probe = if is_probe_due { soon } else { soon.min(*next_probe) };
                (*probes, *failed_at) = (0, now);
            }
            (Health::Down | Health::Unknown, Self::Closed { failed_at, .. }) => {
                *failed_at = now;
                // Attempts that began before the first failure are no probes.
                if is_probe_due {
                    self.wait_longer();
                }
            }
            (Health::Up, Self::Closed { .. }) => {
                tracing::info!(%destination, "up again");
                *self = Self::Open { up_at: Some(now) };
                return true;
            }
            (Health::Up, _) => *self = Self::Open { up_at: Some(now) },
            (Health::Unknown, _) => *self = Self::Open { up_at },
        }
        false
    }

    /// Delays the next probe, for longer each time.
    fn wait_longer(&mut self) {
        if let Self::Closed { probes, next_probe, .. } = self {
            *probes += 1;
            let pause = FIRST_PROBE * 2u32.pow((*probes).min(5));
            *next_probe = Utc::now() + around(pause.min(LAST_PROBE));
        }
    }

    /// Gives back the turn of a probe that made no attempt, so that the next probe may begin now.
    fn return_turn(&mut self) {
        if let Self::Closed { probes, next_probe, .. } = self {
            (*probes, *next_probe) = (probes.saturating_sub(1), Utc::now());
        }
    }
}

/// The gates of all destinations, for attempts that run side by side.
#[derive(Default)]
pub(super) struct Gates {
    gates: Mutex<HashMap<Route, Gate>>,
    changed: Notify,
}

impl Gates {
    /// Returns the cause of an attempt that begins now, or `None` if no attempt may begin: the
    /// destination is down, and the next probe is not due. `up_at` is a time at which another
    /// process got an answer of the destination.
    pub fn cause(&self, destination: Route, up_at: Option<DateTime<Utc>>) -> Option<Cause> {
        let mut gates = self.gates();
        let gate = gates.entry(destination).or_default();
        if let Gate::Closed { failed_at, .. } = gate
            && up_at.is_some_and(|up_at| up_at > *failed_at)
        {
            *gate = Gate::Open { up_at };
            self.changed.notify_waiters();
        }
        let probe = Cause::Probe { since: Utc::now(), up_at: gate.up_at() };
        match gate {
            Gate::Open { .. } => Some(Cause::Due),
            // The messages of a first batch do not wait for one another.
            Gate::Unknown => Some(probe),
            Gate::Closed { .. } if gate.is_probe_due() => {
                // Other attempts must not begin now, while the probe is under way.
                gate.wait_longer();
                Some(probe)
            }
            Gate::Closed { .. } => None,
        }
    }

    /// Returns the cause of an attempt, as [`Gates::cause`] does, and waits for it if the time until
    /// the next probe is at most `patience`.
    pub async fn cause_soon(
        &self,
        destination: Route,
        up_at: Option<DateTime<Utc>>,
        patience: Duration,
    ) -> Option<Cause> {
        let until = Instant::now() + patience;
        loop {
            let changed = self.changed.notified();
            if let Some(cause) = self.cause(destination, up_at) {
                return Some(cause);
            }
            let next = Instant::now() + self.gates().entry(destination).or_default().pause();
            if next > until {
                return None;
            }
            // The probe that is under way may end before.
            let _ = timeout_at(next, changed).await;
        }
    }

    /// Learns from an attempt.
    pub fn learn(&self, destination: Route, health: Health) {
        self.gates().entry(destination).or_default().learn(destination, health);
        self.changed.notify_waiters();
    }

    /// Gives back the turn of a probe that made no attempt, so that the next probe may begin now.
    pub fn return_turn(&self, destination: Route) {
        self.gates().entry(destination).or_default().return_turn();
        self.changed.notify_waiters();
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<Route, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_is_down_gets_one_probe_at_a_time() {
        let (gates, gcp) = (Gates::default(), Route::GCP);
        let is_probe = |cause| matches!(cause, Some(Cause::Probe { .. }));
        assert!(is_probe(gates.cause(gcp, None)) && is_probe(gates.cause(gcp, None)));
        gates.learn(gcp, Health::Unknown);
        assert_eq!(gates.cause(gcp, None), Some(Cause::Due));
        gates.learn(gcp, Health::Down);
        assert!(gates.cause(gcp, None).is_none() && gates.cause(Route::AWS, None).is_some());
        for probes in 1..8 {
            if let Some(Gate::Closed { next_probe, .. }) = gates.gates().get_mut(&gcp) {
                *next_probe = Utc::now();
            }
            assert!(is_probe(gates.cause(gcp, None)) && gates.cause(gcp, None).is_none());
            gates.learn(gcp, if probes % 2 == 0 { Health::Down } else { Health::Unknown });
            let pause = gates.gates()[&gcp].pause();
            let average = (FIRST_PROBE * 2u32.pow(probes)).min(LAST_PROBE);
            assert!(pause <= average * 3 / 2 && pause > average / 3, "{probes}: {pause:?}");
        }
        // An attempt that began earlier shows that the destination is up.
        gates.learn(gcp, Health::Up);
        assert_eq!(gates.cause(gcp, None), Some(Cause::Due));
    }

    #[test]
    fn the_pause_of_a_destination_that_is_busy_does_not_grow() {
        let (gates, aws) = (Gates::default(), Route::AWS);
        for _ in 0..8 {
            gates.learn(aws, Health::Busy);
            let pause = gates.gates()[&aws].pause();
            assert!(pause > Duration::ZERO && pause <= FIRST_PROBE * 3 / 2, "{pause:?}");
            assert_eq!(gates.cause(aws, None), None);
            if let Some(Gate::Closed { next_probe, .. }) = gates.gates().get_mut(&aws) {
                *next_probe = Utc::now();
            }
            assert!(matches!(gates.cause(aws, None), Some(Cause::Probe { .. })));
        }
        gates.learn(aws, Health::Up);
        assert_eq!(gates.cause(aws, None), Some(Cause::Due));
    }

    #[test]
    fn a_later_answer_that_another_process_got_opens_a_gate() {
        let (gates, gcp) = (Gates::default(), Route::GCP);
        gates.learn(gcp, Health::Down);
        let second = chrono::TimeDelta::seconds(1);
        assert_eq!(gates.cause(gcp, Some(Utc::now() - second)), None);
        assert_eq!(gates.cause(gcp, Some(Utc::now() + second)), Some(Cause::Due));
        assert_eq!(gates.cause(gcp, None), Some(Cause::Due));
    }

    #[tokio::test]
    async fn an_attempt_waits_for_the_probe_that_is_under_way() {
        let (gates, gcp) = (Gates::default(), Route::GCP);
        gates.learn(gcp, Health::Down);
        if let Some(Gate::Closed { next_probe, .. }) = gates.gates().get_mut(&gcp) {
            *next_probe = Utc::now();
        }
        assert!(gates.cause(gcp, None).is_some());
        assert_eq!(gates.cause_soon(gcp, None, Duration::from_millis(100)).await, None);
        let waiting = gates.cause_soon(gcp, None, LAST_PROBE);
        let probe = async { gates.learn(gcp, Health::Up) };
        assert_eq!(tokio::join!(waiting, probe).0, Some(Cause::Due));
    }

    #[test]
    fn a_probe_that_made_no_attempt_gives_its_turn_to_the_next() {
        let (gates, gcp) = (Gates::default(), Route::GCP);
        gates.learn(gcp, Health::Down);
        gates.return_turn(gcp);
        for _ in 0..5 {
            assert!(gates.cause(gcp, None).is_some() && gates.cause(gcp, None).is_none());
            gates.return_turn(gcp);
        }
    }
}
