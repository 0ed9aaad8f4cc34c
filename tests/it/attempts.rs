//! Behaviours of destinations and their consequences: the answer to the sender, the attempts, the
//! state afterwards, and the vendor's next delivery.

use std::time::Duration;

use chrono::Utc;
use tokio::task::JoinSet;
use webhook_router::{
    config::StoreConfig,
    outcome::{Outcome, Trigger},
    route::Route,
    store::{self, Record, State},
};

use crate::{
    destination::{OVER_TLS, TlsServer},
    rough_destination::{Behaviour, Rough},
    servers::Authority,
    support::{Got, PAYLOAD, Serve, client, free_port, lookup, post, sqlite},
};

use Behaviour::{Half, Invoke, Never, ResetAfter, ResetBefore, Status};

/// The value of FORWARD_ATTEMPTS in these tests.
const ALL: usize = 3;

/// A behaviour and its required consequences.
struct Row {
    name: &'static str,
    behaviour: Behaviour,
    /// The answer to the sender.
    answer: (u16, &'static str),
    attempts: usize,
    then: Then,
}

/// The state afterwards, and the result of the vendor's next delivery.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Delivered,
    /// A dead letter whose key is free: the event is delivered as soon as the destination works
    /// again.
    Free,
    /// A dead letter whose key is held: the event is in progress until the lease ends, and can be
    /// delivered after that.
    Held,
}

