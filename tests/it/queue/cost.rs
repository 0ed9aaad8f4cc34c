//! The number of requests for each event, for docs/cost.md.

use std::{ops::RangeInclusive, path::Path};

use http::StatusCode;

use super::{VISIBILITY, instance, until};
use crate::{
    event_source::{DUE, Function, Queue, batch},
    inbox::event,
    proxy::Proxy,
    servers::Redis,
    shared,
    support::{ROUTER, Sink, ok, status},
};

/// The number of requests to the store and to SQS.
type Requests = (usize, usize);

#[tokio::test]
async fn on_redis_an_event_costs_three_requests_and_a_message() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::start(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    // Each inbox: the server's time and the list of what is due, and the whole list. Commands that are
    // sent together count once.
    count(&[("STORE_URL", &url)], &proxy, 2..=6).await;
}

#[tokio::test]
async fn on_dynamodb_an_event_costs_three_requests_and_a_message() {
    let table = shared::dynamodb_table().await;
    let proxy = Proxy::start(table.port).await;
    let endpoint = proxy.url();
    let [store, _] = table.vars();
    let store = [(store.0, store.1.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str())];
    // Each inbox: sixteen queries of what is due, and of the whole list. One run of sixty also looks
    // for remains.
    count(&[&store[..], &[("STORE_TIMEOUT_MS", "20000")]].concat(), &proxy, 64..=80).await;
}

async fn count(store: &[(&str, &str)], proxy: &Proxy, idle_run: RangeInclusive<usize>) {
    let (sink, queue) = (Sink::start().await, Queue::start(VISIBILITY, 10).await);
    let port = queue.moto.url.rsplit_once(':').unwrap().1.parse().unwrap();
    let sqs = Proxy::start(port).await;
    let through = sqs.url();
    let more = [
        ("AWS_ENDPOINT_URL_SQS", through.as_str()),
        ("RETRY_SCHEDULE", "0s,0s,0s"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120"),
        // No message counts as lost before the end of this test.
        ("FAULT_MESSAGE_LOST_MS", "600000"),
    ];
    let function = Function::of([instance(Path::new(ROUTER), &sink.url, store, &queue, &more)]);
    let requests = || (proxy.take(), sqs.take());
    let deliver = async |name: &str, says: &str| -> Requests {
        let heard = function.deliver(&event(name)).await.unwrap();
        assert_eq!(heard.text, says, "{}", function.emulator(0).log());
        requests()
    };
    let consume = async || -> Requests {
        let mut messages = Vec::new();
        until("a message comes", async || {
            messages.extend(queue.receive().await);
            !messages.is_empty()
        })
        .await;
        assert_eq!(messages.len(), 1);
        requests();
        let answer = function.invoke(batch(&messages)).await.unwrap();
        assert_eq!(answer.to_string(), r#"{"batchItemFailures":[]}"#);
        let counted = requests();
        queue.delete(&messages[0]).await;
        counted
    };
    // The first use of a store needs more requests, and scripts are loaded.
    deliver("first", "accepted").await;
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    consume().await;
    sink.answers(ok("done"));
    consume().await;
    function.invoke(DUE.into()).await.unwrap();
    requests();

    for number in 0..3 {
        let name = number.to_string();
        assert_eq!(deliver(&name, "accepted").await, (1, 1));
        assert_eq!(deliver(&name, "duplicate ignored").await, (1, 0));
        sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
        assert_eq!(consume().await, (2, 1));
        sink.answers(ok("done"));
        assert_eq!(consume().await, (2, 0));
        assert_eq!(deliver(&name, "duplicate ignored").await, (1, 0));
    }
    // A run of the schedule that finds nothing.
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!(report["is_incomplete"], false, "{report}");
    let (of_run, messages) = requests();
    assert!(idle_run.contains(&of_run) && messages == 0, "{of_run}, {messages}");
}
