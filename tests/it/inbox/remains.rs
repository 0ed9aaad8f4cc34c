//! Remains of acceptances that were interrupted, or whose answer was lost.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use webhook_router::{
    config::{StoreConfig, StoreUrl},
    delivery::Delivery,
    outcome::Outcome,
    plan::Plan,
    store::{
        Accepted, DeadLetter, Delivered, Discarded, DynamoDb, Entry, Failure, Lease, Page, Redis,
        Release, Settled, Store, StoreError, Take, Taken,
    },
};

use crate::{
    proxy::Proxy,
    servers,
    shared::{self, Table},
    support::{at, delivery, lookup, plan_of, sdk},
};

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn in_a_cluster_only_the_second_look_a_minute_later_removes_an_entry_without_an_event() {
    let cluster = shared::redis_cluster().await;
    let store = redis_at(&cluster.url());
    let enlist = |plan: &Plan, time: &str| {
        let list = format!("webhook:due:{}:{:x}", plan.route, plan.key.shard());
        cluster.nodes[0].cli(&["-c", "ZADD", &list, time, &plan.key.to_string()])
    };
    let listed = async |plan: &Plan, by: Option<DateTime<Utc>>| {
        let due = store.due(plan.route, by, None, 10).await.unwrap();
        due.into_iter().filter(|due| due.key == plan.key).map(|due| due.at).collect::<Vec<_>>()
    };
    let take = async |plan: &Plan, now: i64| {
        store.take(&plan.key, false, at(now), at(now + 100)).await.unwrap()
    };
    let millis = |tenths: i64| at(tenths).timestamp_millis().to_string();

    // The acceptance wrote the entry, and died before it wrote the event.
    let plan = plan_of("never stored");
    enlist(&plan, &millis(0));
    assert_eq!(listed(&plan, Some(at(0))).await, [at(0)]);
    for now in [0, 1, 599] {
        assert_eq!(take(&plan, now).await, Take::Gone);
        assert!(listed(&plan, Some(at(now))).await.is_empty(), "{now}");
        assert_eq!(listed(&plan, None).await.len(), 1, "{now}");
    }
    assert_eq!(listed(&plan, Some(at(610))).await.len(), 1);
    assert_eq!(take(&plan, 610).await, Take::Gone);
    assert!(listed(&plan, None).await.is_empty());

    // The acceptance comes between the two looks.
    let plan = plan_of("stored between");
    enlist(&plan, &millis(0));
    assert_eq!(take(&plan, 0).await, Take::Gone);
    store.accept(&plan, &delivery("{}"), at(300), at(300), at(300)).await.unwrap();
    assert_eq!(listed(&plan, Some(at(300))).await, [at(300)]);
    // The first look came between the entry and the event, so the entry still has the mark.
    enlist(&plan, &format!("{}.5", millis(600)));
    assert_eq!(listed(&plan, Some(at(610))).await.len(), 1);
    assert!(matches!(take(&plan, 610).await, Take::Won(_)));
    assert_eq!(listed(&plan, None).await, [at(710)]);

    // A duplicate writes no entry, whatever the state of its event.
    let plan = plan_of("waits");
    let accept = async |plan: &Plan, now: i64, due: i64| {
        store.accept(plan, &delivery("{}"), at(now), at(due), at(due)).await.unwrap()
    };
    assert_eq!(accept(&plan, 0, 1000).await, Accepted::Stored { route: plan.route });
    assert!(matches!(accept(&plan, 5, 5).await, Accepted::Taken(_)));
    assert_eq!(listed(&plan, None).await, [at(1000)]);
    // Of two acceptances at the same time, both may write an entry. This one is too early.
    enlist(&plan, &millis(5));
    assert_eq!(listed(&plan, Some(at(5))).await, [at(5)]);
    assert_eq!(take(&plan, 5).await, Take::NotDue(at(1000)));
    assert_eq!(listed(&plan, None).await, [at(1000)]);
    let Take::Won(taken) = take(&plan, 1000).await else { panic!("not won") };
    let delivered = Delivered { at: at(1010), ttl: TIMEOUT, reply: None, attempts: vec![] };
    store.finish(&taken.lease, &delivered).await.unwrap();
    assert!(matches!(accept(&plan, 1020, 1020).await, Accepted::Taken(_)));
    assert!(listed(&plan, None).await.is_empty());
    let plan = plan_of("claimed");
    store.claim(&plan, at(0), at(1000)).await.unwrap();
    assert!(matches!(accept(&plan, 5, 5).await, Accepted::Taken(_)));
    assert!(listed(&plan, None).await.is_empty());
}

