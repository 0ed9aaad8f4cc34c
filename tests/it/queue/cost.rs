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
    // For each inbox, an idle run asks for the server's time and what is due, and for the whole
    // list. Commands that are sent together count once.
    let expected = Expected { accept: 1, fail: 2, deliver: 2, idle_run: 2..=6, cleaning: 0 };
    count(&[("STORE_URL", &url)], || proxy.take(), expected).await;
}

#[tokio::test]
async fn in_a_redis_cluster_an_event_costs_seven_requests_and_a_message() {
    let cluster = shared::redis_cluster().await;
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "100000"]);
    }
    // The log of slow commands has all of them now.
    let requests = || {
        let logs = cluster.nodes.iter().map(|node| {
            let log = node.cli(&["SLOWLOG", "GET", "-1"]);
            node.cli(&["SLOWLOG", "RESET"]);
            requests_in(&log)
        });
        logs.sum()
    };
    // Each inbox: the server's time and sixteen lists of what is due, and the lists again.
    let expected = Expected { accept: 3, fail: 4, deliver: 4, idle_run: 65..=80, cleaning: 0 };
    count(&[("STORE_URL", &cluster.url())], requests, expected).await;
}

/// Returns the number of requests in the log of slow commands.
fn requests_in(log: &str) -> usize {
    let (mut requests, mut is_request) = (0, false);
    // Each argument is in a line, and the client follows the arguments.
    for line in log.lines() {
        match line {
            // A server that does not have a script yet gets it by EVAL, which does not count.
            "EVALSHA" | "ZADD" | "ZRANGEBYSCORE" | "TIME" => is_request = true,
            // A script.
            "?:0" => is_request = false,
            client if client.starts_with("127.0.0.1:") => {
                requests += usize::from(std::mem::take(&mut is_request));
            }
            _ => {}
        }
    }
    requests
}

#[tokio::test]
async fn on_dynamodb_an_event_costs_three_requests_and_a_message() {
    let table = shared::dynamodb_table().await;
    let proxy = Proxy::start(table.port).await;
    let endpoint = proxy.url();
    let [store, _] = table.vars();
    let store = [(store.0, store.1.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str())];
    // Each inbox: sixteen queries of what is due, and of the whole list. Twice, the list of
    // destinations is read. Each of sixteen lists may have remains.
    let store = [&store[..], &[("STORE_TIMEOUT_MS", "20000")]].concat();
    let expected = Expected { accept: 1, fail: 2, deliver: 2, idle_run: 66..=66, cleaning: 16 };
    count(&store, || proxy.take(), expected).await;
}

#[tokio::test]
async fn a_run_of_the_schedule_opens_few_connections() {
    let table = shared::dynamodb_table().await;
    let (proxy, queue) = (Proxy::start(table.port).await, Queue::start(VISIBILITY, 10).await);
    let endpoint = proxy.url();
    let [store, _] = table.vars();
    let store = [(store.0, store.1.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str())];
    let more = [("STORE_TIMEOUT_MS", "20000"), ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120")];
    let sink = Sink::start().await;
    let function = Function::of([instance(Path::new(ROUTER), &sink.url, &store, &queue, &more)]);
    function.invoke(DUE.into()).await.unwrap();
    // Eight for each destination, and those that were opened while another became free. With a
    // connection for each query, there would be more than 48.
    assert!(proxy.connections() < 40, "{}", proxy.connections());
}

#[tokio::test]
async fn a_copy_costs_a_message_and_nothing_of_the_store() {
    let (redis, sink, mirror) = (Redis::start(&[]), Sink::start().await, Sink::start().await);
    let (proxy, queue) = (Proxy::start(redis.port).await, Queue::start(VISIBILITY, 10).await);
    let sqs = Proxy::start(queue.moto.url.rsplit_once(':').unwrap().1.parse().unwrap()).await;
    let (url, through) = (format!("redis://127.0.0.1:{}", proxy.port), sqs.url());
    let more = [
        ("AWS_ENDPOINT_URL_SQS", through.as_str()),
        ("ANSWER", "delivered"),
        ("MIRROR_URL", &mirror.url),
    ];
    let store = [("STORE_URL", url.as_str())];
    let function = Function::of([instance(Path::new(ROUTER), &sink.url, &store, &queue, &more)]);
    let requests = || (proxy.take(), sqs.take());
    function.deliver(&event("first")).await.unwrap();
    requests();
    function.deliver(&event("second")).await.unwrap();
    // The claim, the result, and the copy.
    assert_eq!(requests(), (2, 1));
    let mut messages = Vec::new();
    until("the copies come", async || {
        messages.extend(queue.receive().await);
        messages.len() == 2
    })
    .await;
    requests();
    function.invoke(batch(&messages)).await.unwrap();
    assert_eq!((requests(), mirror.take().len()), ((0, 0), 2));
}

/// The numbers of requests to the store that are expected. A duplicate always makes one.
struct Expected {
    accept: usize,
    fail: usize,
    deliver: usize,
    /// A run of the schedule that finds nothing.
    idle_run: RangeInclusive<usize>,
    /// What one run of sixty adds to that, because it looks for remains.
    cleaning: usize,
}

async fn count(store: &[(&str, &str)], to_store: impl Fn() -> usize, expected: Expected) {
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
    let requests = || (to_store(), sqs.take());
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
        assert_eq!(deliver(&name, "accepted").await, (expected.accept, 1));
        assert_eq!(deliver(&name, "duplicate ignored").await, (1, 0));
        sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
        assert_eq!(consume().await, (expected.fail, 1));
        sink.answers(ok("done"));
        assert_eq!(consume().await, (expected.deliver, 0));
        assert_eq!(deliver(&name, "duplicate ignored").await, (1, 0));
    }
    // A run of the schedule that finds nothing.
    let report = function.invoke(DUE.into()).await.unwrap();
    assert_eq!(report["is_incomplete"], false, "{report}");
    let (of_run, messages) = requests();
    let Expected { idle_run, cleaning, .. } = expected;
    let is_expected = idle_run.contains(&of_run) || idle_run.contains(&(of_run - cleaning));
    assert!(is_expected && messages == 0, "{of_run}, {messages}");
}
