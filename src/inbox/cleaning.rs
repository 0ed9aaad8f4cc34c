//! Removes the remains of interrupted acceptances from the store.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::around;
use crate::router::Router;

/// Average time between two searches for the remains of interrupted acceptances.
const CLEANING: Duration = Duration::from_secs(3600);

/// Removes the remains of interrupted acceptances from time to time.
pub(super) async fn clean(router: Arc<Router>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(around(CLEANING)) => {}
            () = stop.cancelled() => return,
        }
        clean_up(&router, &stop).await;
    }
}

/// Removes the remains of interrupted acceptances, until `stop`. The next call continues from
/// there.
pub(super) async fn clean_up(router: &Router, stop: &CancellationToken) {
    let swept = router.store().sweep(Utc::now());
    if let Some(Err(error)) = stop.run_until_cancelled(swept).await {
        tracing::warn!(%error, "the store could not be cleaned");
    }
}
