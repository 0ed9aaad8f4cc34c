//! Simulates everything that can go wrong with accepted events in Lambda at once: messages are lost,
//! doubled, late and out of order, instances are killed in the middle of a batch, the store and SQS
//! stall, destinations fail in every way and are down for a while. The vendors never come again after
//! their 200. Nothing is lost, and nothing is sent again after its success was known. The function is the
//! release build.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    emulator::{Artefact, Emulator},
    event_source::{Faults, Function, Queue, Wakers},
    inbox::crash::Place,
    model::{Evidence, Judged, body, empty, seed, unreliable},
    rough_destination::Behaviour::{self, Never, Status},
    servers::{DynamoDbLocal, Redis},
};

/// The number of events on each store. `MODEL_EVENTS=10000 make test TEST=queue::model` sets another
/// number.
const EVENTS: usize = 75;
const INSTANCES: usize = 4;
/// The number of deliveries at the same time.
const AT_ONCE: usize = 4;
/// The shares of messages with which something goes wrong.
const FAULTS: Faults = Faults { lost: 0.1, doubled: 0.1, late: 0.1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_nothing_accepted_is_lost_and_nothing_known_is_done_twice() {
    let redis = Redis::start(&[]);
    let place = Place::at(&redis.url()).await;
    model(place, ["500", "700"], |signal| redis.signal(signal)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_nothing_accepted_is_lost_and_nothing_known_is_done_twice() {
    let dynamodb = DynamoDbLocal::start().await;
    let place = Place::in_tables(&dynamodb, 1).await.remove(0);
    // DynamoDB Local is slow while the machine is busy.
    model(place, ["1500", "700"], |signal| dynamodb.signal(signal)).await;
}

/// `timeouts` are those of the store and of an attempt, in milliseconds.
async fn model(place: Place, timeouts: [&str; 2], signal: impl Fn(&str) + Sync) {
    let Place { vars, store } = place;
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let artefact = Artefact::router();
    let events = std::env::var("MODEL_EVENTS").map_or(EVENTS, |events| events.parse().unwrap());
    let seed = seed();
    let down = Arc::new(AtomicBool::new(false));
    // This test does not wait for an hour, and an attempt without an answer takes long here.
    let is_chosen = |failure: &Behaviour| !matches!(failure, Status(_, Some("3600")) | Never);
    let rough = unreliable(seed, &down, is_chosen).await;
    let queue = Arc::new(Queue::start(VISIBILITY, 20).await);
    let started = AtomicUsize::new(0);
    let start = || {
        let number = started.fetch_add(1, Ordering::SeqCst);
        let target = format!("{}/r{number}/", rough.url);
        let more = [
            ("ROUTE_THRESHOLD", "128"),
            ("AWS_TARGET_FUNCTION", "webhook-processor"),
            ("AWS_ENDPOINT_URL_LAMBDA", &target),
            ("RETRY_SCHEDULE", "0s,200ms,500ms,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
            ("STORE_TIMEOUT_MS", timeouts[0]),
            ("FORWARD_TIMEOUT_MS", timeouts[1]),
        ];
        (number, instance(&artefact.bootstrap(), &target, &vars, &queue, &more))
    };
    let (numbers, emulators): (Vec<_>, Vec<Emulator>) = (0..INSTANCES).map(|_| start()).unzip();
    let (mut numbers, function) = (numbers, Function::of(emulators));
    let wakers = Wakers::start(&queue, &function, INSTANCES - 1, FAULTS, 2 * SCHEDULE);
    // A busy machine must not get more messages than it delivers.
    let wakers = wakers.with_messages_lost_after(Duration::from_secs(5), Arc::clone(&store));

    let (under_way, mut vendors) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for event in 0..events {
        let (function, under_way) = (Arc::clone(&function), Arc::clone(&under_way));
        vendors.spawn(async move {
            loop {
                let permit = under_way.acquire().await.unwrap();
                let heard = function.deliver(&body(event)).await;
                drop(permit);
                if let Some(heard) = heard.filter(|heard| heard.status == 200) {
                    return (event, heard.key);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    // Meanwhile, instances die, and services stall.
    let (done, logs) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (mut killed, mut stalls, mut outages) = (Vec::new(), 0, 0);
    let keys = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            // The first two are the end of an instance and a stall, whatever the seed.
            let mut first = [4, 0].into_iter();
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(random.random_range(500..3000)));
                let time = Duration::from_millis(random.random_range(100..1500));
                match first.next().unwrap_or_else(|| random.random_range(0..5)) {
                    0 => {
                        signal("STOP");
                        std::thread::sleep(time);
                        signal("CONT");
                        stalls += 1;
                    }
                    1 => {
                        queue.moto.signal("STOP");
                        std::thread::sleep(time);
                        queue.moto.signal("CONT");
                        stalls += 1;
                    }
                    2 | 3 => {
                        down.store(true, Ordering::SeqCst);
                        std::thread::sleep(2 * time);
                        down.store(false, Ordering::SeqCst);
                        outages += 1;
                    }
                    _ => {
                        let index = random.random_range(0..INSTANCES);
                        let (number, emulator) = start();
                        let old = function.replace(index, emulator);
                        old.kill();
                        let number = std::mem::replace(&mut numbers[index], number);
                        killed.push(number);
                        logs.lock().unwrap().push((number, old.log()));
                    }
                }
            }
        });
        let keys = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let keys = vendors.join_all().await;
                empty(&*store).await;
                keys
            })
        });
        done.store(true, Ordering::SeqCst);
        chaos.join().unwrap();
        keys
    });
    drop(wakers);
    let mut logs = logs.into_inner().unwrap();
    logs.extend(
        numbers.iter().enumerate().map(|(index, number)| (*number, function.emulator(index).log())),
    );
    let killed = killed.into_iter().collect();
    let evidence = Evidence { rough, store, logs, killed, accepts: true, seed };
    let Judged { requests, lost, dead, again, twice } = evidence.judge(&keys).await;
    println!(
        "{events} events, {requests} requests to the destinations; {} instances killed, {stalls} \
         stalls, {outages} outages; lost: {lost}; dead letters: {dead}; sent again after a success \
         that nobody could know of: {again}; after one that was known: {twice}",
        evidence.killed.len(),
    );
    assert_eq!((lost, twice), (0, 0), "seed {seed}");
    assert!(!evidence.killed.is_empty() && stalls + outages > 0, "seed {seed}");
}
