//! Connections to a store that hang: idle ones that broke silently, a peer that swallows
//! everything, and a stopped master whose replica took over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};

use crate::{
    proxy::Proxy,
    redis::{SLOTS, delivered, slot, until_delivered},
    servers::{DynamoDbLocal, Redis, RedisCluster, wait_for},
    support::{PAYLOAD, Serve, Server, Sink, client, post},
};

fn router(sink: &Sink, vars: &[(&str, &str)]) -> Server {
    Serve::to(sink).envs(vars.iter().copied()).start()
}

fn event(number: u32) -> String {
    PAYLOAD.replace("4200", &number.to_string())
}

/// Starts a cluster whose nodes announce the ports of the proxies in front of them.
async fn behind_proxies() -> (RedisCluster, Vec<Proxy>, String) {
    let (cluster, mut proxies) = (RedisCluster::start(), Vec::new());
    for node in &cluster.nodes {
        let proxy = Proxy::start(node.port).await;
        node.cli(&["CONFIG", "SET", "cluster-announce-port", &proxy.port.to_string()]);
        proxies.push(proxy);
    }
    let is_told = |node: &Redis| {
        let slots = node.cli(&["CLUSTER", "SLOTS"]);
        proxies.iter().all(|proxy| slots.lines().any(|line| line == proxy.port.to_string()))
    };
    wait_for("the proxies' ports", Path::new("/"), || cluster.nodes.iter().all(is_told));
    let url = format!("redis://127.0.0.1:{}?cluster=true", proxies[0].port);
    (cluster, proxies, url)
}

/// Delivers these events at once, so that as many connections as possible are open.
async fn delivered_at_once(router: &Server, sink: &Sink, events: std::ops::Range<u32>) {
    let count = events.len();
    let deliveries = events.map(|number| {
        let url = router.webhook();
        tokio::spawn(async move { post(&client(), &url, event(number)).await })
    });
    for delivery in deliveries.collect::<Vec<_>>() {
        let got = delivery.await.unwrap();
        assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
    }
    assert_eq!(sink.take().len(), count);
}

