//! Behaviour that only DynamoDB has: requests, settings, faults.

use std::time::{Duration, Instant};

use webhook_router::{
    outcome::Outcome,
    plan::Plan,
    store::{Claim, DeadLetter, Discarded, DynamoDb, Failure, Lease, Release, Settled, Store as _},
};

use crate::{
    proxy::Proxy,
    servers::DynamoDbLocal,
    shared::{self, Table},
    support::{Got, PAYLOAD, Serve, Server, Sink, at, delivery, plan_of},
};

/// A router with enough time for a server that is busy with other tests.
pub fn serve(sink: &Sink, table: &str, endpoint: &str) -> Serve {
    Serve::to(sink)
        .store(&format!("dynamodb://{table}"))
        .env("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
        .env("STORE_TIMEOUT_MS", "20000")
}

pub fn event(number: u32) -> String {
    PAYLOAD.replace("4200", &number.to_string())
}

/// Delivers an event repeatedly until it is accepted, as a vendor does. DynamoDB Local first
/// answers the requests that waited while the table was missing. A claim may have succeeded
/// although its answer was lost.
async fn answered(router: &Server, event: String) -> Got {
    for _ in 0..600 {
        let got = router.post(event.clone()).await;
        if got.status != 503 && got.status != 409 {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the table did not come back: {}", router.log());
}

#[tokio::test]
async fn a_delivery_costs_two_requests_and_a_duplicate_one() {
    let (sink, table) = (Sink::start().await, shared::dynamodb_table().await);
    let proxy = Proxy::start(table.port).await;
    let router = serve(&sink, &table.name, &proxy.url()).start();
    router.checked();
    // The first request to a new DynamoDB Local takes long.
    answered(&router, event(99)).await;
    proxy.take();
    for number in 0..3 {
        let got = router.post(event(number)).await;
        assert_eq!((got.text(), proxy.take()), ("done", 2), "{}", router.log());
        let got = router.post(event(number)).await;
        assert_eq!((got.text(), proxy.take()), ("duplicate ignored", 1));
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_recognised_as_ours() {
    let (sink, table) = (Sink::start().await, shared::dynamodb_table().await);
    let proxy = Proxy::start(table.port).await;
    let router = serve(&sink, &table.name, &proxy.url()).start();
    assert_eq!(router.post(event(0)).await.text(), "done");
    sink.take();
    proxy.break_off_after(0);
    let got = router.post(event(1)).await;
    assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
    assert_eq!(proxy.left_to_break(), 0);
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_table_that_hangs_or_is_gone_is_503_and_works_when_it_is_back() {
    let (sink, dynamodb) = (Sink::start().await, DynamoDbLocal::start().await);
    let serve = serve(&sink, DynamoDbLocal::TABLE, &dynamodb.url);
    let router = serve.env("STORE_TIMEOUT_MS", "1000").start();
    // The first request to a new DynamoDB Local takes long.
    answered(&router, event(0)).await;
    sink.take();
    let refused = async |number| {
        let started = Instant::now();
        let got = router.post(event(number)).await;
        assert_eq!((got.status, got.text()), (503, "try again later"), "{}", router.log());
        assert_eq!(got.header("retry-after"), Some("5"));
        // The limit is STORE_TIMEOUT_MS, 1 s, plus a margin for a busy machine.
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        assert!(sink.received().is_empty());
    };
    dynamodb.signal("STOP");
    refused(1).await;
    refused(2).await;
    dynamodb.signal("CONT");
    let back = async |number| {
        let got = answered(&router, event(number)).await;
        assert_eq!((got.status, got.text()), (200, "done"), "{}", router.log());
        assert_eq!(sink.take().len(), 1);
    };
    back(3).await;
    let port = dynamodb.port;
    drop(dynamodb);
    refused(4).await;
    let _again = DynamoDbLocal::start_at(port).await;
    back(4).await;
}

#[tokio::test]
async fn a_table_that_does_not_exist_is_503_and_named_in_the_log() {
    let (sink, table) = (Sink::start().await, shared::dynamodb_table().await);
    let router = serve(&sink, "no-such-table", &table.url).start();
    router.post(PAYLOAD).await.expect(503);
    let said = "dynamodb://no-such-table: no such table in this region: ResourceNotFoundException";
    assert!(router.log().contains(said), "{}", router.log());
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn the_parts_of_a_large_letter_go_with_it() {
    let Table { name, sdk, .. } = shared::dynamodb_table().await;
    let store = DynamoDb::with_sdk_config(name.clone(), Duration::from_secs(20), &sdk);
    let items = async || {
        let scan = aws_sdk_dynamodb::Client::new(&sdk).scan();
        scan.table_name(&name).send().await.unwrap().count
    };
    let claim = async |plan: &Plan, now: i64| match store.claim(plan, at(now), at(now + 100)).await
    {
        Ok(Claim::Won(lease)) => lease,
        other => panic!("{other:?}"),
    };
    let mut random = vec![0; 600 * 1024];
    rand::fill(&mut random[..]);
    let letter = |lease: &Lease, body: &[u8]| DeadLetter {
        key: lease.key,
        details: lease.details.clone(),
        failed_at: at(1),
        failure: Failure { outcome: Outcome::Status(500), detail: String::new(), answer: None },
        attempts: vec![],
        delivery: delivery(body.to_vec()),
    };
    let plan = plan_of("large");
    let first = claim(&plan, 0).await;
    let large = letter(&first, &random);
    for _ in 0..2 {
        store.fail(&first, &large, Release::Now).await.unwrap();
        assert_eq!(items().await, 1 + 3);
    }
    let second = claim(&plan, 10).await;
    // This write comes too late. Its own parts are deleted at once, and the letter's parts stay.
    assert_eq!(store.fail(&first, &large, Release::Now).await.unwrap(), Settled::LeaseLost);
    assert_eq!(store.dead_letter(&plan.key).await.unwrap().as_ref(), Some(&large));
    store.fail(&second, &letter(&second, b"{}"), Release::Now).await.unwrap();
    assert_eq!(items().await, 1);
    let third = claim(&plan, 20).await;
    store.fail(&first, &large, Release::Now).await.unwrap();
    assert_eq!(items().await, 1);
    store.fail(&third, &letter(&third, &random), Release::Now).await.unwrap();
    assert_eq!(items().await, 1 + 3);
    assert_eq!(store.discard(&plan.key, at(30)).await.unwrap(), Discarded::Done);
    assert_eq!(items().await, 0);
}
