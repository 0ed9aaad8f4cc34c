//! Copies for mirrors that go through the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use aws_sdk_sqs::types::Message;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;
use serde_json::Value;

use super::{SCHEDULE, VISIBILITY, arrived, instance, one_instance, until};
use crate::{
    event_source::{Faults, Function, Queue, Wakers, batch},
    inbox::{event, is_delivered, record},
    shared,
    signing::NEW,
    support::{Answer, ROUTER, Sink, free_port, status},
};

/// Returns the numbers of copies that the log says failed, and were dropped.
fn failed_and_dropped(log: &str) -> (usize, usize) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line["message"] == "mirror").collect();
    assert!(lines.iter().all(|line| line["copies_not_mirrored"] == 1), "{log}");
    let count = |outcome: &str| lines.iter().filter(|line| line["outcome"] == outcome).count();
    (count("failed"), count("dropped"))
}

/// Receives messages of events (`copies` is false) or of copies, until there are that many.
async fn messages(queue: &Queue, copies: bool, count: usize) -> Vec<Message> {
    // If the SDK has repeated a request, a message may come twice.
    let mut found = BTreeMap::new();
    until("the messages come", async || {
        let received = queue.receive().await.into_iter();
        let wanted = received.filter(|one| is_copy(one) == copies);
        found.extend(wanted.map(|message| (message.body.clone(), message)));
        found.len() == count
    })
    .await;
    found.into_values().collect()
}

