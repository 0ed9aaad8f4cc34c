//! The requests that each destination gets, and the results of its answers.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{StatusCode, Version};
use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpListener;
use webhook_router::{
    authorities::Authorities,
    config::{Config, HttpTarget, Target},
    destination::{CloudRun, Destination, Outgoing, SendError},
    route::Route,
};

use crate::servers::Authority;
use crate::support::{Answer, PAYLOAD, Serve, Sink, client, delivery, get, lookup, plan_of};

const TIMEOUT: Duration = Duration::from_secs(10);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn both_destinations_are_told_the_same_beside_the_body() {
    let sink = Sink::start().await;
    for route in [Route::GCP, Route::AWS] {
        let router = Serve::to(&sink).only(route).start();
        let request = client()
            .post(router.webhook())
            .header("content-type", "application/json; charset=UTF-8")
            .header("traceparent", TRACE)
            .header("tracestate", "vendor=1")
            .header("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793")
            .header("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1")
            .header("webhook-signature", "not for the destination")
            .body(PAYLOAD);
        let got = get(request.send().await).await.expect(200);
        let received = sink.take().remove(0);
        assert_eq!(received.body, PAYLOAD);
        let invoked = received.is_invocation();
        assert_eq!(invoked, route == Route::AWS);
        for (name, value) in [
            ("content-type", Some("application/json; charset=UTF-8")),
            ("idempotency-key", got.header("x-webhook-key")),
            ("x-webhook-vendor", Some("stripe")),
            ("x-webhook-event-type", Some("payment.succeeded")),
            ("x-webhook-attempt", Some("1")),
            ("traceparent", Some(TRACE)),
            ("tracestate", Some("vendor=1")),
            ("x-amzn-trace-id", Some("Root=1-5759e988-bd862e3fe1be46a994272793")),
            ("x-cloud-trace-context", Some("105445aa7843bc8bf206b12000100000/1;o=1")),
            ("webhook-signature", None),
        ] {
            assert_eq!(received.told(name).as_deref(), value, "{name} to {route}");
        }
        if invoked {
            assert_eq!(received.path, "/2015-03-31/functions/webhook-processor/invocations");
            assert_eq!(received.header("x-amz-invocation-type"), Some("RequestResponse"));
        }
    }
}

#[tokio::test]
async fn names_that_no_header_can_hold_are_encoded_and_cut_and_the_event_arrives() {
    let sink = Sink::start().await;
    let long = "x".repeat(100_000);
    let body = serde_json::json!({
        "vendor": "Ünï\r\ncode 100%", "event_type": long, "created_at": "2024-05-05",
    });
    for route in [Route::GCP, Route::AWS] {
        let router = Serve::to(&sink).only(route).start();
        let request = client()
            .post(router.webhook())
            .header("content-type", "c".repeat(3000))
            .header("tracestate", "t".repeat(513))
            .header("x-amzn-trace-id", "r".repeat(512))
            .body(body.to_string());
        assert_eq!(get(request.send().await).await.status, 200);
        let received = sink.take().remove(0);
        let (vendor, event_type) = if route == Route::AWS {
            let custom = received.custom();
            assert!(!custom.contains_key("content-type"));
            assert!(!custom.contains_key("tracestate"));
            (custom["x-webhook-vendor"].clone(), custom["x-webhook-event-type"].clone())
        } else {
            let header = |name| received.header(name).unwrap().to_owned();
            (header("x-webhook-vendor"), header("x-webhook-event-type"))
        };
        assert_eq!(vendor, "%C3%9Cn%C3%AF%0D%0Acode%20100%25");
        assert_eq!(event_type, long[..256]);
    }
}

