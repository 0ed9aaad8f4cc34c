//! The life of an accepted event in Lambda.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_sqs::types::MessageSystemAttributeName;
use chrono::Utc;
use http::StatusCode;
use serde_json::Value;
use webhook_router::route::Route;

use super::{SCHEDULE, VISIBILITY, arrived, instance, one_instance, until};
use crate::{
    emulator::Artefact,
    event_source::{DUE, Faults, Function, Queue, Wakers, batch},
    inbox::{crash::Place, event, is_delivered, record},
    servers::Redis,
    shared,
    stack::{LEAST, Stack},
    support::{ROUTER, Sink, delivery, plan_of, status},
};

#[tokio::test]
async fn the_release_build_answers_at_once_and_delivers_what_messages_bring() {
    let (artefact, sink) = (Artefact::router(), Sink::start().await);
    let (queue, url) = (Queue::start(VISIBILITY, 10).await, shared::redis_database());
    let store = [("STORE_URL", url.as_str())];
    let emulator = instance(&artefact.bootstrap(), &sink.url, &store, &queue, &[]);
    let (queue, function) = (Arc::new(queue), Function::of([emulator]));
    let mut keys = Vec::new();
    for number in 0..12 {
        let heard = function.deliver(&event(&number.to_string())).await.unwrap();
        assert_eq!((heard.status, &*heard.text), (200, "accepted"));
        keys.push(heard.key);
    }
    assert!(sink.received().is_empty());
    let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    let again = function.deliver(&event("7")).await.unwrap();
    assert_eq!((again.status, &*again.text), (200, "duplicate ignored"));
    drop(wakers);
    assert_eq!(sink.take().len(), 12);
    let log = function.emulator(0).log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line["message"] == "delivery").collect();
    let count = |trigger: &str, outcome: &str| {
        let is_it = |line: &&Value| line["trigger"] == trigger && line["outcome"] == outcome;
        lines.iter().filter(is_it).count()
    };
    assert_eq!((count("vendor", "accepted"), count("inbox", "delivered")), (12, 12));
    assert!(lines.iter().all(|line| line["request_id"].is_string()), "{log}");
    assert!(lines[0]["queue_milliseconds"].as_f64().unwrap() > 0.0);

    // The schedule finds nothing, and says so with the metrics that the alarms use.
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!((&report["sent"], &report["is_incomplete"]), (&0.into(), &false.into()));
    let log = function.emulator(0).log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let pending: Vec<_> = lines.filter(|line| line["message"] == "pending").collect();
    // One line for each destination, and this function has one.
    let last = pending.last().unwrap();
    assert_eq!(last["destination"], "gcp");
    assert_eq!((&last["pending"], &last["oldest_pending_seconds"]), (&0.into(), &0.0.into()));
    let stack = Stack::new(&[&LEAST[..], &[("Answer", "accepted")]].concat()).unwrap();
    let (there, watched) = (stack.metrics_of(last), stack.watched());
    let is_of_the_inbox =
        |metric: &&(String, String)| metric.0 == "pending" || metric.0 == "oldest_pending_seconds";
    let watched: BTreeSet<_> = watched.iter().filter(is_of_the_inbox).cloned().collect();
    assert_eq!(watched, there);
}

