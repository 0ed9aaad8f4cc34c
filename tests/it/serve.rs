//! Several processes, crashes and shutdowns, with real signals.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::servers::{Redis, wait_for};
use crate::support::{Answer, Got, PAYLOAD, Serve, Server, Sink, client, get, ok, post, sqlite};

#[tokio::test]
async fn sixty_four_simultaneous_deliveries_through_two_processes_arrive_once() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    // While the whole test suite runs, a commit to the file system may take long.
    let serve = Serve::to(&sink).store(&store).env("STORE_TIMEOUT_MS", "20000");
    let routers = [serve.start(), serve.start()];
    let client = client();
    for round in 0..100 {
        let body = format!(
            r#"{{"vendor":"stripe","event_type":"race","created_at":"2026-05-06T12:34:56Z","round":{round}}}"#
        );
        let mut posts = JoinSet::new();
        for index in 0..64 {
            let (client, url, body) = (client.clone(), routers[index % 2].webhook(), body.clone());
            posts.spawn(async move { post(&client, &url, body).await });
        }
        let mut delivered = 0;
        for got in posts.join_all().await {
            match (got.status, got.text()) {
                (200, "done") => delivered += 1,
                (200, "duplicate ignored") => {}
                (409, "in progress") => assert!(retry_after(&got) >= 1),
                other => panic!("{other:?} in round {round}"),
            }
        }
        assert_eq!((delivered, sink.take().len()), (1, 1), "round {round}");
    }
}

#[tokio::test]
async fn after_a_crash_in_the_middle_the_event_is_in_progress_until_the_lease_ends() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let serve = Serve::to(&sink).store(&store).env("FORWARD_BUDGET_MS", "1000");
    let client = client();

    sink.answers(Answer::WhenTold);
    let mut router = serve.start();
    let (url, patient) = (router.webhook(), client.clone());
    let lost = tokio::spawn(async move { patient.post(url).body(PAYLOAD).send().await });
    sink.arrived(1).await;
    router.kill();
    assert!(lost.await.unwrap().is_err());

    sink.answers(ok("done"));
    let heir = serve.start();
    let mut waited = 0;
    let got = loop {
        let got = post(&client, &heir.webhook(), PAYLOAD).await;
        if got.status != 409 {
            break got;
        }
        // Nothing was forwarded, and the sender learns how long to wait.
        assert_eq!((got.text(), sink.received().len()), ("in progress", 1));
        tokio::time::sleep(Duration::from_secs(retry_after(&got))).await;
        waited += 1;
    };
    assert_eq!((got.status, got.text()), (200, "done"));
    // The sender waits once for the rest of the lease, and at most once more for its last fraction
    // of a second.
    assert!((1..=2).contains(&waited), "{waited}");
    let received = sink.take();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(received[0].header("idempotency-key"), received[1].header("idempotency-key"));
    assert_eq!(post(&client, &heir.webhook(), PAYLOAD).await.text(), "duplicate ignored");
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let mut router = Serve::to(&sink).start();
    let (url, client) = (router.webhook(), client());
    let waiting = tokio::spawn(async move { post(&client, &url, PAYLOAD).await });
    sink.arrived(1).await;
    router.terminate();
    sink.go.notify_one();
    let got = waiting.await.unwrap();
    assert_eq!((got.status, got.text()), (200, "at last"));
    let exit = tokio::task::spawn_blocking(move || (router.wait(), router)).await.unwrap();
    assert!(exit.0.success(), "{}", exit.1.log());
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_outlive_a_second_signal() {
    let sink = Sink::start().await;
    let mut router = Serve::to(&sink).start();
    let address = router.url.strip_prefix("http://").unwrap().to_owned();
    let mut stuck = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = "POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    stuck.write_all(head.as_bytes()).await.unwrap();
    // This answer shows that the router waits for the body. Until it has read a part of the request,
    // the connection would not hold it up.
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = vec![0; go_on.len()];
    stuck.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, go_on);
    router.terminate();
    // The router has seen the first signal once it accepts no more connections.
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    router.terminate();
    let (exit, router) =
        tokio::task::spawn_blocking(move || (router.wait(), router)).await.unwrap();
    assert_eq!(exit.code(), Some(1));
    assert!(router.log().contains("a second signal"), "{}", router.log());
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_logged() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("MAX_BODY_BYTES", "100").start();
    router.post("x".repeat(101)).await.expect(413);
    assert!(router.log().contains("\"status\":413"), "{}", router.log());
}

#[tokio::test]
async fn a_head_of_64_kib_is_taken_and_one_of_more_than_128_refused() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    for (length, status) in [(63 * 1024, 200), (129 * 1024, 431)] {
        let request = client().post(router.webhook()).header("x-big", "x".repeat(length));
        let got = get(request.body(PAYLOAD).send().await).await;
        assert_eq!(got.status, status, "{length}");
    }
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn a_head_of_more_than_a_hundred_headers_is_refused() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    for (count, status) in [(90, 200), (101, 431)] {
        let mut request = client().post(router.webhook());
        for index in 0..count {
            request = request.header(format!("x-{index}"), "x");
        }
        assert_eq!(crate::support::get(request.body(PAYLOAD).send().await).await.status, status);
    }
}

