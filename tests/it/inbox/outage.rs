//! A destination that is down: it is probed, and its events wait.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::task::JoinSet;

use super::{event, vars};
use crate::{
    operators::{run, serve},
    support::{Sink, client, ok, post, sqlite, status},
};

#[tokio::test]
async fn a_destination_that_is_down_is_probed_and_the_events_wait() {
    const EVENTS: usize = 2000;
    let folder = tempfile::tempdir().unwrap();
    let (sink, url) = (Sink::start().await, sqlite(folder.path()));
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "down"));
    let vars = vars(&sink, &[("STORE_URL", &url), ("STORE_TIMEOUT_MS", "10000")]);
    let router = serve(&vars);
    let (client, began) = (client(), Instant::now());
    let mut posts = JoinSet::new();
    for number in 0..EVENTS {
        let (client, url) = (client.clone(), router.webhook());
        posts.spawn(async move { post(&client, &url, event(&number.to_string())).await.status });
        if posts.len() >= 32 {
            assert_eq!(posts.join_next().await.unwrap().unwrap(), 200);
        }
    }
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    let in_vain = sink.received().len();
    // The first failures of all workers, and a probe each second or later.
    let most = 16 + began.elapsed().as_secs() as usize * 2 + 1;
    assert!(in_vain <= most, "{in_vain} attempts, not {most}, in {:?}", began.elapsed());
    sink.answers(ok("done"));
    sink.arrived(EVENTS + in_vain).await;
    let pending = loop {
        let pending = run(&vars, &["pending"]).await;
        if pending.stdout.is_empty() || began.elapsed() > Duration::from_secs(120) {
            break pending;
        }
    };
    assert_eq!(String::from_utf8_lossy(&pending.stdout), "");
    let dead = run(&vars, &["dead-letters"]).await;
    assert_eq!(String::from_utf8_lossy(&dead.stdout), "");
    let attempts = sink.received().len();
    assert!(attempts <= EVENTS + EVENTS / 50 + most, "{attempts} attempts");
}
