//! A shift from one table to another while events are under way: what has a record stays, and everything
//! else moves as `plan-shift` says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use webhook_router::store::State;

use super::{
    event, file,
    shares::{FIVE, SHIFTED, intake, place, plan_shift},
    table, told_moves,
};
use crate::{
    inbox::{is_delivered, record},
    operators::{self, Vars, run},
    support::{Answer, Got, Serve, Server, Sink, ok, sqlite, status},
};

/// The destination that gives bytes away.
const GIVER: &str = "eu-1";

/// Returns a table in which the giver has a place of its own.
fn rows(rows: &[(&str, &str)], giver: &Sink, others: &Sink) -> String {
    let url = |name: &str| if name == GIVER { &giver.url } else { &others.url };
    table(&rows.iter().map(|(name, bytes)| (*name, url(name).as_str(), *bytes)).collect::<Vec<_>>())
}

/// Posts an event, and returns its key if the answer names the giver.
async fn stays(router: &Server, number: usize, status: u16) -> String {
    let got = router.post(event(number)).await.expect(status);
    assert_eq!(got.header("x-webhook-destination"), Some(GIVER), "{number}");
    key(&got)
}

fn key(got: &Got) -> String {
    got.header("x-webhook-key").unwrap().to_owned()
}

fn bodies(sink: &Sink) -> BTreeSet<Bytes> {
    sink.received().into_iter().map(|received| received.body).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_accepted_or_in_flight_stay_and_new_ones_move_as_planned() {
    for answer in ["delivered", "accepted"] {
        shift_to_a_router_that_answers(answer).await;
    }
}

async fn shift_to_a_router_that_answers(answer: &str) {
    const EACH: usize = 4;
    let (giver, others) = (Sink::start().await, Sink::start().await);
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let [before, after] = [&FIVE[..], &SHIFTED].map(|table| rows(table, &giver, &others));
    // All events with records would move if they were new.
    let (from, to) = (intake(&FIVE), intake(&SHIFTED));
    let would_move =
        |number: &usize| place(*number, &from) == GIVER && place(*number, &to) != GIVER;
    let mut movers = (0..).filter(would_move);
    let mut take = || movers.by_ref().take(EACH).collect::<Vec<_>>();
    let (delivered, dead, waiting, in_flight) = (take(), take(), take(), take());
    let with_records = [&delivered[..], &dead, &waiting, &in_flight].concat();
    let new: Vec<_> = (in_flight[EACH - 1] + 1..).take(120).collect();

    let vars = |table: &str, answer: &str| -> Vars {
        let vars = [
            ("DESTINATIONS", table),
            ("STORE_URL", &store),
            ("ANSWER", answer),
            ("RETRY_SCHEDULE", "0s,1day"),
            ("FORWARD_ATTEMPTS", "1"),
            // The lease of an event in flight lasts for seven seconds.
            ("FORWARD_BUDGET_MS", "4000"),
            ("FORWARD_TIMEOUT_MS", "3900"),
            ("STORE_TIMEOUT_MS", "500"),
        ];
        vars.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let start = |table: &str, answer: &str| Serve::new().envs(vars(table, answer)).start();

    let mut old = start(&before, "delivered");
    for number in &delivered {
        stays(&old, *number, 200).await;
    }
    giver.answers(status(StatusCode::UNPROCESSABLE_ENTITY, "no"));
    for number in &dead {
        stays(&old, *number, 422).await;
    }
    giver.answers(status(StatusCode::INTERNAL_SERVER_ERROR, "not now"));
    let accepting = start(&before, "accepted");
    let mut waiting_keys = Vec::new();
    for number in &waiting {
        waiting_keys.push(stays(&accepting, *number, 200).await);
    }
    for key in &waiting_keys {
        let waits = |state: &State| matches!(state, State::Waiting { .. });
        record(&store, key, |record| waits(&record.state) && record.attempts.len() == 1).await;
    }
    drop(accepting);

    // Both tables are in use for a while. An event that the old router has in flight stays its own.
    let shifted = start(&after, answer);
    giver.take();
    giver.answers(Answer::WhenTold);
    for number in &in_flight {
        let request = old.request(Method::POST, "/webhook").body(event(*number));
        tokio::spawn(request.send());
    }
    giver.arrived(EACH).await;
    for number in &in_flight {
        stays(&shifted, *number, 409).await;
    }
    // The owner dies, and its leases run out.
    old.kill();
    giver.answers(ok("done"));
    giver.take();

    for number in delivered.iter().chain(&waiting) {
        let got = shifted.post(event(*number)).await.expect(200).says("duplicate ignored");
        assert_eq!(got.header("x-webhook-destination"), Some(GIVER), "{number}");
    }
    let mut keys = Vec::new();
    for number in &dead {
        keys.push(stays(&shifted, *number, 200).await);
    }
    let began = Instant::now();
    for number in &in_flight {
        while shifted.post(event(*number)).await.status == 409 {
            assert!(began.elapsed() < Duration::from_secs(60), "{number} is in flight for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        keys.push(stays(&shifted, *number, 200).await);
    }
    for key in &keys {
        record(&store, key, is_delivered).await;
    }
    let replayed = run(&vars(&after, answer), &["replay", "--pending"]).await;
    assert!(replayed.status.success(), "{}", operators::text(&replayed));
    for key in &waiting_keys {
        record(&store, key, is_delivered).await;
    }
    let expected = [&dead[..], &waiting, &in_flight].concat();
    let expected: BTreeSet<_> =
        expected.into_iter().map(|number| Bytes::from(event(number))).collect();
    assert_eq!(giver.received().len(), expected.len());
    assert_eq!((bodies(&giver), bodies(&others)), (expected, BTreeSet::new()));

    // Of the new events, exactly those move that the plan names.
    let mut moves = BTreeMap::<_, u64>::new();
    for number in &new {
        let got = shifted.post(event(*number)).await.expect(200);
        let (then, now) = (place(*number, &from), got.header("x-webhook-destination").unwrap());
        if then != now {
            *moves.entry((then, now.to_owned())).or_default() += 1;
        }
        record(&store, &key(&got), is_delivered).await;
    }
    let file = |name: &str, text: &str| file(folder.path(), name, text);
    let lines: Vec<_> = new.iter().map(|number| event(*number)).collect();
    let (from, to) = (file("from.toml", &before), file("to.toml", &after));
    let lines = file("bodies.jsonl", &lines.join("\n"));
    let shift = plan_shift(&["--json", "--from", &from, "--to", &to, &lines]);
    let shift: Value = serde_json::from_str(&shift).unwrap();
    assert_eq!(told_moves(&shift), moves);
    assert!(!moves.is_empty() && moves.keys().all(|(from, _)| from == GIVER), "{moves:?}");
    // No event with a record went to another place at any time.
    let elsewhere = bodies(&others);
    assert!(with_records.iter().all(|number| !elsewhere.contains(event(*number).as_bytes())));
}
