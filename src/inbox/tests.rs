//! The times at which lanes look for work, and what they learn of their destination.

use super::*;
use crate::{
    config::Config,
    destination::Destinations,
    event::Identity,
    store,
    testing::{self, lookup},
};

const SECOND: Duration = Duration::from_secs(1);

async fn lane(folder: &std::path::Path) -> Lane {
    let url = format!("sqlite:{}", folder.join("store.db").display());
    let vars = [
        ("STORE_URL", url.as_str()),
        ("GCP_TARGET_URL", "https://x.dev"),
        ("AWS_TARGET_FUNCTION", "p"),
    ];
    let config = Config::from_vars(lookup(&vars)).unwrap();
    let store = store::open(&config.store).await.unwrap();
    let router = Router::new(&config, store, Destinations::default());
    let budgets: Budgets = Arc::new(move || Budget::of_attempt(&config));
    Lane::new(Arc::new(router), Route::GCP, 16, budgets)
}

/// Asserts that many random times are spread evenly between two bounds.
fn assert_is_spread(mut times: Vec<Duration>, least: Duration, most: Duration) {
    times.sort();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(least <= first && last <= most, "{first:?} to {last:?}");
    let width = most - least;
    for tenth in 0..10 {
        let (from, to) = (least + width * tenth / 10, least + width * (tenth + 1) / 10);
        let count = times.iter().filter(|time| (from..=to).contains(*time)).count();
        let share = count as f64 / times.len() as f64;
        assert!((0.05..0.15).contains(&share), "{share} of the times in tenth {tenth}");
    }
}

#[test]
fn random_times_are_spread_around_their_average() {
    let times = (0..10_000).map(|_| around(SWEEP)).collect();
    assert_is_spread(times, SWEEP / 2, SWEEP * 3 / 2);
}

#[tokio::test]
async fn lanes_that_start_together_do_not_sweep_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut lane = lane(folder.path()).await;
    let (mut busy, mut idle_first, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let sweep = async |lane: &mut Lane| {
        let before = Instant::now();
        lane.sweep().await;
        // The pause begins before the store answers.
        lane.next_sweep - before
    };
    for _ in 0..1000 {
        lane.every = SWEEP;
        busy.push(sweep(&mut lane).await);
        let before = Instant::now();
        lane.slow_down();
        idle_first.push(lane.next_sweep - before);
        idle.push(sweep(&mut lane).await);
    }
    let margin = SECOND / 10;
    assert_is_spread(busy, SWEEP / 2, SWEEP * 3 / 2 + margin);
    assert_is_spread(idle_first, SWEEP * 3 / 2, SWEEP * 9 / 2 + margin);
    assert_is_spread(idle, IDLE_SWEEP / 2, IDLE_SWEEP * 3 / 2 + margin);
}

#[tokio::test]
async fn a_lane_closes_when_its_destination_is_down_and_opens_at_the_first_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut lane = lane(folder.path()).await;
    // A process begins without knowing.
    assert!(matches!(lane.gate, Gate::Unknown));
    lane.learn(Health::Unknown);
    assert!(matches!(lane.gate, Gate::Open { .. }));
    lane.learn(Health::Down);
    let Gate::Closed { probes: 0, next_probe, .. } = lane.gate else { panic!("not closed") };
    // Attempts that were under way are no probes.
    lane.learn(Health::Down);
    assert!(
        matches!(lane.gate, Gate::Closed { probes: 0, next_probe: next, .. } if next == next_probe)
    );
    for probes in 1..9 {
        let Gate::Closed { next_probe, .. } = &mut lane.gate else { panic!("not closed") };
        *next_probe = Utc::now();
        let before = Utc::now();
        lane.learn(if probes % 2 == 0 { Health::Down } else { Health::Unknown });
        let Gate::Closed { probes: made, next_probe, .. } = lane.gate else { panic!("not closed") };
        let average = (FIRST_PROBE * 2u32.pow(probes.min(5))).min(LAST_PROBE);
        let pause = (next_probe - before).to_std().unwrap();
        let is_around = (average / 2..=average * 3 / 2 + SECOND / 10).contains(&pause);
        assert!(made == probes && is_around, "{probes}: {pause:?}");
    }
    lane.learn(Health::Up);
    assert!(matches!(lane.gate, Gate::Open { .. }));
}

#[tokio::test]
async fn probes_take_each_waiting_event_before_any_of_them_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut lane = lane(folder.path()).await;
    lane.learn(Health::Down);
    let keys: Vec<_> =
        (0..20).map(|number| testing::plan(Identity::Content, &number.to_string()).key).collect();
    lane.queue.extend(keys.iter().map(|key| Due { at: Utc::now(), key: *key }));
    for _ in 0..2 {
        let mut probed = HashSet::new();
        for _ in &keys {
            let event = lane.next_event(true).unwrap();
            assert!(probed.insert(event.key));
            // A failed probe leaves the event due.
            lane.queue.push_back(event);
        }
        lane.learn(Health::Up);
        assert!(lane.probed.is_empty());
        lane.learn(Health::Down);
    }
    // When all were probed, they come again.
    for _ in 0..3 * keys.len() {
        let event = lane.next_event(true).unwrap();
        lane.queue.push_back(event);
    }
}
