//! Accepted events whose destination is no longer configured. Each becomes a dead letter that names
//! the destination.
//!
//! While a new configuration is rolled out, processes with the old one run beside those with the
//! new one. So another process may know a destination that this one does not know. It may let the
//! event wait, because the destination is down or at its limit. So this process leaves the event
//! alone until it is long overdue.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::{Budgets, around};
use crate::{
    fault,
    outcome::{Ending, Origin, Trigger},
    router::{Budget, Cause, Handled, Router},
    store::{Due, StoreError},
};

/// Time after which an event that is due, and that no process tries, counts as abandoned.
const GRACE: Duration = Duration::from_secs(3600);

/// Average time between two searches for abandoned events.
const SEARCH: Duration = Duration::from_secs(60);

/// Most entries that are read per page.
const PAGE: usize = 256;

fn grace() -> Duration {
    fault::pause("FAULT_ABANDONED_MS", GRACE)
}

/// Settles the abandoned events from time to time, until `stop`.
pub(super) async fn search(router: Arc<Router>, budgets: Budgets, stop: CancellationToken) {
    let every = fault::pause("FAULT_ABANDONED_MS", SEARCH);
    let pause = || tokio::time::sleep(around(every));
    let budget = || (!stop.is_cancelled()).then(|| budgets());
    while stop.run_until_cancelled(pause()).await.is_some() {
        settle(&router, budget, &Origin::default()).await;
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{Instance, Message},
        *,
    };
    use crate::{
        config::Config,
        destination::Destinations,
        event::Identity,
        key::Key,
        store::{self, State},
        testing::{self, lookup},
    };

    /// Creates a router that knows no destination.
    async fn router(folder: &std::path::Path) -> (Arc<Router>, impl Fn() -> Option<Budget>) {
        let url = format!("sqlite:{}", folder.join("store.db").display());
        let vars = [("STORE_URL", url.as_str()), ("ROUTE_THRESHOLD", "0")];
        let vars = [&vars[..], &[("AWS_TARGET_FUNCTION", "p")]].concat();
        let config = Config::from_vars(lookup(&vars)).unwrap();
        let store = store::open(&config.store).await.unwrap();
        let router = Router::new(&config, store, Destinations::default());
        (Arc::new(router), move || Some(Budget::of_attempt(&config)))
    }

    /// Puts an event into the inbox of a destination, due this long ago.
    async fn accept(router: &Router, destination: &str, ago: Duration) -> Key {
        let mut plan = testing::plan(Identity::Content, &format!("{destination} {ago:?}"));
        plan.route = destination.parse().unwrap();
        let (delivery, due) = (testing::delivery("/webhook", &[], "{}"), Utc::now() - ago);
        router.store().accept(&plan, &delivery, due, due, due).await.unwrap();
        plan.key
    }

    async fn state(router: &Router, key: &Key) -> State {
        router.store().get(key, Utc::now()).await.unwrap().unwrap().state
    }

    #[tokio::test]
    async fn an_event_is_a_dead_letter_when_nobody_has_looked_at_it_for_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let (router, budget) = router(folder.path()).await;
        let second = Duration::from_secs(1);
        let (old, aws) =
            (accept(&router, "old", GRACE + second).await, accept(&router, "aws", GRACE * 2).await);
        let new = accept(&router, "new", GRACE - 30 * second).await;
        let settled = settle(&router, &budget, &Origin::default()).await;
        assert_eq!((settled.failed, settled.is_incomplete), (2, false));
        for (key, name) in [(old, "old"), (aws, "aws")] {
            assert_eq!(state(&router, &key).await, State::DeadLetter);
            let letter = router.store().dead_letter(&key).await.unwrap().unwrap();
            let why = format!("the destination {name} is not configured");
            assert!(letter.failure.detail.ends_with(&why), "{}", letter.failure.detail);
        }
        assert!(matches!(state(&router, &new).await, State::Waiting { .. }));
        let again = settle(&router, &budget, &Origin::default()).await;
        assert_eq!((again.failed, again.is_incomplete), (0, false));
        let no_time = settle(&router, || None, &Origin::default()).await;
        assert_eq!((no_time.failed, no_time.is_incomplete), (0, false));
    }

    #[tokio::test]
    async fn a_message_for_a_destination_that_is_not_known_is_left_to_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let (router, budget) = router(folder.path()).await;
        let key = accept(&router, "old", Duration::from_secs(1)).await;
        let message = Message {
            id: "one".into(),
            key: Some(key),
            destination: "old".parse().ok(),
            up_at: None,
            bytes: 0,
        };
        let (attempt, store) = (Duration::from_secs(1), Duration::from_secs(1));
        let instance = Arc::new(Instance::new(Arc::clone(&router), attempt, store));
        let budget = || budget().unwrap();
        let again = instance.consume(vec![message], budget, &Origin::default()).await;
        assert!(again.is_empty());
        assert!(matches!(state(&router, &key).await, State::Waiting { .. }));
    }
}
