//! Tests of the life of a delivery, with a store in a file. Each test tells the destination what to
//! answer. tests/it/ tests the same over HTTP, with every store and both destinations.

mod accepted;
mod messages;
mod room;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;
use tokio::time::timeout;

use super::*;
use crate::{
    destination::{Destination, NoAnswer, Outgoing, SendError},
    event::Identity,
    fetcher::client_settings,
    key::Key,
    outcome::Outcome,
    route::Route,
    store::{self, Record},
    testing::{self, delivery, lookup},
};

const BODY: &str = r#"{"vendor":"acme","event_type":"paid","created_at":"2026-05-06T12:34:56Z"}"#;

const ACCEPTS: (&str, &str) = ("ANSWER", "accepted");

type Answer = Result<Reply, SendError>;

/// The events that a destination received, and the answers that it gives.
#[derive(Default)]
struct Told {
    answers: Mutex<VecDeque<Answer>>,
    sent: Mutex<Vec<Sent>>,
    /// Work that is done before the next answer.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    route: Route,
    attempt: u32,
    timeout: Duration,
    headers: HeaderMap,
}

struct ToldDestination(Route, Arc<Told>);

#[async_trait]
impl Destination for ToldDestination {
    async fn send(&self, event: &Outgoing<'_>, timeout: Duration) -> Answer {
        let Self(route, told) = self;
        let headers = event.delivery.headers.clone();
        let sent = Sent { route: *route, attempt: event.attempt, timeout, headers };
        told.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        if let Some(meanwhile) = told.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        told.answers.lock().unwrap().pop_front().unwrap_or_else(|| answered(200, "done"))
    }
}

fn answered(status: u16, body: &'static str) -> Answer {
    Ok(Reply::text(StatusCode::from_u16(status).unwrap(), body))
}

fn timed_out() -> Answer {
    Err(SendError::Unknown(NoAnswer { timed_out: true, detail: String::new() }))
}

/// A router with a store in a file, and what its destinations received.
struct Trial {
    router: Router,
    told: Arc<Told>,
    budget: Duration,
}

impl Trial {
    async fn new(folder: &Path, vars: &[(&str, &str)]) -> Self {
        let url = format!("sqlite:{}", folder.join("store.db").display());
        let common = [
            ("STORE_URL", url.as_str()),
            ("ALLOW_UNSIGNED", "true"),
            ("ROUTE_THRESHOLD", "256"),
            ("GCP_TARGET_URL", "https://x.dev"),
            ("AWS_TARGET_FUNCTION", "p"),
            ("FORWARD_BACKOFF_MS", "1"),
            ("FORWARD_TIMEOUT_MS", "2000"),
        ];
        let config = Config::from_vars(lookup(&[&common, vars].concat())).unwrap();
        let told = Arc::new(Told::default());
        let destination = |route| {
            let destination = ToldDestination(route, Arc::clone(&told));
            (route, Box::new(destination) as Box<dyn Destination>)
        };
        let destinations = [Route::GCP, Route::AWS].map(destination).into_iter().collect();
        let store = store::open(&config.store).await.unwrap();
        let router = Router::new(&config, store, destinations);
        Self { router, told, budget: Duration::from_secs(30) }
    }

    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.told.answers.lock().unwrap().extend(answers);
    }

    fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.told.sent.lock().unwrap())
    }

    fn budget(&self) -> Budget {
        Budget::new(self.budget, Duration::from_secs(2))
    }

    async fn deliver(&self, delivery: Delivery) -> Reply {
        self.router.handle(delivery, Origin::default(), self.budget()).await
    }

    /// Delivers an envelope, and expects its answer.
    async fn post(&self, body: &str, status: u16, says: &str) -> Reply {
        let reply = self.deliver(delivery("/webhook", &[], body)).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, says.as_bytes()));
        reply
    }

    /// Accepts the event, and returns its key.
    async fn accept(&self) -> Key {
        let reply = self.post(BODY, 200, "accepted").await;
        reply.headers["x-webhook-key"].to_str().unwrap().parse().unwrap()
    }

    async fn attempt(&self, key: Key, cause: Cause) -> Handled {
        let (by, origin) = (Trigger::Inbox, Origin::default());
        self.router.deliver_accepted(key, cause, by, origin, self.budget(), None).await
    }

    async fn record_of(&self, key: Key) -> Record {
        self.router.store().get(&key, Utc::now()).await.unwrap().unwrap()
    }

    async fn record(&self, reply: &Reply) -> Record {
        self.record_at(reply, Utc::now()).await.unwrap()
    }

    async fn record_at(&self, reply: &Reply, now: DateTime<Utc>) -> Option<Record> {
        let key = reply.headers["x-webhook-key"].to_str().unwrap().parse().unwrap();
        self.router.store().get(&key, now).await.unwrap()
    }
}

