//! Behaviour that only Redis has: a database shared with the Python router, round trips, faults.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    proxy::Proxy,
    servers::{Authority, Redis, RedisCluster, wait_for},
    support::{
        Answer, PAYLOAD, Serve, Server, Sink, client, delivery, free_port, intake, ok, planned,
        post, status, venv,
    },
};
use webhook_router::config::EXAMPLE_ROUTING_SECRET;

/// The key of [`PAYLOAD`] under the secret of the examples.
pub const KEY: &str =
    "webhook:dedup:b1c2385d2d97926fb253b63a6d3a27d1f34482c217b909e48054f1d8dd6ffe8f";

/// Claims a key as the Python router does: redis-py's `set(key, 1, nx=True, ex=86400)`.
pub fn python_takes(redis: &Redis, key: &str) -> bool {
    let code = "import redis, sys; \
                print(redis.Redis.from_url(sys.argv[1]).set(sys.argv[2], 1, nx=True, ex=86400))";
    let output =
        Command::new(venv("python")).args(["-c", code, &redis.url(), key]).output().unwrap();
    match String::from_utf8(output.stdout).unwrap().trim() {
        "True" => true,
        "None" => false,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

pub fn router(sink: &Sink, redis: &Redis, vars: &[(&str, &str)]) -> Server {
    let ours = [("STORE_URL", ""), ("REDIS_URL", &redis.url())];
    Serve::to(sink).envs(ours).envs(vars.iter().copied()).start()
}

#[tokio::test]
async fn what_the_python_router_took_is_a_duplicate() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    assert!(python_takes(&redis, KEY));
    let router = router(&sink, &redis, &[]);
    for _ in 0..2 {
        let got = router.post(PAYLOAD).await;
        assert_eq!((got.status, got.text()), (200, "duplicate ignored"));
        assert_eq!(got.header("idempotent-replayed"), Some("true"));
        assert_eq!(got.header("x-webhook-key"), Some(KEY));
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn only_the_python_router_s_value_passes_for_a_delivered_event() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let router = router(&sink, &redis, &[]);
    for foreign in [vec!["SET", KEY, "x"], vec!["RPUSH", KEY, "1"]] {
        redis.cli(&foreign);
        assert_eq!(router.post(PAYLOAD).await.status, 503, "{foreign:?}");
        redis.cli(&["DEL", KEY]);
    }
    // The error of a command that an ACL forbids does not pass for a delivered event, either.
    redis.cli(&["ACL", "SETUSER", "limited", "on", ">test-only", "~*", "+@all", "-hmget"]);
    let url = format!("redis://limited:test-only@127.0.0.1:{}", redis.port);
    let limited = Serve::to(&sink).store(&url).start();
    limited.post(PAYLOAD).await.expect(503);
    assert!(limited.log().contains("can't run this command"), "{}", limited.log());
    assert!(sink.received().is_empty());
    assert_eq!(router.post(PAYLOAD).await.text(), "done");
}

#[tokio::test]
async fn what_we_took_the_python_router_cannot_take() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let router = router(&sink, &redis, &[("ROUTE_THRESHOLD", "256")]);
    sink.answers(Answer::WhenTold);
    let (url, sender) = (router.webhook(), client());
    let delivery = tokio::spawn(async move { post(&sender, &url, PAYLOAD).await });
    sink.arrived(1).await;
    assert!(!python_takes(&redis, KEY), "while it is in flight");
    sink.go.notify_one();
    assert_eq!(delivery.await.unwrap().status, 200);
    assert!(!python_takes(&redis, KEY), "when it is delivered");
    // A failure frees the key for the next claimer.
    sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    let other = PAYLOAD.replace("4200", "4201");
    let got = router.post(other).await;
    assert_eq!(got.status, 503);
    assert!(python_takes(&redis, got.header("x-webhook-key").unwrap()));
}

#[tokio::test]
async fn a_delivery_costs_two_round_trips_and_a_duplicate_one() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let proxy = Proxy::start(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let router = Serve::to(&sink).store(&url).start();
    router.checked();
    // From here on, the server has the scripts.
    router.post(PAYLOAD).await.expect(200);
    proxy.take();
    let calls = async |body: String, answer: &str| {
        redis.cli(&["CONFIG", "RESETSTAT"]);
        assert_eq!(router.post(body).await.text(), answer);
        let stats = redis.cli(&["INFO", "commandstats"]);
        let ours = |line: &&str| !line.starts_with("cmdstat_config|resetstat");
        let commands: Vec<_> =
            stats.lines().filter(|line| line.starts_with("cmdstat_")).filter(ours).collect();
        let evalsha = commands.iter().find_map(|line| {
            line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u32>().ok()
        });
        // The second number counts all commands that the router sent.
        (evalsha, proxy.take())
    };
    // There is one connection for all commands.
    let clients = redis.cli(&["CLIENT", "LIST"]);
    assert_eq!(clients.lines().filter(|line| !line.contains("cmd=client")).count(), 1, "{clients}");
    let new = PAYLOAD.replace("4200", "4202");
    assert_eq!(calls(new.clone(), "done").await, (Some(2), 2));
    assert_eq!(calls(new, "duplicate ignored").await, (Some(1), 1));
}

/// Delivers a distinct event while the store is broken, and checks that it is refused in time.
async fn refused_in_time(router: &Server, sink: &Sink, event: u32) {
    let started = Instant::now();
    let body = PAYLOAD.replace("4200", &event.to_string());
    let got = router.post(body).await;
    assert_eq!((got.status, got.text()), (503, "try again later"), "{}", router.log());
    assert_eq!(got.header("retry-after"), Some("5"));
    // The limit is STORE_TIMEOUT_MS, 1 s, plus a margin for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(sink.received().is_empty());
}

/// Delivers a new event, and checks that it arrives.
pub async fn delivered(router: &Server, sink: &Sink, event: u32) {
    let body = PAYLOAD.replace("4200", &event.to_string());
    let got = router.post(body).await;
    assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_503_and_works_when_it_goes_on() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    // A lease lasts 8 s: 3 s for forwarding, four tries to store the result, and 1 s more.
    let short = [("FORWARD_BUDGET_MS", "3000"), ("FORWARD_TIMEOUT_MS", "3000")];
    let router = router(&sink, &redis, &short);
    delivered(&router, &sink, 1).await;
    redis.signal("STOP");
    for event in 2..5 {
        refused_in_time(&router, &sink, event).await;
    }
    redis.signal("CONT");
    delivered(&router, &sink, 5).await;
    // A claim may reach the server although its answer is too late. It is a lease like any other.
    // The event is in progress until the lease ends, and is not lost.
    for event in 2..5 {
        until_delivered(&router, event).await;
    }
    assert_eq!(sink.take().len(), 3);
}

/// Delivers an event repeatedly until it is accepted, as a vendor does.
pub async fn until_delivered(router: &Server, event: u32) -> u32 {
    let body = PAYLOAD.replace("4200", &event.to_string());
    for refused in 0..600 {
        let got = router.post(body.clone()).await;
        match got.status {
            200 => return refused,
            503 | 409 => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}: {}", router.log()),
        }
    }
    panic!("event {event} is not delivered: {}", router.log());
}

