//! The Python router and this one on one Redis.

use http::StatusCode;
use webhook_router::store::State;

use super::{accepting, is_delivered, record};
use crate::{
    servers::Redis,
    support::{Answer, PAYLOAD, Sink, status},
};

#[tokio::test]
async fn the_python_router_is_excluded_from_accepted_events() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    let url = redis.url();
    let more = [("RETRY_SCHEDULE", "0s,2s,1s"), ("FORWARD_TIMEOUT_MS", "5000")];
    let router = accepting(&sink, &url).envs(more).start();
    let got = router.post(PAYLOAD).await;
    let key = got.header("x-webhook-key").unwrap();
    // The Python router claims a key in this way.
    let claim = || redis.cli(&["SET", key, "1", "NX", "EX", "100"]);
    assert_eq!(claim(), "\n");
    record(&url, key, |record| matches!(record.state, State::Waiting { .. })).await;
    assert_eq!((claim(), redis.cli(&["TTL", key])), ("\n".into(), "-1\n".into()));
    sink.answers(Answer::WhenTold);
    record(&url, key, |record| matches!(record.state, State::InFlight { .. })).await;
    assert_eq!((claim(), redis.cli(&["TTL", key])), ("\n".into(), "-1\n".into()));
    sink.go.notify_one();
    record(&url, key, is_delivered).await;
    assert_eq!(claim(), "\n");
}
