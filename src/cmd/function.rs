//! The function once it has started, as every kind of invocation uses it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_runtime::Context;

use crate::{
    config::Config,
    router::{Budget, Router},
};

/// Beyond the store's timeout, time of an invocation that is kept for settling.
const SETTLING: Duration = Duration::from_millis(300);
/// Time of an invocation that is kept for answering.
const ANSWERING: Duration = Duration::from_millis(200);

/// The function, once it has started.
pub(super) struct Function {
    pub router: Arc<Router>,
    pub config: Config,
}

impl Function {
    /// The budget of a delivery that begins now: what is left of the invocation, less a margin; the
    /// lease ends after the invocation does.
    pub fn budget(&self, context: &Context) -> Budget {
        let settling = self.config.store.timeout + SETTLING;
        let forwarding = match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` says that every invocation had to end in 1970.
            Err(_) if self.config.is_emulated => self.config.forward.budget,
            left => left.unwrap_or_default().saturating_sub(settling + ANSWERING),
        };
        Budget::new(forwarding, settling)
    }
}
