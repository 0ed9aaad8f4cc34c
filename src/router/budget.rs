//! The time limits of a delivery.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::config::Config;

/// Time by which a lease outlasts everything that a running owner does.
const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// Longest time for storing a result, in timeouts of the store. Outside Lambda, all of it is
/// reserved. In Lambda, an invocation that has time left gives it.
const SETTLE_TIMEOUTS: u32 = 4;

/// Time of an invocation that is reserved for settling, in addition to the store's timeout.
const SETTLING: Duration = Duration::from_millis(300);

/// Time of an invocation that is reserved for answering.
const ANSWERING: Duration = Duration::from_millis(200);

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
/// After a takeover, a `finish`, `fail` or `postpone` of the previous owner changes nothing. If
/// nobody has taken over, it still counts after the end of the lease: the machine was suspended, or
/// the write was delayed.
///
/// If the owner dies before it has stored a result, its lease remains until `lease_until`. None of
/// its attempts is stored. So the next owner sends the event again, even if the destination had
/// answered 2xx, and counts on from the last stored attempt: a destination may get attempts 1, 2
/// and then 1. `Idempotency-Key` tells it that this is the same event. An accepted event comes
/// again by the list of the inbox, by its message if SQS brings that later, or when an operator
/// replays it. Any other event comes again only when its vendor sends it again, or with a replay if
/// it has a dead letter from before. docs/guarantees.md lists what each crash costs.
///
/// A failure with a known outcome frees the key at once. A failure with an unknown outcome leaves
/// the lease to run out.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The time at which the delivery came in.
    pub now: DateTime<Utc>,
    /// The time by which forwarding must have ended, by a clock that stops while the machine is
    /// suspended.
    pub(super) forward_until: Instant,
    /// Time that is reserved for storing the result, counted from `forward_until`.
    pub(super) settling: Duration,
    /// Longest time for storing the result, counted from the end of forwarding.
    patience: Duration,
    /// The end of the lease: from then on, another owner may take the key over. It is later than
    /// `forward_until`, so that no other owner starts while this one may still be sending, if their
    /// clocks agree to the margin.
    pub lease_until: DateTime<Utc>,
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
            patience: settling,
            lease_until: now + forwarding + settling + LEASE_MARGIN,
        }
    }

    /// Returns the time left for forwarding. The wall clock counts as well: when a suspended
    /// machine or a frozen function wakes up, another owner may have taken over.
    pub fn left(&self) -> Duration {
        let until = self.lease_until - self.settling - LEASE_MARGIN;
        let by_wall_clock = (until - Utc::now()).to_std().unwrap_or_default();
        self.forward_until.saturating_duration_since(Instant::now()).min(by_wall_clock)
    }

    /// Returns the time by which everything except the answer must have ended.
    pub(super) fn settle_until(&self) -> Instant {
        self.forward_until + self.settling
    }

    /// Returns the time by which a success must be stored while its sender waits for the answer. A
    /// sender that waits too long sends the event again, although it is delivered.
    pub(super) fn answer_until(&self) -> Instant {
        Instant::now().min(self.forward_until) + self.settling
    }

    /// Returns the time by which any other result that is known now must be stored.
    pub(super) fn store_until(&self) -> Instant {
        self.settle_until().min(Instant::now() + self.patience)
    }

    /// Returns whether there is time for a whole attempt.
    pub fn has_time_for(&self, attempt: Duration) -> bool {
        self.left() >= attempt
    }

    /// Creates the budget for taking an accepted event and making one attempt. With the defaults,
    /// the lease lasts 16 s.
    pub fn of_attempt(config: &Config) -> Self {
        let forwarding = config.store.timeout + config.forward.timeout;
        Self::new(forwarding, config.store.timeout * SETTLE_TIMEOUTS)
    }

    /// Creates the budget of a delivery outside Lambda. With the defaults, the lease lasts 35 s.
    pub fn configured(config: &Config) -> Self {
        Self::new(config.forward.budget, config.store.timeout * SETTLE_TIMEOUTS)
    }

    /// Creates the budget of a delivery in Lambda: the rest of the invocation, less a margin. The
    /// lease ends 0.8 s after the invocation does.
    pub fn of_invocation(left: Duration, store_timeout: Duration) -> Self {
        let reserved = store_timeout + SETTLING + ANSWERING;
        Self::in_lambda(left.saturating_sub(reserved), store_timeout)
    }

    /// Creates the budget of a delivery in an emulator that gives invocations no deadline.
    pub fn without_deadline(config: &Config) -> Self {
        Self::in_lambda(config.forward.budget, config.store.timeout)
    }

    fn in_lambda(forwarding: Duration, store_timeout: Duration) -> Self {
        let settling = store_timeout + SETTLING;
        let patience = settling.max(store_timeout * SETTLE_TIMEOUTS);
        Self { patience, ..Self::new(forwarding, settling) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lookup;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_outlives_forwarding_and_settling() {
        let (forwarding, settling) = (7 * SECOND, 3 * SECOND);
        let budget = Budget::new(forwarding, settling);
        let lease = (budget.lease_until - budget.now).to_std().unwrap();
        assert_eq!((lease, budget.settling), (11 * SECOND, settling));
        assert_eq!(budget.settle_until() - budget.forward_until, settling);
        let left = budget.left();
        assert!(left <= forwarding && left > forwarding - SECOND, "{left:?}");
        assert!(budget.has_time_for(6 * SECOND) && !budget.has_time_for(8 * SECOND));
        assert!(Budget::new(Duration::ZERO, settling).left().is_zero());
    }

    #[test]
    fn an_invocation_has_time_left_to_settle_again_and_to_answer() {
        let moment = Duration::from_millis(100);
        let invocation = |left| shares(&Budget::of_invocation(left, SECOND));
        for left in [3 * SECOND, 30 * SECOND, 900 * SECOND] {
            let (forwarding, settling) = invocation(left);
            // There is time to tell a slow store the result once more.
            assert!(settling >= SECOND + 2 * moment, "{settling:?}");
            // The answer leaves before Lambda ends the invocation.
            assert!(forwarding + settling + moment <= left, "{forwarding:?}, {settling:?}");
            // The reserve is at most one second longer than the store's own time.
            assert!(forwarding + settling + SECOND >= left && settling <= 2 * SECOND);
        }
        assert_eq!(invocation(SECOND).0, Duration::ZERO);
    }

    #[test]
    fn a_result_has_four_timeouts_of_the_store_if_the_invocation_has_them() {
        for (left, most) in [(30 * SECOND, 4 * SECOND), (3 * SECOND, SECOND * 14 / 5)] {
            let began = Instant::now();
            let until = Budget::of_invocation(left, SECOND).store_until() - began;
            assert!((most..most + SECOND).contains(&until), "{left:?}: {until:?}");
        }
        // A sender that waits for a success does not wait longer than the reserve.
        let began = Instant::now();
        let until = Budget::of_invocation(30 * SECOND, SECOND).answer_until() - began;
        assert!((SECOND + SETTLING..3 * SECOND).contains(&until), "{until:?}");
        // The reserve for settling is longer than four short timeouts.
        let (began, short) = (Instant::now(), Duration::from_millis(50));
        let until = Budget::of_invocation(30 * SECOND, short).store_until() - began;
        assert!((short + SETTLING..SECOND).contains(&until), "{until:?}");
    }

    fn config() -> Config {
        let vars = [
            ("GCP_TARGET_URL", "https://x.dev"),
            ("ROUTE_THRESHOLD", "256"),
            ("FORWARD_BUDGET_MS", "5000"),
            ("FORWARD_TIMEOUT_MS", "3000"),
            ("STORE_TIMEOUT_MS", "500"),
        ];
        Config::from_vars(lookup(&vars)).unwrap()
    }

    /// Returns the times for forwarding and for settling.
    fn shares(budget: &Budget) -> (Duration, Duration) {
        let lease = (budget.lease_until - budget.now).to_std().unwrap();
        (lease - budget.settling - LEASE_MARGIN, budget.settling)
    }

    #[test]
    fn an_attempt_at_an_accepted_event_has_time_to_take_it_first() {
        assert_eq!(shares(&Budget::of_attempt(&config())), (7 * SECOND / 2, 2 * SECOND));
    }

    #[test]
    fn an_emulator_without_deadlines_gets_the_configured_time() {
        let (forwarding, settling) = shares(&Budget::without_deadline(&config()));
        assert_eq!((forwarding, settling), (5 * SECOND, SECOND / 2 + SETTLING));
    }

    #[test]
    fn whichever_clock_is_ahead_ends_forwarding() {
        let budget = Budget::new(7 * SECOND, 3 * SECOND);
        // The wall clock continues while the machine sleeps.
        let slept = |seconds: u32| {
            let lease_until = budget.lease_until - SECOND * seconds;
            Budget { lease_until, ..budget }.left()
        };
        assert!((SECOND..=2 * SECOND).contains(&slept(5)), "{:?}", slept(5));
        assert!(slept(7).is_zero() && slept(60).is_zero());
        let late = Budget { forward_until: Instant::now() + SECOND, ..budget };
        assert!(late.left() <= SECOND && !late.left().is_zero());
    }

    #[test]
    fn outside_lambda_storing_the_result_has_four_timeouts() {
        let budget = Budget::configured(&config());
        assert_eq!(shares(&budget), (5 * SECOND, 2 * SECOND));
        assert!(budget.has_time_for(4 * SECOND) && !budget.has_time_for(6 * SECOND));
    }
}
