//! Batches of messages in which something goes wrong.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use aws_sdk_sqs::types::Message;
use chrono::Utc;
use serde_json::{Value, json};
use webhook_router::route::Route;

use super::{SCHEDULE, VISIBILITY, arrived, instance, one_instance, until};
use crate::{
    emulator::{Artefact, signal},
    event_source::{DUE, Faults, Function, Queue, Wakers, batch},
    inbox::{crash::Place, event, is_delivered, record, record_in},
    servers::Redis,
    shared,
    support::{Answer, ROUTER, Sink, delivery, free_port, ok, plan_of},
};

/// Returns the names of the messages that an answer reports as failed.
fn failures(answer: &Value) -> Vec<&str> {
    let failures = answer["batchItemFailures"].as_array().unwrap();
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn messages_that_cannot_be_read_end_in_the_queue_for_them() {
    let (sink, queue) = (Sink::start().await, Queue::start(Duration::from_secs(1), 2).await);
    let url = shared::redis_database();
    let store = [("STORE_URL", url.as_str())];
    let emulator = instance(Path::new(ROUTER), &sink.url, &store, &queue, &[]);
    let (queue, function) = (Arc::new(queue), Function::of([emulator]));
    for body in ["nonsense", "webhook:dedup:12", "{\"requestContext\": {\"http\": {}}}"] {
        queue.send(body).await;
    }
    // This event is not in the inbox any more, so its message is done.
    queue.send(&format!("webhook:dedup:{}", "0".repeat(64))).await;
    let heard = function.deliver(&event("among them")).await.unwrap();
    let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    record(&url, &heard.key, is_delivered).await;
    let mut unreadable = Vec::new();
    until("they failed too often", async || {
        unreadable
            .extend(queue.unreadable().await.into_iter().map(|message| message.body.unwrap()));
        unreadable.len() == 3
    })
    .await;
    drop(wakers);
    assert!(unreadable.iter().any(|body| body == "nonsense"), "{unreadable:?}");
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn direct_callers_check_the_queue() {
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let url = shared::redis_database();
    let ask = async |more: &[(&str, &str)]| {
        let store = [("STORE_URL", url.as_str())];
        let emulator = instance(Path::new(ROUTER), &sink.url, &store, &queue, more);
        emulator.invoke(r#"{"doctor": true}"#.to_owned()).await
    };
    let (long, absent) = (("AWS_LAMBDA_FUNCTION_TIMEOUT", "20"), format!("{}-absent", queue.url));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (more, severity, text) in [
        (&[long][..], "ok", "/inbox answers"),
        (&[long, ("QUEUE_URL", &absent)], "error", "NonExistentQueue"),
        (&[long, ("AWS_ENDPOINT_URL_SQS", &nobody)], "error", "dispatch failure"),
    ] {
        let report = ask(more).await;
        let findings = report["findings"].as_array().unwrap_or_else(|| panic!("{report}"));
        let found = findings.iter().find(|found| found["subject"] == "QUEUE_URL").unwrap();
        assert_eq!(found["severity"], severity, "{report}");
        assert_eq!(report["errors"], u8::from(severity == "error"), "{report}");
        assert!(found["text"].as_str().unwrap().contains(text), "{found}");
    }
    let report = ask(&[]).await;
    let message = report["errorMessage"].as_str().unwrap_or_default();
    assert!(message.starts_with("doctor: there is no time for the checks"), "{report}");
}

#[tokio::test]
async fn a_sender_cannot_send_messages_run_the_schedule_or_ask_for_the_checks() {
    let url = shared::redis_database();
    let (_sink, _queue, function) = one_instance(&url, &[]).await;
    let record = json!({ "messageId": "1", "eventSource": "aws:sqs", "body": "nonsense" });
    for body in
        [json!({ "Records": [record] }), json!({ "inbox": "due" }), json!({ "doctor": true })]
    {
        let heard = function.deliver(&body.to_string()).await.unwrap();
        assert_eq!(heard.status, 400);
        assert!(heard.text.starts_with("missing required fields"), "{}", heard.text);
    }
    // The records of another service are not messages, and a success would lose them.
    let other = json!({ "messageId": "1", "eventSource": "aws:s3", "body": "nonsense" });
    assert_eq!(function.invoke(json!({ "Records": [other] }).to_string()).await, None);
    let answer = function.invoke(json!({ "Records": [record] }).to_string()).await.unwrap();
    assert_eq!(failures(&answer), ["1"]);
}

/// Accepts events, and returns the event of their batch and their keys.
async fn accepted(function: &Function, queue: &Queue, count: usize) -> (String, Vec<String>) {
    let (messages, keys) = accepted_messages(function, queue, count).await;
    (batch(&messages), keys)
}

/// Accepts events, and returns their messages and their keys.
async fn accepted_messages(
    function: &Function,
    queue: &Queue,
    count: usize,
) -> (Vec<Message>, Vec<String>) {
    let mut keys = Vec::new();
    for number in 0..count {
        keys.push(function.deliver(&event(&number.to_string())).await.unwrap().key);
    }
    // A request to SQS that was repeated has doubled its message.
    let mut messages = BTreeMap::new();
    until("the messages come", async || {
        let received = queue.receive().await.into_iter();
        messages.extend(received.map(|message| (message.body.clone(), message)));
        messages.len() == count
    })
    .await;
    (messages.into_values().collect(), keys)
}

#[tokio::test]
async fn a_panic_fails_one_message_and_the_others_are_delivered() {
    let url = shared::redis_database();
    let more = [("FAULT_POINT", "panic before send:4")];
    let (sink, queue, function) = one_instance(&url, &more).await;
    let (batch, keys) = accepted(&function, &queue, 10).await;
    let answer = function.invoke(batch.clone()).await.unwrap();
    assert_eq!((failures(&answer).len(), sink.received().len()), (1, 9), "{answer}");
    // The event that is left is due when its lease has ended.
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!(sink.take().len(), 10);
}

#[tokio::test]
async fn while_the_store_does_not_answer_messages_are_left_to_the_list() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    let (sink, queue, function) = one_instance(&url, &[]).await;
    let (messages, keys) = accepted_messages(&function, &queue, 10).await;
    redis.signal("STOP");
    let answer = function.invoke(batch(&messages)).await.unwrap();
    redis.signal("CONT");
    // Messages in flight would fill the queue.
    assert_eq!((failures(&answer).len(), sink.received().len()), (0, 0));
    for message in &messages {
        queue.delete(message).await;
    }
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!(sink.take().len(), 10);
}

#[tokio::test]
async fn a_function_that_is_killed_or_times_out_leaves_the_batch_to_come_again() {
    for harm in ["-KILL", "-STOP"] {
        let url = shared::redis_database();
        let (sink, queue, function) = one_instance(&url, &[]).await;
        let (batch, keys) = accepted(&function, &queue, 10).await;
        sink.answers(Answer::WhenTold);
        let harming = async {
            sink.arrived(10).await;
            signal(harm, &function.emulator(0).function());
        };
        let (answer, ()) = tokio::join!(function.invoke(batch), harming);
        assert_eq!(answer, None, "{harm}");
        sink.answers(ok("done"));
        sink.take();
        let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
        for key in &keys {
            record(&url, key, is_delivered).await;
        }
        // The destination may have had each of them once before.
        assert_eq!(sink.take().len(), 10, "{harm}");
    }
}

#[tokio::test]
async fn a_destination_that_hangs_does_not_keep_the_batch_from_its_answer() {
    let url = shared::redis_database();
    let more = [("FORWARD_TIMEOUT_MS", "60000"), ("RETRY_SCHEDULE", "0s,1s,1s")];
    let (sink, queue, function) = one_instance(&url, &more).await;
    let (batch, keys) = accepted(&function, &queue, 10).await;
    sink.answers(Answer::WhenTold);
    let answer = function.invoke(batch).await.unwrap();
    assert!(failures(&answer).is_empty(), "{answer}");
    assert_eq!(sink.take().len(), 10);
    sink.answers(ok("done"));
    let _wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!(sink.take().len(), 10);
}

#[tokio::test]
async fn sigterm_ends_the_function_once_the_batch_is_delivered() {
    let url = shared::redis_database();
    let (sink, queue, function) = one_instance(&url, &[]).await;
    let (batch, keys) = accepted(&function, &queue, 10).await;
    sink.answers(Answer::WhenTold);
    let emulator = function.emulator(0);
    let terminating = async {
        arrived(&sink, 10, &emulator).await;
        let process = emulator.function();
        signal("-TERM", &process);
        emulator.until("it says so", || emulator.log().contains("stopping")).await;
        sink.go.notify_waiters();
        process
    };
    let (answer, process) = tokio::join!(function.invoke(batch), terminating);
    assert!(failures(&answer.unwrap()).is_empty());
    emulator.is_rid_of(&process).await;
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
}

#[tokio::test]
async fn ten_large_bodies_and_their_copies_in_one_batch_fit_into_the_memory() {
    const BYTES: usize = 5 * 1024 * 1024;
    let mirror = Sink::start().await;
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let Place { vars, store } = Place::in_shared_table().await;
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let more = [
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120"),
        ("STORE_TIMEOUT_MS", "20000"),
        ("FORWARD_TIMEOUT_MS", "20000"),
        ("MIRROR_URL", &mirror.url),
    ];
    // The server's allocator keeps more memory than the function's.
    let artefact = Artefact::router();
    let emulator = instance(&artefact.bootstrap(), &sink.url, &vars, &queue, &more);
    let (function, now) = (Function::of([emulator]), Utc::now());
    let mut random = vec![0; BYTES];
    rand::fill(&mut random[..]);
    // A run of the schedule tries one of them, and sends messages for the others.
    let mut keys = Vec::new();
    for number in 0..11 {
        let mut plan = plan_of(&format!("large {number}"));
        plan.route = Route::GCP;
        store.accept(&plan, &delivery(random.clone()), now, now, now).await.unwrap();
        keys.push(plan.key.to_string());
    }
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!((&report["delivered"], &report["sent"]), (&1.into(), &10.into()), "{report}");
    let messages = queue.receive().await;
    assert_eq!(messages.len(), 10);
    let process = function.emulator(0).function();
    // The most memory from now on.
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    let answer = function.invoke(batch(&messages)).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(failures(&answer).is_empty(), "{answer}");
    for key in &keys {
        record_in(&*store, key, is_delivered).await;
    }
    let received = sink.take();
    assert!(received.len() == 11 && received.iter().all(|one| one.body == random));
    // The copies in an instance have 8 MB together, and these fit into no message. So there is one for the
    // run of the schedule, and one for the batch.
    assert_eq!(mirror.take().len(), 2);
    // Ten of them at once take 120 MB, and an instance has 256 MB for them and their base64.
    assert!(peak < 96 * 1024, "{peak} kB");
}
