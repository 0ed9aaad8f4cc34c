//! Clauses of the contract of all stores. Each clause gets an empty store.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use http::{HeaderValue, StatusCode};
use webhook_router::{
    delivery::Reply,
    event::Identity,
    finding::Severity,
    key::Key,
    outcome::{Outcome, Trigger},
    plan::Plan,
    route::Route,
    store::{
        Attempt, Claim, DeadLetter, Delivered, Details, Discarded, Entry, Excerpt, Failed, Failure,
        Lease, MAX_NAME_CHARS, Page, Release, Settled, State, Store, StoreError,
    },
};

use super::opened::Opened;
use crate::support::{at, delivery, plan_of};

const TTL: Duration = Duration::from_secs(6000);

pub(super) async fn claim_is_exclusive(Opened { store, .. }: Opened) {
    let plan = plan_of("claimed once");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    assert_eq!((lease.key, lease.until), (plan.key, at(1000)));
    assert_eq!((lease.details, lease.attempts), (details(&plan, 0), vec![]));
    let second = store.claim(&plan, at(999), at(2000)).await.unwrap();
    assert_eq!(second, Claim::InFlight { until: at(1000), route: plan.route });
    won(store.claim(&plan_of("another"), at(0), at(1000)).await);
}

pub(super) async fn ping_is_answered_and_leaves_nothing_behind(Opened { store, .. }: Opened) {
    store.ping().await.unwrap();
    assert_eq!(dead_letters(&*store).await, []);
    let plan = plan_of("after a ping");
    won(store.claim(&plan, at(0), at(1000)).await);
    store.ping().await.unwrap();
}

pub(super) async fn examination_finds_no_error(Opened { store, .. }: Opened) {
    let findings = store.examine().await;
    assert_eq!(findings[0].severity, Severity::Ok, "{findings:?}");
    let error = findings.iter().find(|found| found.severity == Severity::Error);
    assert_eq!(error, None);
}

pub(super) async fn one_of_simultaneous_claims_wins(Opened { store, .. }: Opened) {
    for round in 0..20 {
        let plan = plan_of(&format!("race {round}"));
        let claims = (0..32).map(|_| {
            let (store, plan) = (Arc::clone(&store), plan.clone());
            tokio::spawn(async move { store.claim(&plan, at(0), at(1000)).await.unwrap() })
        });
        let mut winners = 0;
        for claim in claims.collect::<Vec<_>>() {
            winners += u32::from(matches!(claim.await.unwrap(), Claim::Won(_)));
        }
        assert_eq!(winners, 1);
    }
}

pub(super) async fn ended_lease_is_taken_over_and_fenced(Opened { store, .. }: Opened) {
    let plan = plan_of("taken over");
    let dead = won(store.claim(&plan, at(0), at(1000)).await);
    let heir = won(store.claim(&plan, at(1000), at(2000)).await);
    assert_ne!(dead.owner, heir.owner);
    assert_eq!((heir.details.first_seen, heir.until), (at(0), at(2000)));
    // The first owner was only slow, but its results no longer count.
    assert_eq!(store.finish(&dead, &delivered(at(1100))).await.unwrap(), Settled::LeaseLost);
    let letter = letter(&plan, &dead, Outcome::Status(500));
    assert_eq!(store.fail(&dead, &letter, Release::Now).await.unwrap(), Settled::LeaseLost);
    assert_eq!(dead_letters(&*store).await, []);
    let record = store.get(&plan.key, at(1200)).await.unwrap().unwrap();
    assert_eq!(record.state, State::InFlight { owner: heir.owner.clone(), until: at(2000) });
    assert_eq!(store.finish(&heir, &delivered(at(1300))).await.unwrap(), Settled::Stored);
    assert_eq!(store.finish(&dead, &delivered(at(1400))).await.unwrap(), Settled::LeaseLost);
}