#[tokio::test]
async fn a_success_that_cannot_be_stored_is_still_one_for_the_sender() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    sink.answers(Answer::WhenTold);
    let router = router(&sink, &redis, &[("STORE_TIMEOUT_MS", "300")]);
    let (url, sender) = (router.webhook(), client());
    let delivery = tokio::spawn(async move { post(&sender, &url, PAYLOAD).await });
    sink.arrived(1).await;
    redis.signal("STOP");
    let started = Instant::now();
    sink.go.notify_one();
    let got = delivery.await.unwrap();
    assert_eq!((got.status, got.text()), (200, "at last"));
    // The limit is four times the timeout, not the time left of the 30 s for forwarding.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(router.log().contains("the result could not be stored\""), "{}", router.log());
    redis.signal("CONT");
}

#[tokio::test]
async fn a_server_that_is_down_is_503_and_works_when_it_is_back() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let router = router(&sink, &redis, &[]);
    delivered(&router, &sink, 1).await;
    let port = redis.port;
    drop(redis);
    refused_in_time(&router, &sink, 2).await;
    let redis = Redis::start_at(port, &[]);
    delivered(&router, &sink, 2).await;
    // The same must work when the server comes back before the router notices that it was gone.
    drop(redis);
    let _redis = Redis::start_at(port, &[]);
    delivered(&router, &sink, 3).await;
}