#[tokio::test]
async fn a_log_line_holds_no_more_of_a_payload_than_names_cut_short() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let body = serde_json::json!({
        "vendor": "v", "event_type": "é".repeat(100_000), "created_at": "2024-05-05",
        "card": "marker-in-the-payload",
    });
    router.post(body.to_string()).await.expect(200);
    assert!(router.log().len() < 3000, "{}", router.log().len());
    assert!(!router.log().contains("marker-in-the-payload"));
}

#[tokio::test]
async fn a_log_line_holds_the_beginning_of_a_path_and_of_a_method() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    let long = "X".repeat(60 * 1024);
    let unknown = format!("{}/path{long}", router.url);
    assert_eq!(post(&client(), &unknown, PAYLOAD).await.status, 404);
    let method = reqwest::Method::from_bytes(long.as_bytes()).unwrap();
    let got = get(client().request(method, router.webhook()).send().await).await;
    assert_eq!(got.status, 405);
    let log = router.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines.iter().all(|line| line.len() < 600), "{log}");
    assert!(lines[0].contains("\"/pathXXX") && lines[1].contains("\"XXX"), "{log}");
    assert!(lines.iter().all(|line| line.contains(r#""sender":"127.0.0.1""#)), "{log}");
}

#[tokio::test]
async fn a_refusal_tells_the_log_what_the_sender_is_not_told() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("MAX_BODY_BYTES", "1000").start();
    router.checked();
    let envelope = r#"{"vendor":"v","event_type":"","created_at":1778070896}"#;
    for (path, body, status, said, reason) in [
        (
            "/webhook",
            envelope,
            400,
            "missing required fields: event_type, created_at",
            "missing required fields: event_type is empty, created_at is a number; expected a \
             string such as 2026-05-06T12:34:56Z",
        ),
        (
            "/webhook",
            r#"{"vendor":null,"event_type":["e"]}"#,
            400,
            "missing required fields: vendor, event_type, created_at",
            "missing required fields: vendor is null; expected a string, event_type is an array; \
             expected a string, created_at",
        ),
        ("/webhook/stripe", "{}", 404, "not found", "stripe is not served: set STRIPE_SECRETS"),
        ("/webhook", &"x".repeat(1001), 413, "larger than 1000 bytes", "the body is larger than"),
    ] {
        let got = post(&client(), &format!("{}{path}", router.url), body.to_owned()).await;
        assert_eq!((got.status, got.text()), (status, said));
        // The router may write the line after it has answered.
        let refused = || {
            let log = router.log();
            let refused = log.lines().filter(|line| line.contains("refused"));
            let mut lines = refused.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["reason"].as_str().is_some_and(|text| text.starts_with(reason)))
        };
        wait_for(reason, Path::new(""), || refused().is_some());
        let line = refused().unwrap();
        assert_eq!((&line["method"], &line["path"]), (&"POST".into(), &path.into()));
        assert_eq!((&line["sender"], &line["status"]), (&"127.0.0.1".into(), &status.into()));
    }
}

#[tokio::test]
async fn a_new_sqlite_file_is_its_owner_s_alone_and_an_old_one_keeps_its_mode() {
    let sink = Sink::start().await;
    let (mode, chmod) = (
        |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
        |file: &Path, mode| {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        },
    );
    for (found, kept, warns) in
        [(None, 0o600, false), (Some(0o640), 0o640, false), (Some(0o644), 0o644, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        if let Some(found) = found {
            std::fs::write(&file, "").unwrap();
            chmod(&file, found);
        }
        let store = sqlite(folder.path());
        let router = Serve::to(&sink).store(&store).start();
        router.checked();
        router.post(PAYLOAD).await.expect(200);
        for ending in ["", "-wal", "-shm"] {
            let file = folder.path().join(format!("store.db{ending}"));
            assert_eq!(mode(&file), kept, "{found:?}: {}", file.display());
        }
        let warned = router.log().contains(&format!("chmod o= {}", file.display()));
        assert_eq!(warned, warns, "{found:?}: {}", router.log());
    }
}

#[tokio::test]
async fn a_duplicate_does_not_wait_for_a_writer() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let vars = [("STORE_URL", store.as_str()), ("STORE_TIMEOUT_MS", "60000")];
    let router = Serve::to(&sink).envs(vars).start();
    let client = client();
    assert_eq!(post(&client, &router.webhook(), PAYLOAD).await.status, 200);
    let lock = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waits: Vec<_> = (0..3)
        .map(|index| {
            let (client, url) = (client.clone(), router.webhook());
            let body = PAYLOAD.replace("4200", &format!("{index}"));
            tokio::spawn(async move { post(&client, &url, body).await })
        })
        .collect();
    // New events wait for the lock. The duplicate was answered while the lock was still held.
    assert_eq!(post(&client, &router.webhook(), PAYLOAD).await.text(), "duplicate ignored");
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    lock.execute_batch("ROLLBACK").unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_result_is_stored_when_the_store_comes_back_in_time() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let vars = [("STORE_URL", store.as_str()), ("STORE_TIMEOUT_MS", "1000")];
    let router = Serve::to(&sink).envs(vars).start();
    let (url, client) = (router.webhook(), client());
    let delivery = tokio::spawn(async move { post(&client, &url, PAYLOAD).await });
    sink.arrived(1).await;
    let lock = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    sink.go.notify_one();
    // When the log reports it, the first try to store the result has failed.
    while !router.log().contains("the result could not be stored yet") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(delivery.await.unwrap().text(), "at last");
    let again = post(&crate::support::client(), &router.webhook(), PAYLOAD).await;
    assert_eq!(again.text(), "duplicate ignored");
}

