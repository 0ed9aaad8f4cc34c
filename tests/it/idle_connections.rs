//! Idle connections to destinations and DynamoDB that break silently.

use std::time::{Duration, Instant};

use webhook_router::{destination::SendError, route::Route};

use crate::{
    destination::{TlsServer, cloud_run, send},
    dynamodb,
    proxy::Proxy,
    servers::Authority,
    shared,
    support::{Serve, Sink},
};

#[tokio::test]
async fn a_connection_that_died_idle_costs_no_delivery() {
    let sink = Sink::start().await;
    let port = sink.url.rsplit(':').next().unwrap().parse().unwrap();
    for route in [Route::GCP, Route::AWS] {
        let proxy = Proxy::start(port).await;
        let url = proxy.url();
        let router = Serve::to_url(&url).only(route).start();
        let deliver = async |name: &str| {
            let event =
                format!(r#"{{"vendor":"v","event_type":"{name}","created_at":"2024-05-05"}}"#);
            let started = Instant::now();
            let got = router.post(event).await;
            assert_eq!((got.status, got.text()), (200, "done"), "{name} to {route}");
            started.elapsed()
        };
        deliver("first").await;
        deliver("in the same burst").await;
        assert_eq!(proxy.connections(), 1, "the connection is used again");

        proxy.hang();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let took = deliver("after the pause").await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!((proxy.connections(), sink.take().len()), (2, 3));
    }
}

#[tokio::test]
async fn a_connection_to_dynamodb_that_died_idle_costs_no_delivery() {
    let (sink, table) = (Sink::start().await, shared::dynamodb_table().await);
    let proxy = Proxy::start(table.port).await;
    let router = dynamodb::serve(&sink, &table.name, &proxy.url()).start();
    let deliver = async |number| {
        let started = Instant::now();
        let got = router.post(dynamodb::event(number)).await;
        assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
        started.elapsed()
    };
    deliver(0).await;
    proxy.hang();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let took = deliver(1).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_peer_of_http_2_that_is_gone_is_noticed_before_the_attempt_ends() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "localhost").await;
    let proxy = Proxy::start(server.port).await;
    let url = format!("https://localhost:{}/", proxy.port);
    let destination = cloud_run(&url, Some(authority.file()));
    send(&destination).await.unwrap();
    proxy.hang();
    // The request is lost silently, so its outcome is unknown.
    let error = send(&destination).await.unwrap_err();
    assert!(matches!(&error, SendError::Unknown(answer) if !answer.timed_out), "{error:?}");
    send(&destination).await.unwrap();
    assert_eq!(proxy.connections(), 2);
}
