//! Google's STS fails, or is late.

use std::time::{Duration, Instant};

use webhook_router::{
    outcome::Outcome,
    store::{Failed, Record, State},
};

use super::{
    clouds::{Clouds, Sts},
    delivered, event, in_aws, tells_no_token, with,
};
use crate::{
    inbox::{is_delivered, record},
    support::{Sink, sqlite},
};

/// Two attempts of a second. A request for a token has 750 ms.
const TWO_ATTEMPTS: [(&str, &str); 3] =
    [("FORWARD_ATTEMPTS", "2"), ("FORWARD_TIMEOUT_MS", "1000"), ("FORWARD_BUDGET_MS", "5000")];

/// Every way in which Google's STS fails, and what the log says about it.
const FAULTS: [(Sts, &str); 9] = [
    (Sts::Hangs, "no answer within 750 ms"),
    (Sts::Answers(502, "<html>bad gateway"), "answered 502"),
    (Sts::Answers(503, "try again"), "answered 503"),
    (Sts::Answers(200, "<html>REQUEST</html>"), "the answer of Google's STS has no token"),
    (Sts::Answers(200, r#"{"access_token":7}"#), "the answer of Google's STS has no token"),
    (Sts::Answers(200, r#"{"access_token":"a\nb"}"#), "Google's STS answered no access token"),
    (Sts::Answers(307, "elsewhere"), "answered 307"),
    (
        Sts::Answers(400, r#"{"error":"invalid_target","error_description":"REQUEST"}"#),
        "answered 400 invalid_target: check `audience`",
    ),
    (
        Sts::Answers(400, r#"{"error":"invalid_grant","error_description":"REQUEST"}"#),
        "check that the provider trusts this AWS account",
    ),
];

#[tokio::test]
async fn while_google_s_sts_fails_the_sender_hears_of_it_in_time_and_no_event_is_lost() {
    let (clouds, folder) = (Clouds::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let router = in_aws(&clouds).envs(TWO_ATTEMPTS).store(&store).start();
    let mut keys = Vec::new();
    for (number, (fault, text)) in FAULTS.into_iter().enumerate() {
        clouds.sts(fault);
        let (started, asked) = (Instant::now(), clouds.tokens().0);
        let got = router.post(event(number)).await.expect(502).says("destination unreachable");
        assert!(started.elapsed() < Duration::from_secs(5), "{text}: {:?}", started.elapsed());
        assert_eq!(clouds.tokens().0 - asked, 2, "{text}: a token is asked for in each attempt");
        assert!(router.log().contains(text), "{text}: {}", router.log());
        // Nothing was sent, so the key is free at once, and the event is a dead letter.
        let key = got.header("x-webhook-key").unwrap().to_owned();
        let Record { failed, attempts, state, .. } = record(&store, &key, |_| true).await;
        let Failed { failure, .. } = failed.unwrap();
        assert!(failure.detail.contains(text), "{text}: {}", failure.detail);
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Outcome::Unreachable; 2], "{text}");
        assert!(matches!(state, State::DeadLetter), "{text}: {state:?}");
        keys.push(key);
    }
    assert_eq!(clouds.delivered(), Vec::<String>::new());
    tells_no_token(&router);
    // The vendor sends each event again.
    clouds.sts(Sts::Works);
    for number in 0..FAULTS.len() {
        router.post(event(number)).await.expect(200).says("done");
    }
    let all: Vec<_> = (0..FAULTS.len()).map(event).collect();
    assert_eq!(clouds.delivered(), all);
    for key in &keys {
        assert!(record(&store, key, is_delivered).await.failed.is_none());
    }
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn while_google_s_sts_is_late_but_in_time_one_attempt_is_enough() {
    let (clouds, folder) = (Clouds::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let late = Duration::from_millis(1200);
    let vars = [("FORWARD_ATTEMPTS", "2"), ("FORWARD_TIMEOUT_MS", "8000")];
    clouds.sts(Sts::IsLate(late));
    // The vendor waits for the answer.
    let router = in_aws(&clouds).envs(vars).store(&store).start();
    let started = Instant::now();
    let got = router.post(event(0)).await.expect(200).says("done");
    assert!(started.elapsed() >= late);
    let waited = got.header("x-webhook-key").unwrap().to_owned();
    assert_eq!((clouds.delivered(), clouds.tokens()), (vec![event(0)], (1, 1)));
    drop(router);
    // The event is delivered after the answer.
    let accepting = in_aws(&clouds).envs(vars).env("ANSWER", "accepted").store(&store);
    let router = accepting.start();
    let got = router.post(event(1)).await.expect(200).says("accepted");
    let accepted = got.header("x-webhook-key").unwrap().to_owned();
    for key in [waited, accepted] {
        let Record { attempts, failed, .. } = record(&store, &key, is_delivered).await;
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!((outcomes, failed.is_none()), (vec![Outcome::Status(200)], true));
    }
    assert_eq!((clouds.delivered(), clouds.tokens()), (vec![event(1)], (2, 2)));
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn an_accepted_event_waits_until_google_s_sts_is_back() {
    let clouds = Clouds::start().await;
    let (closed, _port) = Sink::closed();
    let mut credentials = clouds.credentials();
    // Nothing listens there.
    credentials["token_url"] = format!("{}/v1/token", closed.url).into();
    let vars = [
        ("ANSWER", "accepted"),
        ("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path());
    let mut down = with(&clouds, &credentials).envs(vars).store(&store).start();
    for number in 0..5 {
        down.post(event(number)).await.expect(200).says("accepted");
    }
    let reason = "Google's STS (127.0.0.1";
    crate::servers::wait_for("the first attempt", folder.path(), || down.log().contains(reason));
    down.kill();
    let up = in_aws(&clouds).envs(vars).store(&store).start();
    delivered(&clouds, 5).await;
    assert_eq!(clouds.tokens(), (1, 1));
    tells_no_token(&up);
    clouds.expect_no_complaints();
}