pub(super) async fn ended_lease_counts_until_it_is_taken_over(Opened { store, .. }: Opened) {
    let plan = plan_of("late but alone");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    assert_eq!(store.finish(&lease, &delivered(at(5000))).await.unwrap(), Settled::Stored);
    let claim = store.claim(&plan, at(5001), at(6000)).await.unwrap();
    assert!(matches!(claim, Claim::Delivered(_)));
    // An owner repeats its request when the answer was lost.
    assert_eq!(store.finish(&lease, &delivered(at(5000))).await.unwrap(), Settled::Stored);
    // A delivered event cannot fail any more.
    let letter = letter(&plan, &lease, Outcome::Status(500));
    assert_eq!(store.fail(&lease, &letter, Release::Now).await.unwrap(), Settled::LeaseLost);
    assert_eq!(dead_letters(&*store).await, []);
}

pub(super) async fn delivered_event_is_remembered_whole_until_its_ttl_ends(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("délivré 😀 \u{0}");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let done = delivered(at(500));
    assert_eq!(store.finish(&lease, &done).await.unwrap(), Settled::Stored);

    let end = TTL.as_secs() as i64 * 10 + 500;
    for now in [at(500), at(1500), at(end - 1)] {
        let Claim::Delivered(record) = store.claim(&plan, now, at(999_999)).await.unwrap() else {
            panic!("not delivered at {now}");
        };
        assert_eq!(Some(&record), store.get(&plan.key, now).await.unwrap().as_ref());
        assert_eq!((record.key, record.details), (plan.key, Some(details(&plan, 0))));
        assert_eq!(record.attempts, done.attempts);
        assert_eq!(record.state, State::Delivered { at: Some(at(500)), reply: done.reply.clone() });
    }
    assert_eq!(store.get(&plan.key, at(end)).await.unwrap(), None);
    let again = won(store.claim(&plan, at(end), at(end + 1000)).await);
    assert_eq!((again.details, again.attempts), (details(&plan, end), vec![]));
}

pub(super) async fn failed_event_is_free_and_keeps_its_route(Opened { store, .. }: Opened) {
    let plan = plan_of("failed");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let letter = letter(&plan, &lease, Outcome::Status(503));
    assert_eq!(store.fail(&lease, &letter, Release::Now).await.unwrap(), Settled::Stored);
    assert_eq!(dead_letters(&*store).await, std::slice::from_ref(&letter));
    let record = store.get(&plan.key, at(600)).await.unwrap().unwrap();
    assert_eq!((record.state, record.failed), (State::DeadLetter, failed(&letter)));
    assert_eq!(record.attempts, letter.attempts);

    // The route of the first claim stays, even if the threshold has changed.
    let mut elsewhere = plan.clone();
    elsewhere.route = if plan.route == Route::GCP { Route::AWS } else { Route::GCP };
    let retry = won(store.claim(&elsewhere, at(700), at(1700)).await);
    assert_eq!(retry.details, details(&plan, 0));
    assert_eq!(retry.attempts, letter.attempts);
    let in_flight = store.claim(&elsewhere, at(800), at(1800)).await.unwrap();
    assert_eq!(in_flight, Claim::InFlight { until: at(1700), route: plan.route });
    // The letter stays until the event is delivered.
    assert_eq!(dead_letters(&*store).await.len(), 1);
    assert_eq!(store.finish(&retry, &delivered(at(900))).await.unwrap(), Settled::Stored);
    assert_eq!(dead_letters(&*store).await, []);
}

pub(super) async fn uncertain_failure_holds_the_key_until_the_lease_ends(
    Opened { store, .. }: Opened,
) {
    let plan = plan_of("perhaps");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let letter = letter(&plan, &lease, Outcome::TimedOut);
    for _ in 0..2 {
        let settled = store.fail(&lease, &letter, Release::AtLeaseEnd).await.unwrap();
        assert_eq!(settled, Settled::Stored);
    }
    let claim = store.claim(&plan, at(999), at(2000)).await.unwrap();
    assert_eq!(claim, Claim::InFlight { until: at(1000), route: plan.route });
    assert_eq!(store.discard(&plan.key, at(999)).await.unwrap(), in_flight(1000));
    // Until then, the event is in flight and failed. From then on, it is a dead letter like any
    // other.
    let record = store.get(&plan.key, at(999)).await.unwrap().unwrap();
    let held = State::InFlight { owner: lease.owner.clone(), until: at(1000) };
    assert_eq!((record.state, record.failed), (held, failed(&letter)));
    let record = store.get(&plan.key, at(1000)).await.unwrap().unwrap();
    assert_eq!((record.state, record.failed), (State::DeadLetter, failed(&letter)));
    assert_eq!(dead_letters(&*store).await, std::slice::from_ref(&letter));
    let retry = won(store.claim(&plan, at(1000), at(2000)).await);
    assert_eq!(retry.attempts, letter.attempts);
    let record = store.get(&plan.key, at(1500)).await.unwrap().unwrap();
    assert!(matches!(record.state, State::InFlight { .. }) && record.failed.is_some());
    // This owner dies, and only the letter is left.
    let record = store.get(&plan.key, at(2000)).await.unwrap().unwrap();
    assert_eq!(record.state, State::DeadLetter);
}

