//! Several processes compete for one key. On every store, a key has one owner at a time, even when
//! owners die.
//!
//! The processes run this test binary. A variable gives each one its task.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use chrono::{DateTime, Utc};
use webhook_router::{
    config::{Config, StoreUrl},
    store::{self, Claim, Delivered, State, Store},
};

use crate::servers::{DynamoDbLocal, Redis, RedisCluster};
use crate::support::{lookup, plan_of, sqlite};

const PROCESSES: usize = 4;
const TASKS: usize = 64;
/// Rounds of claims. `RACE_ROUNDS=1000 make test TEST=race::` plays more.
const ROUNDS: usize = 200;
/// Rounds on DynamoDB Local, which takes ten times as long for a claim as Redis.
const ROUNDS_ON_DYNAMODB: usize = 50;
/// Keys on which processes work while owners are killed.
const KEYS: usize = 25;
/// The time without output after which a process counts as dead.
const PATIENCE: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_millis(400);

#[test]
fn on_sqlite_one_of_many_processes_wins() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    one_winner(ROUNDS, &[("STORE_URL", &url)]);
    nobody_holds_what_another_holds(&[("STORE_URL", &url)]);
}

#[test]
fn on_redis_one_of_many_processes_wins() {
    let redis = Redis::start(&[]);
    one_winner(ROUNDS, &[("STORE_URL", &redis.url())]);
    nobody_holds_what_another_holds(&[("STORE_URL", &redis.url())]);
}

#[test]
fn on_a_redis_cluster_one_of_many_processes_wins() {
    let cluster = RedisCluster::start();
    one_winner(ROUNDS, &[("STORE_URL", &cluster.url())]);
    nobody_holds_what_another_holds(&[("STORE_URL", &cluster.url())]);
}

#[test]
fn on_dynamodb_one_of_many_processes_wins() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dynamodb = runtime.block_on(DynamoDbLocal::start());
    let url = format!("dynamodb://{}", DynamoDbLocal::TABLE);
    let vars = [
        ("STORE_URL", url.as_str()),
        ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    one_winner(ROUNDS_ON_DYNAMODB, &vars);
    nobody_holds_what_another_holds(&vars);
}

/// Checks that one task wins when all tasks of all processes claim one key, round after round.
fn one_winner(rounds: usize, vars: &[(&str, &str)]) {
    let rounds = std::env::var("RACE_ROUNDS").map_or(rounds, |rounds| rounds.parse().unwrap());
    let (said, hears) = mpsc::channel();
    let mut processes: Vec<_> =
        (0..PROCESSES).map(|index| Process::start("claim", index, vars, said.clone())).collect();
    for round in 0..rounds {
        for process in &mut processes {
            process.tell(&round.to_string());
        }
        let winners: usize = (0..PROCESSES)
            .map(|_| {
                let Said { line, .. } = hears.recv_timeout(PATIENCE).expect("a process is gone");
                let (of_round, winners) = line.split_once(' ').unwrap();
                assert_eq!(of_round, round.to_string(), "{line}");
                winners.parse::<usize>().unwrap()
            })
            .sum();
        assert_eq!(winners, 1, "in round {round}");
    }
}

/// Lets all processes work on all keys, and kills some winners before they finish. No two processes
/// may hold a key at the same time.
fn nobody_holds_what_another_holds(vars: &[(&str, &str)]) {
    let (said, hears) = mpsc::channel();
    let start = |index| Process::start("work", index, vars, said.clone());
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    let mut holds: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    // The start of each key's finished hold.
    let mut finished: HashMap<String, i64> = HashMap::new();
    let (mut wins, mut kills, mut ready) = (0, 0, 0);
    while ready < PROCESSES {
        let Said { index, process, line } =
            hears.recv_timeout(PATIENCE).expect("a process is gone");
        let words: Vec<_> = line.split(' ').collect();
        let is_alive = processes[index].id() == process;
        match words[..] {
            ["holds", key, from, until] => {
                let hold = (from.parse().unwrap(), until.parse().unwrap());
                holds.entry(key.to_owned()).or_default().push(hold);
                wins += 1;
                if is_alive && wins % 3 == 0 {
                    processes[index].kill();
                    processes[index] = start(index);
                    kills += 1;
                }
            }
            ["finished", key, from, "Stored"] => {
                let before = finished.insert(key.to_owned(), from.parse().unwrap());
                assert_eq!(before, None, "{key} was delivered twice");
            }
            ["finished", _, _, "LeaseLost"] => {}
            ["ready"] if is_alive => ready += 1,
            ["ready"] => {}
            _ => panic!("{line}"),
        }
    }
    assert!(kills > 3, "{kills} kills in {wins} wins");
    assert_eq!(holds.len(), KEYS);
    for (key, mut holds) in holds {
        // A later owner begins after the end of the previous lease. No owner begins after the
        // finished hold. A killed owner may have finished before it could report that.
        holds.sort_unstable();
        let last = holds.last().unwrap().0;
        assert!(finished.get(&key).is_none_or(|from| *from == last), "{key}: {holds:?}");
        for pair in holds.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{key}: {holds:?}");
        }
    }
}

