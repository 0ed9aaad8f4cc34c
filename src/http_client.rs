//! The HTTP client of the destinations and of the AWS SDKs.
//!
//! A connection may break silently: a NAT forgets it, a peer is cut off, or Lambda freezes this
//! process for minutes. A request on such a connection waits for its whole timeout, and nobody
//! knows whether it arrived. So a connection that was idle for [`MAX_IDLE`] is not used again. The
//! idle time counts by the wall clock, because the monotonic clock may stop while Lambda freezes
//! the process.
//!
//! A new connection costs two round trips and one key exchange. Most TLS sessions are resumed, so
//! that the certificate need not be checked again. If a connection cannot be made, the event was
//! certainly not sent.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use http::Uri;
use http_body::Body;
use hyper::rt::{Sleep, Timer};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::resolver::Resolver;

/// Longest idle time after which a connection is still used. Events in a burst share connections;
/// after a longer pause, a new connection is made.
pub const MAX_IDLE: Duration = Duration::from_secs(4);

/// Time for which the peer may leave sent bytes unacknowledged before the connection counts as
/// broken.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// Time without an answer after which TCP sends a probe to the peer, and the interval between
/// probes. The probes also keep NATs from forgetting the connection of a slow function.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The interval between pings of an HTTP/2 peer, and the time limit for its reply.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Creates a client for HTTP/1.1, and for HTTP/2 if `tls` offers it. `connect_timeout` covers the
/// whole connection, including TLS.
pub fn client<B>(
    tls: Arc<ClientConfig>,
    resolver: Resolver,
    connect_timeout: Duration,
) -> Client<Connector, B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    client_of(tls, resolver, connect_timeout, WallTimer::default())
}

fn client_of<B>(
    tls: Arc<ClientConfig>,
    resolver: Resolver,
    connect_timeout: Duration,
    pool_timer: WallTimer,
) -> Client<Connector, B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    // The connector around this one accepts or rejects the scheme.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(TCP_KEEP_ALIVE));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let connector = Connector { https: (tcp, tls).into(), timeout: connect_timeout };
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(MAX_IDLE)
        .pool_timer(pool_timer)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

/// Creates the TLS settings for HTTP/2 and HTTP/1.1, with ring as in the rest of this binary. A peer
/// must speak TLS 1.2 or 1.3.
///
/// # Errors
/// Fails if the provider does not support the TLS versions.
pub fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}

/// Makes connections. One timeout covers name resolution, TCP and TLS.
#[derive(Clone)]
pub struct Connector {
    https: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, timeout) = (self.https.call(uri), self.timeout);
        Box::pin(async move {
            tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
                let late = format!("no connection within {} ms", timeout.as_millis());
                Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
            })
        })
    }
}

/// A timer whose time continues while the process is frozen.
#[derive(Clone, Default)]
struct WallTimer {
    clock: Arc<WallClock>,
}

impl Timer for WallTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        self.clock.at(Instant::now(), SystemTime::now())
    }
}

/// Counts time by the clock that advanced further since the last call. The monotonic clock stops
/// while the process is frozen; the wall clock may be set back.
#[derive(Default)]
struct WallClock {
    last: Mutex<Option<Last>>,
}

struct Last {
    monotonic: Instant,
    wall: SystemTime,
    /// The time that this clock returned last.
    told: Instant,
}

impl WallClock {
    fn at(&self, monotonic: Instant, wall: SystemTime) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let told = last.as_ref().map_or(monotonic, |last| {
            let by_wall = wall.duration_since(last.wall).unwrap_or_default();
            let passed = monotonic.saturating_duration_since(last.monotonic).max(by_wall);
            // A step that is too large to add does not count: the wall clock was set far ahead.
            last.told.checked_add(passed).unwrap_or(last.told)
        });
        *last = Some(Last { monotonic, wall, told });
        told
    }
}

/// Describes an error with its causes. No text of hyper's errors quotes the URL, whose query may
/// carry a token.
pub fn chain(error: &dyn Error) -> String {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    detail
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};

    use super::*;

    #[tokio::test]
    async fn a_connection_from_before_a_freeze_is_not_used_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                *counted.lock().unwrap() += 1;
                let service = hyper::service::service_fn(async |_| {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(connection), service));
            }
        });
        let timer = WallTimer::default();
        let tls = Arc::new(tls(RootCertStore::empty()).unwrap());
        let (open, patience) = (Resolver::open(), Duration::from_secs(5));
        let client = client_of::<Empty<Bytes>>(tls, open, patience, timer.clone());
        let request = async || {
            let response = client.get(uri.clone()).await.unwrap();
            response.into_body().collect().await.unwrap();
            *connections.lock().unwrap()
        };
        assert_eq!(request().await, 1);
        assert_eq!(request().await, 1);
        // The wall clock advanced by a minute, and the monotonic clock did not.
        timer.clock.at(Instant::now(), SystemTime::now() + Duration::from_secs(60));
        assert_eq!(request().await, 2);
    }

    #[test]
    fn time_goes_on_while_either_clock_does_and_never_back() {
        let clock = WallClock::default();
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        let seconds = Duration::from_secs;
        let start = clock.at(monotonic, wall);
        for (monotonic_seconds, wall_seconds, told) in [
            // Both clocks advance.
            (1, 1_001, 1_001),
            (2, 1_002, 1_002),
            // The monotonic clock stopped for an hour.
            (2, 4_602, 4_602),
            // The wall clock is set back, and continues from there.
            (3, 1_000, 4_603),
            (4, 1_001, 4_604),
            (4, 1_005, 4_608),
        ] {
            let now =
                clock.at(monotonic + seconds(monotonic_seconds), wall + seconds(wall_seconds));
            assert_eq!(now - start, seconds(told), "{monotonic_seconds} {wall_seconds}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(chain(&Outer(cause)), "outer: connection refused");
    }
}