pub(super) async fn dead_owner_still_shows(Opened { store, .. }: Opened) {
    let plan = plan_of("died");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let record = store.get(&plan.key, at(5000)).await.unwrap().unwrap();
    assert_eq!(record.state, State::InFlight { owner: lease.owner, until: at(1000) });
    assert_eq!((record.details, record.failed), (Some(details(&plan, 0)), None));
    assert_eq!(store.discard(&plan.key, at(5000)).await.unwrap(), Discarded::None);
}

pub(super) async fn discarded_event_is_forgotten(Opened { store, .. }: Opened) {
    let plan = plan_of("discarded");
    assert_eq!(store.discard(&plan.key, at(0)).await.unwrap(), Discarded::None);
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let letter = letter(&plan, &lease, Outcome::Status(500));
    store.fail(&lease, &letter, Release::Now).await.unwrap();
    let retry = won(store.claim(&plan, at(600), at(1600)).await);
    assert_eq!(store.discard(&plan.key, at(700)).await.unwrap(), in_flight(1600));
    store.fail(&retry, &letter, Release::Now).await.unwrap();
    assert_eq!(store.discard(&plan.key, at(800)).await.unwrap(), Discarded::Done);
    assert_eq!(store.discard(&plan.key, at(800)).await.unwrap(), Discarded::None);
    assert_eq!(store.get(&plan.key, at(800)).await.unwrap(), None);
    assert_eq!(dead_letters(&*store).await, []);
    // An owner that was too slow does not restore the letter.
    let settled = store.fail(&retry, &letter, Release::Now).await.unwrap();
    assert_eq!(settled, Settled::LeaseLost);
    assert_eq!(dead_letters(&*store).await, []);
    let again = won(store.claim(&plan, at(900), at(1900)).await);
    assert_eq!((&again.details, &again.attempts), (&details(&plan, 900), &vec![]));
    assert_eq!(store.finish(&again, &delivered(at(1000))).await.unwrap(), Settled::Stored);
    assert_eq!(store.discard(&plan.key, at(5000)).await.unwrap(), Discarded::None);
}

pub(super) async fn chosen_name_belongs_to_one_body(Opened { store, .. }: Opened) {
    let named = |body: &str| {
        let mut plan = plan_of(body);
        plan.event.identity = Identity::Header("its name".into());
        plan.key = plan_of("named").key;
        plan
    };
    let (first, mut other) = (named("first"), named("other"));
    other.route = if first.route == Route::GCP { Route::AWS } else { Route::GCP };
    let refused = Claim::OtherBody { route: first.route };
    let lease = won(store.claim(&first, at(0), at(1000)).await);
    // The name stays with its event in every state: in flight, with a dead owner, failed,
    // delivered.
    for now in [500, 5000] {
        assert_eq!(store.claim(&other, at(now), at(9000)).await.unwrap(), refused);
    }
    let letter = letter(&first, &lease, Outcome::Status(500));
    store.fail(&lease, &letter, Release::Now).await.unwrap();
    assert_eq!(store.claim(&other, at(600), at(9000)).await.unwrap(), refused);
    let retry = won(store.claim(&first, at(700), at(1700)).await);
    store.finish(&retry, &delivered(at(800))).await.unwrap();
    assert_eq!(store.claim(&other, at(900), at(9000)).await.unwrap(), refused);
    let again = store.claim(&first, at(900), at(9000)).await.unwrap();
    assert!(matches!(again, Claim::Delivered(_)));
    let end = TTL.as_secs() as i64 * 10 + 800;
    won(store.claim(&other, at(end), at(end + 1000)).await);
}

