//! The metrics of accepted events.

use std::time::Duration;

use webhook_router::route::Route;

use crate::{
    proxy::Proxy,
    servers::Redis,
    support::{PAYLOAD, Serve, Sink, client, get},
};

#[tokio::test]
async fn scrapes_count_accepted_events_by_destination() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let start = || {
        let metrics = format!("127.0.0.1:{}", crate::support::free_port());
        let (url, accepted) = (redis.url(), [("ANSWER", "accepted"), ("RETRY_SCHEDULE", "1day")]);
        let router = Serve::to(&sink).only(Route::GCP).store(&url).envs(accepted);
        (router.env("METRICS_LISTEN", &metrics).start(), metrics)
    };
    let scrape = async |metrics: &str| {
        get(client().get(format!("http://{metrics}/metrics")).send().await).await
    };
    let (router, metrics) = start();
    for number in ["1", "2", "3"] {
        router.post(PAYLOAD.replace("4200", number)).await.expect(200).says("accepted");
    }
    let got = scrape(&metrics).await;
    for line in [
        "webhook_router_pending{destination=\"gcp\"} 3\n",
        "webhook_router_pending{destination=\"aws\"} 0\n",
        "webhook_router_oldest_pending_seconds{destination=\"aws\"} 0.0\n",
        "destination=\"gcp\",source=\"\",vendor=\"stripe\",outcome=\"accepted\"} 3\n",
    ] {
        assert!(got.text().contains(line), "{line}\n{}", got.text());
    }
    let age = oldest_pending(got.text());
    assert!((0.001..600.0).contains(&age), "{age}");
    // The count stops at its limit.
    let add = "for i = 1, 1500 do redis.call('ZADD', 'webhook:due:gcp', 9e12 + i, \
               'webhook:dedup:' .. string.format('%064x', i)) end";
    redis.cli(&["EVAL", add, "0"]);
    let (_another, metrics) = start();
    let got = scrape(&metrics).await;
    assert!(got.text().contains("webhook_router_pending{destination=\"gcp\"} 1000\n"));
}

#[tokio::test]
async fn a_slow_store_hides_no_destination_and_a_slower_one_only_some() {
    const DESTINATIONS: usize = 64;
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let table: String = (0..DESTINATIONS)
        .map(|number| {
            let bytes = if number == 0 { "0-255" } else { "none" };
            let url = &sink.url;
            format!("[destinations.d{number}]\nkind = \"http\"\nurl = {url:?}\nbytes = {bytes:?}\n")
        })
        .collect();
    let add = "for i = 1, 5 do redis.call('ZADD', 'webhook:due:d' .. i, 9e12 + i, \
               'webhook:dedup:' .. string.format('%064x', i)) end";
    redis.cli(&["EVAL", add, "0"]);
    let counts = async |delay| {
        let proxy = Proxy::start(redis.port).await;
        let metrics = format!("127.0.0.1:{}", crate::support::free_port());
        let store = format!("redis://127.0.0.1:{}", proxy.port);
        let vars = [("DESTINATIONS", &*table), ("METRICS_LISTEN", &metrics)];
        let router = Serve::new().store(&store).envs(vars).env("STORE_TIMEOUT_MS", "20000").start();
        router.checked();
        proxy.delay(Duration::from_millis(delay));
        let got = get(client().get(format!("http://{metrics}/metrics")).send().await).await;
        let of_inbox = |line: &&str| line.starts_with("webhook_router_pending{");
        let lines: Vec<_> = got.text().lines().filter(of_inbox).map(str::to_owned).collect();
        // No destination is told wrongly because another one is missing.
        for line in &lines {
            let expected = (1..=5).any(|number| line.contains(&format!("\"d{number}\"")));
            assert!(line.ends_with(if expected { "} 1" } else { "} 0" }), "{line}");
        }
        let warns = router.log().contains("of some destinations cannot be counted");
        (lines.len(), warns)
    };
    // One after another, they would take longer than the two seconds that a scrape waits.
    assert_eq!(counts(35).await, (DESTINATIONS, false));
    let (some, warns) = counts(600).await;
    assert!((1..DESTINATIONS).contains(&some) && warns, "{some} {warns}");
}

/// Returns the age of the oldest event for `gcp`, in seconds.
fn oldest_pending(metrics: &str) -> f64 {
    let oldest = "webhook_router_oldest_pending_seconds{destination=\"gcp\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(oldest)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn scrapes_know_the_oldest_event_although_its_next_attempt_is_far_away() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let (url, now) = (crate::support::sqlite(folder.path()), chrono::Utc::now());
    let store = crate::inbox::crash::Place::at(&url).await.store;
    for (name, age, pause) in [("fresh", 0, 1), ("old", 3, 5), ("other", 1, 9)] {
        let mut plan = crate::support::plan_of(name);
        plan.route = Route::GCP;
        let (age, pause) = (chrono::TimeDelta::hours(age), chrono::TimeDelta::hours(pause));
        let due = now + pause;
        let delivery = crate::support::delivery("{}");
        store.accept(&plan, &delivery, now - age, due, due).await.unwrap();
    }
    let metrics = format!("127.0.0.1:{}", crate::support::free_port());
    let router = Serve::to(&sink).only(Route::GCP).store(&url).env("METRICS_LISTEN", &metrics);
    let _router = router.env("ANSWER", "accepted").start();
    let got = get(client().get(format!("http://{metrics}/metrics")).send().await).await;
    let age = oldest_pending(got.text());
    assert!((10_800.0..11_400.0).contains(&age), "{age}");
}