#[tokio::test]
async fn a_server_that_is_full_or_only_a_replica_is_503_until_it_is_not() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let router = router(&sink, &redis, &[]);
    delivered(&router, &sink, 1).await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    refused_in_time(&router, &sink, 2).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    delivered(&router, &sink, 2).await;
    // After a failover, the old primary is a replica and refuses to write.
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    refused_in_time(&router, &sink, 3).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    delivered(&router, &sink, 3).await;
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_recognised_as_ours() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let proxy = Proxy::start(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let router = Serve::to(&sink).store(&url).start();
    delivered(&router, &sink, 1).await;
    proxy.break_off_after(0);
    delivered(&router, &sink, 2).await;
    assert_eq!(proxy.left_to_break(), 0);
}

#[tokio::test]
async fn a_result_whose_answer_is_lost_is_stored_once() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let proxy = Proxy::start(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let gcp = ("ROUTE_THRESHOLD", "256");
    let vars = [("STORE_URL", url.as_str()), ("FORWARD_ATTEMPTS", "1"), gcp];
    let router = Serve::to(&sink).envs(vars).start();
    delivered(&router, &sink, 1).await;
    let body = PAYLOAD.replace("4200", "2");
    // The answers to a claim and to an entry in the list pass. The answer to the letter does not.
    sink.answers(status(http::StatusCode::SERVICE_UNAVAILABLE, "no"));
    router.post(body.clone()).await.expect(503);
    proxy.break_off_after(2);
    router.post(body.clone()).await.expect(503);
    assert_eq!(proxy.left_to_break(), 0);
    // The answer to a claim passes. The answer to the finish does not.
    sink.answers(ok("done"));
    proxy.break_off_after(1);
    assert_eq!(router.post(body.clone()).await.text(), "done");
    assert_eq!(proxy.left_to_break(), 0);
    assert_eq!(router.post(body).await.text(), "duplicate ignored");
    assert!(!router.log().contains("could not be stored"), "{}", router.log());
    assert!(!router.log().contains("lost"), "{}", router.log());
    assert_eq!(redis.cli(&["ZCARD", "webhook:dead-letters"]).trim(), "0");
}

#[tokio::test]
async fn a_cluster_with_tls_and_users_works_as_any_other() {
    let (sink, authority) = (Sink::start().await, Authority::new());
    let (_cluster, url) = RedisCluster::start_with_tls(&authority);
    let ca = authority.file();
    let vars = [("STORE_URL", url.as_str()), ("REDIS_CA_FILE", ca.to_str().unwrap())];
    let router = Serve::to(&sink).envs(vars).start();
    // The events belong to all masters.
    for event in 1..20 {
        delivered(&router, &sink, event).await;
    }
    for event in 1..20 {
        let body = PAYLOAD.replace("4200", &event.to_string());
        assert_eq!(router.post(body).await.text(), "duplicate ignored");
    }
}

