//! Deliveries of vendors whose certificate or key is fetched, with a server in place of the vendor's
//! host.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
    time::timeout,
};
use webhook_router::{
    authorities::Authorities,
    config::Config,
    delivery::{Delivery, Reply},
    destination::Destinations,
    fetcher::{Fetcher, client_settings},
    outcome::Origin,
    router::{Budget, Router},
    source::Fetch,
    store,
};

use super::{found, jwk, reason};
use crate::{
    servers::Authority,
    signed_deliveries::{Kind, PAYPAL, SIGNED_AT, now},
    support::{Answer, Sink, lookup, sqlite, status},
    vendors::{VECTORS, vector},
};

/// The certificate that a host presents.
#[derive(Clone, Copy, Debug)]
enum Presented {
    Own,
    OfAnotherHost,
    Expired,
}

/// The servers of a vendor's hosts: TLS with certificates for their names, in front of a sink.
struct Vendor {
    authority: Authority,
    sink: Sink,
    hosts: Vec<(&'static str, SocketAddr)>,
    connections: Arc<AtomicUsize>,
}

impl Vendor {
    async fn start(names: &[&'static str]) -> Self {
        Self::presenting(Presented::Own, names).await
    }

    async fn presenting(presented: Presented, names: &[&'static str]) -> Self {
        let (authority, sink) = (Authority::new(), Sink::start().await);
        let connections = Arc::new(AtomicUsize::new(0));
        let mut hosts = Vec::new();
        for name in names {
            let (certificate, key) = match presented {
                Presented::Own => authority.issue(&[*name]),
                Presented::OfAnotherHost => authority.issue(&["www.example.com"]),
                Presented::Expired => authority.issue_expired(&[*name]),
            };
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
            let connections = Arc::clone(&connections);
            tokio::spawn(async move {
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (acceptor, behind) = (acceptor.clone(), behind.clone());
                    tokio::spawn(async move {
                        let Ok(mut stream) = acceptor.accept(connection).await else { return };
                        let mut sink = TcpStream::connect(behind).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut sink).await;
                    });
                }
            });
        }
        Self { authority, sink, hosts, connections }
    }