#[tokio::test]
async fn on_every_store_a_delivery_over_idle_connections_that_died_succeeds_within_2_s() {
    let sink = Sink::start().await;
    let (redis, dynamodb) = (Redis::start(&[]), DynamoDbLocal::start().await);
    let (_cluster, mut proxies, cluster_url) = behind_proxies().await;
    let to_redis = Proxy::start(redis.port).await;
    let to_dynamodb = Proxy::start(dynamodb.port).await;
    let redis_url = format!("redis://127.0.0.1:{}", to_redis.port);
    let table = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let endpoint = to_dynamodb.url();
    proxies.extend([to_redis, to_dynamodb]);
    let routers = [
        router(&sink, &[("STORE_URL", &redis_url)]),
        router(&sink, &[("STORE_URL", &cluster_url)]),
        router(&sink, &[("STORE_URL", &table), ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint)]),
    ];
    for router in &routers {
        // The first request to a new DynamoDB Local takes long.
        until_delivered(router, 1).await;
        sink.take();
        delivered_at_once(router, &sink, 2..10).await;
    }
    proxies.iter().for_each(Proxy::hang);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for router in &routers {
        let started = Instant::now();
        delivered(router, &sink, 10).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_cluster_s_connections_that_swallow_everything_are_replaced_within_3_s() {
    let sink = Sink::start().await;
    let (cluster, proxies, url) = behind_proxies().await;
    let router = router(&sink, &[("STORE_URL", &url)]);
    delivered(&router, &sink, 1).await;
    let mut next = 2..;
    let mut event_of =
        |third: u16| next.find(|event| slot(&cluster, *event) * 3 / SLOTS == third).unwrap();
    // First the connections to all masters hang, then those to one master that the URL does not
    // name, then all again. Recovery must also work just after the client was replaced.
    for hung in [vec![0, 1, 2], vec![1], vec![0, 1, 2]] {
        let events: Vec<_> = (0..3).map(&mut event_of).collect();
        let before: Vec<_> = proxies.iter().map(Proxy::connections).collect();
        hung.iter().for_each(|index: &usize| proxies[*index].hang());
        let started = Instant::now();
        tokio::join!(
            until_delivered(&router, events[0]),
            until_delivered(&router, events[1]),
            until_delivered(&router, events[2]),
        );
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(sink.take().len(), 3);
        for index in hung {
            let new = proxies[index].connections() - before[index];
            assert!((1..6).contains(&new), "{new} new connections");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_slow_to_connect_to_is_used_all_the_same() {
    let (sink, redis) = (Sink::start().await, Redis::start(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let port = redis.port;
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((mut from_router, mut to_router), (mut from_redis, mut to_redis)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_router, &mut to_redis).await });
            tokio::spawn(async move {
                // The first answer takes more than half of STORE_TIMEOUT_MS.
                tokio::time::sleep(Duration::from_millis(650)).await;
                tokio::io::copy(&mut from_redis, &mut to_router).await
            });
        }
    });
    let router = router(&sink, &[("STORE_URL", &url)]);
    delivered(&router, &sink, 1).await;
    delivered(&router, &sink, 2).await;
}

#[tokio::test]
async fn a_replica_that_takes_over_from_a_stopped_master_serves_within_10_s() {
    // These are the master of the URL, and another master.
    tokio::join!(taken_over_within_10_s(0), taken_over_within_10_s(1));
}

async fn taken_over_within_10_s(stopped: usize) {
    let sink = Sink::start().await;
    let start = tokio::task::spawn_blocking(|| RedisCluster::start_with_replicas(1));
    let cluster = start.await.unwrap();
    let url = cluster.url();
    let router = router(&sink, &[("STORE_URL", &url)]);
    for event in 1..20 {
        delivered(&router, &sink, event).await;
    }
    let of_stopped = |event: u32| usize::from(slot(&cluster, event) * 3 / SLOTS) == stopped;
    // The replicas have all delivered events.
    let masters = &cluster.nodes[..3];
    wait_for("the replicas", Path::new("/"), || masters.iter().all(Redis::is_replicated));
    cluster.nodes[stopped].signal("STOP");
    // Some events arrive while no server has their slots.
    let event = (20..).find(|event| of_stopped(*event)).unwrap();
    let got = router.post(PAYLOAD.replace("4200", &event.to_string())).await;
    // A replica may be quicker than the router's timeout.
    assert!([200, 503].contains(&got.status), "{}", router.log());
    let is_taken_over = || {
        let replica = |node: &Redis| node.cli(&["ROLE"]).starts_with("master");
        cluster.nodes[3..].iter().any(|node| {
            replica(node) && node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        })
    };
    let stopped_at = Instant::now();
    while !is_taken_over() {
        assert!(stopped_at.elapsed() < Duration::from_secs(60), "no replica took over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken_over = Instant::now();
    until_delivered(&router, event).await;
    assert!(taken_over.elapsed() < Duration::from_secs(10), "{:?}", taken_over.elapsed());
    for event in event + 1..event + 20 {
        until_delivered(&router, event).await;
    }
    // Each event arrived once, and all are remembered even after the old master returns.
    assert_eq!(sink.take().len(), 20);
    cluster.nodes[stopped].signal("CONT");
    for event in (1..20).chain(event..event + 20) {
        assert_eq!(until_answered(&router, event).await, "duplicate ignored", "{event}");
    }
    assert!(sink.received().is_empty());
}

/// Returns the answer to a delivery as soon as the store is available.
async fn until_answered(router: &Server, number: u32) -> String {
    for _ in 0..100 {
        let got = router.post(event(number)).await;
        if got.status != 503 {
            return got.text().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no answer: {}", router.log());
}

/// Linux shows the connections that it watches: timer 2 is the keep-alive timer
/// (<https://docs.kernel.org/networking/proc_net_tcp.html>).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn idle_connections_are_watched_by_tcp() {
    let (sink, redis, cluster) = (Sink::start().await, Redis::start(&[]), RedisCluster::start());
    let (url, cluster_url) = (redis.url(), cluster.url());
    let of_redis = router(&sink, &[("STORE_URL", &url)]);
    let of_cluster = router(&sink, &[("STORE_URL", &cluster_url)]);
    delivered(&of_redis, &sink, 1).await;
    delivered(&of_cluster, &sink, 1).await;
    let watched = |port: u16| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let established = table.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_ours = fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01";
            is_ours.then(|| fields[5].starts_with("02:"))
        });
        established.collect::<Vec<_>>()
    };
    for node in cluster.nodes.iter().chain([&redis]) {
        let is_watched = watched(node.port);
        assert!(!is_watched.is_empty() && is_watched.iter().all(|is| *is), "{is_watched:?}");
    }
}