#[tokio::test]
async fn a_destination_that_is_not_there_or_too_slow_is_502_or_504() {
    let nobody = format!("http://127.0.0.1:{}", crate::support::free_port());
    let sink = Sink::start().await;
    sink.answers(Answer::WhenTold);
    for route in [Route::GCP, Route::AWS] {
        let hurried = [
            ("FORWARD_ATTEMPTS", "1"),
            ("FORWARD_TIMEOUT_MS", "300"),
            ("FORWARD_BUDGET_MS", "30000"),
        ];
        let serve = |url: &str| Serve::to_url(url).only(route).envs(hurried).start();
        let router = serve(&nobody);
        // The event was certainly not sent, so the next delivery may try at once.
        for _ in 0..2 {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (502, "destination unreachable"));
        }
        let router = serve(&sink.url);
        let got = router.post(PAYLOAD).await;
        assert_eq!((got.status, got.text()), (504, "destination too slow"));
        // The destination may still be processing the event, so no other delivery may send it
        // before the lease ends.
        let got = router.post(PAYLOAD).await;
        assert_eq!((got.status, got.text()), (409, "in progress"));
        assert_eq!(sink.take().len(), 1);
    }
}

#[tokio::test]
async fn what_could_not_connect_was_not_sent_however_short_the_attempt_is() {
    // A listener with a full queue does not answer, not even with a refusal.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(connection)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address))
            .await
    {
        queued.push(connection);
    }
    let url = format!("http://{address}");
    for route in [Route::GCP, Route::AWS] {
        let router = Serve::to_url(&url).only(route).env("FORWARD_TIMEOUT_MS", "2000").start();
        for _ in 0..2 {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (502, "destination unreachable"), "{route}");
        }
    }
}

#[tokio::test]
async fn without_region_or_credentials_nothing_is_sent_and_the_key_is_free() {
    let sink = Sink::start().await;
    let nowhere = tempfile::tempdir().unwrap();
    let none = nowhere.path().join("none");
    let none = none.to_str().unwrap();
    for missing in
        [vec![("AWS_REGION", "")], vec![("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")]]
    {
        let mut vars = sink.vars();
        vars.retain(|(name, _)| *name != "AWS_ENDPOINT_URL_LAMBDA" || missing.len() > 1);
        vars.extend([("ROUTE_THRESHOLD", "0"), ("AWS_CONFIG_FILE", none)]);
        vars.extend([("AWS_SHARED_CREDENTIALS_FILE", none)]);
        let router = Serve::new().envs(vars).envs(missing).start();
        for _ in 0..2 {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (502, "destination unreachable"));
        }
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn without_an_answer_about_credentials_nothing_is_sent_and_the_key_is_free() {
    let sink = Sink::start().await;
    for closes in [false, true] {
        let sts = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", sts.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (connection, _) = sts.accept().await.unwrap();
                open.extend((!closes).then_some(connection));
            }
        });
        let role = "arn:aws:iam::123456789012:role/sender";
        let router = Serve::to(&sink).only(Route::AWS).env("AWS_TARGET_ROLE_ARN", role);
        let router = router.env("AWS_ENDPOINT_URL_STS", &url).env("FORWARD_TIMEOUT_MS", "2000");
        let router = router.env("FORWARD_ATTEMPTS", "1").start();
        for _ in 0..2 {
            let got = router.post(PAYLOAD).await;
            assert_eq!((got.status, got.text()), (502, "destination unreachable"), "{closes}");
        }
        accepting.abort();
    }
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn a_reply_that_is_too_large_is_left_out_and_the_event_delivered() {
    let sink = Sink::start().await;
    for route in [Route::GCP, Route::AWS] {
        let router = Serve::to(&sink).only(route).start();
        let large = format!("\"{}\"", "1".repeat(4 * 1024 * 1024));
        sink.answers(Answer::With(StatusCode::OK, vec![], large.into()));
        let got = router.post(PAYLOAD).await;
        assert_eq!((got.status, got.text()), (200, "reply of more than 4194304 bytes left out"));
        assert_eq!(router.post(PAYLOAD).await.text(), "duplicate ignored");
    }
    let router = Serve::to(&sink).only(Route::AWS).start();
    let large = format!(r#"{{"statusCode":201,"body":"{}"}}"#, "1".repeat(4 * 1024 * 1024 + 1));
    sink.answers(Answer::With(StatusCode::OK, vec![], large.into()));
    let got = router.post(PAYLOAD).await;
    assert_eq!((got.status, got.text()), (201, "reply of more than 4194304 bytes left out"));
}

#[tokio::test]
async fn cloud_run_is_reached_over_http_2_with_its_certificate_checked() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "localhost").await;
    let url = |host: &str| format!("https://{host}:{}/events?x=1", server.port);

    let trusting = cloud_run(&url("localhost"), Some(authority.file()));
    for _ in 0..3 {
        let reply = send(&trusting).await.unwrap();
        assert_eq!((reply.status, reply.body.as_ref()), (StatusCode::OK, OVER_TLS.as_bytes()));
    }
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen.requests, vec![(Version::HTTP_2, "/events?x=1".to_owned()); 3]);
    assert_eq!(seen.connections, 1, "the connection is used again");

    // Either the name is not in the certificate, or the authority is not trusted.
    for wrong in [
        cloud_run(&url("127.0.0.1"), Some(authority.file())),
        cloud_run(&url("localhost"), None),
        cloud_run(&url("localhost"), Some(Authority::new().file())),
    ] {
        let error = send(&wrong).await.unwrap_err();
        assert!(
            matches!(&error, SendError::NotSent(detail) if detail.contains("certificate")),
            "{error:?}"
        );
    }
    assert_eq!(server.seen.lock().unwrap().requests.len(), 3);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_sent() {
    let nowhere = cloud_run("https://nowhere.invalid/", None);
    assert!(matches!(send(&nowhere).await.unwrap_err(), SendError::NotSent(_)));
}