pub(super) async fn dead_letter_keeps_the_delivery_whole(Opened { store, .. }: Opened) {
    let plan = plan_of("whole");
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    let mut letter = letter(&plan, &lease, Outcome::Unreachable);
    // The body has the largest allowed size, and contains every byte value. It hardly compresses,
    // like encrypted or packed data.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let body: Vec<u8> = (0..6 * 1024 * 1024).map(|_| next()).collect();
    letter.delivery = delivery(body);
    letter.delivery.path = "/webhook?x=%F0%9F%98%80".into();
    let headers = &mut letter.delivery.headers;
    // The head is the largest that the server accepts.
    headers.insert("x-big", HeaderValue::from_bytes(&[0xFF; 64 * 1024]).unwrap());
    headers.append("x-twice", "one".parse().unwrap());
    headers.append("x-twice", "two".parse().unwrap());
    headers.insert("x-latin", HeaderValue::from_bytes(&[0xE9, 0xFF, 0x20]).unwrap());
    assert_eq!(store.fail(&lease, &letter, Release::Now).await.unwrap(), Settled::Stored);
    assert!(dead_letters(&*store).await == [letter.clone()]);
    let retry = won(store.claim(&plan, at(100), at(1100)).await);
    // The first owner repeats its request because the answer was lost. It is too late and leaves no
    // trace.
    assert_eq!(store.fail(&lease, &letter, Release::Now).await.unwrap(), Settled::LeaseLost);
    assert!(dead_letters(&*store).await == std::slice::from_ref(&letter));
    // A second failure replaces the first, whether it is small or hardly larger than an item can
    // hold.
    letter.delivery.body = letter.delivery.body.slice(..256 * 1024);
    assert_eq!(store.fail(&retry, &letter, Release::Now).await.unwrap(), Settled::Stored);
    assert!(dead_letters(&*store).await == std::slice::from_ref(&letter));
    letter.delivery.body = "smaller".into();
    assert_eq!(store.fail(&retry, &letter, Release::Now).await.unwrap(), Settled::Stored);
    assert!(dead_letters(&*store).await == [letter]);
}

pub(super) async fn dead_letters_are_listed_by_time_page_by_page(Opened { store, .. }: Opened) {
    let mut all = Vec::new();
    for index in 0..25 {
        let plan = plan_of(&format!("letter {index}"));
        let lease = won(store.claim(&plan, at(0), at(1000)).await);
        let mut letter = letter(&plan, &lease, Outcome::Status(500));
        // Some letters fail at the same time, and not in the order of their writing.
        letter.failed_at = at(1000 - index / 3);
        assert_eq!(store.fail(&lease, &letter, Release::Now).await.unwrap(), Settled::Stored);
        all.push(Entry { failed_at: letter.failed_at, key: letter.key });
    }
    all.sort();
    let mut listed: Vec<Entry> = Vec::new();
    loop {
        let page = Page { limit: 10, after: listed.last().copied() };
        let entries = store.dead_letters(page).await.unwrap();
        if entries.is_empty() {
            break;
        }
        assert!(entries.len() <= 10);
        listed.extend(entries);
    }
    assert_eq!(listed, all);
}

