//! The pause while a destination is down.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::around;
use crate::{route::Route, router::Health};

/// The pause after the failure that closed a lane, and after an error of the store. The pause before
/// a probe doubles with each probe in vain.
pub(super) const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Longest pause between two probes, on average.
pub(super) const LAST_PROBE: Duration = Duration::from_secs(30);

/// A destination that is down.
pub(super) struct Down {
    /// The number of probes in vain.
    probes: u32,
    /// By the wall clock, which continues while Lambda freezes the process.
    next_probe: DateTime<Utc>,
}

impl Down {
    pub fn is_probe_due(&self) -> bool {
        self.pause().is_zero()
    }

    /// Returns the time until the next probe.
    pub fn pause(&self) -> Duration {
        // The clock may have been set back.
        (self.next_probe - Utc::now()).to_std().unwrap_or_default().min(2 * LAST_PROBE)
    }

    /// Delays the next probe, for longer each time.
    fn wait_longer(&mut self) {
        self.probes += 1;
        let pause = FIRST_PROBE * 2u32.pow(self.probes.min(5));
        self.next_probe = Utc::now() + around(pause.min(LAST_PROBE));
    }
}

/// Learns from an attempt whether a destination is down. Returns true if it is up again.
pub(super) fn learn(down: &mut Option<Down>, destination: Route, health: Health) -> bool {
    match (health, &mut *down) {
        (Health::Down, None) => {
            tracing::warn!(%destination, "down; its accepted events wait");
            *down = Some(Down { probes: 0, next_probe: Utc::now() + around(FIRST_PROBE) });
            false
        }
        // Attempts that began before the first failure are no probes.
        (Health::Down | Health::Unknown, Some(down)) if !down.is_probe_due() => false,
        (Health::Down | Health::Unknown, Some(down)) => {
            down.wait_longer();
            false
        }
        (Health::Up, Some(_)) => {
            tracing::info!(%destination, "up again");
            *down = None;
            true
        }
        (Health::Up | Health::Unknown, None) => false,
    }
}

/// The destinations that are down, as far as this process knows.
#[derive(Default)]
pub(super) struct Outages(Mutex<HashMap<Route, Option<Down>>>);

impl Outages {
    /// Returns whether an attempt may begin. While the destination is down, it may if the next probe
    /// is due, and the attempt is that probe.
    pub fn may_try(&self, destination: Route) -> bool {
        let mut known = self.known();
        let Some(Some(down)) = known.get_mut(&destination) else { return true };
        let is_probe_due = down.is_probe_due();
        if is_probe_due {
            // Other attempts must not begin while the probe is under way.
            down.wait_longer();
        }
        is_probe_due
    }

    /// Learns from an attempt.
    pub fn learn(&self, destination: Route, health: Health) {
        learn(self.known().entry(destination).or_default(), destination, health);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Route, Option<Down>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_is_down_gets_one_probe_at_a_time() {
        let (outages, gcp) = (Outages::default(), Route::Gcp);
        assert!(outages.may_try(gcp) && outages.may_try(gcp));
        outages.learn(gcp, Health::Unknown);
        assert!(outages.may_try(gcp));
        outages.learn(gcp, Health::Down);
        assert!(!outages.may_try(gcp) && outages.may_try(Route::Aws));
        let due = |outages: &Outages| {
            if let Some(Some(down)) = outages.known().get_mut(&gcp) {
                down.next_probe = Utc::now();
            }
        };
        for probes in 1..8 {
            due(&outages);
            assert!(outages.may_try(gcp) && !outages.may_try(gcp));
            outages.learn(gcp, if probes % 2 == 0 { Health::Down } else { Health::Unknown });
            let pause = outages.known()[&gcp].as_ref().unwrap().pause();
            let average = (FIRST_PROBE * 2u32.pow(probes)).min(LAST_PROBE);
            assert!(pause <= average * 3 / 2 && pause > average / 3, "{probes}: {pause:?}");
        }
        // An attempt that began earlier shows that the destination is up.
        outages.learn(gcp, Health::Up);
        assert!(outages.may_try(gcp) && outages.may_try(gcp));
    }
}
