//! The life of an accepted event.

use super::*;
use crate::store::Due;

fn not_sent() -> Answer {
    Err(SendError::NotSent("no such host".into()))
}

#[tokio::test]
async fn an_accepted_event_wakes_a_worker_and_is_delivered_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ACCEPTS, ("DUPLICATE_REPLY", "replay")]).await;
    let woken: Arc<Mutex<Vec<(Route, Due)>>> = Arc::default();
    let waking = Arc::clone(&woken);
    let wake: Wake = Arc::new(move |route, due| waking.lock().unwrap().push((route, due)));
    trial.router = trial.router.with_wake(wake);
    let began = Utc::now();
    let key = trial.accept().await;
    assert_eq!(trial.sent(), []);
    trial.post(BODY, 200, "duplicate ignored").await;
    let woken = woken.lock().unwrap().clone();
    let [(Route::GCP, Due { at, key: woken })] = woken[..] else { panic!("{woken:?}") };
    assert!(woken == key && at >= began && at <= Utc::now());

    let handled = trial.attempt(key, Cause::Due).await;
    let Handled::Tried { ending, route, failure: None, due: None, health, settled, .. } = handled
    else {
        panic!("{handled:?}");
    };
    assert_eq!((ending, route), (Ending::Delivered, Route::GCP));
    assert!(health == Health::Up && settled);
    let record = trial.record_of(key).await;
    assert_eq!((record.attempts.len(), record.attempts[0].by), (1, Trigger::Inbox));
    // The sender got no reply of the destination, so it is not kept.
    assert!(matches!(record.state, State::Delivered { reply: None, .. }));
    trial.post(BODY, 200, "duplicate ignored").await;
    assert!(matches!(trial.attempt(key, Cause::Operator).await, Handled::Gone));
    assert_eq!(trial.sent().len(), 1);
}

#[tokio::test]
async fn the_schedule_says_when_an_event_is_tried_and_ends_in_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "0s,1day")]).await;
    let key = trial.accept().await;
    trial.answers([answered(503, "no"), answered(500, "no")]);
    let first = trial.attempt(key, Cause::Due).await;
    let Handled::Tried { ending: Ending::Postponed, due: Some(due), health, failure, .. } = first
    else {
        panic!("{first:?}");
    };
    assert!(health == Health::Down && failure.is_some());
    let hours = (due - Utc::now()).num_hours();
    assert!((23..=26).contains(&hours), "{hours}");
    let waiting = trial.attempt(key, Cause::Due).await;
    assert!(matches!(waiting, Handled::NotDue(at) if (at - due).num_seconds() == 0), "{waiting:?}");
    // An operator does not wait for the schedule.
    let last = trial.attempt(key, Cause::Operator).await;
    let Handled::Tried { ending: Ending::Failed, due: None, settled: true, .. } = last else {
        panic!("{last:?}");
    };
    let record = trial.record_of(key).await;
    assert_eq!((record.state, record.accepted), (State::DeadLetter, None));
    assert_eq!(record.attempts.len(), 2);
    assert!(matches!(trial.attempt(key, Cause::Operator).await, Handled::Gone));
}

#[tokio::test]
async fn a_probe_in_vain_does_not_count_and_leaves_the_event_due() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "0s")]).await;
    let key = trial.accept().await;
    let since = Utc::now() - chrono::TimeDelta::minutes(5);
    let busy = Reply::text(StatusCode::SERVICE_UNAVAILABLE, "busy");
    let busy = busy.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("60"));
    trial.answers([not_sent(), answered(503, "no"), not_sent(), Ok(busy), answered(500, "no")]);
    let up_before = Cause::Probe { since, up_at: Some(since) };
    for (cause, least, most) in [
        (Cause::Probe { since, up_at: None }, -301, -299),
        (up_before, -301, -299),
        (Cause::Operator, -1, 0),
        (up_before, 59, 66),
    ] {
        let handled = trial.attempt(key, cause).await;
        let Handled::Tried { ending: Ending::Postponed, due: Some(due), .. } = handled else {
            panic!("{cause:?}: {handled:?}");
        };
        let seconds = (due - Utc::now()).num_seconds();
        assert!((least..=most).contains(&seconds), "{cause:?}: {seconds}");
        let record = trial.record_of(key).await;
        assert_eq!(record.accepted.unwrap().tries, 0, "{cause:?}");
    }
    // Any other failure uses up the only entry of the schedule.
    let last = trial.attempt(key, Cause::Operator).await;
    assert!(matches!(last, Handled::Tried { ending: Ending::Failed, .. }), "{last:?}");
    assert_eq!(trial.record_of(key).await.attempts.len(), 5);
}

#[tokio::test]
async fn a_probe_counts_if_the_destination_has_answered_another_event_since() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "0s,5s")]).await;
    let key = trial.accept().await;
    trial.answers([answered(503, "no"), answered(503, "no"), answered(503, "no")]);
    let since = Utc::now();
    // Before the first attempt, there is no earlier one to compare the answer's time with.
    for tries in [0, 1] {
        let up_at = Some(Utc::now());
        let handled = trial.attempt(key, Cause::Probe { since, up_at }).await;
        assert!(matches!(handled, Handled::Tried { ending: Ending::Postponed, .. }), "{handled:?}");
        assert_eq!(trial.record_of(key).await.accepted.unwrap().tries, tries);
        // The next `up_at` must be later than this attempt, whose time the record keeps in
        // milliseconds.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let record = trial.record_of(key).await;
    let State::Waiting { due } = record.state else { panic!("{record:?}") };
    assert!(due > Utc::now() + chrono::TimeDelta::seconds(3), "{due}");
}

