//! Clauses of the contract of all stores about the inbox. Each clause gets an empty store.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::HeaderValue;
use webhook_router::{
    delivery::Delivery,
    event::Identity,
    outcome::{Outcome, Trigger},
    plan::Plan,
    route::Route,
    store::{
        Acceptance, Accepted, Attempt, Claim, DeadLetter, Delivered, Discarded, Due, Failure,
        Lease, Page, Postponed, Release, Settled, State, Store, Take, Taken,
    },
};

use super::opened::Opened;
use crate::support::{at, delivery, plan_of};

pub(super) const TTL: Duration = Duration::from_secs(6000);

pub(super) async fn accepted_event_is_due_at_once_and_taken_once(Opened { store, .. }: Opened) {
    let plan = plan_of("accepted");
    let stored = store.accept(&plan, &delivery("{1}"), at(0), at(0), at(0)).await.unwrap();
    assert_eq!(stored, Accepted::Stored { route: plan.route });
    let record = store.get(&plan.key, at(1)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(0) });
    assert_eq!(
        record.accepted,
        Some(Acceptance { at: at(0), tries: 0, bytes: 3, mirror_byte: plan.mirror_byte })
    );
    assert_eq!(listed(&*store, &plan, Some(at(0))).await, [Due { at: at(0), key: plan.key }]);

    let taken = won(store.take(&plan.key, false, at(10), at(1000)).await.unwrap());
    assert_eq!((taken.lease.key, taken.lease.until), (plan.key, at(1000)));
    assert_eq!(taken.lease.details.route, plan.route);
    assert_eq!((taken.lease.attempts, taken.accepted.tries), (vec![], 0));
    assert_eq!(taken.delivery, delivery("{1}"));
    let second = store.take(&plan.key, false, at(999), at(2000)).await.unwrap();
    assert_eq!(second, Take::NotDue(at(1000)));
    let early = store.take(&plan.key, true, at(999), at(2000)).await.unwrap();
    assert_eq!(early, Take::NotDue(at(1000)));
    // While it is leased, it is due at the end of the lease.
    assert_eq!(listed(&*store, &plan, Some(at(999))).await, []);
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(1000), key: plan.key }]);
    let record = store.get(&plan.key, at(500)).await.unwrap().unwrap();
    let held = State::InFlight { owner: taken.lease.owner, until: at(1000) };
    assert_eq!((record.state, record.accepted.is_some()), (held, true));
    let other = store.take(&plan_of("never").key, true, at(0), at(1)).await.unwrap();
    assert_eq!(other, Take::Gone);
}

pub(super) async fn accepted_event_excludes_claims_and_never_expires(Opened { store, .. }: Opened) {
    let plan = plan_of("excludes");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let far = 10 * 365 * 864_000;
    let mut tens = vec![0, 5, far];
    for step in 0..2 {
        for now in tens {
            let known = Claim::Accepted { route: plan.route };
            let claim = store.claim(&plan, at(now), at(now + 10)).await.unwrap();
            assert_eq!(claim, known, "{step} {now}");
            let again =
                store.accept(&plan, &delivery("{}"), at(now), at(now), at(now)).await.unwrap();
            assert_eq!(again, Accepted::Taken(known.into()), "{step} {now}");
            let record = store.get(&plan.key, at(now)).await.unwrap().unwrap();
            assert!(record.accepted.is_some(), "{step} {now}");
        }
        if step == 0 {
            won(store.take(&plan.key, false, at(far), at(far + 1000)).await.unwrap());
        }
        // Leased, and with a lease that has ended.
        tens = vec![far + 5, far + 2000, 2 * far];
    }
}

pub(super) async fn one_of_simultaneous_acceptances_and_takes_wins(Opened { store, .. }: Opened) {
    for round in 0..10 {
        let plan = plan_of(&format!("race {round}"));
        let tasks = (0..16).map(|_| {
            let (store, plan) = (Arc::clone(&store), plan.clone());
            tokio::spawn(async move {
                let accepted =
                    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
                let take = store.take(&plan.key, false, at(1), at(1000)).await.unwrap();
                let is_stored = matches!(accepted, Accepted::Stored { .. });
                (u32::from(is_stored), u32::from(matches!(take, Take::Won(_))))
            })
        });
        let mut sums = (0, 0);
        for task in tasks.collect::<Vec<_>>() {
            let (stored, won) = task.await.unwrap();
            sums = (sums.0 + stored, sums.1 + won);
        }
        assert_eq!(sums, (1, 1));
    }
}