#[tokio::test]
async fn a_failed_attempt_comes_back_with_a_message_and_a_long_pause_without_one() {
    let url = shared::redis_database();
    let more = [("RETRY_SCHEDULE", "0s,1s,20m,1s")];
    let (sink, queue, function) = one_instance(&url, &more).await;
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let heard = function.deliver(&event("retried")).await.unwrap();
    for tries in 1..=2 {
        let mut messages = Vec::new();
        until("a message comes", async || {
            messages.extend(queue.receive().await);
            !messages.is_empty()
        })
        .await;
        let answer = function.invoke(batch(&messages)).await.unwrap();
        assert_eq!(answer.to_string(), r#"{"batchItemFailures":[]}"#);
        let attributes = messages[0].message_attributes.as_ref().unwrap();
        assert_eq!(attributes["destination"].string_value(), Some("gcp"));
        let is_tried = |record: &webhook_router::store::Record| {
            record.accepted.is_some_and(|accepted| accepted.tries == tries)
        };
        record(&url, &heard.key, is_tried).await;
        // A message that comes twice is not a second attempt.
        function.invoke(batch(&messages)).await.unwrap();
        queue.delete(&messages[0]).await;
    }
    assert_eq!(sink.take().len(), 2);
    // No message can wait for 20 minutes, so the list has the event.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(queue.receive().await.is_empty());
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!((&report["sent"], &report["delivered"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn events_without_messages_get_one_each_from_runs_that_end_in_time() {
    // SQS as moto emulates it slows down with more.
    const EVENTS: usize = 120;
    let url = shared::redis_database();
    let store = Place::at(&url).await.store;
    let sink = Sink::start().await;
    // A message that was received does not come again during this test.
    let queue = Queue::start(Duration::from_secs(600), 10).await;
    let start = |timeout: &str| {
        let more = [("FAULT_MESSAGE_LOST_MS", "600000"), ("AWS_LAMBDA_FUNCTION_TIMEOUT", timeout)];
        instance(Path::new(ROUTER), &sink.url, &[("STORE_URL", &url)], &queue, &more)
    };
    let function = Function::of([start("5")]);
    let now = Utc::now();
    for number in 0..EVENTS {
        let mut plan = plan_of(&number.to_string());
        plan.route = Route::GCP;
        plan.event.source = (number % 2 == 0).then(|| "stripe-eu".to_owned());
        store.accept(&plan, &delivery("{}"), now, now, now).await.unwrap();
    }
    let run = async || {
        let report = function.invoke(DUE.into()).await;
        report.expect("the run ends before its invocation")
    };
    let (mut sent, mut tried) = (0, 0);
    let count = |report: &Value, name: &str| report[name].as_u64().unwrap() as usize;
    // While SQS hangs, until the run must end, the events stay due.
    queue.moto.signal("STOP");
    let report = run().await;
    queue.moto.signal("CONT");
    assert_eq!((count(&report, "sent"), &report["is_incomplete"]), (0, &true.into()), "{report}");
    assert!(count(&report, "not_sent") > 0, "{report}");
    tried += count(&report, "delivered");
    let listed = store.due(Route::GCP, Some(Utc::now()), None, 2 * EVENTS).await.unwrap();
    assert_eq!(listed.len() + tried, EVENTS);
    // SQS as moto emulates it is slow, and a request that is repeated makes it slower.
    function.replace(0, start("20"));
    until("all are found", async || {
        let report = run().await;
        (sent, tried) = (sent + count(&report, "sent"), tried + count(&report, "delivered"));
        report["is_incomplete"] == false
    })
    .await;
    // Each run with something to do makes one attempt by itself.
    assert!(tried >= 2 && sent + tried == EVENTS, "{sent}, {tried}");
    let report = run().await;
    assert_eq!((&report["sent"], &report["delivered"]), (&0.into(), &0.into()), "{report}");
    let (mut keys, mut groups) = (BTreeSet::new(), BTreeSet::new());
    until("all are received", async || {
        for message in queue.receive().await {
            let attributes = message.attributes.unwrap();
            groups.insert(attributes[&MessageSystemAttributeName::MessageGroupId].clone());
            keys.insert(message.body.unwrap());
        }
        keys.len() >= sent
    })
    .await;
    // The group is the source, or the vendor of an event without one.
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["stripe", "stripe-eu"]);
}

#[tokio::test]
async fn while_sqs_does_not_answer_events_are_accepted_and_found_later() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let more = [("FAULT_MESSAGE_LOST_MS", "600000")];
    let (sink, queue, function) = one_instance(&url, &more).await;
    queue.moto.signal("STOP");
    let mut keys = Vec::new();
    for number in 0..3 {
        let began = Instant::now();
        let heard = function.deliver(&event(&number.to_string())).await.unwrap();
        assert_eq!((heard.status, &*heard.text), (200, "accepted"));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        keys.push(heard.key);
    }
    queue.moto.signal("CONT");
    let log = function.emulator(0).log();
    assert_eq!(log.matches(r#""messages_not_sent":1"#).count(), 3, "{log}");
    // After two failures, the third sender does not wait for SQS.
    assert_eq!(log.matches("the last requests to SQS failed").count(), 1, "{log}");
    // Its event has no message that could be late, so the next run has it.
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!((&report["delivered"], &report["sent"]), (&1.into(), &0.into()), "{report}");
    record(&url, &keys[2], is_delivered).await;
    // The others count as lost after a while.
    let store = Place::at(&url).await.store;
    let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    let _wakers = wakers.with_messages_lost_after(Duration::from_secs(1), store);
    arrived(&sink, 3, &function.emulator(0)).await;
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!(sink.take().len(), 3);
}
