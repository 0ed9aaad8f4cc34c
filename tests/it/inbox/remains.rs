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
        Accepted, DeadLetter, Delivered, DynamoDb, Failure, Redis, Release, Settled, Store,
        StoreError, Take, Taken,
    },
};

use crate::{
    proxy::Proxy,
    shared::{self, Table},
    support::{at, delivery, lookup, plan_of, sdk},
};

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn in_a_cluster_only_the_second_look_a_minute_later_removes_an_entry_without_an_event() {
    let cluster = shared::redis_cluster().await;
    let vars = [("STORE_URL", cluster.url())];
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    let StoreUrl::Redis(url) = StoreConfig::from_vars(lookup(&vars)).unwrap().url else { panic!() };
    let store = Redis::new(&url, TIMEOUT).by_callers_time();
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

    // The entry of a repeated acceptance is too early.
    let plan = plan_of("waits");
    store.accept(&plan, &delivery("{}"), at(0), at(1000), at(1000)).await.unwrap();
    let again = store.accept(&plan, &delivery("{}"), at(5), at(5), at(5)).await.unwrap();
    assert!(matches!(again, Accepted::Taken(_)));
    assert_eq!(listed(&plan, Some(at(5))).await, [at(5)]);
    assert_eq!(take(&plan, 5).await, Take::NotDue(at(1000)));
    assert_eq!(listed(&plan, None).await, [at(1000)]);
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
        let Table { name, port, sdk: direct, .. } = shared::dynamodb_table().await;
        let proxy = Proxy::start(port).await;
        let store = DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &direct);
        let through = DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &sdk(&proxy.url()));
        let mut random = vec![0; 600 * 1024];
        rand::fill(&mut random[..]);
        let (plan, large) = (plan_of("lost answer"), delivery(random));
        // A read, three parts, and the event.
        proxy.break_off_and_hold_after(1 + 3);
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

    /// Has the acceptance repeated, and returns its result.
    async fn repeat(&mut self) -> Result<Accepted, StoreError> {
        self.proxy.go_on();
        (&mut self.acceptance).await.unwrap()
    }

    async fn items(&self) -> i32 {
        self.sdk.scan().table_name(&self.table).send().await.unwrap().count
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
    let letter = DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: at(2),
        failure: Failure { outcome: Outcome::Status(422), detail: String::new(), answer: None },
        attempts: vec![],
        delivery: lost.large.clone(),
    };
    lost.store.fail(&lease, &letter, Release::Now).await.unwrap();
    // The parts of the acceptance are deleted, so no event may refer to them again.
    let accepted = lost.repeat().await;
    let LostAnswer { store, plan, large, .. } = &lost;
    assert!(matches!(accepted, Err(StoreError::Failed(_))), "{accepted:?}");
    assert!(store.dead_letter(&plan.key).await.unwrap() == Some(letter));
    // The vendor comes again.
    let accepted = store.accept(plan, large, at(3), at(3), at(3)).await.unwrap();
    assert_eq!(accepted, Accepted::Stored { route: plan.route });
    let Take::Won(taken) = store.take(&plan.key, false, at(4), at(1000)).await.unwrap() else {
        panic!("not won");
    };
    assert!(taken.delivery == *large);
}
