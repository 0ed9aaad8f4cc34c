//! A private service that refuses a token before its end: the token was revoked, or its key replaced.

use std::time::Duration;

use http::StatusCode;
use webhook_router::{outcome::Outcome, route::Route, store::Record};

use super::{
    clouds::{Clouds, Sts},
    event, in_aws, tells_no_token,
};
use crate::{
    inbox::{is_delivered, record},
    support::{Got, Serve, Sink, sqlite, status},
};

fn key(got: &Got) -> &str {
    got.header("x-webhook-key").unwrap()
}

/// Returns the outcomes of the attempts that a record has.
fn outcomes(record: &Record) -> Vec<Outcome> {
    record.attempts.iter().map(|attempt| attempt.outcome).collect()
}

#[tokio::test]
async fn another_token_takes_the_place_of_a_revoked_one_within_the_attempt() {
    for (answer, says) in [("delivered", "done"), ("accepted", "accepted")] {
        let (clouds, folder) = (Clouds::start().await, tempfile::tempdir().unwrap());
        let store = sqlite(folder.path());
        let router = in_aws(&clouds).env("ANSWER", answer).store(&store).start();
        for number in 0..3 {
            let got = router.post(event(number)).await.expect(200).says(says);
            let record = record(&store, key(&got), is_delivered).await;
            assert!(record.failed.is_none());
            assert_eq!(outcomes(&record), [Outcome::Status(200)]);
            if number == 0 {
                assert_eq!(clouds.tokens(), (1, 1));
                clouds.revoke();
            }
        }
        assert_eq!((clouds.tokens(), clouds.refused()), ((2, 2), 1));
        assert_eq!(clouds.delivered(), [event(0), event(1), event(2)]);
        tells_no_token(&router);
        clouds.expect_no_complaints();
    }
}

#[tokio::test]
async fn sixty_four_deliveries_with_a_revoked_token_share_one_request() {
    let clouds = Clouds::start().await;
    let router = in_aws(&clouds).start();
    router.post(event(64)).await.expect(200);
    clouds.revoke();
    // All of them are refused before the next token comes.
    clouds.sts(Sts::IsLate(Duration::from_millis(1500)));
    let post = async |number| router.post(event(number)).await.expect(200).says("done");
    futures_util::future::join_all((0..64).map(post)).await;
    assert_eq!((clouds.tokens(), clouds.delivered().len()), ((2, 2), 65));
    let refused = clouds.refused();
    assert!((1..=64).contains(&refused), "{refused}");
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn a_refusal_of_a_new_token_is_final() {
    for (answer, status) in [("delivered", 401), ("accepted", 200)] {
        let (clouds, folder) = (Clouds::start().await, tempfile::tempdir().unwrap());
        let store = sqlite(folder.path());
        let router = in_aws(&clouds).env("ANSWER", answer).store(&store).start();
        clouds.close(true);
        // The first event brings a new token, and so does the second one: a refused token is not kept.
        for number in 0..2 {
            let got = router.post(event(number)).await.expect(status);
            let record = record(&store, key(&got), |record| record.failed.is_some()).await;
            assert_eq!(outcomes(&record), [Outcome::Status(401)]);
            assert_eq!((clouds.tokens(), clouds.refused()), ((number + 1, number + 1), 1));
        }
        // With a token that is kept, a second request shows that a new one does not help either.
        clouds.close(false);
        let got = router.post(event(2)).await.expect(200);
        record(&store, key(&got), is_delivered).await;
        clouds.close(true);
        let got = router.post(event(3)).await.expect(status);
        let record = record(&store, key(&got), |record| record.failed.is_some()).await;
        assert_eq!(outcomes(&record), [Outcome::Status(401)]);
        assert_eq!((clouds.tokens(), clouds.refused()), ((4, 4), 2));
        assert_eq!(clouds.delivered(), [event(2)]);
        clouds.expect_no_complaints();
    }
}

#[tokio::test]
async fn without_another_token_the_attempt_is_repeated() {
    let (clouds, folder) = (Clouds::start().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path());
    let router = in_aws(&clouds)
        .envs([("ANSWER", "accepted"), ("RETRY_SCHEDULE", "0s,1s,1s,1s,1s,1s,1s,1s,1s,1s")])
        .store(&store)
        .start();
    let got = router.post(event(0)).await.expect(200);
    record(&store, key(&got), is_delivered).await;
    clouds.revoke();
    clouds.sts(Sts::Answers(503, "try again"));
    let got = router.post(event(1)).await.expect(200);
    let failed = record(&store, key(&got), |record| !record.attempts.is_empty()).await;
    assert_eq!((outcomes(&failed)[0], failed.failed.is_none()), (Outcome::Unreachable, true));
    clouds.sts(Sts::Works);
    let record = record(&store, key(&got), is_delivered).await;
    assert_eq!(outcomes(&record).last(), Some(&Outcome::Status(200)));
    assert_eq!((clouds.refused(), clouds.delivered()), (1, vec![event(0), event(1)]));
    clouds.expect_no_complaints();
}

#[tokio::test]
async fn without_id_tokens_a_refusal_is_final_at_once() {
    let sink = Sink::start().await;
    let router = Serve::to(&sink).only(Route::GCP).start();
    sink.answers(status(StatusCode::UNAUTHORIZED, "who are you?"));
    router.post(event(0)).await.expect(401).says("who are you?");
    assert_eq!(sink.received().len(), 1);
}