#[tokio::test]
async fn slots_that_move_and_slots_that_nobody_serves_lose_nothing() {
    let (sink, cluster) = (Sink::start().await, RedisCluster::start());
    let url = cluster.url();
    let router = Serve::to(&sink).store(&url).start();
    for event in 1..20 {
        delivered(&router, &sink, event).await;
    }
    let id = |node: usize| cluster.nodes[node].cli(&["CLUSTER", "MYID"]).trim().to_owned();
    let (from, to) = (id(0), id(1));
    let address = format!("127.0.0.1:{}", cluster.nodes[0].port);
    // All slots of the first master move one after the other, while deliveries continue. Slots that
    // have moved answer MOVED. The moving slot answers ASK and TRYAGAIN.
    let reshard = ["reshard", &address, "--cluster-from", &from, "--cluster-to", &to];
    let reshard = [&reshard[..], &["--cluster-slots", "5461"]].concat();
    let mut moving = cluster.manager(&reshard).stdout(Stdio::null()).spawn().unwrap();
    let mut event = 20;
    let moved = loop {
        until_delivered(&router, event).await;
        event += 1;
        if let Some(moved) = moving.try_wait().unwrap() {
            break moved;
        }
    };
    assert!(moved.success());
    assert_eq!(sink.take().len(), event as usize - 20);
    for event in 1..event {
        let body = PAYLOAD.replace("4200", &event.to_string());
        assert_eq!(router.post(body).await.text(), "duplicate ignored");
    }
    // A slot without a server takes the whole cluster down. A node may hear of the slot's owner
    // once more before that owner hears of the removal.
    let is_down = || {
        let give_up = |node: &Redis| node.cli(&["CLUSTER", "DELSLOTS", "16383"]);
        cluster.nodes.iter().for_each(|node| drop(give_up(node)));
        let is_down = |node: &Redis| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:fail");
        cluster.nodes.iter().all(is_down)
    };
    wait_for("the cluster's failure", std::path::Path::new("/"), is_down);
    refused_in_time(&router, &sink, event).await;
    cluster.nodes[2].cli(&["CLUSTER", "ADDSLOTS", "16383"]);
    until_delivered(&router, event).await;
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_cluster_that_loses_a_master_works_again_with_its_replica() {
    let (sink, mut cluster) = (Sink::start().await, RedisCluster::start_with_replicas(1));
    let url = cluster.url();
    let vars = [("STORE_URL", url.as_str()), ("STORE_TIMEOUT_MS", "2000")];
    let router = Serve::to(&sink).envs(vars).start();
    // The events belong to all masters.
    for event in 1..20 {
        delivered(&router, &sink, event).await;
    }
    // When the replicas have caught up, the master that the URL names dies.
    let masters = &cluster.nodes[..3];
    wait_for("the replicas", Path::new("/"), || masters.iter().all(Redis::is_replicated));
    // Nothing is forwarded without a claim. A claim may have succeeded although its answer was
    // lost.
    let lost = (20..).find(|event| slot(&cluster, *event) < SLOTS / 3).unwrap();
    drop(cluster.nodes.remove(0));
    assert!(until_delivered(&router, lost).await > 0, "the master's death was not noticed");
    for event in 20..60 {
        until_delivered(&router, event).await;
    }
    assert_eq!(sink.take().len(), 40);
    // The replica remembers everything that was delivered before.
    for event in 1..60 {
        let body = PAYLOAD.replace("4200", &event.to_string());
        let got = router.post(body).await;
        assert_eq!(got.text(), "duplicate ignored");
    }
}

/// The number of hash slots. Each of the three masters has a third.
pub const SLOTS: u16 = 16384;

/// Returns the hash slot of an event's key.
pub fn slot(cluster: &RedisCluster, event: u32) -> u16 {
    let body = PAYLOAD.replace("4200", &event.to_string());
    let plan =
        planned(&delivery(body), &intake(EXAMPLE_ROUTING_SECRET), chrono::Utc::now()).unwrap();
    let node = cluster.nodes.last().unwrap();
    node.cli(&["CLUSTER", "KEYSLOT", &plan.key.to_string()]).trim().parse().unwrap()
}

#[tokio::test]
async fn a_master_that_hangs_takes_only_its_own_slots_with_it() {
    let (sink, cluster) = (Sink::start().await, RedisCluster::start_patiently());
    let url = cluster.url();
    let router = Serve::to(&sink).store(&url).start();
    delivered(&router, &sink, 1).await;
    cluster.nodes[0].signal("STOP");
    let of = |first: bool| move |slot: u16| (slot < SLOTS / 3) == first;
    // The first refused deliveries notice the hang.
    let events: Vec<_> = (2..40).map(|event| (event, slot(&cluster, event))).collect();
    let hangs = events.iter().filter(|(_, slot)| of(true)(*slot)).take(3);
    for (event, _) in hangs.clone() {
        refused_in_time(&router, &sink, *event).await;
    }
    let works: Vec<_> = events.iter().filter(|(_, slot)| of(false)(*slot)).collect();
    for (event, _) in &works {
        delivered(&router, &sink, *event).await;
    }
    cluster.nodes[0].signal("CONT");
    for (event, _) in hangs {
        until_delivered(&router, *event).await;
    }
    assert!(works.len() > 10 && sink.take().len() == 3);
}

#[tokio::test]
async fn a_server_that_still_loads_its_data_is_503_until_it_is_done() {
    let sink = Sink::start().await;
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let keeps = ["--dir", folder, "--rdbcompression", "no"];
    let redis = Redis::start(&keeps);
    let router = router(&sink, &redis, &[]);
    delivered(&router, &sink, 1).await;
    let filler = "x".repeat(2000);
    for key in 0..300 {
        redis.cli(&["SET", &format!("filler:{key}"), &filler]);
    }
    redis.cli(&["SAVE"]);
    let port = redis.port;
    drop(redis);
    // Each key takes 10,000 microseconds to load, and the server answers after every 1,024 bytes.
    let slow = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"];
    let redis = Redis::start_loading_at(port, &[&keeps[..], &slow].concat());
    wait_for("the loading", data.path(), || redis.cli(&["PING"]).starts_with("LOADING"));
    refused_in_time(&router, &sink, 2).await;
    wait_for("the end of the loading", data.path(), || redis.cli(&["PING"]).starts_with("PONG"));
    delivered(&router, &sink, 2).await;
    let got = router.post(PAYLOAD.replace("4200", "1")).await;
    assert_eq!(got.text(), "duplicate ignored");
}

#[tokio::test]
async fn a_certificate_of_the_system_s_authorities_is_trusted_and_no_other() {
    let sink = Sink::start().await;
    let authority = Authority::new();
    let (_server, url) = Redis::start_with_tls(&authority, &[]);
    let ca = authority.file();
    let stranger = Authority::new();
    let stranger = stranger.file();
    for (file, status) in [(&ca, 200), (&stranger, 503)] {
        let vars = [("STORE_URL", url.as_str()), ("SSL_CERT_FILE", file.to_str().unwrap())];
        let router = Serve::to(&sink).envs(vars).start();
        let got = router.post(PAYLOAD).await;
        assert_eq!(got.status, status, "{}", router.log());
    }
}

#[tokio::test]
async fn a_password_is_in_no_log_and_no_error() {
    let sink = Sink::start().await;
    let port = free_port();
    let url = format!("redis://router:plainly-secret@127.0.0.1:{port}");
    let router = Serve::to(&sink).store(&url).start();
    router.checked();
    router.post(PAYLOAD).await.expect(503);
    // The message contains the address without user and password.
    let said = format!("the store does not answer: redis://127.0.0.1:{port}: ");
    assert!(router.log().contains(&said), "{}", router.log());
    assert!(!router.log().contains("plainly-secret"), "{}", router.log());
}
