//! The pause while a destination is down.

use std::time::Duration;

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
