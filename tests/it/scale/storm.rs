//! A retry storm at a small scale: a destination is down for some seconds, and vendors come again with pauses
//! that double. When it is up again, it breaks if it gets too much at once. Whether it recovers depends on the
//! setting that says how much it gets. The real attempts have the simulated shape, with either setting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep_until};
use webhook_router::store::Page;

use super::{TOLERANCE, is_close, simulate, start, to};
use crate::{
    inbox::{crash::Place, event},
    meter::{Meter, Seen},
    shared,
    support::{client, post},
};

/// Events per second, and the seconds in which new ones arrive.
const RATE: f64 = 16.0;
const ARRIVING: f64 = 5.0;
/// The seconds in which the destination is down.
const DOWN: (f64, f64) = (1.0, 2.5);
const PACE: Duration = Duration::from_millis(400);
/// Requests at once beyond which the destination breaks, and the time of its restart.
const BOUND: usize = 10;
const RESTART: Duration = Duration::from_millis(800);
/// A restart that is over before the first probe, which comes half a second after a break or later.
const QUICK_RESTART: Duration = Duration::from_millis(300);
/// Requests at once that a setting allows.
const BELOW: &str = "8";
const ABOVE: &str = "20";
/// The vendor's pauses, in seconds.
const PAUSES: [f64; 3] = [1.0, 2.0, 4.0];
/// The seconds of all, of a step of the simulation, and by which a real attempt may come earlier or later than its
/// simulated one: half the time of an attempt.
const UNTIL: f64 = 10.0;
const STEP: f64 = 0.1;
const SLACK: f64 = 0.2;

fn times() -> Vec<f64> {
    (0..(RATE * ARRIVING) as u32).map(|number| f64::from(number) / RATE).collect()
}

/// The simulated arrivals until the end of each step.
struct SoFar(Vec<f64>);

impl SoFar {
    fn from(simulated: &Value) -> Self {
        let rates = simulated["arrivals"].as_array().unwrap().iter();
        let sums = rates.scan(0.0, |sum, rate| {
            *sum += STEP * rate.as_f64().unwrap();
            Some(sum.round())
        });
        Self(sums.collect())
    }

    /// Returns the number of arrivals until so many seconds.
    fn until(&self, end: f64) -> f64 {
        let steps = (end / STEP).round() as usize;
        let last = steps.min(self.0.len()).checked_sub(1);
        last.map_or(0.0, |last| self.0[last])
    }
}

/// A storm that has passed.
struct Storm {
    began: Instant,
    /// The seconds in which the destination was down.
    down: (f64, f64),
    restart: Duration,
    seen: Seen,
    /// The answers that vendors heard.
    answers: usize,
}

impl Storm {
    fn after(&self, at: Instant) -> Option<f64> {
        let seconds = at.checked_duration_since(self.began)?.as_secs_f64();
        Some(seconds).filter(|seconds| *seconds < UNTIL)
    }

    /// Returns the times of the arrivals, in seconds from the start.
    fn arrivals(&self) -> Vec<f64> {
        self.seen.arrivals.iter().filter_map(|(at, _)| self.after(*at)).collect()
    }

    /// Returns the times at which the destination answered with 200.
    fn deliveries(&self) -> Vec<f64> {
        self.seen.served.iter().filter_map(|at| self.after(*at + PACE)).collect()
    }

    /// Returns the arrivals that come alone, as probes do.
    fn alone(&self) -> Vec<f64> {
        let (arrivals, pace) = (self.arrivals(), PACE.as_secs_f64() / 2.0);
        let is_alone = |index: usize| {
            let is_far = |other: Option<&f64>| {
                other.is_none_or(|other| (other - arrivals[index]).abs() > pace)
            };
            is_far(index.checked_sub(1).and_then(|index| arrivals.get(index)))
                && is_far(arrivals.get(index + 1))
        };
        (0..arrivals.len()).filter(|index| is_alone(*index)).map(|index| arrivals[index]).collect()
    }

