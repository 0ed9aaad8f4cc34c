//! Fetches from vendors: few at once, each only once, small, quickly, and without redirects.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use url::Url;
use webhook_router::{
    authorities::Authorities,
    config::Config,
    delivery::{Delivery, Reply},
    destination::{Destinations, tls_config},
    error::Error,
    fetcher::Fetcher,
    outcome::Origin,
    router::{Budget, Router},
    secret::Secret,
    source::{Fetch, Fetched},
    store,
};

use crate::{
    servers::Authority,
    signed_deliveries::{PAYPAL, now},
    support::{Answer, Sink, client, lookup, sqlite, status},
    vendors::{VECTORS, Vector},
};

fn address(sink: &Sink, path: &str) -> Url {
    format!("{}/{path}", sink.url).parse().unwrap()
}

fn certificate(sink: &Sink, path: &str) -> Fetch {
    Fetch::Certificate(address(sink, path))
}

fn key(sink: &Sink, path: &str) -> Fetch {
    Fetch::Key { address: address(sink, path), question: Secret::new(r#"{"key_id":"1"}"#) }
}

fn found(body: impl Into<bytes::Bytes>) -> Answer {
    Answer::With(StatusCode::OK, vec![], body.into())
}

fn vector(name: &str) -> &'static Vector {
    VECTORS.vectors.iter().find(|one| one.id == name).unwrap()
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
    let question = Secret::new(r#"{"key_id":"2"}"#);
    fetcher.get(&Fetch::Key { address: address(&sink, "key"), question }).await.unwrap();
    assert_eq!(sink.take().len(), 1);
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
    let not_pem = "the answer must be a certificate in PEM form";
    let no_key = "the answer must have a P-256 key for ES256";
    for (fetch, answer, expected) in [
        (
            certificate(&sink, "404"),
            status(StatusCode::NOT_FOUND, "no"),
            "the answer is 404 Not Found",
        ),
        (certificate(&sink, "302"), redirect(), "the answer is 302 Found"),
        (certificate(&sink, "text"), found("no certificate"), not_pem),
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
    let fetcher = Fetcher::with_client(client());
    let known = certificate(&sink, "known");
    fetcher.get(&known).await.unwrap();
    sink.take();
    sink.answers(status(StatusCode::NOT_FOUND, "no"));
    for number in 0..40 {
        reason(fetcher.get(&certificate(&sink, &number.to_string())).await);
    }
    assert_eq!(sink.take().len(), 16);
    // A certificate that is known stays known.
    fetcher.get(&known).await.unwrap();
    assert!(sink.take().is_empty());
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

/// A vendor's host: TLS with a certificate of its name before a sink.
struct Vendor {
    authority: Authority,
    sink: Sink,
    hosts: Vec<(&'static str, SocketAddr)>,
}

impl Vendor {
    async fn start(names: &[&'static str]) -> Self {
        let (authority, sink) = (Authority::new(), Sink::start().await);
        let mut hosts = Vec::new();
        for name in names {
            let (certificate, key) = authority.issue(&[*name]);
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            hosts.push((*name, listener.local_addr().unwrap()));
            let behind = sink.url["http://".len()..].to_owned();
            tokio::spawn(async move {
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    let (acceptor, behind) = (acceptor.clone(), behind.clone());
                    tokio::spawn(async move {
                        let Ok(mut stream) = acceptor.accept(connection).await else { return };
                        let mut sink = TcpStream::connect(behind).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut sink).await;
                    });
                }
            });
        }
        Self { authority, sink, hosts }
    }

    /// Returns a fetcher for which the hosts' names lead here.
    fn fetcher(&self) -> Fetcher {
        let tls = tls_config(Some(&Authorities::read(&self.authority.file()).unwrap())).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let hosts = self.hosts.iter();
        let client = hosts.fold(client, |client, (name, address)| client.resolve(name, *address));
        Fetcher::with_client(client.build().unwrap())
    }
}

/// A router in this process, with a destination that records what arrives.
struct Here {
    router: Arc<Router>,
    config: Config,
    destination: Sink,
    _folder: tempfile::TempDir,
}

impl Here {
    async fn start(vendor: &Vendor, secrets: (&str, &str)) -> Self {
        let destination = Sink::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = sqlite(folder.path());
        let vars = [
            ("GCP_TARGET_URL", destination.url.as_str()),
            ("ROUTE_THRESHOLD", "256"),
            ("STORE_URL", &path),
            secrets,
        ];
        let config = Config::from_vars(lookup(&vars)).unwrap();
        let store = store::open(&config.store).await.unwrap();
        let destinations = Destinations::new(&config.targets, config.forward.timeout).unwrap();
        let router = Router::new(&config, store, destinations).with_fetcher(vendor.fetcher());
        Self { router: Arc::new(router), config, destination, _folder: folder }
    }

    async fn answer(&self, delivery: &Delivery, at: i64) -> Reply {
        let mut budget = Budget::configured(&self.config);
        budget.now = now(at);
        self.router.handle(delivery.clone(), Origin::default(), budget).await
    }

    async fn status(&self, delivery: &Delivery, at: i64) -> u16 {
        self.answer(delivery, at).await.status.as_u16()
    }
}

const SNS: &str = "sns.us-west-2.amazonaws.com";

#[tokio::test]
async fn however_many_deliveries_wait_the_certificate_is_fetched_once() {
    let vendor = Vendor::start(&[SNS]).await;
    let vector = vector("aws-sns/2");
    vendor.sink.answers(found(vector.fetched.as_ref().unwrap()["genuine"].as_str()));
    let here = Here::start(&vendor, ("AWS_SNS_SECRETS", &vector.secret)).await;
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    let mut forged = genuine.clone();
    forged.body =
        String::from_utf8(genuine.body.to_vec()).unwrap().replace("parcel", "bomb").into();
    let here = Arc::new(here);
    let waiting: Vec<_> = [genuine, forged]
        .iter()
        .cycle()
        .take(20)
        .map(|delivery| {
            let (here, delivery) = (Arc::clone(&here), delivery.clone());
            tokio::spawn(async move { here.status(&delivery, at).await })
        })
        .collect();
    for (number, status) in waiting.into_iter().enumerate() {
        let status = status.await.unwrap();
        // The genuine ones carry one event: some are duplicates, or come while it is delivered.
        let expected: &[u16] = if number % 2 == 0 { &[200, 409] } else { &[401] };
        assert!(expected.contains(&status), "{number} {status}");
    }
    assert_eq!(vendor.sink.take().len(), 1);
    assert_eq!(here.destination.take().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_does_not_come_is_a_503_and_an_expired_one_a_401() {
    let vendor = Vendor::start(&[SNS]).await;
    let vector = vector("aws-sns/2");
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    let location = vec![("location", "https://sns.us-west-2.amazonaws.com/other.pem")];
    let expired = vector.fetched.as_ref().unwrap()["expired"].as_str();
    for (answer, expected) in [
        (Answer::With(StatusCode::FOUND, location, "".into()), 503),
        (found("x".repeat(70_000)), 503),
        (found(expired), 401),
    ] {
        vendor.sink.answers(answer);
        let here = Here::start(&vendor, ("AWS_SNS_SECRETS", &vector.secret)).await;
        assert_eq!(here.status(&genuine, at).await, expected);
        assert_eq!(here.status(&genuine, at).await, expected);
        assert_eq!(vendor.sink.take().len(), 1);
        assert!(here.destination.take().is_empty());
    }
}

#[tokio::test]
async fn a_subscription_to_a_listed_topic_is_confirmed_once() {
    let vendor = Vendor::start(&[SNS]).await;
    let vector = vector("aws-sns/2");
    vendor.sink.answers(found(vector.fetched.as_ref().unwrap()["genuine"].as_str()));
    let at = vector.first.now;
    let question =
        Delivery { body: VECTORS.subscription.as_str().into(), ..vector.delivery(&vector.first) };
    let here = Here::start(&vendor, ("AWS_SNS_SECRETS", &vector.secret)).await;
    for _ in 0..2 {
        let reply = here.answer(&question, at).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"confirmed"[..]));
    }
    let asked: Vec<_> = vendor.sink.take().into_iter().map(|one| one.path).collect();
    assert_eq!(asked, ["/SimpleNotificationService-1.pem", "/"]);
    assert!(here.destination.take().is_empty());
    // Nothing is visited for a forged question, or for another topic.
    let forged = VECTORS.subscription.replace("Token=token", "Token=other");
    let forged = Delivery { body: forged.into(), ..question.clone() };
    assert_eq!(here.status(&forged, at).await, 401);
    assert!(vendor.sink.take().is_empty());
    let other = format!("{}-other", vector.secret);
    let elsewhere = Here::start(&vendor, ("AWS_SNS_SECRETS", &other)).await;
    assert_eq!(elsewhere.status(&question, at).await, 401);
    assert!(vendor.sink.take().is_empty());
}

#[tokio::test]
async fn plaids_key_is_asked_for_with_the_credentials() {
    let vendor = Vendor::start(&["production.plaid.com", "sandbox.plaid.com"]).await;
    vendor.sink.answers(found(jwk()));
    let vector = vector("plaid");
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    for secret in ["client:plainly-plaid", "sandbox:client:plainly-plaid"] {
        let here = Here::start(&vendor, ("PLAID_SECRETS", secret)).await;
        assert_eq!(here.status(&genuine, at).await, 200);
        assert_eq!(here.status(&genuine, at + 1000).await, 401);
        let forged = Delivery { body: "{}".into(), ..genuine.clone() };
        assert_eq!(here.status(&forged, at).await, 401);
        let asked = vendor.sink.take();
        assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/webhook_verification_key/get"));
        let question = r#"{"client_id":"client","secret":"plainly-plaid","key_id":"key-1"}"#;
        assert_eq!(asked[0].body, question);
        assert_eq!(here.destination.take().len(), 1);
    }
}