pub(super) async fn key_is_found_by_its_first_digits_where_the_store_can(
    Opened { store, finds_keys, .. }: Opened,
) {
    let (failed, delivered_one) = (plan_of("found when failed"), plan_of("found"));
    let lease = won(store.claim(&failed, at(0), at(1000)).await);
    let letter = letter(&failed, &lease, Outcome::Status(500));
    store.fail(&lease, &letter, Release::Now).await.unwrap();
    let lease = won(store.claim(&delivered_one, at(0), at(1000)).await);
    store.finish(&lease, &delivered(at(1))).await.unwrap();
    for plan in [failed, delivered_one] {
        let digits = plan.key.to_string().replace(Key::PREFIX, "");
        let found = store.find(&digits[..8], at(2)).await.unwrap();
        assert_eq!(found.is_some(), finds_keys);
        assert_eq!(found.unwrap_or_else(|| vec![plan.key]), [plan.key]);
    }
    // A forgotten event cannot be found.
    let end = at(TTL.as_secs() as i64 * 10 + 1);
    let digits = plan_of("found").key.to_string().replace(Key::PREFIX, "");
    assert_eq!(store.find(&digits[..8], end).await.unwrap().unwrap_or_default(), []);
    let none = store.find("00000000", at(2)).await.unwrap();
    assert_eq!(none.unwrap_or_default(), []);
}

pub(super) async fn names_of_any_length_are_kept_cut(Opened { store, .. }: Opened) {
    let mut plan = plan_of("long");
    plan.event.vendor = "é".repeat(500_000);
    plan.event.event_type = "x".repeat(500_000);
    let lease = won(store.claim(&plan, at(0), at(1000)).await);
    assert_eq!(lease.details.vendor, "é".repeat(MAX_NAME_CHARS));
    let letter = letter(&plan, &lease, Outcome::Status(500));
    store.fail(&lease, &letter, Release::Now).await.unwrap();
    assert_eq!(dead_letters(&*store).await, [letter]);
}

pub(super) async fn event_nobody_claimed_is_unknown(Opened { store, .. }: Opened) {
    assert_eq!(store.get(&plan_of("never").key, at(0)).await.unwrap(), None);
    assert_eq!(dead_letters(&*store).await, []);
}

fn won(claim: Result<Claim, StoreError>) -> Lease {
    match claim.unwrap() {
        Claim::Won(lease) => lease,
        other => panic!("not won: {other:?}"),
    }
}

fn delivered(at: chrono::DateTime<chrono::Utc>) -> Delivered {
    let headers = http::HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        HeaderValue::from_bytes(b"text/x-odd; charset=\"\xe9\"").unwrap(),
    )]);
    let reply = Reply { status: StatusCode::ACCEPTED, headers, body: vec![0, 255, 10].into() };
    Delivered { at, ttl: TTL, reply: Some(reply), attempts: vec![attempt(1, Outcome::Status(202))] }
}

fn attempt(number: u32, outcome: Outcome) -> Attempt {
    let (by, destination) = (Trigger::BulkReplay, Route::AWS);
    Attempt { number, at: at(10), by, destination, outcome, milliseconds: 7 }
}

/// Creates a dead letter with the longest answer that it can keep, and with every byte value.
fn letter(plan: &Plan, lease: &Lease, outcome: Outcome) -> DeadLetter {
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let answer = Reply { body: body.into(), ..Reply::text(StatusCode::BAD_GATEWAY, "") };
    DeadLetter {
        key: plan.key,
        details: lease.details.clone(),
        failed_at: lease.details.first_seen + TimeDelta::milliseconds(500),
        failure: Failure {
            outcome,
            detail: "it said \"no\" – é".into(),
            answer: Some(Excerpt::of(&answer).into()),
        },
        attempts: vec![attempt(1, Outcome::TimedOut), attempt(2, outcome)],
        delivery: delivery("{}"),
    }
}

fn details(plan: &Plan, first_seen: i64) -> Details {
    Details {
        vendor: plan.event.vendor.clone(),
        source: plan.event.source.clone(),
        event_type: plan.event.event_type.clone(),
        created_at: plan.event.created_at,
        digest: plan.event.digest.clone(),
        route: plan.route,
        first_seen: at(first_seen),
        accepted_at: None,
    }
}

/// Returns all letters in the order of the list.
async fn dead_letters(store: &dyn Store) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    for entry in store.dead_letters(Page { limit: 100, after: None }).await.unwrap() {
        letters.extend(store.dead_letter(&entry.key).await.unwrap());
    }
    letters
}

fn failed(letter: &DeadLetter) -> Option<Failed> {
    Some(Failed { at: letter.failed_at, failure: letter.failure.clone() })
}

fn in_flight(until: i64) -> Discarded {
    Discarded::InFlight { until: at(until) }
}