#[tokio::test]
async fn a_router_names_its_destinations() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[]).await;
    assert!(trial.router.destinations().routes().eq([Route::AWS, Route::GCP]));
}

fn route(reply: &Reply) -> &str {
    reply.headers["x-webhook-destination"].to_str().unwrap()
}

#[tokio::test]
async fn an_event_is_delivered_once_and_its_duplicates_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    for (replay, says) in [("ignored", "duplicate ignored"), ("replay", "first")] {
        let trial = Trial::new(folder.path(), &[("DUPLICATE_REPLY", replay)]).await;
        let body = BODY.replace("paid", replay);
        trial.answers([answered(201, "first")]);
        let first = trial.post(&body, 201, "first").await;
        assert!(!first.headers.contains_key("idempotent-replayed"));
        let again = trial.post(&body, if replay == "replay" { 201 } else { 200 }, says).await;
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.headers["x-webhook-key"], first.headers["x-webhook-key"]);
        let [sent] = &trial.sent()[..] else { panic!("sent again") };
        assert_eq!((sent.route, sent.attempt), (Route::GCP, 1));
        assert_eq!(sent.timeout, Duration::from_secs(2), "FORWARD_TIMEOUT_MS");
    }
}

#[tokio::test]
async fn a_reply_that_was_kept_stays_unused_once_duplicates_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let before = Trial::new(folder.path(), &[("DUPLICATE_REPLY", "replay")]).await;
    before.post(BODY, 200, "done").await;
    before.post(BODY, 200, "done").await;
    let after = Trial::new(folder.path(), &[]).await;
    after.post(BODY, 200, "duplicate ignored").await;
}

#[tokio::test]
async fn an_event_is_remembered_for_as_long_as_its_vendor_may_send_it_again() {
    let folder = tempfile::tempdir().unwrap();
    for (vendor, seconds, hours) in
        [("acme", "3600", 1), ("stripe", "3600", 72), ("stripe", "345600", 96)]
    {
        let trial = Trial::new(folder.path(), &[("DEDUP_TTL_SECONDS", seconds)]).await;
        let body = BODY.replace("acme", vendor).replace("paid", seconds);
        let reply = trial.post(&body, 200, "done").await;
        let end = Utc::now() + TimeDelta::hours(hours);
        let minute = TimeDelta::minutes(1);
        assert!(trial.record_at(&reply, end - minute).await.is_some(), "{vendor}, {seconds}");
        assert!(trial.record_at(&reply, end + minute).await.is_none(), "{vendor}, {seconds}");
    }
}

#[tokio::test]
async fn an_event_keeps_its_route_when_the_threshold_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let before = Trial::new(folder.path(), &[("FORWARD_ATTEMPTS", "1")]).await;
    before.answers([answered(503, "no")]);
    before.post(BODY, 503, "no").await;
    let after = Trial::new(folder.path(), &[("ROUTE_THRESHOLD", "0")]).await;
    for says in ["done", "duplicate ignored"] {
        assert_eq!(route(&after.post(BODY, 200, says).await), "gcp");
    }
    let other = after.post(&BODY.replace("paid", "due"), 200, "done").await;
    assert_eq!(route(&other), "aws");
    let routes: Vec<_> = after.sent().iter().map(|sent| (sent.route, sent.attempt)).collect();
    assert_eq!(routes, [(Route::GCP, 2), (Route::AWS, 1)]);
}