    /// Asserts that the real attempts and answers have the simulated numbers and shape, and that the destination
    /// breaks and delivers as simulated.
    fn is_as(&self, what: &str, simulated: &Value) {
        let real = self.arrivals();
        assert_eq!(simulated["lost"], 0.0);
        let of_each = simulated["answers"].as_object().unwrap().values();
        let answers: f64 = of_each.map(|count| count.as_f64().unwrap()).sum();
        is_close(&format!("{what}: answers"), &json!(answers), self.answers as f64);
        // Moments decide which event is one too many. So a busy machine may change these a little.
        let number = |name: &str| simulated[name].as_f64().unwrap();
        let (breaks, deliveries) = (self.seen.breaks as f64, self.deliveries().len() as f64);
        println!("{what}: breaks: simulated {}, real {breaks}", number("breaks"));
        println!("{what}: deliveries: simulated {}, real {deliveries}", number("delivered"));
        assert!((number("breaks") - breaks).abs() <= 1.0);
        let part = (number("delivered") - deliveries).abs() / times().len() as f64;
        assert!(part <= TOLERANCE, "{what}: {part} of the events are delivered in one of both");
        let simulated = SoFar::from(simulated);
        // A burst at the end may be before it in one of both.
        for end in (1..=((UNTIL - SLACK) / STEP) as usize).map(|step| STEP * step as f64) {
            let so_far = real.iter().filter(|at| **at < end).count() as f64;
            let (least, most) = (simulated.until(end - SLACK), simulated.until(end + SLACK));
            println!("{what}: until {end:.1} s: simulated {least} to {most}, real {so_far}");
            let part = (least - so_far).max(so_far - most) / real.len() as f64;
            assert!(
                part <= TOLERANCE,
                "{what}: {part} of the arrivals are not in time for {end:.1} s"
            );
        }
    }

    /// Asserts that the destination never breaks, and gets all events until the simulated time.
    fn recovers(&self, simulated: &Value) {
        let (count, deliveries) = (times().len(), self.deliveries());
        assert_eq!((self.seen.breaks, &simulated["breaks"]), (0, &json!(0)));
        assert_eq!((deliveries.len(), &simulated["delivered"]), (count, &json!(count as f64)));
        let last = deliveries.into_iter().fold(0.0, f64::max);
        is_close("last delivery", &simulated["last_delivery"], last);
    }

    /// Asserts that the destination breaks after the outage, and delivers less than half of the events.
    fn falls_over(&self) {
        let deliveries = self.deliveries().len();
        assert!(self.seen.breaks > 0);
        assert!(deliveries < times().len() / 2, "{deliveries} are delivered");
    }
}

/// Sends an event as a vendor does, until it is answered with 200, or until the end.
async fn send(
    client: reqwest::Client,
    url: String,
    number: usize,
    began: Instant,
    answers: Arc<AtomicUsize>,
) {
    let end = began + Duration::from_secs_f64(UNTIL);
    let mut at = began + Duration::from_secs_f64(number as f64 / RATE);
    for pause in PAUSES.into_iter().chain([UNTIL]) {
        sleep_until(at.min(end).into()).await;
        if at >= end {
            return;
        }
        let status = post(&client, &url, event(&number.to_string())).await.status;
        answers.fetch_add(1, Ordering::Relaxed);
        if status == 200 {
            return;
        }
        at = Instant::now() + Duration::from_secs_f64(pause);
    }
}

