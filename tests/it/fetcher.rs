//! Fetches from vendors: few at once, each only once, small, quickly, and without redirects.

mod hosts;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;
use url::Url;
use webhook_router::{
    error::Error,
    fetcher::Fetcher,
    secret::Secret,
    source::{Fetch, Fetched, Question},
};

use crate::{
    servers::Authority,
    signed_deliveries::PAYPAL,
    support::{Answer, Sink, client, status},
    vendors::vector,
};

fn address(sink: &Sink, path: &str) -> Url {
    format!("{}/{path}", sink.url).parse().unwrap()
}

fn certificate(sink: &Sink, path: &str) -> Fetch {
    Fetch::Certificate(address(sink, path))
}

fn key(sink: &Sink, path: &str) -> Fetch {
    Fetch::Key { first: question(sink, path, "1"), others: Vec::new() }
}

fn question(sink: &Sink, path: &str, id: &str) -> Question {
    let json = Secret::new(format!(r#"{{"key_id":"{id}"}}"#));
    Question { address: address(sink, path), json }
}

fn found(body: impl Into<bytes::Bytes>) -> Answer {
    Answer::With(StatusCode::OK, vec![], body.into())
}

/// Returns what Plaid answers when it is asked for its key.
fn jwk() -> &'static str {
    &vector("plaid").fetched.as_ref().unwrap()["genuine"]
}

fn reason(result: Result<Arc<Fetched>, Error>) -> String {
    let error = result.unwrap_err();
    // The vendor must retry, whatever the reason is.
    assert_eq!(error.reply().status, 503);
    assert_eq!(error.reply().body, "try again later");
    error.to_string()
}

#[tokio::test]
async fn a_certificate_is_fetched_once_and_kept() {
    let sink = Sink::start().await;
    sink.answers(found(PAYPAL.certificate.as_bytes()));
    let fetcher = Fetcher::with_client(client());
    let one = certificate(&sink, "one");
    let all = tokio::join!(fetcher.get(&one), fetcher.get(&one), fetcher.get(&one));
    let first = all.0.unwrap();
    assert!(first.certificate().unwrap().is_for("messageverificationcerts.paypal.com"));
    assert!(all.1.is_ok() && all.2.is_ok() && fetcher.get(&one).await.is_ok());
    assert_eq!(sink.take().len(), 1);
    fetcher.get(&certificate(&sink, "two")).await.unwrap();
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_key_is_asked_for_once_for_each_question() {
    let sink = Sink::start().await;
    sink.answers(found(jwk()));
    let fetcher = Fetcher::with_client(client());
    let one = key(&sink, "key");
    let all = tokio::join!(fetcher.get(&one), fetcher.get(&one), fetcher.get(&one));
    assert!(all.0.unwrap().key().is_some() && all.1.is_ok() && all.2.is_ok());
    let asked = sink.take();
    assert_eq!((asked.len(), &asked[0].body[..]), (1, &br#"{"key_id":"1"}"#[..]));
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    let other = Fetch::Key { first: question(&sink, "key", "2"), others: Vec::new() };
    fetcher.get(&other).await.unwrap();
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn a_key_is_asked_for_with_every_secret_until_one_has_an_answer() {
    let (sink, other) = (Sink::start().await, Sink::start().await);
    sink.answers(status(StatusCode::BAD_REQUEST, "{}"));
    other.answers(found(jwk()));
    let fetcher = Fetcher::with_client(client());
    let both = |first: &Sink, path, others: &[&Sink]| Fetch::Key {
        first: question(first, path, "1"),
        others: others.iter().map(|one| question(one, path, "1")).collect(),
    };
    let fetch = both(&sink, "one", &[&other, &sink]);
    for _ in 0..2 {
        assert!(fetcher.get(&fetch).await.unwrap().key().is_some());
    }
    // The answer is kept for all of them.
    assert_eq!((sink.take().len(), other.take().len()), (1, 1));
    let text = reason(fetcher.get(&both(&sink, "two", &[&sink])).await);
    assert_eq!(text, "cannot fetch from the vendor: the answer is 400 Bad Request");
    assert_eq!(sink.take().len(), 2);
}

#[tokio::test]
async fn failures_are_named_and_kept() {
    let sink = Sink::start().await;
    let fetcher = Fetcher::with_client(client());
    let large = format!("{}{}", PAYPAL.certificate, "x".repeat(64 * 1024));
    let elsewhere = || vec![("location", "https://evil.example/")];
    let redirect = || Answer::With(StatusCode::FOUND, elsewhere(), "".into());
    let confirmation = Fetch::Confirmation(address(&sink, "confirm?Token=1"));
    let hs256 = jwk().replace("ES256", "HS256");
    let (elliptic, _) = Authority::new().issue(&["sns.amazonaws.com"]);
    let not_pem = "the answer must be a certificate with an RSA key, in PEM form";
    let no_key = "the answer must have a P-256 key for ES256";
    for (fetch, answer, expected) in [
        (
            certificate(&sink, "404"),
            status(StatusCode::NOT_FOUND, "no"),
            "the answer is 404 Not Found",
        ),
        (certificate(&sink, "302"), redirect(), "the answer is 302 Found"),
        (certificate(&sink, "text"), found("no certificate"), not_pem),
        (certificate(&sink, "elliptic"), found(elliptic.pem()), not_pem),
        (certificate(&sink, "large"), found(large), "the answer has more than 65536 bytes"),
        (key(&sink, "302"), redirect(), "the answer is 302 Found"),
        (key(&sink, "400"), status(StatusCode::BAD_REQUEST, "{}"), "the answer is 400 Bad Request"),
        (key(&sink, "large"), found("x".repeat(70_000)), "the answer has more than 65536 bytes"),
        (key(&sink, "hs256"), found(hs256), no_key),
        (key(&sink, "empty"), found("{}"), no_key),
        (confirmation, redirect(), "the answer is 302 Found"),
    ] {
        sink.answers(answer);
        for _ in 0..2 {
            let text = reason(fetcher.get(&fetch).await);
            assert_eq!(text, format!("cannot fetch from the vendor: {expected}"));
        }
        assert_eq!(sink.take().len(), 1, "{fetch:?}");
    }
}

#[tokio::test]
async fn strangers_addresses_are_fetched_a_few_times_only() {
    let sink = Sink::start().await;
    sink.answers(found(PAYPAL.certificate.as_bytes()));
    let fetcher = Fetcher::with_client(client()).forgetting_every(Duration::from_secs(600));
    let known = certificate(&sink, "known");
    fetcher.get(&known).await.unwrap();
    sink.take();
    sink.answers(status(StatusCode::NOT_FOUND, "no"));
    for number in 0..40 {
        reason(fetcher.get(&certificate(&sink, &number.to_string())).await);
    }
    // One of them takes the place of a failure. The next one may do so after the pause.
    assert_eq!(sink.take().len(), 17);
    // A certificate that is known stays known.
    fetcher.get(&known).await.unwrap();
    assert!(sink.take().is_empty());
}

#[tokio::test]
async fn strangers_do_not_shut_the_vendors_key_out() {
    let sink = Sink::start().await;
    sink.answers(status(StatusCode::NOT_FOUND, "no"));
    let pause = Duration::from_millis(300);
    let fetcher = Fetcher::with_client(client()).forgetting_every(pause);
    let fill = async |round: &str| {
        for number in 0..40 {
            reason(fetcher.get(&key(&sink, &format!("{round}-{number}"))).await);
        }
        sink.take();
    };
    fill("first").await;
    sink.answers(found(jwk()));
    let started = Instant::now();
    let genuine = key(&sink, "genuine");
    while fetcher.get(&genuine).await.is_err() {
        assert!(sink.received().is_empty(), "a key is there, and still refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    assert!(took < pause + Duration::from_secs(2), "{took:?}");
    assert_eq!(sink.take().len(), 1);
    // The key stays, however many others are named.
    sink.answers(status(StatusCode::NOT_FOUND, "no"));
    fill("second").await;
    assert!(fetcher.get(&genuine).await.is_ok());
    assert!(sink.take().is_empty());
}

#[tokio::test]
async fn a_request_that_is_being_made_is_not_forgotten() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let fetcher = Arc::new(Fetcher::with_client(client()).forgetting_every(Duration::ZERO));
    let made: Vec<_> = (0..16)
        .map(|number| {
            let (fetcher, fetch) = (Arc::clone(&fetcher), key(&sink, &number.to_string()));
            tokio::spawn(async move { fetcher.get(&fetch).await })
        })
        .collect();
    sink.arrived(4).await;
    let text = reason(fetcher.get(&key(&sink, "another")).await);
    assert!(text.ends_with("too many requests have no answer"), "{text}");
    assert!(made.iter().all(|one| !one.is_finished()));
}

#[tokio::test]
async fn a_slow_address_is_given_up_and_few_are_asked_at_once() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let fetcher = Arc::new(Fetcher::with_client(client()));
    let started = Instant::now();
    let fetches = [
        certificate(&sink, "0"),
        certificate(&sink, "1"),
        key(&sink, "2"),
        key(&sink, "3"),
        Fetch::Confirmation(address(&sink, "4")),
        certificate(&sink, "5"),
    ];
    let asking: Vec<_> = fetches
        .into_iter()
        .map(|fetch| {
            let fetcher = Arc::clone(&fetcher);
            tokio::spawn(async move { fetcher.get(&fetch).await })
        })
        .collect();
    sink.arrived(4).await;
    for one in asking {
        reason(one.await.unwrap());
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn an_old_answer_counts_until_the_vendor_gives_another() {
    let sink = Sink::start().await;
    // An answer is out of date at once.
    let fetcher = Fetcher::with_client(client()).keeping(Duration::ZERO, Duration::ZERO);
    let one = certificate(&sink, "one");
    sink.answers(found(PAYPAL.certificate.as_str()));
    let first = fetcher.get(&one).await.unwrap();
    for (number, failure) in
        [status(StatusCode::BAD_GATEWAY, "no"), found("no certificate")].into_iter().enumerate()
    {
        sink.answers(failure);
        let answer = fetcher.get(&one).await.unwrap();
        assert_eq!(answer, first);
        assert_eq!(sink.take().len(), if number == 0 { 2 } else { 1 });
        reason(fetcher.get(&certificate(&sink, "other")).await);
        assert_eq!(sink.take().len(), 1);
    }
    sink.answers(found(PAYPAL.certificate_of_another.as_str()));
    assert_ne!(fetcher.get(&one).await.unwrap(), first);
    // While an old answer cannot be refreshed, the vendor is not asked again and again.
    let fetcher = Fetcher::with_client(client()).keeping(Duration::ZERO, Duration::from_secs(60));
    sink.answers(found(PAYPAL.certificate.as_str()));
    fetcher.get(&one).await.unwrap();
    sink.answers(status(StatusCode::BAD_GATEWAY, "no"));
    sink.take();
    for _ in 0..5 {
        assert_eq!(fetcher.get(&one).await.unwrap(), first);
    }
    assert_eq!(sink.take().len(), 1);
}
