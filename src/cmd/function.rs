//! The state of the started function, which every kind of invocation uses.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_runtime::Context;

use crate::{
    config::Config,
    router::{Budget, Router},
};

/// Time of an invocation that is reserved for settling, in addition to the store's timeout.
const SETTLING: Duration = Duration::from_millis(300);
/// Time of an invocation that is reserved for answering.
const ANSWERING: Duration = Duration::from_millis(200);

/// The started function.
pub(super) struct Function {
    pub router: Arc<Router>,
    pub config: Config,
}

impl Function {
    /// Returns the budget of a delivery that begins now: the rest of the invocation, less a margin.
    /// The lease ends after the invocation does.
    pub fn budget(&self, context: &Context) -> Budget {
        let settling = self.config.store.timeout + SETTLING;
        let forwarding = match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` gives every invocation a deadline in 1970.
            Err(_) if self.config.is_emulated => self.config.forward.budget,
            left => left.unwrap_or_default().saturating_sub(settling + ANSWERING),
        };
        Budget::new(forwarding, settling)
    }
}