/// Takes an event twice after a part of it was lost. `lose` removes the part.
async fn take_unreadable(
    store: &dyn Store,
    plan: &Plan,
    delivery: &Delivery,
    lose: impl AsyncFnOnce(),
) {
    const HOUR: i64 = 36_000;
    store.accept(plan, delivery, at(0), at(0), at(0)).await.unwrap();
    lose().await;
    let listed = async || {
        let due = store.due(plan.route, None, None, 1000).await.unwrap();
        due.into_iter().filter(|due| due.key == plan.key).map(|due| due.at).collect::<Vec<_>>()
    };
    for now in [10, 20] {
        let taken = store.take(&plan.key, false, at(now), at(now + 300)).await;
        assert!(matches!(taken, Err(StoreError::Corrupt(_))), "{taken:?}");
        // It does not hold up others, and no schedule sends a message for it meanwhile.
        assert_eq!(listed().await, [at(now + HOUR)]);
    }
    // An operator need not wait for a lease.
    assert_eq!(store.discard(&plan.key, at(21)).await.unwrap(), Discarded::Done);
    assert!(listed().await.is_empty());
}

#[tokio::test]
async fn an_event_that_has_lost_a_part_is_listed_an_hour_later() {
    let redis = servers::Redis::start(&[]);
    let cluster = shared::redis_cluster().await;
    for (url, node) in [(redis.url(), &redis), (cluster.url(), &cluster.nodes[0])] {
        let store = redis_at(&url);
        for (name, command, fields, reply) in [
            ("without a body", "HDEL", &["body"][..], "1"),
            ("without details", "UNLINK", &[], "1"),
            ("with damaged details", "HSET", &["details", "{"], "0"),
        ] {
            let plan = plan_of(name);
            let second = format!("{{{}}}:event", plan.key);
            let lose = async || {
                let replied = node.cli(&[&["-c", command, &second], fields].concat());
                assert_eq!(replied.trim(), reply);
            };
            take_unreadable(&store, &plan, &delivery("{}"), lose).await;
        }
    }
    let Table { name, sdk, .. } = shared::dynamodb_table().await;
    let store = DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &sdk);
    let mut random = vec![0; 300 * 1024];
    rand::fill(&mut random[..]);
    let lose = async || {
        let sdk = Client::new(&sdk);
        let parts = sdk.scan().table_name(&name).filter_expression("attribute_exists(part)");
        let parts = parts.projection_expression("#key").expression_attribute_names("#key", "key");
        let part = parts.send().await.unwrap().items.unwrap().remove(0).remove("key").unwrap();
        sdk.delete_item().table_name(&name).key("key", part).send().await.unwrap();
    };
    take_unreadable(&store, &plan_of("without a part"), &delivery(random), lose).await;
}

/// Opens a store whose leases end by the times that a test chooses.
fn redis_at(url: &str) -> Redis {
    let config = StoreConfig::from_vars(lookup(&[("STORE_URL", url)])).unwrap();
    let StoreUrl::Redis(url) = config.url else { panic!() };
    Redis::new(&url, TIMEOUT).by_callers_time()
}

/// An acceptance in parts whose last answer is lost. It is repeated only when the test says so.
struct LostAnswer {
    /// The store of a worker.
    store: DynamoDb,
    sdk: Client,
    table: String,
    proxy: Proxy,
    plan: Plan,
    large: Delivery,
    acceptance: JoinHandle<Result<Accepted, StoreError>>,
}

impl LostAnswer {
    async fn new() -> Self {
        // A read, three parts, and the event.
        Self::after(1 + 3).await
    }