pub(super) async fn ended_lease_on_an_accepted_event_is_taken_over_and_fenced(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("taken over");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let dead = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    assert_eq!(listed(&*store, &plan, Some(at(1000))).await.len(), 1);
    let heir = won(store.take(&plan.key, false, at(1000), at(2000)).await.unwrap());
    assert_ne!(dead.lease.owner, heir.lease.owner);
    assert_eq!(heir.delivery, dead.delivery);
    let letter = letter(&dead.lease);
    for _ in 0..2 {
        let lost = store.finish(&dead.lease, &delivered(at(1100))).await.unwrap();
        assert_eq!(lost, Settled::LeaseLost);
        let lost = store.fail(&dead.lease, &letter, Release::Now).await.unwrap();
        assert_eq!(lost, Settled::LeaseLost);
        let lost = store.postpone(&dead.lease, &postponed(&dead, 1100, 1200)).await.unwrap();
        assert_eq!(lost, Settled::LeaseLost);
    }
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(2000), key: plan.key }]);
    assert!(!is_dead(&*store, &plan).await);
    let done = store.finish(&heir.lease, &delivered(at(1500))).await.unwrap();
    assert_eq!(done, Settled::Stored);
    let lost = store.postpone(&heir.lease, &postponed(&heir, 1600, 1700)).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
    assert_eq!(listed(&*store, &plan, None).await, []);
}

pub(super) async fn postponed_event_waits_for_its_time(Opened { store, .. }: Opened) {
    let plan = plan_of("postponed");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    // A repetition changes nothing.
    for _ in 0..2 {
        let settled = store.postpone(&taken.lease, &postponed(&taken, 100, 5000)).await;
        assert_eq!(settled.unwrap(), Settled::Stored);
    }
    let record = store.get(&plan.key, at(2000)).await.unwrap().unwrap();
    assert_eq!(record.state, State::Waiting { due: at(5000) });
    assert_eq!(
        record.accepted,
        Some(Acceptance { at: at(0), tries: 1, bytes: 2, mirror_byte: plan.mirror_byte })
    );
    assert_eq!(record.attempts, [attempt(1)]);
    assert_eq!(listed(&*store, &plan, Some(at(4999))).await, []);
    assert_eq!(listed(&*store, &plan, Some(at(5000))).await, [Due { at: at(5000), key: plan.key }]);
    let take = store.take(&plan.key, false, at(4999), at(6000)).await.unwrap();
    assert_eq!(take, Take::NotDue(at(5000)));
    let early = won(store.take(&plan.key, true, at(4000), at(4500)).await.unwrap());
    assert_eq!((early.accepted.tries, early.lease.attempts.len()), (1, 1));
    assert_eq!((early.accepted.at, early.lease.details.first_seen), (at(0), at(0)));
    let settled = store.postpone(&early.lease, &postponed(&early, 4100, 4200)).await;
    assert_eq!(settled.unwrap(), Settled::Stored);
    let last = won(store.take(&plan.key, false, at(4200), at(6000)).await.unwrap());
    assert_eq!((last.accepted.tries, last.delivery), (2, delivery("{}")));
}

pub(super) async fn event_may_be_accepted_for_later(Opened { store, .. }: Opened) {
    let plan = plan_of("later");
    store.accept(&plan, &delivery("{}"), at(0), at(100), at(100)).await.unwrap();
    assert_eq!(listed(&*store, &plan, Some(at(99))).await, []);
    assert_eq!(
        store.take(&plan.key, false, at(99), at(1000)).await.unwrap(),
        Take::NotDue(at(100))
    );
    won(store.take(&plan.key, false, at(100), at(1000)).await.unwrap());
}

