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

/// The started function.
pub(super) struct Function {
    pub router: Arc<Router>,
    pub inbox: Arc<inbox::Instance>,
    pub config: Config,
}

impl Function {
    /// Returns the budget of a delivery that begins now.
    pub fn budget(&self, context: &Context) -> Budget {
        match self.left(context) {
            Some(left) => Budget::of_invocation(left, self.config.store.timeout),
            None => Budget::without_deadline(&self.config),
        }
    }

    /// Returns the time that an invocation has left. Returns `None` in an emulator that gives
    /// invocations no deadline.
    pub fn left(&self, context: &Context) -> Option<Duration> {
        match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` gives every invocation a deadline in 1970.
            Err(_) if self.config.is_emulated => None,
            left => Some(left.unwrap_or_default()),
        }
    }
}
