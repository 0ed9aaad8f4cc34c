//! The time limits of a delivery.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::config::Config;

/// Time by which a lease outlasts everything that its owner may do.
const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// Number of tries to store a result that a lease leaves time for, outside Lambda.
const SETTLE_TRIES: u32 = 4;

/// The time that a delivery may take.
///
/// ```text
/// claim                     forward_until                    lease_until
///   ├ attempt ─ pause ─ attempt ──┤                               │
///   │                             ├ finish or fail ┤              │
///   │                             │    settling    │    margin    │ a claim takes the key over
///   ▼                             ▼                ▼              ▼
///   the key is ours    no attempt is under way     the answer     the key may be taken over
/// ```
///
/// After a takeover, a finish or fail of ours changes nothing. If nobody takes over, a late finish
/// or fail still counts.
///
/// If the owner dies anywhere on this line, its lease remains, and no other owner starts before the
/// lease ends. A failure with a known outcome frees the key at once. A failure with an unknown
/// outcome leaves the lease to run out.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The time at which the delivery came in.
    pub now: DateTime<Utc>,
    /// The time by which forwarding must have ended, by a clock that stops while the machine is
    /// suspended.
    pub(super) forward_until: Instant,
    /// Time for storing the result, counted from the end of forwarding.
    pub(super) settling: Duration,
    /// The end of the lease: from then on, another owner may take the key over. It is later than
    /// `forward_until`, so that no other owner starts while this one may still be sending.
    pub(super) lease_until: DateTime<Utc>,
}

impl Budget {
    /// Creates a budget that starts now: `forwarding` for the attempts, `settling` for storing the
    /// result, and a lease that outlasts both by a second.
    pub fn new(forwarding: Duration, settling: Duration) -> Self {
        let (now, started) = (Utc::now(), Instant::now());
        Self {
            now,
            forward_until: started + forwarding,
            settling,
            lease_until: now + forwarding + settling + LEASE_MARGIN,
        }
    }

    /// Returns the time left for forwarding. The wall clock counts as well: when a suspended
    /// machine or a frozen function wakes up, another owner may have taken over.
    pub(super) fn left(&self) -> Duration {
        let until = self.lease_until - self.settling - LEASE_MARGIN;
        let by_wall_clock = (until - Utc::now()).to_std().unwrap_or_default();
        self.forward_until.saturating_duration_since(Instant::now()).min(by_wall_clock)
    }

    /// Returns whether there is time for a whole attempt.
    pub fn has_time_for(&self, attempt: Duration) -> bool {
        self.left() >= attempt
    }

    /// Creates the budget of a delivery outside Lambda.
    pub fn configured(config: &Config) -> Self {
        Self::new(config.forward.budget, config.store.timeout * SETTLE_TRIES)
    }
}