/// Sends all events while the destination goes down and comes up again. Then it waits until all are delivered,
/// or until the end. The destination breaks above its bound, and restarts in this time.
async fn storm(url: String, meter: &Meter, restart: Duration) -> Storm {
    meter.break_above(BOUND, restart);
    let client = client();
    post(&client, &url, event("first")).await;
    while meter.seen().served.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (began, answers) = (Instant::now(), Arc::<AtomicUsize>::default());
    let set_down = |seconds: f64, is_down| {
        let (meter, at) = (meter.clone(), began + Duration::from_secs_f64(seconds));
        tokio::spawn(async move {
            sleep_until(at.into()).await;
            meter.set_down(is_down);
            began.elapsed().as_secs_f64()
        })
    };
    let (down, up) = (set_down(DOWN.0, true), set_down(DOWN.1, false));
    let mut tasks = JoinSet::new();
    for number in 0..times().len() {
        tasks.spawn(send(client.clone(), url.clone(), number, began, Arc::clone(&answers)));
    }
    tasks.join_all().await;
    while meter.seen().served.len() <= times().len() && began.elapsed().as_secs_f64() < UNTIL {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let down = (down.await.unwrap(), up.await.unwrap());
    Storm { began, down, restart, seen: meter.seen(), answers: answers.load(Ordering::Relaxed) }
}

/// Returns the scenario of a storm that has passed.
fn scenario(storm: &Storm, more: Value) -> Value {
    let mut scenario = json!({
        "place": "serve", "store": "redis", "step": STEP, "until": UNTIL,
        "arrivals": { "kind": "given", "times": times() },
        "vendor": { "pauses": PAUSES, "jitter": 0 },
        "destination": {
            "median": PACE.as_secs_f64(), "p99": PACE.as_secs_f64(),
            "outages": [[storm.down.0, storm.down.1, "refuses"]],
            "breaks_at": BOUND, "restart": storm.restart.as_secs_f64(),
        },
    });
    let more = more.as_object().unwrap().clone();
    scenario.as_object_mut().unwrap().extend(more);
    scenario
}

/// Runs a storm in which vendors wait for the destination, of which it gets so much at once. Returns it, what
/// is simulated, and the number of dead letters after it.
async fn of_waiting_vendors(at_once: &str) -> (Storm, Value, usize) {
    let meter = Meter::start(PACE);
    let vars = [
        ("GCP_MAX_CONCURRENT", at_once),
        ("FORWARD_ATTEMPTS", "1"),
        ("FORWARD_TIMEOUT_MS", "2000"),
        ("FORWARD_BUDGET_MS", "10000"),
    ];
    let database = shared::redis_database();
    let router = start(&to(&meter, &vars).store(&database));
    let storm = storm(router.webhook(), &meter, RESTART).await;
    let at_once: u32 = at_once.parse().unwrap();
    let more = json!({ "attempts": 1, "timeout": 2, "budget": 10, "max_concurrent": at_once });
    let simulated = simulate(&scenario(&storm, more));
    let all = Page { limit: 1000, after: None };
    let kept = Place::at(&database).await.store.dead_letters(all).await.unwrap();
    (storm, simulated, kept.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_senders_wait_the_destination_recovers_if_it_gets_less_at_once_than_it_takes() {
    let _turn = shared::turn().await;
    let (below, above) = tokio::join!(of_waiting_vendors(BELOW), of_waiting_vendors(ABOVE));
    let (storm, simulated, kept) = below;
    storm.is_as("below", &simulated);
    storm.recovers(&simulated);
    assert_eq!(kept, 0);
    let (storm, simulated, kept) = above;
    storm.is_as("above", &simulated);
    storm.falls_over();
    // Each event that is not delivered is a dead letter. None is lost.
    assert_eq!(storm.seen.served.len() - 1 + kept, times().len());
}

/// Runs a storm in which vendors hear 200 at once, and this many workers deliver. Returns it, and what is
/// simulated.
async fn behind_answers(workers: &str) -> (Storm, Value) {
    let meter = Meter::start(PACE);
    let schedule = ["0s"].into_iter().chain(std::iter::repeat_n("1s", 30));
    let schedule = schedule.collect::<Vec<_>>().join(",");
    let vars = [("ANSWER", "accepted"), ("INBOX_WORKERS", workers), ("RETRY_SCHEDULE", &schedule)];
    let serve = to(&meter, &vars);
    let mut router = start(&serve);
    let storm = storm(router.webhook(), &meter, QUICK_RESTART).await;
    let workers: u32 = workers.parse().unwrap();
    let pauses: Vec<_> = [0].into_iter().chain(std::iter::repeat_n(1, 30)).collect();
    // The pauses before probes are random. So the simulation gets their times.
    let more = json!({
        "answer": "accepted", "workers": workers, "timeout": 10, "schedule": pauses,
        "probes": storm.alone(),
    });
    let simulated = simulate(&scenario(&storm, more));
    // With fewer workers, whatever waits is delivered, and the destination does not break any more.
    router.terminate();
    assert!(router.wait().success());
    let breaks = meter.seen().breaks;
    let _router = start(&serve.env("INBOX_WORKERS", BELOW));
    let began = Instant::now();
    let served = || meter.seen().served.len();
    while served() <= times().len() {
        assert!(began.elapsed() < Duration::from_secs(60), "{} are served", served());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((meter.seen().breaks, served()), (breaks, times().len() + 1));
    (storm, simulated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_answer_the_destination_recovers_if_workers_are_fewer_than_it_takes() {
    let _turn = shared::turn().await;
    let (below, above) = tokio::join!(behind_answers(BELOW), behind_answers(ABOVE));
    let (storm, simulated) = below;
    // Vendors hear 200 at once, and never come again.
    assert_eq!(storm.answers, times().len());
    storm.is_as("below", &simulated);
    storm.recovers(&simulated);
    let (storm, simulated) = above;
    assert_eq!(storm.answers, times().len());
    storm.is_as("above", &simulated);
    storm.falls_over();
}