/// A line that a process printed.
struct Said {
    /// The place of the process. A process that replaces it gets the same place.
    index: usize,
    process: u32,
    line: String,
}

/// Another process of this test binary. It runs [`process`], and is killed by its id when dropped.
struct Process {
    child: Child,
    input: ChildStdin,
}

impl Process {
    fn start(task: &str, index: usize, vars: &[(&str, &str)], said: mpsc::Sender<Said>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "race::process", "--nocapture", "--test-threads=1"])
            .env_clear()
            .envs(vars.iter().copied())
            .env("RACE_TASK", task)
            .env("STORE_TIMEOUT_MS", "60000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let process = child.id();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test harness prints other lines.
                if let Some(line) = line.split_once("RACE ").map(|(_, line)| line.to_owned()) {
                    let _ = said.send(Said { index, process, line });
                }
            }
        });
        Self { child, input }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the task of another process. It does nothing when the test harness runs it.
#[test]
fn process() {
    let Ok(task) = std::env::var("RACE_TASK") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let targets = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
        let targets = lookup(&targets);
        let get = |name: &str| targets(name).or_else(|| std::env::var(name).ok());
        let config = Config::from_vars(get).unwrap();
        let store = store::open(&config.store).await.unwrap();
        // Redis judges leases by its server's clock. The other stores judge them by the claimer's
        // clock.
        let by_server = matches!(config.store.url, StoreUrl::Redis(_));
        if task == "claim" { claim(store).await } else { work(store, by_server).await }
    });
}

async fn claim(store: Arc<dyn Store>) {
    for round in std::io::stdin().lines() {
        let round = round.unwrap();
        let plan = plan_of(&format!("round {round}"));
        let claims = (0..TASKS).map(|_| {
            let (store, plan, now) = (Arc::clone(&store), plan.clone(), Utc::now());
            let until = now + Duration::from_secs(600);
            tokio::spawn(async move { store.claim(&plan, now, until).await.unwrap() })
        });
        let mut winners = 0;
        for claim in claims.collect::<Vec<_>>() {
            winners += usize::from(matches!(claim.await.unwrap(), Claim::Won(_)));
        }
        println!("\nRACE {round} {winners}");
    }
}

/// Finishes every key, and then waits to be killed.
async fn work(store: Arc<dyn Store>, by_server: bool) {
    for key in 0..KEYS {
        let plan = plan_of(&format!("key {key}"));
        loop {
            let now = now();
            match store.claim(&plan, now, now + LEASE).await.unwrap() {
                Claim::Won(lease) => {
                    // With a server's clock, the claim was granted no later than now.
                    let from = if by_server { self::now() } else { now };
                    let (from, until) = (from.timestamp_millis(), lease.until.timestamp_millis());
                    println!("\nRACE holds {key} {from} {until}");
                    // The process may be killed during this time.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let ttl = Duration::from_secs(600);
                    let delivered =
                        Delivered { at: Utc::now(), ttl, reply: None, attempts: vec![] };
                    let settled = store.finish(&lease, &delivered).await.unwrap();
                    println!("\nRACE finished {key} {from} {settled:?}");
                }
                Claim::InFlight { until, .. } => {
                    let left = (until - Utc::now()).to_std().unwrap_or_default();
                    tokio::time::sleep(left.min(LEASE)).await;
                }
                Claim::Delivered(record) => {
                    assert!(matches!(record.state, State::Delivered { .. }));
                    break;
                }
                Claim::OtherBody { .. } => unreachable!("nobody named the event"),
                Claim::Accepted { .. } => unreachable!("nobody accepted the event"),
            }
        }
    }
    println!("\nRACE ready");
    std::future::pending().await
}

/// Returns the time, cut to milliseconds as the store keeps it.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap()
}
