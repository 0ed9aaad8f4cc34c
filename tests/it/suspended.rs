//! A machine that is suspended during a delivery, or a function that is frozen. The wall clock
//! continues, and the clock that counts the router's time stops.

use std::process::Command;

use http::StatusCode;

use crate::support::{Answer, PAYLOAD, ROUTER, Server, Sink, client, libfaketime, post};

#[tokio::test]
async fn an_owner_that_slept_through_its_lease_sends_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let sink = Sink::start().await;
    let mut command = Command::new(ROUTER);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let vars: [(&str, &str); 5] = [
        ("ROUTE_THRESHOLD", "256"),
        ("LD_PRELOAD", &libfaketime()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let router = Server::start(command, &[&sink.vars(), &vars[..]].concat());

    // The first attempt fails, and the second is due at once.
    sink.answers(Answer::RefusalWhenTold(StatusCode::SERVICE_UNAVAILABLE));
    let url = router.webhook();
    let delivery = tokio::spawn(async move { post(&client(), &url, PAYLOAD).await });
    sink.arrived(1).await;
    // The pause is longer than the lease, so another owner may have taken over.
    std::fs::write(&clock, "+60").unwrap();
    sink.go.notify_one();
    let got = delivery.await.unwrap();
    // The sender gets the destination's answer to the only attempt.
    assert_eq!((got.status, got.text()), (503, "no"), "{}", router.log());
    assert_eq!(sink.received().len(), 1);
}