#[tokio::test]
async fn a_sender_that_hangs_up_does_not_cancel_the_delivery() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let router = Serve::to(&sink).start();
    let (url, client) = (router.webhook(), client());
    let request = client.post(&url).body(PAYLOAD).send();
    tokio::select! {
        _ = request => unreachable!("nobody has answered"),
        () = sink.arrived(1) => {}
    }
    // The request is dropped, and its connection closed, before the destination answers.
    assert_eq!(post(&client, &url, PAYLOAD).await.status, 409);
    sink.go.notify_one();
    let got = loop {
        let got = post(&client, &url, PAYLOAD).await;
        if got.status != 409 {
            break got;
        }
    };
    assert_eq!(got.text(), "duplicate ignored");
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn two_processes_may_create_the_store_at_the_same_moment() {
    let sink = Sink::start().await;
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let serve = Serve::to(&sink).store(&sqlite(folder.path()));
        let starts = (0..4).map(|_| {
            let serve = serve.clone();
            std::thread::spawn(move || serve.start())
        });
        for start in starts.collect::<Vec<_>>() {
            start.join().unwrap();
        }
    }
}

async fn readyz(router: &Server) -> Got {
    get(client().get(format!("{}/readyz", router.url)).send().await).await
}

/// Asks until the answer has this status. It waits a little longer than an answer may be reused.
async fn readyz_becomes(router: &Server, status: u16) -> Got {
    for _ in 0..200 {
        let got = readyz(router).await;
        if got.status == status {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("/readyz does not become {status}: {}", router.log());
}

#[tokio::test]
async fn readyz_says_whether_the_store_answers_and_healthz_that_the_process_does() {
    let sink = Sink::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let router = Serve::to(&sink).store(&store).start();
    router.checked();
    let got = readyz(&router).await;
    assert_eq!((got.status, got.text()), (200, "ready"));
    let lock = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let got = readyz_becomes(&router, 503).await;
    assert_eq!((got.text(), retry_after(&got)), ("the store does not answer", 1));
    let alive = get(client().get(format!("{}/healthz", router.url)).send().await).await;
    assert_eq!(alive.status, 200);
    lock.execute_batch("ROLLBACK").unwrap();
    readyz_becomes(&router, 200).await;
    // The log has one line for each change, not one for each answer.
    let log = router.log();
    assert_eq!(log.matches("not ready: the store does not answer").count(), 1, "{log}");
    assert_eq!(log.matches("ready again: the store answers").count(), 1, "{log}");
    let got = post(&client(), &format!("{}/readyz", router.url), PAYLOAD).await;
    assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn readyz_asks_the_store_once_a_second_however_often_it_is_asked() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let url = redis.url();
    let router = Serve::to(&sink).store(&url).start();
    router.checked();
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let (started, client) = (Instant::now(), client());
    let mut asked = JoinSet::new();
    for _ in 0..500 {
        let (client, url) = (client.clone(), format!("{}/readyz", router.url));
        asked.spawn(async move { get(client.get(url).send().await).await.status });
    }
    assert!(asked.join_all().await.iter().all(|status| *status == 200));
    let stats = redis.cli(&["INFO", "commandstats"]);
    let pings = stats.lines().find_map(|line| line.strip_prefix("cmdstat_zrem:calls="));
    let pings: u64 = pings.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((1..=started.elapsed().as_secs() + 1).contains(&pings), "{pings}");
}

#[tokio::test]
async fn readyz_is_503_while_redis_is_only_a_replica() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let url = redis.url();
    let router = Serve::to(&sink).store(&url).start();
    assert_eq!(readyz(&router).await.status, 200);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    readyz_becomes(&router, 503).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    readyz_becomes(&router, 200).await;
}

fn retry_after(got: &Got) -> u64 {
    got.header("retry-after").unwrap().parse().unwrap()
}
