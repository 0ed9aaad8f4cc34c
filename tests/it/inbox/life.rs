//! Answers, schedules and ends of accepted events, and the settings of the inbox.

use chrono::Utc;
use http::StatusCode;
use webhook_router::{
    config::Config,
    outcome::Trigger,
    route::Route,
    store::{Record, State},
};

use super::{accepting, event, is_delivered, record};
use crate::{
    signed_deliveries::{Kind, secrets},
    support::{Answer, PAYLOAD, Serve, Sink, lookup, ok, sqlite, status},
};

#[tokio::test]
async fn the_vendor_is_answered_before_the_destination_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(Answer::WhenTold);
    let router = accepting(&sink, &url).env("DUPLICATE_REPLY", "replay").start();
    let got = router.post(PAYLOAD).await;
    assert_eq!((got.status, got.text()), (200, "accepted"));
    assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    let key = got.header("x-webhook-key").unwrap();
    sink.arrived(1).await;
    let again = router.post(PAYLOAD).await;
    assert_eq!((again.status, again.text()), (200, "duplicate ignored"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    sink.go.notify_one();
    let record = record(&url, key, is_delivered).await;
    assert_eq!(record.attempts.len(), 1);
    assert_eq!((record.attempts[0].by, record.accepted), (Trigger::Inbox, None));
    // The sender of an accepted event never gets the destination's reply.
    let again = router.post(PAYLOAD).await;
    assert_eq!((again.status, again.text()), (200, "duplicate ignored"));
    let received = sink.take();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, PAYLOAD);
    assert_eq!(received[0].header("idempotency-key"), Some(key));
    assert_eq!(received[0].header("x-webhook-attempt"), Some("1"));
}

#[tokio::test]
async fn adyen_hears_its_own_word_for_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let router = accepting(&sink, &url).envs(secrets()).start();
    let delivery = Kind::of("adyen").delivery_at(1, 0, Utc::now().timestamp());
    let got = router.deliver(&delivery).await;
    assert_eq!((got.status, got.text()), (200, "[accepted]"), "{}", router.log());
    let key = got.header("x-webhook-key").unwrap();
    assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    record(&url, key, is_delivered).await;
    let again = router.deliver(&delivery).await;
    assert_eq!((again.status, again.text()), (200, "[accepted]"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let received = sink.take();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, delivery.body);
}

#[tokio::test]
async fn an_event_in_flight_for_a_waiting_sender_is_not_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(Answer::WhenTold);
    let waiting =
        accepting(&sink, &url).env("ANSWER", "delivered").env("FORWARD_TIMEOUT_MS", "60000");
    let waiting = waiting.env("FORWARD_BUDGET_MS", "60000").start();
    let router = accepting(&sink, &url).start();
    let (first, second) = tokio::join!(waiting.post(PAYLOAD), async {
        sink.arrived(1).await;
        let second = router.post(PAYLOAD).await;
        sink.go.notify_one();
        second
    });
    assert_eq!((second.status, second.text()), (409, "in progress"));
    let wait: u32 = second.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=90).contains(&wait), "{wait}");
    let key = first.header("x-webhook-key");
    assert!(key.is_some() && key == second.header("x-webhook-key"));
    assert_eq!((first.status, first.text()), (200, "at last"));
    let again = router.post(PAYLOAD).await;
    assert_eq!((again.status, again.text()), (200, "duplicate ignored"));
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn each_entry_of_the_schedule_is_one_attempt_and_its_end_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let schedule = [("RETRY_SCHEDULE", "0s, 500ms, 1s"), ("FORWARD_ATTEMPTS", "9")];
    let router = accepting(&sink, &url).envs(schedule).start();
    let got = router.post(PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    let dead = record(&url, key, |record| record.state == State::DeadLetter).await;
    assert_eq!((dead.attempts.len(), sink.received().len()), (3, 3));
    let pauses: Vec<_> = dead.attempts.windows(2).map(|two| two[1].at - two[0].at).collect();
    assert!(pauses[0].num_milliseconds() >= 500 && pauses[1].num_milliseconds() >= 1000);
    assert!(pauses.iter().all(|pause| pause.num_milliseconds() < 3000), "{pauses:?}");
    let numbers: Vec<_> =
        sink.take().iter().map(|one| one.header("x-webhook-attempt").unwrap().to_owned()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);

    // The vendor's next delivery is accepted anew.
    sink.answers(ok("done"));
    let anew = router.post(PAYLOAD).await;
    assert_eq!((anew.status, anew.text()), (200, "accepted"));
    let delivered = record(&url, key, is_delivered).await;
    assert_eq!(delivered.attempts.len(), 4);
}

