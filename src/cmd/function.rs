//! The state of the started function, which every kind of invocation uses.

use std::{sync::Arc, time::SystemTime};

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
        let store_timeout = self.config.store.timeout;
        match context.deadline().duration_since(SystemTime::now()) {
            // `cargo lambda watch` gives every invocation a deadline in 1970.
            Err(_) if self.config.is_emulated => Budget::without_deadline(&self.config),
            left => Budget::of_invocation(left.unwrap_or_default(), store_timeout),
        }
    }
}
