//! What is particular to DynamoDB: requests, settings, faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    servers::DynamoDbLocal,
    support::{PAYLOAD, Server, Sink, client, post},
};

fn router(sink: &Sink, endpoint: &str, vars: &[(&str, &str)]) -> Server {
    let url = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let ours = [("STORE_URL", url.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", endpoint)];
    Server::router(&[&sink.vars(), &ours[..], vars].concat())
}

fn event(number: u32) -> String {
    PAYLOAD.replace("4200", &number.to_string())
}

/// A proxy that counts the requests of all connections, and may break off in an answer.
struct Proxy {
    url: String,
    requests: Arc<AtomicUsize>,
    /// Answers to break off, one after the other.
    breaks: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Arc::default(),
            breaks: Arc::default(),
        };
        let target = target.strip_prefix("http://").unwrap().to_owned();
        let (requests, breaks) = (Arc::clone(&proxy.requests), Arc::clone(&proxy.breaks));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&target).await.unwrap();
                let (requests, breaks) = (Arc::clone(&requests), Arc::clone(&breaks));
                tokio::spawn(pass(client, server, requests, breaks));
            }
        });
        proxy
    }

    fn take(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    requests: Arc<AtomicUsize>,
    breaks: Arc<AtomicUsize>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upstream = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            // The SDK sends a request's head at once.
            let head = b"POST / HTTP/1.1";
            let heads = buffer[..length].windows(head.len()).filter(|bytes| bytes == head).count();
            requests.fetch_add(heads, Ordering::SeqCst);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        let left = breaks.load(Ordering::SeqCst);
        if left > 0 {
            breaks.store(left - 1, Ordering::SeqCst);
            let _ = to_client.write_all(&buffer[..length / 2]).await;
            break;
        }
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    upstream.abort();
}

#[tokio::test]
async fn a_delivery_costs_two_requests_and_a_duplicate_one() {
    let (sink, dynamodb) = (Sink::start().await, DynamoDbLocal::start().await);
    let proxy = Proxy::start(&dynamodb.url).await;
    let router = router(&sink, &proxy.url, &[]);
    for number in 0..3 {
        let got = post(&client(), &router.webhook(), event(number)).await;
        assert_eq!((got.text(), proxy.take()), ("done", 2), "{}", router.log());
        let got = post(&client(), &router.webhook(), event(number)).await;
        assert_eq!((got.text(), proxy.take()), ("duplicate ignored", 1));
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_recognised_as_ours() {
    let (sink, dynamodb) = (Sink::start().await, DynamoDbLocal::start().await);
    let proxy = Proxy::start(&dynamodb.url).await;
    let router = router(&sink, &proxy.url, &[("STORE_TIMEOUT_MS", "5000")]);
    assert_eq!(post(&client(), &router.webhook(), event(0)).await.text(), "done");
    sink.take();
    proxy.breaks.store(1, Ordering::SeqCst);
    let got = post(&client(), &router.webhook(), event(1)).await;
    assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
    assert_eq!(proxy.breaks.load(Ordering::SeqCst), 0);
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_table_that_hangs_or_is_gone_is_503_and_works_when_it_is_back() {
    let (sink, dynamodb) = (Sink::start().await, DynamoDbLocal::start().await);
    let router = router(&sink, &dynamodb.url, &[]);
    // The first request to a new DynamoDB Local takes it long.
    while post(&client(), &router.webhook(), event(0)).await.status == 503 {}
    sink.take();
    let refused = async |number| {
        let started = Instant::now();
        let got = post(&client(), &router.webhook(), event(number)).await;
        assert_eq!((got.status, got.text()), (503, "try again later"), "{}", router.log());
        assert_eq!(got.header("retry-after"), Some("5"));
        // STORE_TIMEOUT_MS and a wide margin: it is the difference to a hang that counts.
        assert!(started.elapsed().as_secs() < 10);
        assert!(sink.received().is_empty());
    };
    dynamodb.signal("STOP");
    refused(1).await;
    refused(2).await;
    dynamodb.signal("CONT");
    let back = async |number| {
        let got = loop {
            let got = post(&client(), &router.webhook(), event(number)).await;
            // What was waiting while it was stopped comes first.
            if got.status != 503 {
                break got;
            }
        };
        assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
        assert_eq!(sink.take().len(), 1);
    };
    back(3).await;
    let port = dynamodb.port;
    drop(dynamodb);
    refused(4).await;
    let _again = DynamoDbLocal::start_at(port).await;
    back(4).await;
}

#[tokio::test]
async fn a_table_that_does_not_exist_is_503_and_named_in_the_log() {
    let (sink, dynamodb) = (Sink::start().await, DynamoDbLocal::start().await);
    let vars = [("STORE_URL", "dynamodb://no-such-table"), ("STORE_TIMEOUT_MS", "20000")];
    let router = router(&sink, &dynamodb.url, &vars);
    assert_eq!(post(&client(), &router.webhook(), PAYLOAD).await.status, 503);
    assert!(router.log().contains("ResourceNotFoundException"), "{}", router.log());
    assert!(sink.received().is_empty());
}
