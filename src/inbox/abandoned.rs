//! Accepted events whose destination is no longer configured. Each becomes a dead letter that names
//! the destination.
//!
//! Another process may still know the destination, or know it already: while a new configuration is
//! rolled out, both are in use. It delivers the event soon after it is due. So this process leaves the
//! event alone until nobody has looked at it for some minutes.

use std::time::Duration;

use chrono::{TimeDelta, Utc};

use crate::{
    fault,
    outcome::{Ending, Origin, Trigger},
    router::{Budget, Cause, Handled, Router},
    store::{Due, StoreError},
};

/// Time after which an event that is due, and that no process tries, counts as abandoned.
const GRACE: Duration = Duration::from_secs(300);

/// Average time between two searches for abandoned events.
const SEARCH: Duration = Duration::from_secs(60);

/// Most entries that are read per page.
const PAGE: usize = 256;

fn grace() -> Duration {
    fault::pause("FAULT_ABANDONED_MS", GRACE)
}

/// Returns the average time between two searches.
pub(super) fn search() -> Duration {
    fault::pause("FAULT_ABANDONED_MS", SEARCH)
}

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    /// The number of events that became dead letters.
    pub failed: u32,
    /// True if there was no time for all events, the store did not answer, or a record cannot be
    /// read.
    pub is_incomplete: bool,
}

/// Makes dead letters of the abandoned events. `budget` returns the time for the next one, or `None`
/// when no time is left.
pub(super) async fn settle(
    router: &Router,
    budget: impl Fn() -> Option<Budget>,
    origin: &Origin,
) -> Abandoned {
    let mut sum = Abandoned::default();
    if let Err(error) = settle_all(router, budget, origin, &mut sum).await {
        tracing::error!(%error, "events whose destination is not configured cannot be listed");
        sum.is_incomplete = true;
    }
    sum
}

async fn settle_all(
    router: &Router,
    budget: impl Fn() -> Option<Budget>,
    origin: &Origin,
    sum: &mut Abandoned,
) -> Result<(), StoreError> {
    let store = router.store();
    for route in store.destinations().await? {
        if router.destinations().get(route).is_ok() {
            continue;
        }
        let mut last: Option<Due> = None;
        loop {
            let by = Utc::now() - TimeDelta::from_std(grace()).unwrap_or_default();
            let page = store.due(route, Some(by), last, PAGE).await?;
            // A store may compare the times with its own clock.
            let abandoned: Vec<_> = page.into_iter().take_while(|due| due.at <= by).collect();
            let Some(end) = abandoned.last() else { break };
            last = Some(*end);
            for Due { key, .. } in abandoned {
                let Some(budget) = budget() else {
                    sum.is_incomplete = true;
                    return Ok(());
                };
                let (by, origin) = (Trigger::Inbox, origin.clone());
                match router.deliver_accepted(key, Cause::Due, by, origin, budget, None).await {
                    Handled::Tried { ending, settled, .. } => {
                        sum.failed += u32::from(ending == Ending::Failed);
                        sum.is_incomplete |= !settled;
                    }
                    Handled::NotDue(_) | Handled::NoRoom(_) | Handled::Gone => {}
                    Handled::Unreadable | Handled::StoreUnavailable => sum.is_incomplete = true,
                }
            }
        }
    }
    Ok(())
}
