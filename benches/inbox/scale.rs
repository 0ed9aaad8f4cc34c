//! Lists and takes what is due, in a store with few accepted events and in one with many. Both are
//! asked alternately, so that other load on the machine affects both.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, stream};
use webhook_router::{
    config::StoreConfig,
    key::Key,
    plan::Plan,
    route::Route,
    store::{self, DynamoDb, Store, Take},
};

use crate::{
    number, quantile,
    servers::{DynamoDbLocal, Redis},
    support::{PAYLOAD, delivery, lookup, plan_of, sdk, sqlite},
};

/// Largest ratio of the median with many events to the median with few.
const LIMIT: f64 = 1.3;

/// Events that `serve` asks for in one sweep.
const PAGE: usize = 256;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A store with accepted events that are due.
struct Filled {
    count: usize,
    store: Arc<dyn Store>,
    due: Vec<Duration>,
    take: Vec<Duration>,
    /// The folder or server of the store.
    _place: Box<dyn Any>,
}

/// Measures a store, and returns whether its costs are within the limit.
pub async fn run(name: &str) -> bool {
    let few = 1000;
    let many = number("EVENTS", if name == "dynamodb" { 100_000 } else { 1_000_000 });
    let (mut few, mut many) = (filled(name, few).await, filled(name, many).await);
    // The first rounds open connections and fill caches.
    for round in 0..number("ROUNDS", 300) + 20 {
        if round == 20 {
            for filled in [&mut few, &mut many] {
                filled.due.clear();
                filled.take.clear();
            }
        }
        for filled in [&mut few, &mut many] {
            filled.list_and_take(round).await;
        }
    }
    let mut is_within = true;
    for (operation, few, many) in [
        ("due", (few.count, &mut few.due), (many.count, &mut many.due)),
        ("take", (few.count, &mut few.take), (many.count, &mut many.take)),
    ] {
        let (yardstick, median) = (quantile(few.1, 0.5), quantile(many.1, 0.5));
        let ratio = median.as_secs_f64() / yardstick.as_secs_f64();
        is_within &= ratio <= LIMIT;
        println!(
            "{name:8} {operation:4} median of {}: {:>7.3} ms with {} events due, {:>7.3} ms with {}: {ratio:.2} x",
            few.1.len(),
            yardstick.as_secs_f64() * 1e3,
            few.0,
            median.as_secs_f64() * 1e3,
            many.0,
        );
    }
    is_within
}

impl Filled {
    async fn list_and_take(&mut self, round: usize) {
        let now = Utc::now();
        let began = Instant::now();
        let due = self.store.due(Route::GCP, Some(now), None, PAGE).await.unwrap();
        self.due.push(began.elapsed());
        assert_eq!(due.len(), PAGE);
        // Workers take events of a sweep in random order.
        let key = due[round * 101 % PAGE].key;
        let began = Instant::now();
        let take = self.store.take(&key, false, now, now + TimeDelta::hours(1)).await.unwrap();
        self.take.push(began.elapsed());
        assert!(matches!(take, Take::Won(_)), "{take:?}");
    }
}

/// Fills a store: accepts one event, and copies what that has stored.
async fn filled(name: &str, count: usize) -> Filled {
    let began = Instant::now();
    let (store, place): (Arc<dyn Store>, Box<dyn Any>) = match name {
        "sqlite" => {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let url = sqlite(folder.path());
            let first = accept_one(&*open(&url).await).await;
            fill_sqlite(&url, &first, count - 1);
            (open(&url).await, Box::new(folder))
        }
        "redis" => {
            let redis = Redis::start(&[]);
            let store = open(&redis.url()).await;
            fill_redis(&redis.url(), &accept_one(&*store).await, count - 1);
            (store, Box::new(redis))
        }
        _ => {
            let dynamodb = DynamoDbLocal::start().await;
            let sdk = sdk(&dynamodb.url);
            let store = DynamoDb::with_sdk_config(DynamoDbLocal::TABLE.into(), TIMEOUT, &sdk);
            let first = accept_one(&store).await;
            fill_dynamodb(&aws_sdk_dynamodb::Client::new(&sdk), &first, count - 1).await;
            (Arc::new(store), Box::new(dynamodb))
        }
    };
    eprintln!("{name}: {count} events in {:.0?}", began.elapsed());
    Filled { count, store, due: Vec::new(), take: Vec::new(), _place: place }
}

async fn open(url: &str) -> Arc<dyn Store> {
    let vars = [("STORE_URL", url), ("STORE_TIMEOUT_MS", "60000")];
    store::open(&StoreConfig::from_vars(lookup(&vars)).unwrap()).await.unwrap()
}