#[tokio::test]
async fn attempts_are_counted_over_the_life_of_an_event_and_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("FORWARD_ATTEMPTS", "8")]).await;
    for _ in 0..3 {
        trial.answers((0..8).map(|_| answered(503, "no")));
        let reply = trial.post(BODY, 503, "no").await;
        assert_eq!(trial.record(&reply).await.state, State::DeadLetter);
    }
    let reply = trial.post(BODY, 200, "done").await;
    let record = trial.record(&reply).await;
    let numbers: Vec<_> = record.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (6..=25).collect::<Vec<_>>());
    assert!(record.attempts.iter().all(|attempt| attempt.by == Trigger::Vendor));
    assert_eq!(record.attempts[19].outcome, Outcome::Status(200));
    assert_eq!(trial.sent().len(), 25);
}

#[tokio::test]
async fn an_unknown_outcome_holds_the_key_until_the_lease_ends() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("FORWARD_ATTEMPTS", "2")]).await;
    trial.answers([timed_out(), answered(503, "no")]);
    let reply = trial.post(BODY, 503, "no").await;
    let record = trial.record(&reply).await;
    assert!(matches!(record.state, State::InFlight { .. }) && record.failed.is_some());
    let early = trial.post(BODY, 409, "in progress").await;
    let wait: i64 = early.headers["retry-after"].to_str().unwrap().parse().unwrap();
    // The time is for forwarding and settling, plus one second.
    assert!((30..=33).contains(&wait), "{wait}");
    assert_eq!(route(&early), "gcp");
    let later = trial.record_at(&reply, Utc::now() + TimeDelta::seconds(33)).await.unwrap();
    assert_eq!(later.state, State::DeadLetter);
}

#[tokio::test]
async fn an_event_that_comes_without_time_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial { budget: Duration::ZERO, ..Trial::new(folder.path(), &[]).await };
    let reply = trial.post(BODY, 503, "try again later").await;
    assert_eq!(trial.record_at(&reply, Utc::now()).await, None);
    assert_eq!(trial.sent(), []);
}

#[tokio::test]
async fn an_attempt_gets_no_more_time_than_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let second = Duration::from_secs(1);
    let trial = Trial { budget: second, ..Trial::new(folder.path(), &[]).await };
    trial.answers([answered(503, "no")]);
    trial.post(BODY, 503, "no").await;
    // Another attempt could not end in time.
    let [sent] = &trial.sent()[..] else { panic!("sent again") };
    assert!(sent.timeout <= second && !sent.timeout.is_zero(), "{:?}", sent.timeout);
}

#[tokio::test]
async fn what_the_secret_before_a_rotation_knew_is_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let old = ("ROUTING_SECRET", "the old one of the test");
    let before = Trial::new(folder.path(), &[old]).await;
    let first = before.post(BODY, 200, "done").await;
    let rotated = [
        ("ROUTING_SECRET", "the new one of the test"),
        ("ROUTING_SECRET_PREVIOUS", "the old one of the test"),
    ];
    let after = Trial::new(folder.path(), &rotated).await;
    let again = after.post(BODY, 200, "duplicate ignored").await;
    assert_eq!(again.headers["x-webhook-key"], first.headers["x-webhook-key"]);
    let other = &BODY.replace("paid", "due");
    let fresh = after.post(other, 200, "done").await;
    let without = Trial::new(folder.path(), &rotated[..1]).await;
    let known = without.post(other, 200, "duplicate ignored").await;
    assert_eq!(known.headers["x-webhook-key"], fresh.headers["x-webhook-key"]);
}