    /// Begins an acceptance whose answers are lost after that many of them.
    async fn after(answers: usize) -> Self {
        let Table { name, port, sdk: direct, .. } = shared::dynamodb_table().await;
        let proxy = Proxy::start(port).await;
        let store = DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &direct);
        let through = DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &sdk(&proxy.url()));
        let mut random = vec![0; 600 * 1024];
        rand::fill(&mut random[..]);
        let (plan, large) = (plan_of("lost answer"), delivery(random));
        proxy.break_off_and_hold_after(answers);
        let (accepted, body) = (plan.clone(), large.clone());
        let acceptance = async move { through.accept(&accepted, &body, at(0), at(0), at(0)).await };
        let acceptance = tokio::spawn(acceptance);
        proxy.holds().await;
        let sdk = Client::new(&direct);
        Self { store, sdk, table: name, proxy, plan, large, acceptance }
    }

    async fn take(&self) -> Taken {
        match self.store.take(&self.plan.key, false, at(1), at(1000)).await.unwrap() {
            Take::Won(taken) => *taken,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the client repeat the acceptance, and returns the result.
    async fn repeat(&mut self) -> Result<Accepted, StoreError> {
        self.proxy.go_on();
        (&mut self.acceptance).await.unwrap()
    }

    async fn items(&self) -> i32 {
        // A page has at most 1 MB.
        let mut pages = self.sdk.scan().table_name(&self.table).into_paginator().send();
        let mut count = 0;
        while let Some(page) = pages.next().await {
            count += page.unwrap().count;
        }
        count
    }
}

#[tokio::test]
async fn on_dynamodb_a_repeated_acceptance_leaves_the_parts_that_a_worker_uses() {
    let mut lost = LostAnswer::new().await;
    let taken = lost.take().await;
    assert_eq!(lost.items().await, 1 + 3);
    let accepted = lost.repeat().await.unwrap();
    let LostAnswer { store, plan, large, .. } = &lost;
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    assert_eq!(lost.items().await, 1 + 3);
    // The worker dies, and another one finds the whole delivery.
    let Take::Won(heir) = store.take(&plan.key, false, at(1000), at(2000)).await.unwrap() else {
        panic!("not won");
    };
    assert!(taken.delivery == *large && heir.delivery == *large);
    let delivered = Delivered { at: at(1100), ttl: TIMEOUT, reply: None, attempts: vec![] };
    assert_eq!(store.finish(&heir.lease, &delivered).await.unwrap(), Settled::Stored);
}

#[tokio::test]
async fn on_dynamodb_a_repeated_acceptance_of_an_event_that_has_failed_since_stores_nothing() {
    let mut lost = LostAnswer::new().await;
    let lease = lost.take().await.lease;
    let letter = refused(&lease, &lost.large);
    lost.store.fail(&lease, &letter, Release::Now).await.unwrap();
    // The event was accepted, and its outcome is known. It is not delivered again.
    let accepted = lost.repeat().await.unwrap();
    let LostAnswer { store, plan, large, .. } = &lost;
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    assert_eq!(store.take(&plan.key, true, at(3), at(1000)).await.unwrap(), Take::Gone);
    assert!(store.dead_letter(&plan.key).await.unwrap() == Some(letter));
    // The vendor comes again.
    let accepted = store.accept(plan, large, at(3), at(3), at(3)).await.unwrap();
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    let Take::Won(taken) = store.take(&plan.key, false, at(4), at(1000)).await.unwrap() else {
        panic!("not won");
    };
    assert!(taken.delivery == *large);
}

#[tokio::test]
async fn on_redis_a_repeated_acceptance_of_an_event_that_has_failed_since_stores_nothing() {
    let url = shared::redis_database();
    let (port, database) = url.rsplit_once(':').unwrap().1.split_once('/').unwrap();
    let proxy = Proxy::start(port.parse().unwrap()).await;
    let store = |port: u16| redis_at(&format!("redis://127.0.0.1:{port}/{database}"));
    let (direct, through) = (store(port.parse().unwrap()), store(proxy.port));
    // The server knows the script, and the connection is open.
    through.accept(&plan_of("before"), &delivery("{}"), at(0), at(0), at(0)).await.unwrap();
    proxy.break_off_and_hold_after(0);
    let plan = plan_of("lost answer");
    let accepted = plan.clone();
    let acceptance =
        async move { through.accept(&accepted, &delivery("{}"), at(0), at(0), at(0)).await };
    let acceptance = tokio::spawn(acceptance);
    proxy.holds().await;
    let Take::Won(taken) = direct.take(&plan.key, false, at(1), at(1000)).await.unwrap() else {
        panic!("not won");
    };
    let letter = refused(&taken.lease, &taken.delivery);
    direct.fail(&taken.lease, &letter, Release::Now).await.unwrap();
    proxy.go_on();
    let accepted = acceptance.await.unwrap().unwrap();
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    assert_eq!(direct.take(&plan.key, true, at(3), at(1000)).await.unwrap(), Take::Gone);
    assert!(direct.dead_letter(&plan.key).await.unwrap() == Some(letter));
    let letters = direct.dead_letters(Page { limit: 9, after: None }).await.unwrap();
    assert_eq!(letters, [Entry { failed_at: at(2), key: plan.key }]);
    // The vendor comes again.
    let accepted = direct.accept(&plan, &delivery("{}"), at(3), at(3), at(3)).await.unwrap();
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    assert!(matches!(direct.take(&plan.key, false, at(4), at(9)).await.unwrap(), Take::Won(_)));
}

#[tokio::test]
async fn on_dynamodb_parts_without_an_event_are_swept_a_day_later() {
    const DAY: i64 = 864_000;
    // The process ends when the parts are written, before the event is.
    let orphans = LostAnswer::after(1 + 2).await;
    orphans.acceptance.abort();
    assert_eq!(orphans.items().await, 3);
    // The same store has an event with parts.
    let (plan, LostAnswer { store, large, .. }) = (plan_of("kept"), &orphans);
    store.accept(&plan, large, at(0), at(0), at(0)).await.unwrap();
    for (now, left) in [(0, 3 + 4), (DAY - 1, 3 + 4), (DAY, 4), (9 * DAY, 4)] {
        store.sweep(at(now)).await.unwrap();
        assert_eq!(orphans.items().await, left, "{now}");
    }
    assert_eq!(store.get(&orphans.plan.key, at(DAY)).await.unwrap(), None);
    let Take::Won(taken) = store.take(&plan.key, false, at(DAY), at(2 * DAY)).await.unwrap() else {
        panic!("not won");
    };
    assert!(taken.delivery == *large);
}

/// Returns the dead letter of an event that the destination refuses.
fn refused(lease: &Lease, delivery: &Delivery) -> DeadLetter {
    DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: at(2),
        failure: Failure { outcome: Outcome::Status(422), detail: String::new(), answer: None },
        attempts: vec![],
        delivery: delivery.clone(),
    }
}
