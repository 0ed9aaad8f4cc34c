//! Clauses of the contract of all stores: the list of an inbox, if messages of a queue bring its
//! events.

use webhook_router::{
    route::Route,
    store::{Acceptance, Delivered, Discarded, Due, Postponed, Settled, State, Take, Taken},
};

use super::{
    inbox::{TTL, listed, won},
    opened::Opened,
};
use crate::support::{at, delivery, plan_of};

pub(super) async fn event_with_a_message_is_listed_later_than_it_is_due(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("has a message");
    store.accept(&plan, &delivery("{}"), at(0), at(10), at(3000)).await.unwrap();
    let record = store.get(&plan.key, at(1)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(10) });
    assert_eq!(listed(&*store, &plan, Some(at(2999))).await, []);
    assert_eq!(listed(&*store, &plan, Some(at(3000))).await.len(), 1);
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(3000), key: plan.key }]);

    // The message may come before the time in the list, and not before the event is due.
    let early = store.take(&plan.key, false, at(9), at(1000)).await.unwrap();
    assert_eq!(early, Take::NotDue(at(10)));
    let taken = won(store.take(&plan.key, false, at(10), at(1000)).await.unwrap());
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(1000), key: plan.key }]);
    for _ in 0..2 {
        let settled = store.postpone(&taken.lease, &postponed(&taken, 5000, 8000)).await;
        assert_eq!(settled.unwrap(), Settled::Stored);
    }
    let record = store.get(&plan.key, at(600)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(5000) });
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(8000), key: plan.key }]);
    let early = store.take(&plan.key, false, at(4999), at(9000)).await.unwrap();
    assert_eq!(early, Take::NotDue(at(5000)));
    assert_eq!(store.discard(&plan.key, at(700)).await.unwrap(), Discarded::Done);
    assert_eq!(listed(&*store, &plan, None).await, []);
}

pub(super) async fn entry_is_moved_only_while_it_is_as_it_was_read(Opened { store, .. }: Opened) {
    let plan = plan_of("moved");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(100)).await.unwrap();
    let relist = async |entry: i64, now: i64, look: i64| {
        let entry = Due { at: at(entry), key: plan.key };
        let moved = store.relist(plan.route, entry, at(now), at(look)).await.unwrap();
        assert!(
            moved.is_none_or(|moved| moved == Due { at: at(look), key: plan.key }),
            "{moved:?}"
        );
        moved.is_some()
    };
    assert!(!relist(99, 200, 500).await);
    let elsewhere = if plan.route == Route::GCP { Route::AWS } else { Route::GCP };
    let entry = Due { at: at(100), key: plan.key };
    assert_eq!(store.relist(elsewhere, entry, at(200), at(500)).await.unwrap(), None);
    // One of two runs of a schedule moves the entry.
    assert!(relist(100, 200, 500).await);
    assert!(!relist(100, 201, 501).await);
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(500), key: plan.key }]);
    let record = store.get(&plan.key, at(200)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(0) });
    assert!(relist(500, 600, 900).await);

    // The event is still due. Taking it changes the entry.
    let dead = won(store.take(&plan.key, false, at(201), at(1000)).await.unwrap());
    assert!(!relist(900, 950, 2000).await);
    // The owner dies, and its entry moves.
    assert!(relist(1000, 1100, 1500).await);
    let record = store.get(&plan.key, at(1100)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(1000) });
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(1500), key: plan.key }]);
    let heir = won(store.take(&plan.key, false, at(1100), at(2000)).await.unwrap());
    assert_eq!(heir.delivery, dead.delivery);
    let delivered = Delivered { at: at(1200), ttl: TTL, reply: None, attempts: vec![] };
    assert_eq!(store.finish(&heir.lease, &delivered).await.unwrap(), Settled::Stored);
    assert!(!relist(2000, 2100, 3000).await);
    assert_eq!(listed(&*store, &plan, None).await, []);
    assert!(matches!(
        store.get(&plan.key, at(1300)).await.unwrap().unwrap().state,
        State::Delivered { .. }
    ));
}

fn postponed(taken: &Taken, due: i64, look: i64) -> Postponed {
    let accepted = Acceptance { tries: 1, ..taken.accepted };
    Postponed { at: at(500), due: at(due), look: at(look), accepted, attempts: vec![] }
}