#[tokio::test]
async fn a_vendor_s_certificate_comes_through_the_router_s_fetcher() {
    const SNS: &str = "sns.eu-central-1.amazonaws.com";
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client_settings(None).unwrap().resolve(SNS, listener.local_addr().unwrap());
    let topic = "arn:aws:sns:eu-central-1:123456789012:of-the-test";
    let mut trial = Trial::new(folder.path(), &[("AWS_SNS_SECRETS", topic)]).await;
    trial.router = trial.router.with_fetcher(Fetcher::with_client(client.build().unwrap()));
    let (connect, connected) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let connection = listener.accept().unwrap();
        connect.send(()).unwrap();
        drop(connection);
    });
    let message = serde_json::json!({
        "Type": "Notification",
        "MessageId": "of-the-test",
        "TopicArn": topic,
        "Message": "paid",
        "Timestamp": Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "SignatureVersion": "2",
        "Signature": "AAAA".repeat(256 / 3) + "AA==",
        "SigningCertURL": format!("https://{SNS}/SimpleNotificationService-0a1b.pem"),
    });
    let reply = trial.deliver(delivery("/webhook/aws-sns", &[], &message.to_string())).await;
    assert_eq!(reply.status, 503);
    connected.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_replayed_with_its_route_and_its_trigger() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("FORWARD_ATTEMPTS", "1")]).await;
    trial.answers([answered(422, "no")]);
    let reply = trial.post(BODY, 422, "no").await;
    let key = reply.headers["x-webhook-key"].to_str().unwrap().parse().unwrap();
    let letter = trial.router.store().dead_letter(&key).await.unwrap().unwrap();
    assert_eq!(letter.failure.outcome, Outcome::Status(422));
    assert_eq!(letter.delivery.body, BODY);
    let elsewhere = Trial::new(folder.path(), &[("ROUTE_THRESHOLD", "0")]).await;
    let replay = async |letter: DeadLetter| {
        let (by, budget) = (Trigger::Replay, elsewhere.budget());
        let replay = elsewhere.router.replay(letter, by, Origin::default(), budget).await;
        (replay.ending, replay.settled)
    };
    elsewhere.answers([answered(422, "no")]);
    assert_eq!(replay(letter.clone()).await, (Ending::Failed, true));
    assert_eq!(replay(letter.clone()).await, (Ending::Delivered, true));
    assert_eq!(replay(letter).await, (Ending::Duplicate, true));
    let sent: Vec<_> = elsewhere.sent().iter().map(|sent| (sent.route, sent.attempt)).collect();
    assert_eq!(sent, [(Route::GCP, 2), (Route::GCP, 3)]);
    let record = trial.record(&reply).await;
    assert_eq!(record.attempts[2].by, Trigger::Replay);
}

/// Holds the write lock of a trial's store for this long, as a stuck process would.
fn lock(folder: &Path, time: Duration) -> Box<dyn FnOnce() + Send> {
    let file = folder.join("store.db");
    Box::new(move || {
        let other = rusqlite::Connection::open(file).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            drop(other);
        });
    })
}

#[tokio::test]
async fn a_result_is_stored_as_soon_as_the_store_is_well_again() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("STORE_TIMEOUT_MS", "100")]).await;
    *trial.told.meanwhile.lock().unwrap() = Some(lock(folder.path(), Duration::from_millis(400)));
    let reply = trial.post(BODY, 200, "done").await;
    assert!(matches!(trial.record(&reply).await.state, State::Delivered { .. }));
}

#[tokio::test]
async fn in_an_invocation_a_dead_letter_may_take_longer_than_the_reserve_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("STORE_TIMEOUT_MS", "1000")]).await;
    *trial.told.meanwhile.lock().unwrap() = Some(lock(folder.path(), Duration::from_millis(1800)));
    let budget = Budget::of_invocation(Duration::from_secs(30), Duration::from_secs(1));
    trial.answers([answered(422, "no")]);
    let delivery = delivery("/webhook", &[], BODY);
    let reply = trial.router.handle(delivery, Origin::default(), budget).await;
    // Without its dead letter, the answer would be 503.
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(matches!(trial.record(&reply).await.state, State::DeadLetter));
}