pub(super) async fn delivered_event_leaves_the_inbox(Opened { store, .. }: Opened) {
    let plan = plan_of("delivered");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    for _ in 0..2 {
        let settled = store.finish(&taken.lease, &delivered(at(500))).await.unwrap();
        assert_eq!(settled, Settled::Stored);
    }
    assert_eq!(listed(&*store, &plan, None).await, []);
    assert_eq!(store.take(&plan.key, true, at(600), at(700)).await.unwrap(), Take::Gone);
    let record = store.get(&plan.key, at(600)).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Delivered { .. }) && record.accepted.is_none());
    let end = TTL.as_secs() as i64 * 10 + 500;
    for now in [600, end - 1] {
        let again = store.accept(&plan, &delivery("{}"), at(now), at(now), at(now)).await.unwrap();
        assert!(is_delivered(&again), "{now}: {again:?}");
    }
    let anew = store.accept(&plan, &delivery("{2}"), at(end), at(end), at(end)).await.unwrap();
    assert_eq!(anew, Accepted::Stored { route: plan.route });
    let taken = won(store.take(&plan.key, false, at(end), at(end + 1)).await.unwrap());
    assert_eq!(taken.lease.details.first_seen, at(end));
    assert_eq!((taken.lease.attempts, taken.delivery), (vec![], delivery("{2}")));
}

pub(super) async fn failed_event_leaves_the_inbox_and_may_be_accepted_anew(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("failed");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    let letter = letter(&taken.lease);
    for _ in 0..2 {
        let settled = store.fail(&taken.lease, &letter, Release::Now).await.unwrap();
        assert_eq!(settled, Settled::Stored);
    }
    assert_eq!(listed(&*store, &plan, None).await, []);
    assert_eq!(store.take(&plan.key, true, at(600), at(700)).await.unwrap(), Take::Gone);
    let record = store.get(&plan.key, at(600)).await.unwrap().unwrap();
    assert_eq!((record.state, record.accepted), (State::DeadLetter, None));
    assert_eq!(store.dead_letter(&plan.key).await.unwrap(), Some(letter.clone()));

    // The event keeps its route and its attempts. Its letter is cleared, so the event is on only
    // one list.
    let mut elsewhere = plan.clone();
    elsewhere.route = other(plan.route);
    let anew = store.accept(&elsewhere, &delivery("{2}"), at(700), at(700), at(700)).await.unwrap();
    assert_eq!(anew, Accepted::Stored { route: plan.route });
    assert!(!is_dead(&*store, &plan).await);
    assert_eq!(store.dead_letter(&plan.key).await.unwrap(), None);
    assert_eq!(listed(&*store, &plan, None).await, [Due { at: at(700), key: plan.key }]);
    let taken = won(store.take(&plan.key, false, at(700), at(1700)).await.unwrap());
    assert_eq!((taken.accepted.tries, &taken.lease.attempts), (0, &letter.attempts));
    assert_eq!(taken.lease.details, letter.details);
    assert_eq!(taken.delivery, delivery("{2}"));
    let settled = store.finish(&taken.lease, &delivered(at(800))).await.unwrap();
    assert_eq!(settled, Settled::Stored);
    assert_eq!(listed(&*store, &plan, None).await, []);
}

pub(super) async fn uncertain_failure_of_an_accepted_event_holds_the_key(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("perhaps");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    let letter = letter(&taken.lease);
    let settled = store.fail(&taken.lease, &letter, Release::AtLeaseEnd).await.unwrap();
    assert_eq!(settled, Settled::Stored);
    assert_eq!(listed(&*store, &plan, None).await, []);
    let held = Claim::InFlight { until: at(1000), route: plan.route };
    assert_eq!(store.claim(&plan, at(999), at(2000)).await.unwrap(), held);
    let again = store.accept(&plan, &delivery("{}"), at(999), at(999), at(999)).await.unwrap();
    assert_eq!(again, Accepted::Taken(held.into()));
    assert_eq!(store.dead_letter(&plan.key).await.unwrap(), Some(letter));
    let anew = store.accept(&plan, &delivery("{}"), at(1000), at(1000), at(1000)).await.unwrap();
    assert_eq!(anew, Accepted::Stored { route: plan.route });
}

