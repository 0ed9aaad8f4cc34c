//! Simulates vendors that retry until they get a 2xx, destinations that fail in every possible way,
//! a store that stalls, and routers that are killed. No event is lost, and no event is processed
//! again after its success was known. With accepted events, the vendors never send an event again
//! after their 200, and the destinations are also down for a while.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{sync::Semaphore, task::JoinSet};
use webhook_router::{
    config::StoreConfig,
    outcome::Outcome,
    store::{self, State, Store},
};

use crate::{
    rough_destination::{Behaviour, Rough},
    servers::Redis,
    support::{Serve, Server, client, lookup},
};

use Behaviour::{Half, Invoke, Never, ResetAfter, ResetBefore, Status};

/// The number of events, and of those that are accepted. `MODEL_EVENTS=10000 make test TEST=model::`
/// sets another number.
const EVENTS: usize = 10_000;
const ACCEPTED_EVENTS: usize = 2_000;
const ROUTERS: usize = 2;
/// The number of deliveries at the same time.
const AT_ONCE: usize = 48;
/// The longest wait of a vendor for an answer. A router answers within its budget of 2.1 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// The share of deliveries that fail.
const FAILING: f64 = 0.3;

const FAILURES: &[Behaviour] = &[
    Status(301, None),
    Status(400, None),
    Status(401, None),
    Status(403, None),
    Status(404, None),
    Status(408, None),
    Status(409, None),
    Status(410, None),
    Status(413, None),
    Status(425, None),
    Status(429, None),
    Status(429, Some("1")),
    Status(429, Some("3600")),
    Status(500, None),
    Status(502, None),
    Status(503, None),
    Status(504, None),
    Invoke(429, "x-amzn-errortype: TooManyRequestsException\r\n", "{}"),
    ResetBefore,
    ResetAfter,
    Half,
    Never,
];