pub async fn send(destination: &CloudRun) -> Result<webhook_router::delivery::Reply, SendError> {
    let plan = plan_of("sent");
    let delivery = delivery(PAYLOAD);
    let event = Outgoing {
        delivery: &delivery,
        plan: &plan,
        attempt: 1,
        trace: &[],
        signer: None,
        is_copy: false,
    };
    destination.send(&event, TIMEOUT).await
}

pub fn cloud_run(url: &str, ca_file: Option<PathBuf>) -> CloudRun {
    CloudRun::new(&target(url, ca_file), TIMEOUT).unwrap()
}

fn target(url: &str, ca_file: Option<PathBuf>) -> HttpTarget {
    let vars = [("GCP_TARGET_URL", url), ("ROUTE_THRESHOLD", "256")];
    let targets = Config::from_vars(lookup(&vars)).unwrap().targets;
    let target = targets.get(Route::GCP).and_then(Target::http).unwrap().clone();
    HttpTarget { ca: ca_file.map(|file| Authorities::read(&file).unwrap()), ..target }
}

/// The answer of [`TlsServer`]. A function could give the same answer.
pub const OVER_TLS: &str = "\"over TLS\"";

/// An HTTPS server that offers HTTP/2.
pub struct TlsServer {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default, Clone)]
struct Seen {
    connections: u32,
    requests: Vec<(Version, String)>,
}

impl TlsServer {
    pub async fn start(authority: &Authority, name: &str) -> Self {
        Self::start_with(authority, name, WebPkiClientVerifier::no_client_auth()).await
    }

    /// Starts a server that takes only clients with a certificate of the authority.
    pub async fn start_for_known_clients(authority: &Authority, name: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in Authorities::read(&authority.file()).unwrap().certificates {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let known = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        Self::start_with(authority, name, known.build().unwrap()).await
    }

    async fn start_with(
        authority: &Authority,
        name: &str,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Self {
        let (certificate, key) = authority.issue(&[name]);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let seen = Arc::clone(&server.seen);
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    // The client may refuse the certificate, as some tests expect.
                    let Ok(stream) = acceptor.accept(connection).await else { return };
                    seen.lock().unwrap().connections += 1;
                    let service = hyper::service::service_fn(|request: hyper::Request<_>| {
                        let _: &hyper::body::Incoming = request.body();
                        let path = request.uri().path_and_query().unwrap().to_string();
                        seen.lock().unwrap().requests.push((request.version(), path));
                        let body = http_body_util::Full::new(bytes::Bytes::from(OVER_TLS));
                        async { Ok::<_, std::convert::Infallible>(hyper::Response::new(body)) }
                    });
                    let executor = hyper_util::rt::TokioExecutor::new();
                    let _ = hyper_util::server::conn::auto::Builder::new(executor)
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    /// Returns the number of connections whose TLS is established.
    pub fn connections(&self) -> u32 {
        self.seen.lock().unwrap().connections
    }
}
