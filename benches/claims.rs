//! Makes claims, or bare writes, one after the other. It prints the seconds that they took
//! (`make bench ONLY=claims`).
//!
//! ```text
//! claims claim URL TABLE COUNT            claims through a store: redis://..., or DynamoDB at http://...
//! claims put-item URL TABLE COUNT         the SDK's PutItem without a condition
//! claims put-if-absent URL TABLE COUNT    the SDK's PutItem on the condition that the item is absent
//! claims put-as-claimed URL TABLE COUNT   the SDK's PutItem of a claim's item on a claim's condition
//! ```

#[path = "../tests/it/fixture/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the benchmark needs a part of the tests' building blocks"
)]
mod fixture;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    operation::put_item::builders::PutItemFluentBuilder,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{TimeDelta, Utc};
use fixture::{
    servers,
    support::{self, delivery, intake, lookup, planned, sdk},
};
use webhook_router::{
    config::StoreConfig,
    plan::Plan,
    store::{self, Claim, DynamoDb, Store},
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of an item beside its key: those of a small event's record.
const ITEM: usize = 420;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // cargo passes `--bench`.
    let given: Vec<_> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let [what, url, table, count] = given.try_into().expect("what, URL, table and count");
    let count = count.parse().expect("a count");
    let took = match what.as_str() {
        "claim" => claim(&*open(&url, &table).await, count).await,
        "put-item" => put(&url, &table, count, |put| put.set_item(Some(plain_item()))).await,
        "put-if-absent" => {
            let condition = "attribute_not_exists(#key)";
            let put_if_absent = |put: Put| {
                put.set_item(Some(plain_item()))
                    .condition_expression(condition)
                    .expression_attribute_names("#key", "key")
            };
            put(&url, &table, count, put_if_absent).await
        }
        "put-as-claimed" => {
            let item = claimed_item(&url, &table).await;
            let put_as_claimed = |put: Put| {
                put.set_item(Some(item.clone()))
                    .condition_expression("attribute_not_exists(#key) OR forgotten_at <= :now")
                    .expression_attribute_names("#key", "key")
                    .expression_attribute_values(":now", AttributeValue::N("1".into()))
                    .return_values_on_condition_check_failure(
                        ReturnValuesOnConditionCheckFailure::AllOld,
                    )
            };
            put(&url, &table, count, put_as_claimed).await
        }
        _ => panic!("unknown: {what}"),
    };
    println!("{}", took.as_secs_f64());
}

async fn open(url: &str, table: &str) -> Arc<dyn Store> {
    if url.starts_with("http:") {
        return Arc::new(DynamoDb::with_sdk_config(table.to_owned(), TIMEOUT, &sdk(url)));
    }
    store::open(&StoreConfig::from_vars(lookup(&[("STORE_URL", url)])).unwrap()).await.unwrap()
}

/// Claims events that no other run claims.
async fn claim(store: &dyn Store, count: u64) -> Duration {
    let plans: Vec<_> = plans(count).collect();
    let (first, others) = plans.split_first().unwrap();
    let now = Utc::now();
    let until = now + TimeDelta::hours(1);
    // The first claim opens the connection.
    store.claim(first, now, until).await.unwrap();
    let began = Instant::now();
    for plan in others {
        let claim = store.claim(plan, now, until).await.unwrap();
        assert!(matches!(claim, Claim::Won(_)), "{claim:?}");
    }
    began.elapsed()
}

/// Plans one event more than the count.
fn plans(count: u64) -> impl Iterator<Item = Plan> {
    let intake = intake("plainly-a-benchmark-s-secret");
    let run = Utc::now().timestamp_nanos_opt().unwrap();
    (0..=count).map(move |number| {
        let body = format!(
            r#"{{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","id":"{run}-{number}"}}"#
        );
        planned(&delivery(body), &intake, Utc::now()).unwrap()
    })
}

type Put = PutItemFluentBuilder;
type Item = HashMap<String, AttributeValue>;

fn plain_item() -> Item {
    HashMap::from([("details".to_owned(), AttributeValue::S("x".repeat(ITEM)))])
}

/// Claims an event, and returns its item.
async fn claimed_item(url: &str, table: &str) -> Item {
    let (plan, now) = (plans(0).next().unwrap(), Utc::now());
    open(url, table).await.claim(&plan, now, now + TimeDelta::hours(1)).await.unwrap();
    let key = AttributeValue::S(plan.key.to_string());
    let got = client(url).get_item().table_name(table).key("key", key).send().await.unwrap();
    got.item.unwrap()
}

fn client(url: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&sdk(url))
}

/// Writes items under keys that no other run uses.
async fn put(url: &str, table: &str, count: u64, with: impl Fn(Put) -> Put) -> Duration {
    let client = client(url);
    let run = Utc::now().timestamp_nanos_opt().unwrap();
    let mut began = Instant::now();
    for number in 0..=count {
        let key = AttributeValue::S(format!("webhook:dedup:{run:032}{number:032}"));
        let put = with(client.put_item().table_name(table));
        put.item("key", key).send().await.unwrap();
        // The first write opens the connection.
        if number == 0 {
            began = Instant::now();
        }
    }
    began.elapsed()
}