#[tokio::test]
async fn the_pauses_before_a_result_is_stored_again_grow() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[]).await;
    let plan = testing::plan(Identity::Content, "one");
    let budget = Budget::new(Duration::ZERO, Duration::from_secs(1));
    let claim = trial.router.store().claim(&plan, budget.now, budget.lease_until).await.unwrap();
    let Claim::Won(lease) = claim else { panic!("{claim:?}") };
    let tries = std::cell::Cell::new(0);
    let write = async || {
        tries.set(tries.get() + 1);
        Err(StoreError::Failed("always".into()))
    };
    let stored = settle::until_stored(&lease, write, budget.store_until());
    assert_eq!(timeout(Duration::from_secs(10), stored).await.unwrap(), None);
    // They come after 0, 50, 150, 350 and 750 ms.
    assert!((2..=5).contains(&tries.get()), "{}", tries.get());
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_is_a_success_or_a_503() {
    let vars = [("STORE_TIMEOUT_MS", "100"), ("FORWARD_ATTEMPTS", "1")];
    for (answer, status, says) in
        [(answered(200, "done"), 200, "done"), (answered(422, "no"), 503, "try again later")]
    {
        let folder = tempfile::tempdir().unwrap();
        let trial = Trial::new(folder.path(), &vars).await;
        let hour = Duration::from_secs(3600);
        *trial.told.meanwhile.lock().unwrap() = Some(lock(folder.path(), hour));
        trial.answers([answer]);
        let started = std::time::Instant::now();
        // The router waits two seconds for settling, and not the time that was left for forwarding.
        let reply = timeout(Duration::from_secs(10), trial.post(BODY, status, says)).await.unwrap();
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        if status == 503 {
            let wait: i64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((25..=33).contains(&wait), "until the lease ends: {wait}");
        }
    }
}

#[tokio::test]
async fn an_owner_that_lost_its_lease_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("FORWARD_ATTEMPTS", "1")]).await;
    let file = folder.path().join("store.db");
    *trial.told.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let other = rusqlite::Connection::open(file).unwrap();
        other.execute_batch("UPDATE events SET owner = 'another'").unwrap();
    }));
    trial.answers([answered(422, "no")]);
    trial.post(BODY, 503, "try again later").await;
}

#[tokio::test]
async fn headers_that_hold_a_secret_go_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let sources = "[sources.shared]\nvendor = \"custom\"\nsecrets = [\"plainly-shared\"]\n\
                   scheme = \"shared-secret\"\nheader = \"X-Token\"";
    let trial = Trial::new(folder.path(), &[("SOURCES", sources)]).await;
    let mut delivery = delivery("/webhook/shared", &[], "{}");
    let send = async |delivery: Delivery| trial.deliver(delivery).await.status.as_u16();
    assert_eq!(send(delivery.clone()).await, 401);
    delivery.headers.insert("x-token", HeaderValue::from_static("plainly-shared"));
    delivery.headers.insert("x-other", HeaderValue::from_static("kept"));
    assert_eq!(send(delivery).await, 200);
    let [sent] = &trial.sent()[..] else { panic!("not sent once") };
    assert!(!sent.headers.contains_key("x-token") && sent.headers.contains_key("x-other"));
}

#[tokio::test]
async fn health_is_answered_without_the_store_and_a_head_that_forbids_the_body_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[("MAX_BODY_BYTES", "100")]).await;
    for (method, status) in [(Method::GET, 200), (Method::HEAD, 200), (Method::POST, 405)] {
        let delivery = Delivery { method, ..delivery("/healthz", &[], "") };
        assert_eq!(trial.deliver(delivery).await.status, status);
    }
    let refused = |path: &str, length| {
        let refusal = trial.router.refuse(&delivery(path, &[], ""), length, &Origin::default());
        refusal.map(|reply| reply.status.as_u16())
    };
    assert_eq!(refused("/webhook", 100), None);
    assert_eq!(refused("/webhook", 101), Some(413));
    assert_eq!(refused("/nobody", 0), Some(404));
}