    /// Returns a fetcher that resolves the hosts' names to these servers.
    fn fetcher(&self) -> Fetcher {
        let authorities = Authorities::read(&self.authority.file()).unwrap();
        let client = client_settings(Some(&authorities)).unwrap();
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
async fn a_delivery_waits_for_a_certificate_no_longer_than_its_budget() {
    let vendor = Vendor::start(&[SNS]).await;
    let vector = vector("aws-sns/2");
    vendor.sink.answers(Answer::WhenTold);
    let here = Here::start(&vendor, ("AWS_SNS_SECRETS", &vector.secret)).await;
    let mut budget = Budget::new(Duration::from_millis(100), Duration::from_millis(100));
    budget.now = now(vector.first.now);
    let delivery = vector.delivery(&vector.first);
    let handled = here.router.handle(delivery, Origin::default(), budget);
    // A fetch alone may take 2 s.
    let reply = timeout(Duration::from_millis(1900), handled).await.unwrap();
    assert_eq!(reply.status, 503);
}

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

/// A vendor whose certificate or key is fetched, with a delivery that it signed.
struct Fetching {
    host: &'static str,
    secrets: (&'static str, String),
    genuine: Delivery,
    at: i64,
    /// The vendor's answer.
    answer: String,
    /// Certificates or keys that did not sign, or are of another kind, and the status for them.
    others: Vec<(String, u16)>,
}

impl Fetching {
    fn all() -> [Self; 3] {
        let of = |id, host, variable, others: &[(&str, u16)]| {
            let vector = vector(id);
            let answers = vector.fetched.as_ref().unwrap();
            Self {
                host,
                secrets: (variable, vector.secret.clone()),
                genuine: vector.delivery(&vector.first),
                at: vector.first.now,
                answer: answers["genuine"].clone(),
                others: others.iter().map(|(name, to)| (answers[*name].clone(), *to)).collect(),
            }
        };
        let refused = [("another", 401), ("expired", 401)];
        let mut sns = of("aws-sns/2", SNS, "AWS_SNS_SECRETS", &refused);
        let mut plaid = of("plaid", "production.plaid.com", "PLAID_SECRETS", &refused);
        let mut paypal = Self {
            host: "api.paypal.com",
            secrets: ("PAYPAL_SECRETS", PAYPAL.webhook_id.clone()),
            genuine: Kind::of("paypal").delivery(1, 0),
            at: SIGNED_AT,
            answer: PAYPAL.certificate.clone(),
            others: vec![(PAYPAL.certificate_of_another.clone(), 401)],
        };
        let elliptic = Authority::new().issue(&[SNS]).0.pem();
        sns.others.push((elliptic.clone(), 503));
        paypal.others.push((elliptic, 503));
        for (part, other) in [("ES256", "HS256"), ("ES256", "RS256"), ("P-256", "P-384")] {
            plaid.others.push((plaid.answer.replacen(part, other, 1), 503));
        }
        [sns, plaid, paypal]
    }

    /// Sends the genuine delivery several times at once, and once more. Every one is refused with
    /// that status in time, and one fetch is made.
    async fn is_refused(&self, vendor: &Vendor, expected: u16, what: &str) {
        let secrets = (self.secrets.0, self.secrets.1.as_str());
        let here = Arc::new(Here::start(vendor, secrets).await);
        vendor.sink.take();
        vendor.connections.store(0, Ordering::SeqCst);
        let started = Instant::now();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let (here, genuine, at) = (Arc::clone(&here), self.genuine.clone(), self.at);
                tokio::spawn(async move { here.status(&genuine, at).await })
            })
            .collect();
        for one in waiting {
            assert_eq!(one.await.unwrap(), expected, "{} {what}", self.host);
        }
        assert_eq!(here.status(&self.genuine, self.at).await, expected, "{} {what}", self.host);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(4), "{} {what}: {took:?}", self.host);
        assert_eq!(vendor.connections.load(Ordering::SeqCst), 1, "{} {what}", self.host);
        assert!(vendor.sink.take().len() <= 1, "{} {what}", self.host);
        assert!(here.destination.take().is_empty(), "{} {what}", self.host);
    }
}

#[tokio::test]
async fn a_wrong_answer_is_refused_in_time_and_fetched_once_however_many_wait() {
    for fetching in Fetching::all() {
        let vendor = Vendor::start(&[fetching.host]).await;
        let location = vec![("location", "https://www.example.com/elsewhere")];
        let redirect = Answer::With(StatusCode::FOUND, location, fetching.answer.clone().into());
        let large = format!("{}{}", fetching.answer, " ".repeat(64 * 1024));
        for (what, answer) in [
            ("redirect", redirect),
            ("large", found(large)),
            ("not found", status(StatusCode::NOT_FOUND, "no")),
            ("slow", Answer::WhenTold),
        ] {
            vendor.sink.answers(answer);
            fetching.is_refused(&vendor, 503, what).await;
        }
        for (number, (answer, expected)) in fetching.others.iter().enumerate() {
            vendor.sink.answers(found(answer.clone()));
            fetching.is_refused(&vendor, *expected, &format!("other {number}")).await;
        }
        // With the right answer, the same delivery is accepted.
        vendor.sink.answers(found(fetching.answer.clone()));
        let here = Here::start(&vendor, (fetching.secrets.0, &fetching.secrets.1)).await;
        assert_eq!(here.status(&fetching.genuine, fetching.at).await, 200, "{}", fetching.host);
    }
}

#[tokio::test]
async fn a_host_without_a_valid_certificate_is_asked_nothing() {
    for fetching in Fetching::all() {
        for presented in [Presented::OfAnotherHost, Presented::Expired] {
            let vendor = Vendor::presenting(presented, &[fetching.host]).await;
            vendor.sink.answers(found(fetching.answer.clone()));
            fetching.is_refused(&vendor, 503, &format!("{presented:?}")).await;
            assert!(vendor.sink.received().is_empty());
        }
    }
}

#[tokio::test]
async fn strangers_who_name_one_vendors_addresses_do_not_hold_up_another_vendor() {
    let vendor = Vendor::start(&[SNS, "api.paypal.com"]).await;
    let of = |host: &str, name: &str| {
        Fetch::Certificate(format!("https://{host}/{name}").parse().unwrap())
    };
    // Many addresses of Amazon SNS have no certificate.
    vendor.sink.answers(status(StatusCode::NOT_FOUND, "no"));
    let fetcher = Arc::new(vendor.fetcher());
    for number in 0..17 {
        reason(fetcher.get(&of(SNS, &number.to_string())).await);
    }
    assert_eq!(vendor.sink.take().len(), 17);
    vendor.sink.answers(found(PAYPAL.certificate.as_str()));
    assert!(fetcher.get(&of("api.paypal.com", "1")).await.is_ok());
    // Now the largest number of addresses that are fetched at once do not answer.
    let fetcher = Arc::new(vendor.fetcher());
    vendor.sink.take();
    vendor.sink.answers(Answer::WhenTold);
    let slow: Vec<_> = (0..4)
        .map(|number| {
            let (fetcher, fetch) = (Arc::clone(&fetcher), of(SNS, &number.to_string()));
            tokio::spawn(async move { fetcher.get(&fetch).await })
        })
        .collect();
    vendor.sink.arrived(4).await;
    vendor.sink.answers(found(PAYPAL.certificate.as_str()));
    assert!(fetcher.get(&of("api.paypal.com", "2")).await.is_ok());
    assert!(slow.iter().all(|one| !one.is_finished()));
}

#[tokio::test]
async fn a_confirmation_that_fails_is_a_503_and_tried_once() {
    let vendor = Vendor::start(&[SNS]).await;
    let vector = vector("aws-sns/2");
    vendor.sink.answers(found(vector.fetched.as_ref().unwrap()["genuine"].as_str()));
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    let here = Here::start(&vendor, ("AWS_SNS_SECRETS", &vector.secret)).await;
    assert_eq!(here.status(&genuine, at).await, 200);
    vendor.sink.take();
    let location = vec![("location", "https://www.example.com/")];
    vendor.sink.answers(Answer::With(StatusCode::FOUND, location, "".into()));
    let question = Delivery { body: VECTORS.subscription.as_str().into(), ..genuine };
    for _ in 0..3 {
        assert_eq!(here.status(&question, at).await, 503);
    }
    assert_eq!(vendor.sink.take().len(), 1);
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
        // The token names the hash of its body.
        let forged = Delivery { body: "{}".into(), ..genuine.clone() };
        assert_eq!(here.status(&forged, at).await, 401);
        let asked = vendor.sink.take();
        assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/webhook_verification_key/get"));
        let question = r#"{"client_id":"client","secret":"plainly-plaid","key_id":"key-1"}"#;
        assert_eq!(asked[0].body, question);
        assert_eq!(here.destination.take().len(), 1);
    }
}
