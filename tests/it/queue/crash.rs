//! The state after a crash at every step, when messages and a schedule wake the function. The process
//! ends itself at the steps of `inbox/crash.rs`, and before and after each message. The vendor comes
//! again until it hears 200, and never after that. Another instance takes over.
//!
//! docs/guarantees.md says how often an accepted event may arrive after such a crash.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::Utc;
use http::StatusCode;
use tokio::task::JoinSet;
use webhook_router::store::State;

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    emulator::SECRET,
    event_source::{Faults, Function, Queue, Wakers},
    inbox::{
        crash::{NOISE, Place, STEPS, Says, has},
        event, is_delivered, record_in,
    },
    servers::{DynamoDbLocal, Moto},
    shared,
    support::{ROUTER, Sink, delivery, intake, ok, planned, status},
};

/// The steps around a message: of the acceptance, and of the postponement.
const MESSAGES: [(&str, Says, usize); 4] = [
    // The vendor gets no answer, although the event is in the inbox.
    ("before message", Says::Done, 1),
    ("after message", Says::Done, 1),
    ("before message:2", Says::TryLater, 2),
    ("after message:2", Says::TryLater, 2),
];

/// Returns whether a step leaves the store in a state that no other step leaves. On DynamoDB Local,
/// only these steps are tested: inbox/crash.rs has all of them.
fn is_a_state_of_its_own((step, says, _): (&str, Says, usize)) -> bool {
    match step {
        "before accept" | "before take" | "after take" | "before send" | "before settle" => false,
        "after send" => matches!(says, Says::Done),
        "after send:2" => false,
        _ => true,
    }
}

/// Trials at the same time.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_every_accepted_event_arrives_as_often_as_promised() {
    let mut places = Vec::new();
    for _ in 0..AT_ONCE {
        places.push(Place::at(&shared::redis_database()).await);
    }
    at_every_step(places, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_every_accepted_event_arrives_as_often_as_promised() {
    let dynamodb = DynamoDbLocal::start().await;
    let places = Place::in_tables(&dynamodb, AT_ONCE / 2).await;
    at_every_step(places, is_a_state_of_its_own).await;
}

async fn at_every_step(places: Vec<Place>, is_chosen: fn((&str, Says, usize)) -> bool) {
    let steps = STEPS.into_iter().filter(|step| has(&places[0].vars[0].1, *step));
    let steps = steps.filter(|step| is_chosen(*step)).chain(MESSAGES);
    let steps = Arc::new(Mutex::new(steps.enumerate().collect::<Vec<_>>()));
    let moto = Arc::new(Moto::start());
    let mut trials = JoinSet::new();
    for place in places {
        let (steps, moto) = (Arc::clone(&steps), Arc::clone(&moto));
        trials.spawn(async move {
            loop {
                let next = steps.lock().unwrap().pop();
                let Some((number, (step, says, arrivals))) = next else { break };
                let queue = Queue::on(&moto, &format!("q{number}"), 2 * VISIBILITY, 10).await;
                crash(&place, queue, step, says, arrivals).await;
            }
        });
    }
    trials.join_all().await;
}

async fn crash(place: &Place, queue: Queue, step: &str, says: Says, arrivals: usize) {
    let what = format!("{step}, {says:?}");
    let sink = Sink::start().await;
    sink.answers(match says {
        Says::Done => ok("done"),
        Says::TryLater => status(StatusCode::BAD_GATEWAY, "no"),
        Says::Never => status(StatusCode::UNPROCESSABLE_ENTITY, "never"),
    });
    let body = match place.vars[0].1.starts_with("dynamodb:") {
        // DynamoDB stores this body in three parts.
        true => event(&what).replace("1.50", &NOISE),
        false => event(&what),
    };
    let key = planned(&delivery(body.clone()), &intake(SECRET), Utc::now()).unwrap().key;
    let start = |more: &[(&str, &str)]| {
        let store: Vec<_> =
            place.vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // DynamoDB Local is slow while the machine is busy, and a lease ends with the invocation.
        let times = match store[0].1.starts_with("dynamodb:") {
            true => ["10", "3000", "1500"],
            false => ["5", "1000", "1500"],
        };
        let common = [
            ("RETRY_SCHEDULE", "0s,1s,1s"),
            ("AWS_LAMBDA_FUNCTION_TIMEOUT", times[0]),
            ("STORE_TIMEOUT_MS", times[1]),
            ("FORWARD_TIMEOUT_MS", times[2]),
        ];
        instance(Path::new(ROUTER), &sink.url, &store, &queue, &[&common, more].concat())
    };
    let (dying, heir) = (start(&[("FAULT_POINT", step)]), start(&[]));
    let told = sink.clone();
    let function = Function::with_heir(dying, heir, move || told.answers(ok("done")));
    let queue = Arc::new(queue);
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    let mut is_heard_at_once = true;
    let heard = loop {
        match function.deliver(&body).await {
            Some(heard) if heard.status == 200 => break heard,
            Some(heard) => assert_eq!(heard.status, 503, "{what}: {heard:?}"),
            None => is_heard_at_once = false,
        }
    };
    assert_eq!(heard.key, key.to_string());
    let is_accepting = step.contains("accept")
        || (step.contains("part") && !step.contains(":4"))
        || (step.contains("message") && !step.contains(":2"));
    assert_eq!(is_heard_at_once, !is_accepting, "{what}: {}", function.emulator(0).log());
    let began = Instant::now();
    while !function.has_heir_taken_over() {
        let log = || function.emulator(0).log();
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let record = record_in(&*place.store, &heard.key, |record| record.accepted.is_none()).await;
    match (says, step) {
        (Says::Never, "after settle") => assert_eq!(record.state, State::DeadLetter, "{what}"),
        _ => assert!(is_delivered(&record), "{what}: {record:?}"),
    }
    // A message that comes now changes nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let received = sink.take();
    assert_eq!(received.len(), arrivals, "{what}\n{}", function.emulator(0).log());
    for one in &received {
        assert!(one.body == body, "{what}: the body has changed");
        assert_eq!(one.told("idempotency-key"), Some(heard.key.clone()), "{what}");
    }
}