/// Invokes the function with messages, all of which are done, and deletes them as SQS then does.
async fn consume(function: &Function, queue: &Queue, messages: &[Message]) {
    let answer = function.invoke(batch(messages)).await.unwrap();
    assert_eq!(answer.to_string(), r#"{"batchItemFailures":[]}"#);
    for message in messages {
        queue.delete(message).await;
    }
}

fn is_copy(message: &Message) -> bool {
    message.message_attributes.as_ref().is_some_and(|all| all.contains_key("copy"))
}

/// Delivers events whose senders wait, and returns the messages of their copies.
async fn copied(function: &Function, queue: &Queue, count: usize) -> Vec<Message> {
    for number in 0..count {
        let heard = function.deliver(&event(&format!("copied {number}"))).await.unwrap();
        assert_eq!((heard.status, heard.text.as_str()), (200, "done"));
    }
    messages(queue, true, count).await
}

#[tokio::test]
async fn copies_of_both_ways_of_answering_go_through_the_queue() {
    for answer in ["delivered", "accepted"] {
        let (url, mirror) = (shared::redis_database(), Sink::start().await);
        let more = [("MIRROR_URL", mirror.url.as_str()), ("ANSWER", answer)];
        let more = [&more[..], &[("FORWARD_SECRETS", NEW)]].concat();
        let (sink, queue, function) = one_instance(&url, &more).await;
        let (small, large) = (event("small"), event(&"large".repeat(600_000)));
        let mut keys = Vec::new();
        for body in [&small, &large] {
            let heard = function.deliver(body).await.unwrap();
            assert_eq!(heard.status, 200, "{}", function.emulator(0).log());
            keys.push(heard.key);
        }
        // The invocation has ended, and its extension.
        assert_eq!(mirror.received().len(), 0);
        let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
        arrived(&mirror, 2, &function.emulator(0)).await;
        drop(wakers);
        let (events, copies) = (sink.take(), mirror.take());
        assert_eq!(events.len(), 2, "{answer}");
        let bodies: BTreeSet<_> = copies.iter().map(|copy| copy.body.clone()).collect();
        assert_eq!(bodies, BTreeSet::from([small.into(), large.into()]));
        for copy in &copies {
            let event = events.iter().find(|event| event.body == copy.body).unwrap();
            assert_eq!(copy.header("x-webhook-mirror"), Some("true"));
            assert!(event.header("webhook-signature").is_some());
            assert_eq!(copy.header("webhook-signature"), None);
            for same in [
                "idempotency-key",
                "x-webhook-vendor",
                "x-webhook-event-type",
                "content-type",
                "traceparent",
                "x-amzn-trace-id",
            ] {
                assert!(event.header(same).is_some(), "{same}");
                assert_eq!(copy.header(same), event.header(same), "{same}");
            }
        }
        for key in &keys {
            record(&url, key, is_delivered).await;
        }
        assert_eq!(failed_and_dropped(&function.emulator(0).log()), (0, 0));
        assert!(queue.unreadable().await.is_empty());
    }
}

#[tokio::test]
async fn a_mirror_that_hangs_leaves_the_events_of_its_batch_alone() {
    let (url, mirror) = (shared::redis_database(), Sink::start().await);
    mirror.answers(Answer::WhenTold);
    let (sink, queue, function) = one_instance(&url, &[("MIRROR_URL", &mirror.url)]).await;
    let accept = async |names: &[&str]| {
        let mut keys = Vec::new();
        for name in names {
            keys.push(function.deliver(&event(name)).await.unwrap().key);
        }
        (messages(&queue, false, names.len()).await, keys)
    };
    let (first, _) = accept(&["1", "2", "3", "4", "5"]).await;
    consume(&function, &queue, &first).await;
    let mut mixed = messages(&queue, true, 5).await;
    assert_eq!((sink.take().len(), mirror.received().len()), (5, 0));
    let (second, keys) = accept(&["6", "7", "8", "9", "10"]).await;
    // The copies are first, and nevertheless last.
    mixed.extend(second);
    let began = Instant::now();
    let ((), before) = tokio::join!(consume(&function, &queue, &mixed), async {
        mirror.arrived(1).await;
        sink.received().len()
    });
    assert_eq!(before, 5);
    // A copy has FORWARD_TIMEOUT_MS, 1.5 s, and the invocation has 5 s.
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!((sink.take().len(), mirror.take().len()), (5, 5));
    let log = function.emulator(0).log();
    // The copies of the second five are in messages.
    assert_eq!(failed_and_dropped(&log), (5, 0), "{log}");

    // The mirror rests, which costs no time: neither a message's copy nor that of an event asks it.
    let began = Instant::now();
    let (third, _) = accept(&["11"]).await;
    consume(&function, &queue, &[mixed[0].clone(), third[0].clone()]).await;
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!((sink.take().len(), mirror.take().len()), (1, 0));
    assert_eq!(failed_and_dropped(&function.emulator(0).log()), (5, 2));
}

#[tokio::test]
async fn a_message_that_comes_twice_brings_the_copy_twice_and_the_event_once() {
    let (url, mirror) = (shared::redis_database(), Sink::start().await);
    let (sink, queue, function) = one_instance(&url, &[("MIRROR_URL", &mirror.url)]).await;
    let heard = function.deliver(&event("doubled")).await.unwrap();
    let of_event = messages(&queue, false, 1).await;
    for _ in 0..2 {
        consume(&function, &queue, &of_event).await;
    }
    let of_copy = messages(&queue, true, 1).await;
    assert_eq!(of_copy[0].body(), Some(heard.key.as_str()));
    for _ in 0..2 {
        consume(&function, &queue, &of_copy).await;
    }
    assert_eq!((sink.take().len(), mirror.take().len()), (1, 2));
}

#[tokio::test]
async fn a_copy_that_fails_is_counted_and_its_message_is_done() {
    let (failing, nobody) = (Sink::start().await, format!("http://127.0.0.1:{}", free_port()));
    failing.answers(status(StatusCode::INTERNAL_SERVER_ERROR, "no"));
    for (mirror, asked) in [(&failing.url, 3), (&nobody, 0)] {
        let url = shared::redis_database();
        let more = [("MIRROR_URL", mirror.as_str()), ("ANSWER", "delivered")];
        let (sink, queue, function) = one_instance(&url, &more).await;
        let messages = copied(&function, &queue, 3).await;
        consume(&function, &queue, &messages).await;
        assert_eq!((sink.take().len(), failing.take().len()), (3, asked));
        assert_eq!(failed_and_dropped(&function.emulator(0).log()), (3, 0), "{mirror}");
    }
}

#[tokio::test]
async fn a_copy_that_nobody_can_or_should_send_any_more_is_dropped_and_counted() {
    let (url, mirror) = (shared::redis_database(), Sink::start().await);
    let more = [("MIRROR_URL", mirror.url.as_str()), ("ANSWER", "delivered")];
    let (sink, queue, function) = one_instance(&url, &more).await;
    let messages = copied(&function, &queue, 3).await;
    let store = [("STORE_URL", url.as_str())];
    let after_a_year = [&more[..1], &[("FAULT_COPY_AGE_MS", "0")]].concat();
    // The first one has no mirror any more.
    for more in [&[][..], &after_a_year[..]] {
        let other = instance(Path::new(ROUTER), &sink.url, &store, &queue, more);
        let other = Function::of([other]);
        consume(&other, &queue, &messages).await;
        assert_eq!(failed_and_dropped(&other.emulator(0).log()), (0, 3), "{more:?}");
    }
    assert_eq!(mirror.received().len(), 0);
}

#[tokio::test]
async fn a_copy_that_does_not_fit_into_a_message_is_sent_within_the_invocation() {
    let (url, mirror) = (shared::redis_database(), Sink::start().await);
    let more = [
        ("MIRROR_URL", mirror.url.as_str()),
        ("ANSWER", "delivered"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120"),
        ("FORWARD_TIMEOUT_MS", "20000"),
        ("STORE_TIMEOUT_MS", "20000"),
    ];
    let (sink, queue, function) = one_instance(&url, &more).await;
    let body = |bytes: usize| {
        let mut random = vec![0; bytes];
        rand::fill(&mut random[..]);
        event(&BASE64_STANDARD.encode(random))
    };
    // A message has room for 785,664 bytes, compressed.
    for (bytes, is_sent) in [(800_000, true), (4 << 20, true), (760_000, false)] {
        let body = body(bytes);
        let heard = function.deliver(&body).await.unwrap();
        assert_eq!(heard.status, 200, "{}", function.emulator(0).log());
        let sent = mirror.take();
        assert_eq!(sent.len(), usize::from(is_sent), "{bytes}");
        assert!(sent.iter().all(|copy| copy.body == body));
        if !is_sent {
            let messages = messages(&queue, true, 1).await;
            consume(&function, &queue, &messages).await;
            assert!(mirror.take()[0].body == body);
        }
    }
    assert_eq!(sink.take().len(), 3);
}

#[tokio::test]
async fn while_sqs_takes_no_copies_they_are_sent_within_the_invocation() {
    let (url, mirror, sink) = (shared::redis_database(), Sink::start().await, Sink::start().await);
    let queue = Queue::start(VISIBILITY, 10).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let more = [
        ("MIRROR_URL", mirror.url.as_str()),
        ("ANSWER", "delivered"),
        ("AWS_ENDPOINT_URL_SQS", &nobody),
    ];
    let store = [("STORE_URL", url.as_str())];
    let function = Function::of([instance(Path::new(ROUTER), &sink.url, &store, &queue, &more)]);
    for number in 1..=3 {
        assert_eq!(function.deliver(&event(&number.to_string())).await.unwrap().status, 200);
        assert_eq!(mirror.received().len(), number);
    }
    // The second and the third did not ask SQS.
    let log = function.emulator(0).log();
    assert_eq!(log.matches("SQS does not take copies").count(), 1, "{log}");
    assert_eq!(failed_and_dropped(&log), (0, 0));
}

#[tokio::test]
async fn copies_of_large_bodies_wait_for_one_another() {
    let (url, mirror) = (shared::redis_database(), Sink::start().await);
    let more = [("MIRROR_URL", mirror.url.as_str()), ("ANSWER", "delivered")];
    let more = [&more[..], &[("AWS_LAMBDA_FUNCTION_TIMEOUT", "60"), ("STORE_TIMEOUT_MS", "20000")]]
        .concat();
    let (_sink, queue, function) = one_instance(&url, &more).await;
    for number in 0..3 {
        let body = event(&format!("{number}{}", "large".repeat(1_000_000)));
        assert_eq!(function.deliver(&body).await.unwrap().status, 200);
    }
    let messages = messages(&queue, true, 3).await;
    consume(&function, &queue, &messages).await;
    // There is room for one of them at a time.
    assert_eq!(mirror.take().len(), 3, "{}", function.emulator(0).log());
}
