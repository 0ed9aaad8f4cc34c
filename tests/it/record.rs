//! The record of an event over its life: how long it is kept, and which destination it names.

use chrono::{TimeDelta, Utc};
use http::StatusCode;
use webhook_router::{config::StoreConfig, route::Route, store};

use crate::support::{PAYLOAD, Serve, Sink, lookup, ok, sqlite, status};

#[tokio::test]
async fn an_event_is_remembered_for_as_long_as_its_vendor_may_send_it_again() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let url = sqlite(folder.path());
    let config = StoreConfig::from_vars(lookup(&[("STORE_URL", &url)])).unwrap();
    let store = store::open(&config).await.unwrap();
    let (hour, days) = (TimeDelta::hours(1), TimeDelta::days);
    // Stripe retries for three days. The retries of Acme are not known.
    for (vendor, ttl, remembered) in [
        ("acme", hour, hour),
        ("stripe", hour, days(3)),
        ("Stripe", hour, days(3)),
        ("stripe", days(4), days(4)),
    ] {
        let seconds = ttl.num_seconds().to_string();
        let router = Serve::to(&sink).store(&url).env("DEDUP_TTL_SECONDS", &seconds).start();
        let body = PAYLOAD.replace("stripe", vendor).replace("4200", &seconds);
        let got = router.post(body).await.expect(200).says("done");
        let key = got.header("x-webhook-key").unwrap().parse().unwrap();
        let is_known = async |after| store.get(&key, Utc::now() + after).await.unwrap().is_some();
        let minute = TimeDelta::minutes(1);
        assert!(is_known(remembered - minute).await, "{vendor}, {ttl}");
        assert!(!is_known(remembered + minute).await, "{vendor}, {ttl}");
    }
}

#[tokio::test]
async fn an_event_keeps_its_route_when_the_threshold_is_another() {
    let (sink, folder) = (Sink::start().await, tempfile::tempdir().unwrap());
    let serve = Serve::to(&sink).store(&sqlite(folder.path())).env("FORWARD_ATTEMPTS", "1");
    let (before, after) = (serve.clone().only(Route::GCP).start(), serve.only(Route::AWS).start());
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "no"));
    before.post(PAYLOAD).await.expect(503);
    sink.answers(ok("done"));
    sink.take();
    // The vendor retries the failed event. The next delivery is then a duplicate.
    for answer in ["done", "duplicate ignored"] {
        let got = after.post(PAYLOAD).await.expect(200).says(answer);
        assert_eq!(got.header("x-webhook-destination"), Some("gcp"));
    }
    let other = after.post(PAYLOAD.replace("4200", "1")).await.expect(200).says("done");
    assert_eq!(other.header("x-webhook-destination"), Some("aws"));
    let invocations: Vec<_> = sink.take().iter().map(|one| one.is_invocation()).collect();
    assert_eq!(invocations, [false, true]);
}
