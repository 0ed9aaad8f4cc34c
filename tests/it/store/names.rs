//! The inboxes of destinations that a process does not know.

use chrono::{DateTime, Utc};
use webhook_router::{
    key::Key,
    outcome::{Outcome, Trigger},
    plan::Plan,
    route::Route,
    store::{
        Acceptance, Accepted, Attempt, DeadLetter, Discarded, Failure, Postponed, Release, Settled,
        Store, Take,
    },
};

use super::opened::Opened;
use crate::support::{at, delivery, plan_of};

/// Lets another process accept an event for a destination.
async fn accepted_by(another: &dyn Store, name: &str) -> (Plan, Route) {
    let route = name.parse().unwrap();
    let mut plan = plan_of(&format!("of {name}"));
    plan.route = route;
    let accepted = another.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    assert_eq!(accepted, Accepted::Stored { route });
    (plan, route)
}

/// Returns the time at which an event is listed.
async fn listed(store: &dyn Store, route: Route, key: Key) -> Option<DateTime<Utc>> {
    let due = store.due(route, None, None, 100).await.unwrap();
    due.iter().find(|due| due.key == key).map(|due| due.at)
}

pub(super) async fn inbox_of_another_process_is_found_and_used(
    Opened { store, another, .. }: Opened,
) {
    let (taken, one) = accepted_by(&*another, "one-1").await;
    let (discarded, two) = accepted_by(&*another, "two_2").await;
    let (failed, three) = accepted_by(&*another, "3").await;
    let destinations = store.destinations().await.unwrap();
    assert!([one, two, three].iter().all(|route| destinations.contains(route)), "{destinations:?}");

    // Each of these calls is the first one of this process for its destination.
    let Take::Won(won) = store.take(&taken.key, false, at(10), at(1000)).await.unwrap() else {
        panic!("not taken");
    };
    assert_eq!(listed(&*another, one, taken.key).await, Some(at(1000)));
    let attempt = Attempt {
        number: 1,
        at: at(10),
        by: Trigger::Inbox,
        destination: one,
        outcome: Outcome::Status(503),
        milliseconds: 7,
    };
    let postponed = Postponed {
        at: at(20),
        due: at(2000),
        look: at(2000),
        accepted: Acceptance { at: at(0), tries: 1, bytes: 0, mirror_byte: None },
        attempts: vec![attempt.clone()],
    };
    assert_eq!(store.postpone(&won.lease, &postponed).await.unwrap(), Settled::Stored);
    assert_eq!(listed(&*another, one, taken.key).await, Some(at(2000)));

    assert_eq!(store.discard(&discarded.key, at(10)).await.unwrap(), Discarded::Done);
    assert_eq!(listed(&*another, two, discarded.key).await, None);

    // A dead letter keeps its destination when its vendor sends the event again.
    let Take::Won(won) = another.take(&failed.key, false, at(10), at(1000)).await.unwrap() else {
        panic!("not taken");
    };
    let failure = Failure { outcome: Outcome::Refused, detail: "no".into(), answer: None };
    let letter = DeadLetter {
        key: failed.key,
        details: won.lease.details.clone(),
        failed_at: at(20),
        failure,
        attempts: vec![attempt],
        delivery: delivery("{}"),
    };
    let settled = another.fail(&won.lease, &letter, Release::Now).await.unwrap();
    assert_eq!((settled, listed(&*another, three, failed.key).await), (Settled::Stored, None));
    let mut again = failed.clone();
    again.route = Route::GCP;
    let accepted = store.accept(&again, &delivery("{}"), at(30), at(30), at(40)).await.unwrap();
    assert_eq!(accepted, Accepted::Stored { route: three });
    assert_eq!(listed(&*another, three, failed.key).await, Some(at(40)));
    assert_eq!(listed(&*another, Route::GCP, failed.key).await, None);
}
