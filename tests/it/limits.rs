//! Limits on what a destination gets at once and per second, in both ways of answering.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;
use webhook_router::{
    config::StoreConfig,
    outcome::Outcome,
    route::Route,
    store::{self, Page, Record, State, Store},
};

use crate::{
    inbox::{event, is_delivered, record},
    meter::Meter,
    operators::{self, run, text},
    shared,
    support::{Answer, Got, Serve, Server, Sink, get, lookup, ok, post, sqlite, status},
};

const SECOND: Duration = Duration::from_secs(1);

/// Creates a router that sends every event to one destination, as to Cloud Run.
fn to(url: &str, store: &str, more: &[(&str, &str)]) -> Serve {
    let common = [("STORE_TIMEOUT_MS", "20000"), ("METRICS_LISTEN", "off")];
    Serve::to_url(url).only(Route::GCP).store(store).envs(common).envs(more.iter().copied())
}

/// Sends an event as a vendor does: comes again as long as the answer is 503, at the time that the
/// answer names. Until then, the store has its dead letter. Returns the number of answers.
async fn send(
    client: reqwest::Client,
    url: String,
    store: Arc<dyn Store>,
    body: String,
    says: &'static str,
) -> usize {
    for answers in 1.. {
        let got = post(&client, &url, body.clone()).await;
        if got.status == 200 {
            assert!(got.text().contains(says), "{}", got.text());
            return answers;
        }
        assert_eq!((got.status, got.text()), (503, "try again later"));
        let key = got.header("x-webhook-key").unwrap().parse().unwrap();
        let record = store.get(&key, Utc::now()).await.unwrap().unwrap();
        assert_eq!(record.state, State::DeadLetter);
        assert_eq!(record.failed.unwrap().failure.outcome, Outcome::Limited);
        assert!(record.attempts.is_empty());
        tokio::time::sleep(retry_after(&got)).await;
    }
    unreachable!()
}

fn retry_after(got: &Got) -> Duration {
    Duration::from_secs(got.header("retry-after").unwrap().parse().unwrap())
}

/// Sends many events as fast as the router answers them, from this many senders. Returns the number of
/// answers.
async fn send_all(
    router: &Server,
    store: &Arc<dyn Store>,
    count: usize,
    senders: usize,
    says: &'static str,
) -> usize {
    let client = crate::support::client();
    let send = |number: usize| {
        let (client, store) = (client.clone(), Arc::clone(store));
        send(client, router.webhook(), store, event(&number.to_string()), says)
    };
    let answers: Vec<_> =
        stream::iter((0..count).map(send)).buffer_unordered(senders).collect().await;
    assert_eq!(answers.len(), count);
    answers.into_iter().sum()
}