pub(super) async fn event_that_is_not_free_is_not_accepted(Opened { store, .. }: Opened) {
    let plan = plan_of("in flight");
    let Claim::Won(lease) = store.claim(&plan, at(0), at(1000)).await.unwrap() else {
        panic!("not won");
    };
    let held = Claim::InFlight { until: at(1000), route: plan.route };
    let refused = store.accept(&plan, &delivery("{}"), at(999), at(999), at(999)).await.unwrap();
    assert_eq!(refused, Accepted::Taken(held.into()));
    assert_eq!(store.take(&plan.key, true, at(999), at(1000)).await.unwrap(), Take::Gone);
    store.finish(&lease, &delivered(at(500))).await.unwrap();
    let refused = store.accept(&plan, &delivery("{}"), at(999), at(999), at(999)).await.unwrap();
    assert!(is_delivered(&refused), "{refused:?}");

    let named = |body: &str| {
        let mut plan = plan_of(body);
        plan.event.identity = Identity::Header("its name".into());
        plan.key = plan_of("named").key;
        plan
    };
    let (first, mut second) = (named("first"), named("second"));
    second.route = other(first.route);
    store.accept(&first, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let refused = Claim::OtherBody { route: first.route };
    assert_eq!(store.claim(&second, at(1), at(9)).await.unwrap(), refused);
    let accepted = store.accept(&second, &delivery("{}"), at(1), at(1), at(1)).await.unwrap();
    assert_eq!(accepted, Accepted::Taken(refused.into()));
}

pub(super) async fn dead_owner_does_not_prevent_an_acceptance(Opened { store, .. }: Opened) {
    let plan = plan_of("died");
    let Claim::Won(dead) = store.claim(&plan, at(0), at(1000)).await.unwrap() else {
        panic!("not won");
    };
    let stored = store.accept(&plan, &delivery("{}"), at(1000), at(1000), at(1000)).await.unwrap();
    assert_eq!(stored, Accepted::Stored { route: plan.route });
    let lost = store.finish(&dead, &delivered(at(1100))).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
    let lost = store.fail(&dead, &letter(&dead), Release::Now).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
    let taken = won(store.take(&plan.key, false, at(1200), at(2000)).await.unwrap());
    assert_eq!(taken.lease.details.first_seen, at(0));
    // Only the acceptance keeps it.
    assert!(plan.mirror_byte.is_some());
    assert_eq!(taken.accepted.mirror_byte, plan.mirror_byte);
}

pub(super) async fn inboxes_are_listed_by_destination_and_time_page_by_page(
    Opened { store, .. }: Opened,
) {
    let mut all = Vec::new();
    for index in 0..25 {
        let mut plan = plan_of(&format!("listed {index}"));
        plan.route = Route::GCP;
        // Some have the same time, and they are not in the order in which they came.
        let now = at(1000 - index / 3);
        store.accept(&plan, &delivery("{}"), now, now, now).await.unwrap();
        all.push(Due { at: now, key: plan.key });
    }
    let mut plan = plan_of("for another");
    plan.route = Route::AWS;
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    all.sort();
    let mut seen: Vec<Due> = Vec::new();
    loop {
        let page = store.due(Route::GCP, None, seen.last().copied(), 10).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 10);
        seen.extend(page);
    }
    let is_ours = |due: &Due| all.contains(due);
    seen.retain(is_ours);
    assert_eq!(seen, all);
    let by = all[12].at;
    let mut due = store.due(Route::GCP, Some(by), None, 100).await.unwrap();
    due.retain(is_ours);
    assert_eq!(due, all.iter().copied().filter(|due| due.at <= by).collect::<Vec<_>>());
}

pub(super) async fn waiting_event_is_discarded(Opened { store, .. }: Opened) {
    let plan = plan_of("discarded");
    store.accept(&plan, &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(0), at(1000)).await.unwrap());
    let leased = store.discard(&plan.key, at(500)).await.unwrap();
    assert_eq!(leased, Discarded::InFlight { until: at(1000) });
    store.postpone(&taken.lease, &postponed(&taken, 500, 5000)).await.unwrap();
    assert_eq!(store.discard(&plan.key, at(600)).await.unwrap(), Discarded::Done);
    assert_eq!(store.discard(&plan.key, at(600)).await.unwrap(), Discarded::None);
    assert_eq!(store.get(&plan.key, at(600)).await.unwrap(), None);
    assert_eq!(listed(&*store, &plan, None).await, []);
    let lost = store.finish(&taken.lease, &delivered(at(700))).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
    let anew = store.accept(&plan, &delivery("{}"), at(800), at(800), at(800)).await.unwrap();
    assert_eq!(anew, Accepted::Stored { route: plan.route });
}

