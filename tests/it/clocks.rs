//! Routers with wrong clocks, and one Redis: leases end only by the clock of Redis.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use webhook_router::{
    config::Config,
    outcome::Outcome,
    store::{
        self, Claim, DeadLetter, Delivered, Discarded, Failure, Lease, Release, Settled, State,
        Store,
    },
};

use crate::{
    servers::{Redis, RedisCluster},
    support::{
        Answer, Got, PAYLOAD, Serve, Server, Sink, client, delivery, libfaketime, lookup, ok,
        plan_of,
    },
};

/// The error of the clocks.
const SKEW: TimeDelta = TimeDelta::seconds(90);

/// A lease that is long enough to be observed on a busy machine.
const LEASE: Duration = Duration::from_secs(3);

/// Starts a router whose lease is 5 s: 2 s for forwarding, four times 0.5 s for storing the result,
/// and 1 s more.
fn router(sink: &Sink, redis: &str, clock: &str) -> Server {
    let library = libfaketime();
    let ours = [
        ("STORE_URL", redis),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("FORWARD_BUDGET_MS", "2000"),
        ("STORE_TIMEOUT_MS", "500"),
        ("LD_PRELOAD", &library),
        ("FAKETIME", clock),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Serve::to(sink).envs(ours).start()
}

const LEASE_OF_A_ROUTER: Duration = Duration::from_secs(5);

#[tokio::test]
async fn routers_whose_clocks_differ_by_180_s_deliver_an_event_one_after_the_other() {
    let redis = Redis::start(&[]);
    let url = redis.url();
    tokio::join!(
        one_after_the_other(&url, "+90s", "-90s", 1),
        one_after_the_other(&url, "-90s", "+90s", 2)
    );
}

async fn one_after_the_other(redis: &str, of_owner: &str, of_other: &str, event: u32) {
    let sink = Sink::start().await;
    let (mut owner, other) = (router(&sink, redis, of_owner), router(&sink, redis, of_other));
    let body = PAYLOAD.replace("4200", &event.to_string());
    sink.answers(Answer::WhenTold);
    let started = Instant::now();
    let first = tokio::spawn(client().post(owner.webhook()).body(body.clone()).send());
    sink.arrived(1).await;
    let wait = |got: &Got| got.header("retry-after").unwrap().parse::<u64>().unwrap();
    let got = other.post(body.clone()).await;
    assert_eq!((got.status, got.text()), (409, "in progress"), "{}", other.log());
    assert!((1..=5).contains(&wait(&got)), "{got:?}");
    owner.kill();
    assert!(first.await.unwrap().is_err());
    sink.answers(ok("done"));
    // The event belongs to the dead router until the lease ends. Then the next claim gets it.
    let answered = loop {
        let got = other.post(body.clone()).await;
        if got.status == 200 {
            break got;
        }
        assert!(got.status == 409 && (1..=5).contains(&wait(&got)), "{got:?}\n{}", other.log());
        assert_eq!(sink.received().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(30), "{}", other.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(started.elapsed() >= LEASE_OF_A_ROUTER, "{:?}", started.elapsed());
    assert_eq!((answered.text(), sink.received().len()), ("done", 2));
}

/// Opens the store as the router does.
async fn open(url: &str) -> std::sync::Arc<dyn Store> {
    let targets = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    let store = [("STORE_URL", url), ("STORE_TIMEOUT_MS", "20000")];
    let config = Config::from_vars(lookup(&[&targets[..], &store].concat())).unwrap();
    store::open(&config.store).await.unwrap()
}

/// Returns a time ahead of the real one, cut to milliseconds as the store keeps it.
fn ahead() -> DateTime<Utc> {
    DateTime::from_timestamp_millis((Utc::now() + SKEW).timestamp_millis()).unwrap()
}

fn behind() -> DateTime<Utc> {
    ahead() - SKEW * 2
}

#[tokio::test]
async fn a_lease_and_a_lifetime_end_by_the_server_s_clock() {
    let (server, servers) = (Redis::start(&[]), RedisCluster::start());
    let (redis, cluster) = (open(&server.url()).await, open(&servers.url()).await);
    tokio::join!(
        lease_and_lifetime(&*redis, ahead, behind),
        lease_and_lifetime(&*redis, behind, ahead),
        lease_and_lifetime(&*cluster, ahead, behind),
        lease_and_lifetime(&*cluster, behind, ahead),
    );
}

/// Checks that a caller gets the ends of leases and lifetimes by its own clock.
async fn lease_and_lifetime(
    store: &dyn Store,
    mine: fn() -> DateTime<Utc>,
    theirs: fn() -> DateTime<Utc>,
) {
    let plan = plan_of(&format!("{:?}", mine()));
    let claim = async |clock: fn() -> DateTime<Utc>| {
        let now = clock();
        store.claim(&plan, now, now + LEASE).await.unwrap()
    };
    let (started, before) = (Instant::now(), theirs());
    let Claim::Won(lease) = claim(mine).await else { panic!("not won") };
    let is_end = |until: DateTime<Utc>| (before..=theirs() + LEASE).contains(&until);
    match claim(theirs).await {
        Claim::InFlight { until, .. } => assert!(is_end(until), "{until}"),
        other => panic!("{other:?}"),
    }
    let failed = |lease: &Lease| DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: mine(),
        failure: Failure { outcome: Outcome::TimedOut, detail: String::new(), answer: None },
        attempts: vec![],
        delivery: delivery("{}"),
    };
    store.fail(&lease, &failed(&lease), Release::AtLeaseEnd).await.unwrap();
    match store.get(&plan.key, theirs()).await.unwrap().unwrap().state {
        State::InFlight { until, owner } => assert!(is_end(until) && owner == lease.owner),
        other => panic!("{other:?}"),
    }
    match store.discard(&plan.key, theirs()).await.unwrap() {
        Discarded::InFlight { until } => assert!(is_end(until), "{until}"),
        other => panic!("{other:?}"),
    }
    let heir = loop {
        match claim(theirs).await {
            Claim::Won(heir) => break heir,
            Claim::InFlight { until, .. } => {
                let left = (until - theirs()).to_std().unwrap_or_default();
                assert!(left <= LEASE, "{left:?}");
                tokio::time::sleep(left).await;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(started.elapsed() >= LEASE, "{:?}", started.elapsed());
    assert_ne!(heir.owner, lease.owner);
    // A delivered event is remembered for its full time, whatever the clock shows.
    let delivered = Delivered { at: mine(), ttl: LEASE, reply: None, attempts: vec![] };
    let finished = Instant::now();
    assert_eq!(store.finish(&heir, &delivered).await.unwrap(), Settled::Stored);
    assert!(matches!(claim(theirs).await, Claim::Delivered(_)));
    assert!(store.get(&plan.key, theirs()).await.unwrap().is_some());
    while store.get(&plan.key, theirs()).await.unwrap().is_some() {
        assert!(finished.elapsed() < LEASE * 10);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(finished.elapsed() >= LEASE, "{:?}", finished.elapsed());
}