/// A place for a router. When the router is killed, a router with the next number takes the place.
struct Slot {
    server: Mutex<(usize, Server)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_known_is_done_twice() {
    model("delivered", EVENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_and_nothing_known_is_done_twice() {
    model("accepted", ACCEPTED_EVENTS).await;
}

/// Returns the seed of a run: the one of an earlier run, or a new one.
pub fn seed() -> u64 {
    let seed = std::env::var("MODEL_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|_| rand::random());
    println!("MODEL_SEED={seed}");
    seed
}

/// Starts a destination that often fails in one of the chosen ways, and always while it is down.
pub async fn unreliable(
    seed: u64,
    down: &Arc<AtomicBool>,
    is_chosen: impl Fn(&Behaviour) -> bool,
) -> Rough {
    let (is_down, random) = (Arc::clone(down), Mutex::new(StdRng::seed_from_u64(seed)));
    let failures: Vec<_> = FAILURES.iter().filter(|one| is_chosen(one)).cloned().collect();
    Rough::start(move |_| {
        if is_down.load(Ordering::SeqCst) {
            return Status(503, None);
        }
        let mut random = random.lock().unwrap();
        let fails = random.random_bool(FAILING);
        if fails { failures.choose(&mut *random).unwrap().clone() } else { Status(200, None) }
    })
    .await
}

async fn model(answer: &str, events: usize) {
    let events = std::env::var("MODEL_EVENTS").map_or(events, |events| events.parse().unwrap());
    let accepts = answer == "accepted";
    let down = Arc::new(AtomicBool::new(false));
    let seed = seed();
    // An accepted event waits as long as its destination asks for, and this test does not.
    let is_chosen = |failure: &Behaviour| !(accepts && matches!(failure, Status(_, Some("3600"))));
    let rough = unreliable(seed, &down, is_chosen).await;
    let redis = Redis::start(&[]);
    let redis_url = redis.url();
    let store = opened(&redis_url).await;
    let started = AtomicUsize::new(0);
    let start = || {
        let number = started.fetch_add(1, Ordering::SeqCst);
        let target = format!("{}/r{number}/", rough.url);
        let vars = [
            ("ANSWER", answer),
            ("RETRY_SCHEDULE", "0s,200ms,500ms,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
            ("FORWARD_TIMEOUT_MS", "700"),
            ("FORWARD_BUDGET_MS", "2100"),
            ("FORWARD_ATTEMPTS", "3"),
            ("STORE_TIMEOUT_MS", "500"),
        ];
        (number, Serve::to_url(&target).store(&redis_url).envs(vars).start())
    };
    let slots: Arc<Vec<_>> =
        Arc::new((0..ROUTERS).map(|_| Slot { server: Mutex::new(start()) }).collect());
    let urls: Arc<Mutex<Vec<String>>> = Arc::new(Mutex::new(
        slots.iter().map(|slot| slot.server.lock().unwrap().1.webhook()).collect(),
    ));

    let (posts, refusals) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (under_way, mut vendors) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    let client = client();
    for event in 0..events {
        let (urls, under_way, client) = (Arc::clone(&urls), Arc::clone(&under_way), client.clone());
        let (posts, refusals) = (Arc::clone(&posts), Arc::clone(&refusals));
        vendors.spawn(async move {
            let body = body(event);
            loop {
                let permit = under_way.acquire().await.unwrap();
                let url = urls.lock().unwrap().choose(&mut rand::rng()).unwrap().clone();
                posts.fetch_add(1, Ordering::Relaxed);
                // A vendor does not wait for ever for an answer that a killed router owes.
                let answer = client.post(url).body(body.clone()).timeout(PATIENCE).send().await;
                drop(permit);
                let mut wait = Duration::from_millis(200);
                if let Ok(answer) = answer {
                    let key = answer.headers().get("x-webhook-key").cloned();
                    if answer.status().is_success() {
                        return (event, key.unwrap().to_str().unwrap().to_owned());
                    }
                    let asked = answer.headers().get("retry-after");
                    let asked = asked.and_then(|asked| asked.to_str().ok()?.parse().ok());
                    wait = Duration::from_secs(asked.unwrap_or(1).min(5));
                }
                refusals.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(wait).await;
            }
        });
    }

    // Meanwhile, routers die and the store stalls.
    let done = AtomicBool::new(false);
    let mut killed = Vec::new();
    let mut logs = Vec::new();
    let (mut stalls, mut outages) = (0, 0);
    let keys = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(random.random_range(300..1500)));
                if random.random_bool(0.3) {
                    redis.signal("STOP");
                    std::thread::sleep(Duration::from_millis(random.random_range(100..1200)));
                    redis.signal("CONT");
                    stalls += 1;
                } else if accepts && random.random_bool(0.3) {
                    down.store(true, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(random.random_range(1000..4000)));
                    down.store(false, Ordering::SeqCst);
                    outages += 1;
                } else {
                    let index = random.random_range(0..ROUTERS);
                    let mut slot = slots[index].server.lock().unwrap();
                    slot.1.kill();
                    killed.push(slot.0);
                    logs.push((slot.0, slot.1.log()));
                    *slot = start();
                    urls.lock().unwrap()[index] = slot.1.webhook();
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
    for slot in slots.iter() {
        let slot = slot.server.lock().unwrap();
        logs.push((slot.0, slot.1.log()));
    }

    let killed = killed.into_iter().collect();
    let evidence = Evidence { rough, store, logs, killed, accepts, seed };
    let Judged { requests, lost, dead, again, twice } = evidence.judge(&keys).await;
    println!(
        "{answer}: {events} events, {} deliveries of vendors, {} of them not taken; {requests} requests to the \
         destinations; {} routers killed, the store stalled {stalls} times, \
         {outages} outages; lost: {lost}; dead letters: {dead}; sent again after a success that nobody could know of: {again}; after one that was known: {twice}",
        posts.load(Ordering::Relaxed),
        refusals.load(Ordering::Relaxed),
        evidence.killed.len(),
    );
    assert_eq!((lost, twice), (0, 0), "seed {seed}");
    assert!(evidence.killed.len() > 3 && stalls > 0, "seed {seed}");
}

/// The remains when all events are settled.
pub struct Evidence {
    pub rough: Rough,
    pub store: Arc<dyn Store>,
    /// The logs of the routers, with their numbers.
    pub logs: Vec<(usize, String)>,
    /// The routers that were killed.
    pub killed: HashSet<usize>,
    pub accepts: bool,
    pub seed: u64,
}

/// The numbers of requests and of events.
pub struct Judged {
    pub requests: usize,
    pub lost: usize,
    pub dead: usize,
    /// Sent again after a success that nobody could know of.
    pub again: usize,
    /// Sent again after a success that was known.
    pub twice: usize,
}

impl Evidence {
    /// Judges what became of the events.
    pub async fn judge(&self, keys: &[(usize, String)]) -> Judged {
        let Self { rough, store, logs, killed, accepts, seed } = self;
        let (mut requests, mut lost, mut dead, mut again, mut twice) = (0, 0, 0, 0, 0);
        for (event, key) in keys {
            let seen = rough.seen(key);
            requests += seen.len();
            let record = store.get(&key.parse().unwrap(), Utc::now()).await.unwrap().unwrap();
            let is_dead = *accepts && record.state == State::DeadLetter;
            dead += usize::from(is_dead);
            lost +=
                usize::from(!is_dead && !seen.iter().any(|request| request.behaviour.is_success()));
            let is_invoke = |path: &str| path.contains("/2015-03-31/");
            for request in &seen {
                assert_eq!(request.body, body(*event), "seed {seed}");
                assert_eq!(is_invoke(&request.path), is_invoke(&seen[0].path), "seed {seed}");
            }
            // A success that no store took is still one for the vendor, which then does not come again.
            let is_settled = is_dead || matches!(record.state, State::Delivered { .. });
            let gave_up = r#""message":"the result could not be stored""#;
            let is_told = || {
                logs.iter()
                    .flat_map(|(_, log)| log.lines())
                    .any(|line| line.contains(key) && line.contains(gave_up))
            };
            assert!(is_settled || (!accepts && is_told()), "seed {seed}: {record:?}");
            // A request after a success is only allowed when no router could know of the success. The
            // router died, could not store the success, or had timed out.
            let last = seen.len().saturating_sub(1);
            let early = seen[..last].iter().filter(|request| request.behaviour.is_success());
            let early: Vec<_> = early.collect();
            again += usize::from(!early.is_empty());
            let unknown = early.iter().all(|request| {
                let number = request.path.split('/').nth(1).unwrap()[1..].parse().unwrap();
                let unsettled = logs.iter().any(|(of, log)| {
                    *of == number
                        && log.lines().any(|line| line.contains(key) && line.contains("be stored"))
                });
                let unheard = record.attempts.iter().any(|attempt| {
                    let unheard = matches!(attempt.outcome, Outcome::TimedOut | Outcome::Broken);
                    unheard && attempt.number == request.attempt
                });
                // A router logs its result after it stores it.
                let noted = logs.iter().any(|(of, log)| {
                    let is_it = |line: &str| {
                        line.contains(key) && line.contains(r#""outcome":"delivered""#)
                    };
                    *of == number && log.lines().any(is_it)
                });
                (killed.contains(&number) && !noted) || unsettled || unheard
            });
            twice += usize::from(!unknown);
        }
        Judged { requests, lost, dead, again, twice }
    }
}

async fn opened(redis_url: &str) -> Arc<dyn Store> {
    let vars = [("REDIS_URL", redis_url), ("STORE_TIMEOUT_MS", "10000")];
    store::open(&StoreConfig::from_vars(lookup(&vars)).unwrap()).await.unwrap()
}

/// Waits until the inboxes are empty.
pub async fn empty(store: &dyn Store) {
    for route in store.destinations().await.unwrap() {
        while !store.due(route, None, None, 1).await.is_ok_and(|due| due.is_empty()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn body(event: usize) -> String {
    format!(
        r#"{{"vendor":"model","event_type":"e","created_at":"2026-05-06T12:34:56Z","n":{event}}}"#
    )
}