pub(super) async fn accepted_delivery_is_kept_whole(Opened { store, .. }: Opened) {
    let plan = plan_of("whole");
    let large = large_delivery();
    store.accept(&plan, &large, at(0), at(0), at(0)).await.unwrap();
    let again = store.accept(&plan, &large, at(1), at(1), at(1)).await.unwrap();
    assert_eq!(again, Accepted::Taken(Claim::Accepted { route: plan.route }.into()));
    let taken = won(store.take(&plan.key, false, at(1), at(1000)).await.unwrap());
    assert!(taken.delivery == large);
    store.postpone(&taken.lease, &postponed(&taken, 2, 3)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(3), at(1000)).await.unwrap());
    assert!(taken.delivery == large);
    let letter = DeadLetter { delivery: large.clone(), ..letter(&taken.lease) };
    let settled = store.fail(&taken.lease, &letter, Release::Now).await.unwrap();
    assert_eq!(settled, Settled::Stored);
    assert!(store.dead_letter(&plan.key).await.unwrap() == Some(letter));
    // A sweep a day later leaves what is referred to.
    store.accept(&plan, &large, at(10), at(10), at(10)).await.unwrap();
    store.sweep(at(2 * 864_000)).await.unwrap();
    let taken = won(store.take(&plan.key, false, at(11), at(1000)).await.unwrap());
    assert!(taken.delivery == large);
    store.finish(&taken.lease, &delivered(at(12))).await.unwrap();
    assert_eq!(store.take(&plan.key, true, at(13), at(14)).await.unwrap(), Take::Gone);
}

pub(super) fn won(take: Take) -> Taken {
    match take {
        Take::Won(taken) => *taken,
        other => panic!("not won: {other:?}"),
    }
}

/// Returns whether an acceptance came after the event was delivered.
fn is_delivered(accepted: &Accepted) -> bool {
    matches!(accepted, Accepted::Taken(claim) if matches!(**claim, Claim::Delivered(_)))
}

/// Returns the entries of an event in the list of its destination.
pub(super) async fn listed(
    store: &dyn Store,
    plan: &Plan,
    by_now: Option<DateTime<Utc>>,
) -> Vec<Due> {
    let mut entries = Vec::new();
    for route in [plan.route, other(plan.route)] {
        let due = store.due(route, by_now, None, 1000).await.unwrap();
        let of_event: Vec<_> = due.into_iter().filter(|due| due.key == plan.key).collect();
        assert!(route == plan.route || of_event.is_empty());
        entries.extend(of_event);
    }
    entries
}

/// Returns whether an event is on the list of dead letters.
async fn is_dead(store: &dyn Store, plan: &Plan) -> bool {
    let letters = store.dead_letters(Page { limit: 1000, after: None }).await.unwrap();
    letters.iter().any(|entry| entry.key == plan.key)
}

fn other(route: Route) -> Route {
    if route == Route::GCP { Route::AWS } else { Route::GCP }
}

/// Returns the largest possible delivery, with every possible byte. It is hardly compressible.
fn large_delivery() -> Delivery {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let body: Vec<u8> = (0..6 * 1024 * 1024).map(|_| next()).collect();
    let mut large = delivery(body);
    large.query = Some("x=%F0%9F%98%80".into());
    large.headers.append("x-twice", "one".parse().unwrap());
    large.headers.append("x-twice", HeaderValue::from_bytes(&[0xE9, 0xFF, 0x20]).unwrap());
    large
}

fn attempt(number: u32) -> Attempt {
    let (by, destination, outcome) = (Trigger::Vendor, Route::AWS, Outcome::Status(503));
    Attempt { number, at: at(10), by, destination, outcome, milliseconds: 7 }
}

fn postponed(taken: &Taken, now: i64, due: i64) -> Postponed {
    let tries = taken.accepted.tries + 1;
    Postponed {
        at: at(now),
        due: at(due),
        look: at(due),
        accepted: Acceptance { tries, ..taken.accepted },
        attempts: (1..=tries).map(attempt).collect(),
    }
}

fn delivered(at: DateTime<Utc>) -> Delivered {
    Delivered { at, ttl: TTL, reply: None, attempts: vec![attempt(1)] }
}

fn letter(lease: &Lease) -> DeadLetter {
    DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: at(500),
        failure: Failure {
            outcome: Outcome::Status(503),
            detail: "it said no".into(),
            answer: None,
        },
        attempts: vec![attempt(1)],
        delivery: delivery("{}"),
    }
}
