//! A destination that is down: it is probed, and its events wait.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{event, vars};
use crate::{
    operators::{Vars, run, serve},
    shared,
    support::{Server, Sink, client, ok, post, sqlite, status},
};

const EVENTS: usize = 2000;

#[tokio::test]
async fn a_destination_that_is_down_is_probed_and_the_events_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let vars = vars(&sink, &[("STORE_URL", &url), ("STORE_TIMEOUT_MS", "10000")]);
    all_arrive_after_the_outage(&sink, &vars, 1, || sink.answers(ok("done"))).await;
}

#[tokio::test]
async fn a_destination_that_cannot_be_reached_is_probed_by_each_of_two_processes() {
    let ((sink, port), url) = (Sink::closed(), shared::redis_database());
    let vars = vars(&sink, &[("STORE_URL", &url), ("STORE_TIMEOUT_MS", "10000")]);
    all_arrive_after_the_outage(&sink, &vars, 2, || sink.open(port)).await;
}

/// Accepts events while the destination is down, and counts the attempts until all are delivered.
async fn all_arrive_after_the_outage(
    sink: &Sink,
    vars: &Vars,
    processes: usize,
    end: impl FnOnce(),
) {
    let routers: Vec<_> = (0..processes).map(|_| serve(vars)).collect();
    let (client, began) = (client(), Instant::now());
    let mut posts = JoinSet::new();
    for number in 0..EVENTS {
        let (client, url) = (client.clone(), routers[number % processes].webhook());
        posts.spawn(async move { post(&client, &url, event(&number.to_string())).await.status });
        if posts.len() >= 32 {
            assert_eq!(posts.join_next().await.unwrap().unwrap(), 200);
        }
    }
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    // The first failures of all workers, and a probe each second or later.
    let probes = |began: Instant| processes * (16 + began.elapsed().as_secs() as usize * 2 + 1);
    let (in_vain, most) = (postponed(&routers), probes(began));
    assert!(in_vain <= most, "{in_vain} attempts, not {most}, in {:?}", began.elapsed());
    end();
    let up = Instant::now();
    loop {
        let pending = run(vars, &["pending"]).await;
        if pending.stdout.is_empty() {
            break;
        }
        let pending = String::from_utf8_lossy(&pending.stdout).into_owned();
        assert!(up.elapsed() < Duration::from_secs(120), "{pending}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let dead = run(vars, &["dead-letters"]).await;
    assert_eq!(String::from_utf8_lossy(&dead.stdout), "");
    let delivered = outcomes(&routers, "delivered");
    assert_eq!(delivered, EVENTS);
    let attempts = delivered + postponed(&routers);
    let most = EVENTS + EVENTS / 50 + probes(began);
    assert!(attempts <= most, "{attempts} attempts, not {most}");
    assert!(sink.received().len() >= EVENTS);
}

/// Returns the number of attempts in vain.
fn postponed(routers: &[Server]) -> usize {
    outcomes(routers, "postponed")
}

/// Returns the number of log lines with an outcome.
fn outcomes(routers: &[Server], outcome: &str) -> usize {
    let is_it = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["outcome"] == outcome
    };
    routers.iter().map(|router| router.log().lines().filter(is_it).count()).sum()
}

#[tokio::test]
async fn an_inbox_with_one_event_keeps_its_schedule_during_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let ((sink, port), url) = (Sink::closed(), sqlite(folder.path()));
    // One attempt that counts would make a dead letter.
    let vars = vars(&sink, &[("STORE_URL", &url), ("RETRY_SCHEDULE", "0s")]);
    let router = serve(&vars);
    let got = router.post(event("alone")).await;
    let key = got.header("x-webhook-key").unwrap();
    let began = Instant::now();
    let routers = [router];
    while postponed(&routers) < 4 {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", routers[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting = super::record(&url, key, |record| record.attempts.len() >= 4).await;
    assert_eq!(waiting.accepted.map(|accepted| accepted.tries), Some(0), "{waiting:?}");
    sink.open(port);
    super::record(&url, key, super::is_delivered).await;
    assert_eq!(sink.received().len(), 1);
}
