//! The life of an accepted event in Lambda.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::Value;

use super::{SCHEDULE, VISIBILITY, arrived, instance, one_instance, until};
use crate::{
    emulator::Artefact,
    event_source::{DUE, Faults, Function, Queue, Wakers, batch},
    inbox::{event, is_delivered, record},
    servers::Redis,
    shared,
    stack::{Stack, text},
    support::{Sink, ok, status},
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
    let (last, mut there) = (&pending[pending.len() - 2..], BTreeSet::new());
    for (line, destination) in last.iter().zip(["gcp", "aws"]) {
        assert_eq!(line["destination"], destination);
        assert_eq!((&line["pending"], &line["first_due_age_seconds"]), (&0.into(), &0.0.into()));
        let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        for directive in directives {
            assert_eq!(directive["Namespace"], "webhook-router");
            let dimensions = directive["Dimensions"][0].as_array().unwrap().iter().map(text);
            let dimensions = dimensions.collect::<Vec<_>>().join(",");
            let names = directive["Metrics"].as_array().unwrap().iter();
            there.extend(names.map(|metric| (text(&metric["Name"]), dimensions.clone())));
        }
    }
    let given = [
        ("GcpTargetUrl", "https://x.run.app"),
        ("AwsTargetFunction", "processor"),
        ("Answer", "accepted"),
    ];
    let watched = Stack::new(&given).unwrap().watched();
    let is_of_the_inbox =
        |metric: &&(String, String)| metric.0 == "pending" || metric.0 == "first_due_age_seconds";
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
async fn events_whose_messages_are_lost_are_found_and_get_one_message_each() {
    let url = shared::redis_database();
    let (_sink, queue, function) = one_instance(&url, &[]).await;
    for number in 0..35 {
        function.deliver(&event(&number.to_string())).await.unwrap();
    }
    let drained = async || {
        let mut keys = Vec::new();
        loop {
            let messages = queue.receive().await;
            if messages.is_empty() {
                return keys;
            }
            for message in messages {
                queue.delete(&message).await;
                keys.push(message.body.unwrap());
            }
        }
    };
    assert_eq!(drained().await.len(), 35);
    let mut sum = (0, 0);
    until("all are found", async || {
        let report = function.invoke(DUE.into()).await.unwrap();
        assert_eq!(report["is_incomplete"], false, "{report}");
        let count = |name: &str| report[name].as_u64().unwrap();
        sum = (sum.0 + count("sent"), sum.1 + count("delivered"));
        sum.0 + sum.1 >= 35
    })
    .await;
    // Each run with something to do makes one attempt by itself.
    assert!(sum.1 >= 1 && sum.0 + sum.1 == 35, "{sum:?}");
    // The next run sends no message for an event that has one.
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!((&report["sent"], &report["delivered"]), (&0.into(), &0.into()), "{report}");
    let mut keys = drained().await;
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len() as u64, count as u64), (sum.0, sum.0));
}

#[tokio::test]
async fn while_sqs_does_not_answer_events_are_accepted_and_found_later() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let (sink, queue, function) = one_instance(&url, &[]).await;
    queue.moto.signal("STOP");
    let began = std::time::Instant::now();
    let heard = function.deliver(&event("without a message")).await.unwrap();
    assert_eq!((heard.status, &*heard.text), (200, "accepted"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    queue.moto.signal("CONT");
    let log = function.emulator(0).log();
    assert!(log.contains(r#""messages_not_sent":1"#), "{log}");
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    arrived(&sink, 1, &function.emulator(0)).await;
    record(&url, &heard.key, is_delivered).await;
    sink.answers(ok("done"));
    assert_eq!(sink.take().len(), 1);
}
