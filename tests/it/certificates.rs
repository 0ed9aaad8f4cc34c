//! Fetches vendors' certificates: few at once, each only once, small, quickly, and without
//! redirects.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;
use url::Url;
use webhook_router::{certificates::Certificates, error::Error};

use crate::{
    signed_deliveries::PAYPAL,
    support::{Answer, Sink, client, status},
};

fn address(sink: &Sink, path: &str) -> Url {
    format!("{}/{path}", sink.url).parse().unwrap()
}

fn pem(pem: impl Into<bytes::Bytes>) -> Answer {
    Answer::With(StatusCode::OK, vec![], pem.into())
}

fn reason(result: Result<Arc<webhook_router::source::Certificate>, Error>) -> String {
    let error = result.unwrap_err();
    // The vendor must retry, whatever the reason is.
    assert_eq!(error.reply().status, 503);
    assert_eq!(error.reply().body, "try again later");
    error.to_string()
}

#[tokio::test]
async fn a_certificate_is_fetched_once_and_kept() {
    let sink = Sink::start().await;
    sink.answers(pem(PAYPAL.certificate.as_bytes()));
    let certificates = Certificates::with_client(client());
    let one = address(&sink, "one");
    let all = tokio::join!(certificates.get(&one), certificates.get(&one), certificates.get(&one));
    assert!(all.0.unwrap().is_for("messageverificationcerts.paypal.com"));
    assert!(all.1.is_ok() && all.2.is_ok() && certificates.get(&one).await.is_ok());
    assert_eq!(sink.take().len(), 1);
    certificates.get(&address(&sink, "two")).await.unwrap();
    assert_eq!(sink.take().len(), 1);
}

#[tokio::test]
async fn failures_are_named_and_kept() {
    let sink = Sink::start().await;
    let certificates = Certificates::with_client(client());
    let large = format!("{}{}", PAYPAL.certificate, "x".repeat(64 * 1024));
    let elsewhere = vec![("location", "https://evil.example/")];
    for (name, answer, expected) in [
        ("404", status(StatusCode::NOT_FOUND, "no"), "the answer is 404 Not Found"),
        ("302", Answer::With(StatusCode::FOUND, elsewhere, "".into()), "the answer is 302 Found"),
        ("text", pem("no certificate"), "the answer must be a certificate in PEM form"),
        ("large", pem(large), "the answer has more than 65536 bytes"),
    ] {
        sink.answers(answer);
        let address = address(&sink, name);
        for _ in 0..2 {
            let text = reason(certificates.get(&address).await);
            assert_eq!(text, format!("the vendor's certificate is not available: {expected}"));
        }
        assert_eq!(sink.take().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn strangers_addresses_are_fetched_a_few_times_only() {
    let sink = Sink::start().await;
    sink.answers(pem(PAYPAL.certificate.as_bytes()));
    let certificates = Certificates::with_client(client());
    let known = address(&sink, "known");
    certificates.get(&known).await.unwrap();
    sink.take();
    sink.answers(status(StatusCode::NOT_FOUND, "no"));
    for number in 0..40 {
        reason(certificates.get(&address(&sink, &number.to_string())).await);
    }
    assert_eq!(sink.take().len(), 16);
    // A certificate that is known stays known.
    certificates.get(&known).await.unwrap();
    assert!(sink.take().is_empty());
}

#[tokio::test]
async fn a_slow_address_is_given_up_and_few_are_asked_at_once() {
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    let certificates = Arc::new(Certificates::with_client(client()));
    let started = Instant::now();
    let asking: Vec<_> = (0..6)
        .map(|number| {
            let (certificates, address) =
                (Arc::clone(&certificates), address(&sink, &number.to_string()));
            tokio::spawn(async move { certificates.get(&address).await })
        })
        .collect();
    sink.arrived(4).await;
    for one in asking {
        reason(one.await.unwrap());
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
}
