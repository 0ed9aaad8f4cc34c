//! Limits of `serve` against every peer: connections, bytes and times, over plain TCP.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{Answer, Got, PAYLOAD, ROUTER, Serve, Server, Sink, client, get, ok, post};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_slow_connections_cost_little_memory_and_at_most_half_the_rate() {
    const IDLE: usize = 2000;
    const SLOW: usize = 200;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let sink = Sink::start().await;
    // This is the reply that slow readers read.
    sink.answers(ok("x".repeat(60 * KIB).leak()));
    let router = Serve::to(&sink).env("DUPLICATE_REPLY", "replay").start();
    let client = client();
    assert_eq!(post(&client, &router.webhook(), PAYLOAD).await.status, 200);
    sink.answers(ok("done"));
    let before = seconds_of_deliveries(&client, &router, "before").await;

    let address = address(&router);
    let mut crowd = JoinSet::new();
    for index in 0..IDLE {
        // Some connections have had an answer before, and some have never sent a byte.
        keep_open(&mut crowd, move || async move {
            let mut stream = TcpStream::connect(address).await?;
            if index % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
            }
            stream.read_to_end(&mut vec![]).await.map(drop)
        });
    }
    for _ in 0..SLOW {
        keep_open(&mut crowd, move || async move {
            let mut stream = deaf(address).await?;
            stream.write_all(&request("/webhook", PAYLOAD).repeat(50)).await?;
            while stream.read(&mut [0; 4096]).await? > 0 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Ok(())
        });
        keep_open(&mut crowd, move || async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&unfinished("/webhook", MIB, 100 * KIB)).await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    until(|| open_files(&router) >= IDLE + 2 * SLOW).await;
    let disturbed = seconds_of_deliveries(&client, &router, "disturbed").await;
    assert!(open_files(&router) >= IDLE + 2 * SLOW, "{}", open_files(&router));
    let peak = peak_memory(&router);
    crowd.shutdown().await;
    until(|| open_files(&router) < IDLE).await;
    let after = seconds_of_deliveries(&client, &router, "after").await;
    // Other load on this machine slows all three measurements.
    let ratio = before.max(after) / disturbed;
    println!("{ratio:.2} of the undisturbed rate, {} MB at most", peak / 1_000_000);
    assert!(ratio >= 0.5, "{ratio:.2} of the undisturbed rate");
    assert!(peak < 150_000_000, "{peak}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_pipeline_and_never_read_are_dropped_after_half_a_minute() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let sink = Sink::start().await;
    sink.answers(ok("x".repeat(60 * KIB).leak()));
    let vars = [sink.vars(), vec![("DUPLICATE_REPLY", "replay")]].concat();
    // There are fewer descriptors than connections until the router raises the limit.
    let router = router_with_ulimit("-Sn 64", &vars);
    router.post(PAYLOAD).await.expect(200);
    let address = address(&router);
    let mut clients = JoinSet::new();
    for _ in 0..60 {
        clients.spawn(async move {
            let mut stream = deaf(address).await.unwrap();
            let started = Instant::now();
            while stream.write_all(&request("/webhook", PAYLOAD)).await.is_ok() {}
            started.elapsed()
        });
    }
    let mut patience = vec![];
    while !clients.is_empty() {
        tokio::select! {
            dropped = clients.join_next() => patience.extend(dropped.map(Result::unwrap)),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        assert_eq!(healthz(&router).await.status, 200);
    }
    assert_eq!(patience.len(), 60);
    for patience in patience {
        assert!((29..60).contains(&patience.as_secs()), "{patience:?}");
    }
}

#[tokio::test]
async fn unfinished_posts_to_an_unknown_path_are_answered_and_not_kept() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).start();
    assert_eq!(healthz(&router).await.status, 200);
    let (before, address) = (peak_memory(&router), address(&router));
    let mut posts = JoinSet::new();
    for _ in 0..60 {
        posts.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&unfinished("/nobody", 6 * MIB, 6 * MIB - 1)).await.unwrap();
            assert_eq!(status(&mut stream).await, 404);
            stream
        });
    }
    let open = posts.join_all().await;
    let grown = peak_memory(&router) - before;
    assert!(grown < 40_000_000, "{grown}");
    assert_eq!(open.len(), 60);
    // A body that never ends is not read endlessly.
    for mut stream in open {
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_refusal_that_needs_no_body_waits_for_none() {
    let sink = Sink::start().await;
    let secrets = vec![("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXNlY3JldC0tLS0tLS0tLS0tLS0t")];
    let router = Serve::to(&sink).envs(secrets).start();
    let address = address(&router);
    for (line, length, expected) in [
        ("POST /nobody", 1000, 404),
        ("POST /healthz", 1000, 405),
        ("PUT /webhook", 1000, 405),
        ("POST /webhook", 6 * MIB + 1, 413),
        ("POST /webhook", 1000, 401),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, expected, "{line}");
        // The body may still arrive. The connection can then be used again.
        stream.write_all(&vec![b'x'; length]).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut stream).await, 200, "{line}");
    }
    // A client that asks before it sends is not told to send.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /nobody HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&mut stream).await, 404);
    assert_eq!(router.log().matches("\"path\":\"/webhook\"").count(), 3, "{}", router.log());
}