#[tokio::test]
async fn an_answer_that_will_not_change_is_a_dead_letter_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "never"));
    let router = accepting(&sink, &url).start();
    let got = router.post(PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    let dead = record(&url, key, |record| record.state == State::DeadLetter).await;
    assert_eq!((dead.attempts.len(), sink.received().len()), (1, 1));
}

#[tokio::test]
async fn the_destination_may_ask_for_a_later_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let busy = |seconds| {
        Answer::With(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", seconds)], "busy".into())
    };
    sink.answers(busy("7200"));
    let router = accepting(&sink, &url).start();
    for (name, asked, hours) in [("two hours", "7200", 2), ("ten days", "864000", 24)] {
        sink.answers(busy(asked));
        let got = router.post(event(name)).await;
        let key = got.header("x-webhook-key").unwrap();
        let tried = |record: &Record| record.accepted.is_some_and(|accepted| accepted.tries == 1);
        let waiting = record(&url, key, tried).await;
        let State::Waiting { due } = waiting.state else { panic!("{waiting:?}") };
        let pause = due - waiting.attempts[0].at;
        let (least, most) = (hours * 60, hours * 66 + 1);
        assert!((least..=most).contains(&pause.num_minutes()), "{name}: {pause}");
    }
}

#[tokio::test]
async fn a_source_decides_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    let sources = r#"
        [sources.quick]
        vendor = "custom"
        scheme = "shared-secret"
        header = "x-secret"
        secrets = ["plainly-fake-test-secret"]
        answer = "accepted"
    "#;
    let vars = [("SOURCES", sources), ("ALLOW_UNSIGNED", "true")];
    let router = Serve::to(&sink).only(Route::GCP).store(&url).envs(vars).start();
    let secret = [("x-secret", "plainly-fake-test-secret")];
    let got = router.post_to("quick", &secret, event("quick")).await;
    assert_eq!((got.status, got.text()), (200, "accepted"), "{}", router.log());
    record(&url, got.header("x-webhook-key").unwrap(), is_delivered).await;
    let slow = router.post(event("slow")).await;
    assert_eq!((slow.status, slow.text()), (200, "done"));
}

#[test]
fn lambda_refuses_to_accept_what_it_does_not_deliver() {
    let common = [
        ("GCP_TARGET_URL", "https://x.dev"),
        ("AWS_TARGET_FUNCTION", "p"),
        ("ROUTING_SECRET", "a-test-secret-of-enough-bytes"),
        ("STORE_URL", "dynamodb://a-table"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
    ];
    let quick = r#"sources.quick = { vendor = "github", secrets = ["s3cr3t-for-a-test"], answer = "accepted" }"#;
    for (more, names) in [(("ANSWER", "accepted"), "ANSWER"), (("SOURCES", quick), "SOURCES")] {
        let errors = Config::from_vars(lookup(&[&common[..], &[more]].concat())).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].variable, names);
        assert!(errors.to_string().contains("webhook-router serve"), "{errors}");
    }
    let queue = ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/inbox");
    for more in [&[("ANSWER", "delivered")][..], &[queue], &[("ANSWER", "accepted"), queue]] {
        let config = Config::from_vars(lookup(&[&common[..], more].concat())).unwrap();
        assert_eq!(config.inbox.queue_url.is_some(), more.contains(&queue));
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let common = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    for (name, value) in [
        ("ANSWER", "later"),
        ("RETRY_SCHEDULE", "soon"),
        ("RETRY_SCHEDULE", "0s,,5s"),
        ("RETRY_SCHEDULE", "0s,8days"),
        ("RETRY_SCHEDULE", ""),
        ("RETRY_SCHEDULE", " "),
        ("INBOX_WORKERS", "0"),
        ("QUEUE_URL", "inbox"),
        ("QUEUE_URL", "arn:aws:sqs:eu-west-1:123456789012:inbox"),
        ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/inbox.fifo"),
        ("QUEUE_URL", "https://plainly:plainly@sqs.eu-west-1.amazonaws.com/123456789012/inbox"),
        ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/inbox?Action=x"),
    ] {
        let errors = Config::from_vars(lookup(&[&common[..], &[(name, value)]].concat()));
        let errors = errors.unwrap_err();
        assert_eq!((errors.0.len(), &*errors.0[0].variable), (1, name), "{value}");
    }
    let queue = ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/inbox");
    let config = Config::from_vars(lookup(&[&common[..], &[queue]].concat())).unwrap();
    assert!(config.warnings().iter().any(|warning| warning.subject == "QUEUE_URL"));
    let minutes = config.inbox.schedule.iter().map(|pause| pause.as_secs() / 60);
    assert_eq!(minutes.collect::<Vec<_>>(), [0, 0, 5, 30, 120, 300, 600, 600]);
}
