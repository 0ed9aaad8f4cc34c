//! The pause while a destination is down.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};

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

/// Whether accepted events may go to a destination.
#[derive(Default)]
pub(super) enum Gate {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// The destination is up, as far as this process knows.
    Open,
    /// The destination is down. There is one probe at a time.
    Closed {
        /// The number of failed probes.
        probes: u32,
        /// By the wall clock, which continues while Lambda freezes the process.
        next_probe: DateTime<Utc>,
    },
}

impl Gate {
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
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
        match (health, &*self) {
            (Health::Down, Self::Open | Self::Unknown) => {
                tracing::warn!(%destination, "down; its accepted events wait");
                let next_probe = Utc::now() + around(FIRST_PROBE);
                *self = Self::Closed { probes: 0, next_probe };
            }
            // Attempts that began before the first failure are no probes.
            (Health::Down | Health::Unknown, Self::Closed { .. }) => {
                if self.is_probe_due() {
                    self.wait_longer();
                }
            }
            (Health::Up, Self::Closed { .. }) => {
                tracing::info!(%destination, "up again");
                *self = Self::Open;
                return true;
            }
            (Health::Up | Health::Unknown, _) => *self = Self::Open,
        }
        false
    }

    /// Delays the next probe, for longer each time.
    fn wait_longer(&mut self) {
        if let Self::Closed { probes, next_probe } = self {
            *probes += 1;
            let pause = FIRST_PROBE * 2u32.pow((*probes).min(5));
            *next_probe = Utc::now() + around(pause.min(LAST_PROBE));
        }
    }
}

/// The gates of all destinations, for attempts that run side by side.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<Route, Gate>>);

impl Gates {
    /// Returns the cause of an attempt that begins now, or `None` if no attempt may begin: the
    /// destination is down, and the next probe is not due.
    pub fn cause(&self, destination: Route) -> Option<Cause> {
        let mut gates = self.gates();
        let gate = gates.entry(destination).or_default();
        match gate {
            Gate::Open => Some(Cause::Due),
            // The messages of a first batch do not wait for one another.
            Gate::Unknown => Some(Cause::Probe(Utc::now())),
            Gate::Closed { .. } if gate.is_probe_due() => {
                // Other attempts must not begin while the probe is under way.
                gate.wait_longer();
                Some(Cause::Probe(Utc::now()))
            }
            Gate::Closed { .. } => None,
        }
    }

    /// Learns from an attempt.
    pub fn learn(&self, destination: Route, health: Health) {
        self.gates().entry(destination).or_default().learn(destination, health);
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<Route, Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_is_down_gets_one_probe_at_a_time() {
        let (gates, gcp) = (Gates::default(), Route::Gcp);
        let is_probe = |cause| matches!(cause, Some(Cause::Probe(_)));
        assert!(is_probe(gates.cause(gcp)) && is_probe(gates.cause(gcp)));
        gates.learn(gcp, Health::Unknown);
        assert_eq!(gates.cause(gcp), Some(Cause::Due));
        gates.learn(gcp, Health::Down);
        assert!(gates.cause(gcp).is_none() && gates.cause(Route::Aws).is_some());
        for probes in 1..8 {
            if let Some(Gate::Closed { next_probe, .. }) = gates.gates().get_mut(&gcp) {
                *next_probe = Utc::now();
            }
            assert!(is_probe(gates.cause(gcp)) && gates.cause(gcp).is_none());
            gates.learn(gcp, if probes % 2 == 0 { Health::Down } else { Health::Unknown });
            let pause = gates.gates()[&gcp].pause();
            let average = (FIRST_PROBE * 2u32.pow(probes)).min(LAST_PROBE);
            assert!(pause <= average * 3 / 2 && pause > average / 3, "{probes}: {pause:?}");
        }
        // An attempt that began earlier shows that the destination is up.
        gates.learn(gcp, Health::Up);
        assert_eq!(gates.cause(gcp), Some(Cause::Due));
    }
}