const fn row(
    name: &'static str,
    behaviour: Behaviour,
    answer: (u16, &'static str),
    attempts: usize,
    then: Then,
) -> Row {
    Row { name, behaviour, answer, attempts, then }
}

/// Behaviours of both destinations.
#[rustfmt::skip]
const BOTH: &[Row] = &[
    row("200", Status(200, None), (200, "said 200"), 1, Then::Delivered),
    row("201", Status(201, None), (201, "said 201"), 1, Then::Delivered),
    row("301", Status(301, None), (502, "said 301"), 1, Then::Free),
    row("400", Status(400, None), (400, "said 400"), 1, Then::Free),
    row("401", Status(401, None), (401, "said 401"), 1, Then::Free),
    row("403", Status(403, None), (403, "said 403"), 1, Then::Free),
    row("404", Status(404, None), (404, "said 404"), 1, Then::Free),
    row("408", Status(408, None), (408, "said 408"), ALL, Then::Free),
    row("409", Status(409, None), (409, "said 409"), 1, Then::Free),
    row("410", Status(410, None), (502, "said 410"), 1, Then::Free),
    row("413", Status(413, None), (413, "said 413"), 1, Then::Free),
    row("425", Status(425, None), (425, "said 425"), ALL, Then::Free),
    row("429", Status(429, None), (429, "said 429"), ALL, Then::Free),
    row("429, soon", Status(429, Some("0")), (429, "said 429"), ALL, Then::Free),
    row("429, in an hour", Status(429, Some("3600")), (429, "said 429"), 1, Then::Free),
    row("429, on a day long past", Status(429, Some("Sun, 06 Nov 1994 08:49:37 GMT")), (429, "said 429"), ALL, Then::Free),
    row("429, in nonsense", Status(429, Some("later")), (429, "said 429"), ALL, Then::Free),
    row("500", Status(500, None), (500, "said 500"), ALL, Then::Free),
    row("502", Status(502, None), (502, "said 502"), ALL, Then::Free),
    row("503", Status(503, None), (503, "said 503"), ALL, Then::Free),
    row("503, in an hour", Status(503, Some("3600")), (503, "said 503"), 1, Then::Free),
    row("504", Status(504, None), (504, "said 504"), ALL, Then::Free),
    row("reset before", ResetBefore, (502, "destination unreachable"), ALL, Then::Held),
    row("reset after", ResetAfter, (502, "destination unreachable"), ALL, Then::Held),
    row("half", Half, (502, "destination unreachable"), ALL, Then::Held),
    row("never", Never, (504, "destination too slow"), ALL, Then::Held),
];

/// Behaviours of Cloud Run only.
const HTTP: &[Row] = &[row("204", Status(204, None), (204, ""), 1, Then::Delivered)];

/// Behaviours of the Lambda function only.
#[rustfmt::skip]
const INVOKE: &[Row] = &[
    row("handled", Invoke(200, "x-amz-function-error: Handled\r\n", r#"{"errorMessage":"inside"}"#), (502, "destination failed"), ALL, Then::Free),
    row("unhandled", Invoke(200, "x-amz-function-error: Unhandled\r\n", r#"{"errorMessage":"inside"}"#), (502, "destination failed"), ALL, Then::Free),
    row("throttled", Invoke(429, "x-amzn-errortype: TooManyRequestsException\r\n", r#"{"Message":"Rate Exceeded."}"#), (502, "destination unreachable"), ALL, Then::Free),
    row("throttled, soon", Invoke(429, "x-amzn-errortype: TooManyRequestsException\r\nretry-after: 0\r\n", "{}"), (502, "destination unreachable"), ALL, Then::Free),
    row("throttled for an hour", Invoke(429, "x-amzn-errortype: TooManyRequestsException\r\nretry-after: 3600\r\n", "{}"), (502, "destination unreachable"), 1, Then::Free),
    row("not found", Invoke(404, "x-amzn-errortype: ResourceNotFoundException\r\n", "{}"), (502, "destination unreachable"), 1, Then::Free),
    row("denied", Invoke(403, "x-amzn-errortype: AccessDeniedException\r\n", "{}"), (502, "destination unreachable"), 1, Then::Free),
    row("invalid", Invoke(400, "x-amzn-errortype: InvalidRequestContentException\r\n", "{}"), (502, "destination unreachable"), 1, Then::Free),
    row("service", Invoke(500, "x-amzn-errortype: ServiceException\r\n", "{}"), (502, "destination unreachable"), ALL, Then::Held),
    row("empty", Invoke(200, "", ""), (200, ""), 1, Then::Delivered),
    row("an answer of its own", Invoke(200, "", r#"{"ok":true}"#), (200, r#"{"ok":true}"#), 1, Then::Delivered),
    row("204", Invoke(200, "", r#"{"statusCode":204}"#), (204, ""), 1, Then::Delivered),
    row("unreadable", Invoke(200, "", r#"{"statusCode":200,"retry":NaN}"#), (502, "destination failed"), ALL, Then::Free),
    row("no status", Invoke(200, "", r#"{"statusCode":0}"#), (502, "destination failed"), ALL, Then::Free),
];

fn body(name: &str) -> String {
    PAYLOAD.replace("\"amount\":4200", &format!("\"do\":{name:?}"))
}

/// Variables of a router with short attempts and short leases.
const SHORT: [(&str, &str); 4] = [
    ("FORWARD_ATTEMPTS", "3"),
    ("FORWARD_TIMEOUT_MS", "2000"),
    ("FORWARD_BUDGET_MS", "8000"),
    ("STORE_TIMEOUT_MS", "1000"),
];

#[tokio::test]
async fn every_behaviour_of_a_destination_has_its_answer_attempts_and_state() {
    tokio::join!(every_row(Route::GCP, [BOTH, HTTP]), every_row(Route::AWS, [BOTH, INVOKE]),);
}

async fn every_row(route: Route, rows: [&'static [Row]; 2]) {
    let rough = Rough::start(|body| {
        let name = body.split("\"do\":\"").nth(1).unwrap().split('"').next().unwrap();
        let row = [BOTH, HTTP, INVOKE].into_iter().flatten().find(|row| row.name == name);
        row.unwrap().behaviour.clone()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let router = Serve::to_url(&rough.url).only(route).store(&store).envs(SHORT).start();
    let mut trials = JoinSet::new();
    for row in rows.into_iter().flatten() {
        let (url, store, rough) = (router.webhook(), store.clone(), rough.clone());
        trials.spawn(async move { row.try_it(&url, &store, &rough).await });
    }
    trials.join_all().await;
}

impl Row {
    async fn try_it(&self, url: &str, store: &str, rough: &Rough) {
        let Self { name, behaviour, answer, attempts, then } = self;
        let body = body(name);
        let got = post(&client(), url, body.clone()).await;
        assert_eq!((got.status, got.text()), *answer, "{name}");
        let key = got.header("x-webhook-key").unwrap();
        assert_eq!(rough.seen(key).len(), *attempts, "{name}");
        let record = record(store, key).await;
        let numbers: Vec<_> = record.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (1..=*attempts as u32).collect::<Vec<_>>(), "{name}");
        for attempt in &record.attempts {
            assert_eq!(attempt.by, Trigger::Vendor);
            assert_eq!(Some(attempt.destination.as_str()), got.header("x-webhook-destination"));
            let unknown = matches!(attempt.outcome, Outcome::Broken | Outcome::TimedOut);
            assert_eq!(unknown, *then == Then::Held, "{name}: {:?}", attempt.outcome);
        }
        rough.heal(key);
        match then {
            Then::Delivered => {
                assert!(matches!(record.state, State::Delivered { .. }), "{name}");
                let again = post(&client(), url, body.clone()).await;
                assert_eq!((again.status, again.text()), (200, "duplicate ignored"), "{name}");
                assert_eq!(rough.seen(key).len(), *attempts, "{name}");
                return;
            }
            Then::Free => assert_eq!(record.state, State::DeadLetter, "{name}"),
            Then::Held => {
                assert!(matches!(record.state, State::InFlight { .. }), "{name}");
                let early = post(&client(), url, body.clone()).await;
                assert_eq!((early.status, early.text()), (409, "in progress"), "{name}");
                let wait = early.header("retry-after").unwrap().parse().unwrap();
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
        }
        assert!(record.failed.is_some(), "{name}");
        let again = until_taken(url, &body).await;
        assert_eq!((again.status, again.text()), (200, "said 200"), "{name}");
        let seen = rough.seen(key);
        assert_eq!(seen.len(), attempts + 1, "{name}");
        assert!(seen.iter().all(|request| request.body == body), "{name}");
        assert!(seen[..*attempts].iter().all(|request| request.behaviour == *behaviour));
        let record = self::record(store, key).await;
        assert!(matches!(record.state, State::Delivered { .. }) && record.failed.is_none());
        assert_eq!(post(&client(), url, body).await.text(), "duplicate ignored");
    }
}

/// Delivers an event until it is accepted, and obeys `Retry-After`.
async fn until_taken(url: &str, body: &str) -> Got {
    loop {
        let got = post(&client(), url, body.to_owned()).await;
        if got.status != 409 {
            return got;
        }
        let wait = got.header("retry-after").unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}

/// Returns the store's record of an event.
pub async fn record(url: &str, key: &str) -> Record {
    let config = StoreConfig::from_vars(lookup(&[("STORE_URL", url)])).unwrap();
    let store = store::open(&config).await.unwrap();
    store.get(&key.parse().unwrap(), Utc::now()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_cannot_be_reached_is_tried_again_and_free() {
    let authority = Authority::new();
    let tls = TlsServer::start(&authority, "localhost").await;
    let (refused, wrong_name) =
        (format!("http://127.0.0.1:{}", free_port()), format!("https://127.0.0.1:{}", tls.port));
    let right_name = format!("https://localhost:{}", tls.port);
    let ca = authority.file();
    let urls = [&refused, &wrong_name, "https://nowhere.invalid", &right_name];
    let trials = [Route::GCP, Route::AWS].map(|route| urls.map(|url| (route, url)));
    for (route, url) in trials.into_iter().flatten() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(folder.path());
        // Both destinations trust the authority, so only the name is wrong.
        let ca = ca.to_str().unwrap();
        let trusting = [("GCP_CA_FILE", ca), ("SSL_CERT_FILE", ca), ("FORWARD_ATTEMPTS", "3")];
        let router = Serve::to_url(url).only(route).store(&store).envs(trusting).start();
        if url == right_name {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (200, OVER_TLS), "{}", router.log());
            continue;
        }
        for attempts in [ALL, 2 * ALL] {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (502, "destination unreachable"), "{url}");
            let record = record(&store, got.header("x-webhook-key").unwrap()).await;
            assert_eq!((record.attempts.len(), &record.state), (attempts, &State::DeadLetter));
            assert!(record.attempts.iter().all(|one| one.outcome == Outcome::Unreachable));
        }
    }
}

#[tokio::test]
async fn an_attempt_that_could_not_end_in_time_is_not_begun() {
    let rough = Rough::start(|_| Never).await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    // There is time for one and a half attempts.
    let short = [("FORWARD_TIMEOUT_MS", "1000"), ("FORWARD_BUDGET_MS", "1500")];
    let router = Serve::to_url(&rough.url).only(Route::GCP).store(&store).envs(short).start();
    let got = router.post(PAYLOAD).await.expect(504);
    let record = record(&store, got.header("x-webhook-key").unwrap()).await;
    assert_eq!(record.attempts.len(), 1);
}

#[tokio::test]
async fn of_many_attempts_the_newest_twenty_are_kept() {
    let rough = Rough::start(|_| Status(503, None)).await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let many = [("FORWARD_ATTEMPTS", "10"), ("FORWARD_BACKOFF_MS", "1")];
    let router = Serve::to_url(&rough.url).only(Route::GCP).store(&store).envs(many).start();
    for newest in [1..=10, 1..=20, 11..=30] {
        let got = router.post(PAYLOAD).await.expect(503);
        let record = record(&store, got.header("x-webhook-key").unwrap()).await;
        let numbers = record.attempts.iter().map(|attempt| attempt.number);
        assert_eq!(numbers.collect::<Vec<_>>(), newest.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_retry_after_that_fits_is_obeyed() {
    let rough = Rough::start(|_| Status(429, Some("1"))).await;
    let serve = Serve::to_url(&rough.url).only(Route::GCP).env("FORWARD_ATTEMPTS", "2");
    let router = serve.start();
    let started = std::time::Instant::now();
    let got = router.post(PAYLOAD).await;
    // The sender gets the same answer.
    assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
    assert_eq!(rough.seen(got.header("x-webhook-key").unwrap()).len(), 2);
    assert!(started.elapsed() >= Duration::from_secs(1));
}
