//! A hot key: ten thousand deliveries of one event within a second. On every store, the destination gets
//! the event once, and each sender gets an answer in time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::{mpsc, watch},
};
use webhook_router::route::Route;

use crate::{
    servers::{DynamoDbLocal, Redis},
    shared,
    support::{Answer, PAYLOAD, Serve, Sink, sqlite},
};

const CONNECTIONS: usize = 200;
/// Requests that each connection sends before it reads the first answer.
const PIPELINED: usize = 50;
const DELIVERIES: usize = CONNECTIONS * PIPELINED;
/// Senders that hear that the event is in progress before the destination answers.
const EARLY: usize = DELIVERIES / 10;
/// Time in which the vendor sends all of them.
const SECOND: Duration = Duration::from_secs(1);
/// Time for each answer once the router has read the request: the default of `FORWARD_BUDGET_MS`.
const BUDGET: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_ten_thousand_deliveries_of_one_event_are_one_attempt() {
    let folder = tempfile::tempdir().unwrap();
    one_attempt(&[("STORE_URL", &sqlite(folder.path()))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_ten_thousand_deliveries_of_one_event_are_one_attempt() {
    let redis = Redis::start(&[]);
    one_attempt(&[("STORE_URL", &redis.url())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_ten_thousand_deliveries_of_one_event_are_one_attempt() {
    let dynamodb = DynamoDbLocal::start().await;
    let url = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    one_attempt(&[("STORE_URL", &url), ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url)]).await;
}

/// Delivers one event ten thousand times. The destination answers when a tenth of the senders have heard
/// that the event is in progress.
async fn one_attempt(store: &[(&str, &str)]) {
    let _turn = shared::turn().await;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let router = Serve::to(&sink)
        .only(Route::GCP)
        .envs(store.iter().copied())
        // The attempt waits for a tenth of the answers, and a store on a busy machine for its turn.
        .envs([("FORWARD_TIMEOUT_MS", "29000"), ("STORE_TIMEOUT_MS", "29000")])
        .env("METRICS_LISTEN", "off")
        .start();
    router.checked();
    let address = router.url.strip_prefix("http://").unwrap();
    let request = format!(
        "POST /webhook HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{PAYLOAD}",
        PAYLOAD.len()
    );
    let requests = request.repeat(PIPELINED);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(TcpStream::connect(address).await.unwrap());
    }

    let (tell, mut told) = mpsc::unbounded_channel();
    let began = Instant::now();
    let mut waiting = Vec::new();
    for mut connection in connections {
        let written = Instant::now();
        connection.write_all(requests.as_bytes()).await.unwrap();
        waiting.push((connection, written));
    }
    let sent = began.elapsed();
    assert!(sent < SECOND, "the deliveries took {sent:?} to send");
    let (finish, finished) = watch::channel(false);
    let readers = waiting.into_iter().map(|(connection, written)| {
        let (tell, mut finished, request) = (tell.clone(), finished.clone(), request.clone());
        tokio::spawn(async move {
            let (mut connection, mut read) = (BufReader::new(connection), written);
            for _ in 0..PIPELINED {
                let (status, body) = answer(&mut connection).await;
                tell.send((status, body, read.elapsed())).unwrap();
                // The router reads a request when it has answered the one before.
                read = Instant::now();
            }
            // Once the destination has the event, every sender hears that.
            finished.wait_for(|is_so| *is_so).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(answer(&mut connection).await, (200, "duplicate ignored".to_owned()));
        })
    });
    let readers: Vec<_> = readers.collect();

    let (mut answers, mut firsts, mut slowest) = (BTreeMap::new(), 0, Duration::ZERO);
    for count in 1..=DELIVERIES {
        let (status, body, took) = told.recv().await.unwrap();
        slowest = slowest.max(took);
        match (status, &*body) {
            (200, "at last") => {
                firsts += 1;
                finish.send(true).unwrap();
            }
            (200, "duplicate ignored") | (409, "in progress") => {}
            _ => panic!("{status} {body}\n{}", router.log()),
        }
        *answers.entry(status).or_insert(0) += 1;
        if count == EARLY {
            sink.go.notify_one();
        }
    }
    let all = began.elapsed();
    println!("{answers:?}: sent in {sent:?}, the slowest took {slowest:?}, all took {all:?}");
    assert!(slowest < BUDGET, "the slowest answer took {slowest:?}");
    assert_eq!((sink.received().len(), firsts), (1, 1));
    assert!(answers[&409] >= EARLY, "{answers:?}");
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(sink.received().len(), 1);
}

/// Reads the next answer of a connection.
async fn answer(connection: &mut BufReader<TcpStream>) -> (u16, String) {
    let (mut status, mut length, mut line) = (None, 0, String::new());
    loop {
        line.clear();
        connection.read_line(&mut line).await.unwrap();
        match line.trim_end() {
            "" => break,
            head if status.is_none() => {
                status = head.split(' ').nth(1).map(|status| status.parse().unwrap());
            }
            header => {
                if let Some((name, value)) = header.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
            }
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    (status.expect("a status"), String::from_utf8(body).unwrap())
}
