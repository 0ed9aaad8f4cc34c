//! The state of the started function, which every kind of invocation uses.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_runtime::Context;

use crate::{
    config::Config,
    inbox,
    router::{Budget, Router},
};

/// Time of an invocation that is reserved for settling, in addition to the store's timeout.
const SETTLING: Duration = Duration::from_millis(300);
/// Time of an invocation that is reserved for answering.
const ANSWERING: Duration = Duration::from_millis(200);

/// The started function.
pub(super) struct Function {
    pub router: Arc<Router>,
    pub inbox: Arc<inbox::Instance>,
    pub config: Config,
}

impl Function {
    /// Returns the budget of a delivery that begins now: the rest of the invocation, less a margin.
    /// The lease ends after the invocation does.
    pub fn budget(&self, context: &Context) -> Budget {
        let Config { store, forward, is_emulated, .. } = &self.config;
        let (forwarding, settling) = match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` gives every invocation a deadline in 1970.
            Err(_) if *is_emulated => (forward.budget, settling(store.timeout)),
            left => shares(left.unwrap_or_default(), store.timeout),
        };
        Budget::new(forwarding, settling)
    }
}

/// Splits the rest of an invocation into the time for forwarding and the time for settling.
fn shares(left: Duration, store_timeout: Duration) -> (Duration, Duration) {
    let settling = settling(store_timeout);
    (left.saturating_sub(settling + ANSWERING), settling)
}

fn settling(store_timeout: Duration) -> Duration {
    store_timeout + SETTLING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_has_time_left_to_settle_again_and_to_answer() {
        let (second, moment) = (Duration::from_secs(1), Duration::from_millis(100));
        for left in [3 * second, 30 * second, 900 * second] {
            let (forwarding, settling) = shares(left, second);
            // There is time to tell a slow store the result once more.
            assert!(settling >= second + 2 * moment, "{settling:?}");
            // The answer leaves before Lambda ends the invocation.
            assert!(forwarding + settling + moment <= left, "{forwarding:?}, {settling:?}");
            // The reserve is at most one second longer than the store's own time.
            assert!(forwarding + settling + second >= left && settling <= 2 * second);
        }
        assert_eq!(shares(second, second).0, Duration::ZERO);
    }
}
