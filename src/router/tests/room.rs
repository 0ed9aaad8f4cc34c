//! The room that attempts need at a destination.

use super::*;
use crate::limits::Room;

const ONE_AT_A_TIME: (&str, &str) = ("GCP_MAX_CONCURRENT", "1");

fn job() -> Job {
    let plan = testing::plan(Identity::Content, "one");
    Job::new(delivery("/webhook", &[], BODY), plan, Trigger::Vendor, Origin::default())
}

impl Trial {
    /// Takes all the room at Cloud Run.
    fn full(&self) -> Room {
        self.router.limits().try_room(Route::GCP).unwrap()
    }
}

#[tokio::test]
async fn free_room_is_given_even_without_time() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ONE_AT_A_TIME]).await;
    let no_time = Budget::new(Duration::ZERO, Duration::from_secs(1));
    let room = trial.router.room(Route::GCP, no_time).await.unwrap();
    assert!(room.waited().is_zero());
    let refused = trial.router.room(Route::GCP, no_time).await.err().unwrap();
    assert!(matches!(refused, Error::Limited { .. }), "{refused}");
}

#[tokio::test]
async fn room_that_came_after_the_lease_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ONE_AT_A_TIME, ("FORWARD_TIMEOUT_MS", "1")]).await;
    let full = trial.full();
    let (forwarding, settling) = (Duration::from_secs(1), Duration::from_secs(1));
    let wait = trial.router.room(Route::GCP, Budget::new(forwarding, settling));
    // The machine sleeps during the wait. When it wakes up, the room is free.
    let sleep = async {
        std::thread::sleep(2 * forwarding);
        drop(full);
    };
    let (room, ()) = tokio::join!(biased; wait, sleep);
    let Err(Error::Limited { waited, .. }) = room else { panic!("not given up") };
    assert!(waited >= 2 * forwarding, "{waited:?}");
    assert!(trial.router.limits().try_room(Route::GCP).is_some());
}

#[tokio::test]
async fn only_a_wait_for_room_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ONE_AT_A_TIME]).await;
    let mut free = job();
    let full = trial.router.room_of(&mut free, trial.budget()).await.unwrap();
    assert!(free.times.room.is_zero());

    let mut waits = job();
    let leave = async { drop(full) };
    let (room, ()) = tokio::join!(biased; trial.router.room_of(&mut waits, trial.budget()), leave);
    let room = room.unwrap();
    let waited = room.waited();
    assert!(!waited.is_zero() && waits.times.room >= waited);

    // A worker waits before it takes the event.
    let mut waited_before = job().with_room(Some(room));
    assert_eq!(waited_before.times.room, waited);
    let room = trial.router.room_of(&mut waited_before, trial.budget()).await.unwrap();
    assert_eq!((room.waited(), waited_before.times.room), (waited, waited));
}

#[tokio::test]
async fn an_event_without_room_becomes_a_dead_letter_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ONE_AT_A_TIME]).await;
    // There is time for an attempt, but none to wait.
    trial.budget = Duration::from_secs(2);
    let _full = trial.full();
    let reply = trial.post(BODY, 503, "try again later").await;
    let key = reply.headers["x-webhook-key"].to_str().unwrap().parse().unwrap();
    let letter = trial.router.store().dead_letter(&key).await.unwrap().unwrap();
    assert_eq!((letter.failure.outcome, letter.attempts), (Outcome::Limited, vec![]));
    assert_eq!(trial.record(&reply).await.state, State::DeadLetter);
    assert_eq!(trial.sent(), []);
}

#[tokio::test]
async fn a_dead_letter_without_room_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ONE_AT_A_TIME]).await;
    trial.budget = Duration::from_secs(2);
    trial.answers([answered(422, "no")]);
    let reply = trial.post(BODY, 422, "no").await;
    let key = reply.headers["x-webhook-key"].to_str().unwrap().parse().unwrap();
    let letter = || trial.router.store().dead_letter(&key);
    let before = letter().await.unwrap().unwrap();
    let _full = trial.full();
    let (by, origin) = (Trigger::Replay, Origin::default());
    let replay = trial.router.replay(before.clone(), by, origin, trial.budget()).await;
    assert!(replay.ending == Ending::Limited && replay.settled, "{replay:?}");
    let after = letter().await.unwrap().unwrap();
    assert_eq!((after.failed_at, after.failure), (before.failed_at, before.failure));
}