#[tokio::test]
async fn beyond_max_connections_only_healthz_answers() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).env("MAX_CONNECTIONS", "2").start();
    let address = address(&router);
    let mut idle = vec![];
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut stream).await, 200);
        idle.push(stream);
    }
    // These are more connections than the reserve, which drops the oldest.
    let mut silent = vec![];
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let refused = router.post(PAYLOAD).await;
    assert_eq!((refused.status, refused.text()), (503, "try again later"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(healthz(&router).await.status, 200);
    let log = router.log();
    let line = log.lines().find(|line| line.contains("MAX_CONNECTIONS"));
    assert!(line.is_some_and(|line| line.contains(r#""sender":"127.0.0.1""#)), "{log}");
    drop(idle);
    let got = loop {
        let got = router.post(PAYLOAD).await;
        if got.status != 503 {
            break got;
        }
    };
    assert_eq!(got.text(), "done");
}

#[tokio::test]
async fn few_open_files_allow_few_connections() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let sink = Sink::start().await;
    let router = router_with_ulimit("-n 128", &sink.vars());
    let address = address(&router);
    let mut silent = vec![];
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(healthz(&router).await.status, 200);
    router.post(PAYLOAD).await.expect(503);
    assert!(router.log().contains("connections are limited to 24"), "{}", router.log());
    assert!(!router.log().contains("could not be accepted"), "{}", router.log());
}

#[tokio::test]
async fn when_bytes_are_short_the_slowest_body_goes_first() {
    let sink = Sink::start().await;
    let bounds = vec![("MAX_BODY_BYTES", "1048576"), ("MAX_BUFFERED_BYTES", "1048576")];
    let router = Serve::to(&sink).envs(bounds).start();
    let mut slow = TcpStream::connect(address(&router)).await.unwrap();
    slow.write_all(&unfinished("/webhook", MIB, 600 * KIB)).await.unwrap();
    let client = client();
    until(|| is_read(&slow)).await;
    assert_eq!(post(&client, &router.webhook(), event("fast", 800 * KIB)).await.status, 200);
    assert_eq!(status(&mut slow).await, 408);
    assert!(router.log().contains("the slowest when"), "{}", router.log());

    // Bodies of current deliveries are not dropped. Other bodies wait until these deliveries end.
    sink.take();
    sink.answers(Answer::WhenTold);
    let (url, patient) = (router.webhook(), client.clone());
    let held = tokio::spawn(async move { post(&patient, &url, event("held", 600 * KIB)).await });
    sink.arrived(1).await;
    let refused = post(&client, &router.webhook(), event("next", 800 * KIB)).await;
    assert_eq!((refused.status, refused.text()), (503, "try again later"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(healthz(&router).await.status, 200);
    sink.go.notify_one();
    assert_eq!(held.await.unwrap().text(), "at last");
    sink.answers(ok("done"));
    assert_eq!(post(&client, &router.webhook(), event("next", 800 * KIB)).await.text(), "done");
}

#[tokio::test]
async fn metrics_are_bounded_by_the_same_server() {
    let sink = Sink::start().await;
    let metrics: SocketAddr = ([127, 0, 0, 1], crate::support::free_port()).into();
    let listen = metrics.to_string();
    let router = Serve::to(&sink).env("METRICS_LISTEN", &listen).start();
    let url = format!("http://{metrics}/metrics");
    assert_eq!(get(client().get(&url).send().await).await.status, 200);
    let mut idle = vec![];
    loop {
        let mut stream = TcpStream::connect(metrics).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        match status(&mut stream).await {
            503 => break,
            other => assert_eq!(other, 200),
        }
        idle.push(stream);
        assert!(idle.len() <= 32);
    }
    assert_eq!(healthz(&router).await.status, 200);
}

/// Keeps a connection open: opens another one when it ends.
fn keep_open<F>(crowd: &mut JoinSet<()>, connect: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = std::io::Result<()>> + Send,
{
    crowd.spawn(async move {
        loop {
            let _ = connect().await;
        }
    });
}

/// Returns the median time of several batches of deliveries.
async fn seconds_of_deliveries(client: &reqwest::Client, router: &Server, name: &str) -> f64 {
    let mut times = vec![];
    for batch in 0..31 {
        let started = Instant::now();
        let mut senders = JoinSet::new();
        for sender in 0..8 {
            let (client, url) = (client.clone(), router.webhook());
            let name = format!("{name} {batch} {sender}");
            senders.spawn(async move {
                for index in 0..8 {
                    let got = post(&client, &url, event(&format!("{name} {index}"), 1)).await;
                    assert_eq!((got.status, got.text()), (200, "done"));
                }
            });
        }
        senders.join_all().await;
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Creates a distinct event with that many bytes of filling.
fn event(name: &str, bytes: usize) -> String {
    let filling = "x".repeat(bytes);
    format!(
        r#"{{"vendor":"v","event_type":"{name}","created_at":"2024-05-05","filling":"{filling}"}}"#
    )
}

fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// Creates a request that lacks the end of its body.
fn unfinished(path: &str, length: usize, sent: usize) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b' '; sent]].concat()
}

/// Opens a connection with a small receive buffer, which fills up when nothing is read.
async fn deaf(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}

/// Returns the status of the next answer, and reads the answer to its end.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let header = |line: &str| line.strip_prefix("content-length: ").map(str::to_owned);
    let length = head.lines().find_map(header).map_or(0, |length| length.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn address(router: &Server) -> SocketAddr {
    router.url.strip_prefix("http://").unwrap().parse().unwrap()
}

async fn healthz(router: &Server) -> Got {
    let request = client().get(format!("{}/healthz", router.url));
    get(request.timeout(Duration::from_secs(20)).send().await).await
}

/// Starts a router with the limits of a shell.
fn router_with_ulimit(limit: &str, vars: &[(&str, &str)]) -> Server {
    let mut command = Command::new("/bin/sh");
    let script = format!("ulimit {limit} && exec {ROUTER} serve --listen 127.0.0.1:0");
    command.args(["-c", &script]);
    Server::start(command, vars)
}

fn open_files(router: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", router.id())).unwrap().count()
}

/// Returns the peak memory of a process, in bytes
/// (<https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>, `VmHWM`).
fn peak_memory(router: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", router.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * KIB
}

/// Returns whether the other side has read everything that a connection has sent
/// (<https://docs.kernel.org/networking/proc_net_tcp.html>).
fn is_read(stream: &TcpStream) -> bool {
    // Connections to other servers may have the same port on this side.
    let port = |address: SocketAddr| format!(":{:04X} ", address.port());
    let (near, far) = (port(stream.local_addr().unwrap()), port(stream.peer_addr().unwrap()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut ends = table.lines().filter(|line| line.contains(&near) && line.contains(&far));
    ends.all(|line| line.contains(" 00000000:00000000 "))
}

/// Waits for a condition that must become true within a minute.
async fn until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