/// Asserts that a destination got each event once, and not too many at a time.
fn assert_is_spared(meter: &Meter, count: usize) {
    let seen = meter.seen();
    let (at_once, within) = (seen.most_at_once, seen.most_within(SECOND));
    println!("{at_once} at once, {within} in a second");
    assert!(at_once <= 10 && within <= 210, "{at_once} at once, {within} in a second");
    let events = seen.events();
    assert_eq!((events.len(), seen.arrivals.len()), (count, count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_five_thousand_reaches_a_limited_destination_at_its_pace_in_both_ways() {
    const COUNT: usize = 5000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let limits = [("GCP_MAX_CONCURRENT", "10"), ("GCP_MAX_PER_SECOND", "200")];
    // An attempt waits for up to two seconds, and 500 senders would need more. No attempt times out,
    // because its event would arrive twice.
    let waits = [("FORWARD_BUDGET_MS", "22000"), ("FORWARD_TIMEOUT_MS", "20000")];
    let meters = [(); 2].map(|()| Meter::start(Duration::from_millis(20)));
    let urls = [(); 2].map(|()| shared::redis_database());
    let stores = [opened(&urls[0]).await, opened(&urls[1]).await];
    let delivered = to(&meters[0].url, &urls[0], &[&limits[..], &waits].concat()).start();
    let answer = [("ANSWER", "accepted"), ("FORWARD_TIMEOUT_MS", "20000")];
    let accepted = to(&meters[1].url, &urls[1], &[&limits[..], &answer].concat()).start();
    let began = Instant::now();
    let (answers, accepts) = tokio::join!(
        send_all(&delivered, &stores[0], COUNT, 500, "done"),
        send_all(&accepted, &stores[1], COUNT, 100, "accepted")
    );
    assert_eq!(accepts, COUNT);
    assert!(answers > COUNT, "no event was without room");
    until("all accepted events arrive", || meters[1].count() >= COUNT).await;
    println!("{answers} answers in {:?}", began.elapsed());
    // The rate is a limit, so it cannot be faster.
    assert!(began.elapsed() >= SECOND * (COUNT as u32 / 210));
    for meter in &meters {
        assert_is_spared(meter, COUNT);
    }
    for store in &stores {
        // The last results may not be stored yet.
        while !store.due(Route::GCP, None, None, 1).await.unwrap().is_empty() {
            assert!(began.elapsed() < 180 * SECOND, "an accepted event is not delivered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A dead letter of an event that the destination got would be delivered again.
        let letters = store.dead_letters(Page { limit: 10, after: None }).await.unwrap();
        assert_eq!(letters, []);
    }
}

/// Opens the store of a router.
async fn opened(url: &str) -> Arc<dyn Store> {
    let vars = [("STORE_URL", url), ("STORE_TIMEOUT_MS", "20000")];
    let config = StoreConfig::from_vars(lookup(&vars)).unwrap();
    store::open(&config).await.unwrap()
}

/// Waits until a condition is true.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < 60 * SECOND, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the lines of deliveries in a router's log.
fn lines(router: &Server) -> Vec<Value> {
    let log = router.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "delivery").collect()
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"))
}

/// Posts events at once. The answers come later.
fn posts(router: &Arc<Server>, names: &[&str]) -> JoinSet<Got> {
    let mut posts = JoinSet::new();
    for name in names {
        let (router, body) = (Arc::clone(router), event(name));
        posts.spawn(async move { router.post(body).await });
    }
    posts
}

#[tokio::test]
async fn an_event_without_room_is_answered_with_503_and_kept_as_a_dead_letter() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let port = crate::support::free_port();
    let metrics = format!("127.0.0.1:{port}");
    let vars = [
        ("GCP_MAX_CONCURRENT", "1"),
        ("FORWARD_TIMEOUT_MS", "20000"),
        ("FORWARD_BUDGET_MS", "20500"),
        ("METRICS_LISTEN", metrics.as_str()),
    ];
    let router = Arc::new(to(&sink.url, &url, &vars).start());
    sink.answers(Answer::WhenTold);
    let mut first = posts(&router, &["first"]);
    sink.arrived(1).await;
    let began = Instant::now();
    let got = router.post(event("second")).await.expect(503).says("try again later");
    assert!(began.elapsed() >= Duration::from_millis(450));
    assert!((SECOND..5 * SECOND).contains(&retry_after(&got)));
    assert_eq!((got.header("x-webhook-destination"), sink.received().len()), (Some("gcp"), 1));
    let key = got.header("x-webhook-key").unwrap().to_owned();

    // The operator learns the reason.
    let no_room = "gcp had no room within 0.5 s: it gets at most 1 attempts at once";
    let line = lines(&router).pop().unwrap();
    assert_eq!((&line["outcome"], &line["level"]), (&"limited".into(), &"WARN".into()));
    assert_eq!((&line["reason"], &line["attempts"]), (&no_room.into(), &0.into()));
    assert!(
        number(&line, "room_milliseconds") >= 450.0 && number(&line, "self_milliseconds") < 400.0
    );
    let Record { failed, attempts, state, .. } = record(&url, &key, |_| true).await;
    assert!(attempts.is_empty() && !matches!(state, State::Delivered { .. }), "{state:?}");
    let failure = failed.unwrap().failure;
    assert_eq!((failure.outcome, failure.detail.as_str()), (Outcome::Limited, no_room));
    let text = reqwest_text(&format!("http://{metrics}/metrics")).await;
    for line in [
        "webhook_router_no_room_total{destination=\"gcp\"} 1",
        "webhook_router_waiting_for_room{destination=\"gcp\"} 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // The vendor comes again, waits for a moment, and is served.
    let mut again = posts(&router, &["second"]);
    let has_come = "webhook_router_waiting_for_room{destination=\"gcp\"} 1";
    let waiting = async {
        while !reqwest_text(&format!("http://{metrics}/metrics")).await.contains(has_come) {}
        sink.answers(ok("done"));
        sink.go.notify_one();
    };
    let (again, ()) = tokio::join!(again.join_next(), waiting);
    again.unwrap().unwrap().expect(200).says("done");
    first.join_next().await.unwrap().unwrap().expect(200).says("at last");
    let record = record(&url, &key, is_delivered).await;
    assert!(record.failed.is_none() && record.attempts.len() == 1);
    // The line of the first event may be logged after this one.
    let line = lines(&router).into_iter().rfind(|line| line["key"] == key.as_str()).unwrap();
    assert_eq!(line["outcome"], "delivered");
    assert!(number(&line, "milliseconds") >= number(&line, "room_milliseconds"), "{line}");
}

async fn reqwest_text(url: &str) -> String {
    get(crate::support::client().get(url).send().await).await.expect(200).text().to_owned()
}

#[tokio::test]
async fn a_limited_destination_does_not_hold_up_another_and_uses_up_no_schedule() {
    let (limited, free) = (Meter::start(Duration::ZERO), Meter::start(Duration::ZERO));
    let store = shared::redis_database();
    let vars = [
        ("ANSWER", "accepted"),
        ("ROUTE_THRESHOLD", "128"),
        ("GCP_MAX_PER_SECOND", "2"),
        ("AWS_ENDPOINT_URL_LAMBDA", free.url.as_str()),
        ("RETRY_SCHEDULE", "0s"),
        ("INBOX_WORKERS", "4"),
    ];
    let router = to(&limited.url, &store, &vars).start();
    let (began, mut keys) = (Instant::now(), Vec::new());
    for number in 0..300 {
        let got = router.post(event(&number.to_string())).await.expect(200).says("accepted");
        let destination = got.header("x-webhook-destination").unwrap().to_owned();
        keys.push((destination, got.header("x-webhook-key").unwrap().to_owned()));
    }
    let of_free = keys.iter().filter(|(destination, _)| destination == "aws").count();
    until("the free destination has all", || free.count() == of_free).await;
    let most = 1 + (began.elapsed().as_secs_f64() * 2.0) as usize;
    assert!(limited.count() <= most && most < 100, "{} of {most}", limited.count());
    assert_eq!(free.seen().events().len(), of_free);
    // The events that wait are not under a lease, and no attempt at them counts.
    let mut waiting = 0;
    for (_, key) in keys.iter().filter(|(destination, _)| destination == "gcp") {
        let record = record(&store, key, |_| true).await;
        if let (State::Waiting { .. }, Some(accepted)) = (record.state, record.accepted) {
            assert_eq!((accepted.tries, record.attempts.len()), (0, 0));
            waiting += 1;
        }
    }
    assert!(waiting > 50, "{waiting} wait");
}

#[tokio::test]
async fn at_a_stop_waiting_senders_are_still_served() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let vars = [("GCP_MAX_CONCURRENT", "1")];
    let router = Arc::new(to(&sink.url, &sqlite(folder.path()), &vars).start());
    sink.answers(Answer::WhenTold);
    let mut posts = posts(&router, &["one", "two", "three"]);
    sink.arrived(1).await;
    router.terminate();
    until("it stops", || router.log().contains("stopping")).await;
    sink.answers(ok("done"));
    sink.go.notify_one();
    while let Some(got) = posts.join_next().await {
        got.unwrap().expect(200);
    }
    assert!(Arc::into_inner(router).unwrap().wait().success());
    assert_eq!(sink.received().len(), 3);
}

#[tokio::test]
async fn at_a_stop_accepted_events_that_wait_are_left_to_the_next_process() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let serve = to(&sink.url, &url, &[("ANSWER", "accepted"), ("GCP_MAX_CONCURRENT", "1")]);
    let mut router = serve.start();
    sink.answers(Answer::WhenTold);
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        let got = router.post(event(name)).await.expect(200).says("accepted");
        keys.push(got.header("x-webhook-key").unwrap().to_owned());
    }
    sink.arrived(1).await;
    router.terminate();
    until("it stops", || router.log().contains("stopping")).await;
    sink.go.notify_one();
    until("it ends", || router.has_ended()).await;
    assert!(router.wait().success());
    assert_eq!(sink.take().len(), 1);
    sink.answers(ok("done"));
    let _next = serve.start();
    for key in &keys {
        record(&url, key, is_delivered).await;
    }
    assert_eq!(sink.received().len(), 2);
}

#[tokio::test]
async fn replays_and_drains_keep_the_limits() {
    let (sink, meter) = (Sink::start().await, Meter::start(Duration::from_millis(30)));
    let store = shared::redis_database();
    let limits = [("STORE_URL", store.as_str()), ("GCP_MAX_CONCURRENT", "2")];
    let vars = operators::vars(&sink, &limits);
    let router = operators::serve(&vars);
    let letters = (0..12).map(|number| operators::event("stripe", number));
    operators::fail(&sink, &router, letters).await;
    drop(router);
    let aimed = [&limits[..], &[("GCP_TARGET_URL", meter.url.as_str())]].concat();
    let replayed = run(&operators::vars(&sink, &aimed), &["replay", "--all"]).await;
    assert!(text(&replayed).contains("12 delivered"), "{}", text(&replayed));
    let seen = meter.seen();
    assert_eq!((seen.arrivals.len(), seen.most_at_once), (12, 2));

    let accepts = [&aimed[..], &[("ANSWER", "accepted"), ("RETRY_SCHEDULE", "1s")]].concat();
    let router = to(&sink.url, &store, &accepts[1..]).start();
    for number in 0..12 {
        router.post(operators::event("acme", number)).await.expect(200).says("accepted");
    }
    drop(router);
    tokio::time::sleep(SECOND * 3 / 2).await;
    let drained = run(&operators::vars(&sink, &accepts), &["drain"]).await;
    assert!(text(&drained).contains("12 delivered"), "{}", text(&drained));
    let seen = meter.seen();
    assert_eq!((seen.arrivals.len(), seen.most_at_once), (24, 2));
}

#[tokio::test]
async fn a_retry_without_room_leaves_the_destination_s_answer() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let vars = [
        ("GCP_MAX_PER_SECOND", "1"),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("FORWARD_BUDGET_MS", "2500"),
    ];
    let router = to(&sink.url, &sqlite(folder.path()), &vars).start();
    sink.answers(status(StatusCode::INTERNAL_SERVER_ERROR, "not now"));
    router.post(event("one")).await.expect(500).says("not now");
    assert_eq!(sink.received().len(), 1);
    let line = lines(&router).pop().unwrap();
    assert_eq!(line["outcome"], "failed");
    assert!(number(&line, "room_milliseconds") > 100.0, "{line}");
}