#[tokio::test]
async fn a_dead_letter_is_accepted_anew_and_keeps_its_route() {
    let folder = tempfile::tempdir().unwrap();
    let before = Trial::new(folder.path(), &[ACCEPTS]).await;
    let key = before.accept().await;
    before.answers([answered(422, "never")]);
    let refused = before.attempt(key, Cause::Due).await;
    assert!(matches!(refused, Handled::Tried { ending: Ending::Failed, health: Health::Up, .. }));
    let letter = before.router.store().dead_letter(&key).await.unwrap().unwrap();
    assert_eq!(
        (letter.failure.outcome, &letter.delivery.body[..]),
        (Outcome::Status(422), BODY.as_bytes())
    );

    let after = Trial::new(folder.path(), &[ACCEPTS, ("ROUTE_THRESHOLD", "0")]).await;
    assert_eq!(after.accept().await, key);
    assert_eq!(after.router.store().dead_letter(&key).await.unwrap(), None);
    let delivered = after.attempt(key, Cause::Due).await;
    assert!(matches!(delivered, Handled::Tried { ending: Ending::Delivered, .. }));
    let [sent] = &after.sent()[..] else { panic!("not sent once") };
    assert_eq!((sent.route, sent.attempt), (Route::GCP, 2));
}

#[tokio::test]
async fn an_event_that_was_taken_too_late_is_given_back_untried() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ACCEPTS]).await;
    let key = trial.accept().await;
    trial.budget = Duration::ZERO;
    assert!(matches!(trial.attempt(key, Cause::Due).await, Handled::NotDue(_)));
    let record = trial.record_of(key).await;
    assert!(matches!(record.state, State::Waiting { .. }));
    assert_eq!((record.accepted.unwrap().tries, record.attempts.len()), (0, 0));
    assert_eq!(trial.sent(), []);
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_postpones_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(folder.path(), &[ACCEPTS]).await;
    let key = trial.accept().await;
    let file = folder.path().join("store.db");
    *trial.told.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let other = rusqlite::Connection::open(file).unwrap();
        other.execute_batch("UPDATE events SET owner = 'another'").unwrap();
    }));
    trial.answers([answered(503, "no")]);
    let handled = trial.attempt(key, Cause::Due).await;
    let Handled::Tried { due: None, settled: true, .. } = handled else { panic!("{handled:?}") };
    let record = trial.record_of(key).await;
    assert!(matches!(record.state, State::InFlight { owner, .. } if owner == "another"));
}

#[tokio::test]
async fn an_event_without_room_is_given_back_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ACCEPTS, ("GCP_MAX_CONCURRENT", "1")]).await;
    // There is time for an attempt, but none to wait.
    trial.budget = Duration::from_secs(2);
    let key = trial.accept().await;
    let room = trial.router.limits().try_room(Route::GCP).unwrap();
    for cause in [Cause::Due, Cause::Operator] {
        let handled = trial.attempt(key, cause).await;
        let Handled::NoRoom(Error::Limited { destination, .. }) = handled else {
            panic!("{handled:?}");
        };
        assert_eq!(destination, "gcp");
    }
    let record = trial.record_of(key).await;
    assert!(matches!(record.state, State::Waiting { due } if due <= Utc::now()), "{record:?}");
    assert_eq!((record.accepted.unwrap().tries, record.attempts.len()), (0, 0));
    assert_eq!(trial.sent(), []);
    drop(room);
    let handled = trial.attempt(key, Cause::Due).await;
    assert!(matches!(handled, Handled::Tried { ending: Ending::Delivered, .. }), "{handled:?}");
}

#[tokio::test]
async fn the_first_attempt_is_due_when_the_schedule_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "1h")]).await;
    let (wake, woken) = std::sync::mpsc::channel();
    trial.router = trial.router.with_wake(Arc::new(move |_, due: Due| wake.send(due).unwrap()));
    let key = trial.accept().await;
    let Due { at, .. } = woken.try_recv().unwrap();
    assert!((59..=60).contains(&(at - Utc::now()).num_minutes()), "{at}");
    let State::Waiting { due } = trial.record_of(key).await.state else { panic!("not waiting") };
    assert_eq!(due.timestamp_millis(), at.timestamp_millis());
}

#[tokio::test]
async fn a_router_accepts_if_one_of_its_sources_does() {
    const ENVELOPE: &str = "[sources.s]\nvendor = \"stripe\"\nsecrets = [\"plainly\"]";
    let folder = tempfile::tempdir().unwrap();
    let answers_at_once = format!("{ENVELOPE}\nanswer = \"accepted\"");
    for (vars, accepts) in [
        (&[][..], false),
        (&[("SOURCES", ENVELOPE)], false),
        (&[ACCEPTS], true),
        (&[("SOURCES", &answers_at_once)], true),
    ] {
        assert_eq!(Trial::new(folder.path(), vars).await.router.accepts(), accepts, "{vars:?}");
    }
}

#[test]
fn the_pause_before_the_next_look_grows_with_the_age_of_the_event() {
    for (age, pause) in [(0, 300), (300, 300), (1000, 1000), (1800, 1800), (100_000, 1800)] {
        assert_eq!(look_again(Duration::from_secs(age)), Duration::from_secs(pause), "{age}");
    }
}