async fn accept_one(store: &dyn Store) -> Plan {
    let mut plan = plan_of("the first of many");
    plan.route = Route::GCP;
    let accepted = Utc::now() - TimeDelta::hours(1);
    store.accept(&plan, &delivery(PAYLOAD), accepted, accepted, accepted).await.unwrap();
    plan
}

/// Returns a random key.
fn any_key() -> Key {
    format!("{}{}", Key::PREFIX, hex::encode(rand::random::<[u8; 32]>())).parse().unwrap()
}

/// Returns the time at which one of the events is due: within an hour before the first one.
fn due_at(number: usize) -> DateTime<Utc> {
    Utc::now() - TimeDelta::hours(1) - TimeDelta::milliseconds(number as i64 % 3_600_000)
}

fn fill_sqlite(url: &str, first: &Plan, count: usize) {
    let connection = rusqlite::Connection::open(url.trim_start_matches("sqlite:")).unwrap();
    // In the order of the keys, rows are only appended.
    let copy = "
        PRAGMA cache_size = -1000000;
        BEGIN;
        CREATE TEMP TABLE copies AS
            WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers LIMIT COUNT)
            SELECT i, 'webhook:dedup:' || lower(hex(randomblob(32))) AS key FROM numbers
            ORDER BY key;
        INSERT INTO events (key, details, attempts, owner, accepted, destination, due)
            SELECT copies.key, details, attempts, owner, accepted, destination, due - i % 3600000
            FROM copies, events WHERE events.key = 'FIRST' ORDER BY copies.key;
        INSERT INTO deliveries (key, head, body)
            SELECT copies.key, head, body
            FROM copies, deliveries WHERE deliveries.key = 'FIRST' ORDER BY copies.key;
        COMMIT;
        PRAGMA wal_checkpoint(TRUNCATE);
    ";
    let copy = copy.replace("COUNT", &count.to_string()).replace("FIRST", &first.key.to_string());
    connection.execute_batch(&copy).unwrap();
}

fn fill_redis(url: &str, first: &Plan, count: usize) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let event_key = |key: Key| format!("{{{key}}}:event");
    let mut hash = |key: String| -> Vec<(Vec<u8>, Vec<u8>)> {
        redis::cmd("HGETALL").arg(key).query(&mut connection).unwrap()
    };
    let (mut main, event) = (hash(first.key.to_string()), hash(event_key(first.key)));
    main.retain(|(field, _)| field != b"due");
    let mut left = 0..count;
    while !left.is_empty() {
        let mut pipeline = redis::pipe();
        for number in left.by_ref().take(10_000) {
            let (key, due) = (any_key(), due_at(number).timestamp_millis());
            pipeline.cmd("HSET").arg(key.to_string()).arg(&main).arg("due").arg(due).ignore();
            pipeline.cmd("HSET").arg(event_key(key)).arg(&event).ignore();
            pipeline.cmd("ZADD").arg("webhook:due:gcp").arg(due).arg(key.to_string()).ignore();
        }
        pipeline.query::<()>(&mut connection).unwrap();
    }
}

async fn fill_dynamodb(client: &aws_sdk_dynamodb::Client, first: &Plan, count: usize) {
    let text = |text: String| AttributeValue::S(text);
    let item = client.get_item().table_name(DynamoDbLocal::TABLE);
    let item = item.key("key", text(first.key.to_string())).send().await.unwrap().item.unwrap();
    // A request takes 25 items.
    let numbers: Vec<_> = (0..count).collect();
    let requests = numbers.chunks(25).map(|numbers| {
        let puts = numbers.iter().map(|number| {
            let (key, due) = (any_key(), due_at(*number).timestamp_millis());
            let mut item = item.clone();
            item.extend([
                ("key".into(), text(key.to_string())),
                ("due".into(), AttributeValue::N(due.to_string())),
                ("dead".into(), text(format!("due-gcp-{:x}", key.shard()))),
                ("dead_letter".into(), text(format!("{due:015}#{key}"))),
            ]);
            let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
            WriteRequest::builder().put_request(put).build()
        });
        client.batch_write_item().request_items(DynamoDbLocal::TABLE, puts.collect())
    });
    let mut written = stream::iter(requests).map(|request| request.send()).buffer_unordered(8);
    while let Some(written) = written.next().await {
        assert!(written.unwrap().unprocessed_items.unwrap_or_default().is_empty());
    }
}
