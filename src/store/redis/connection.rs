//! The one connection of a process. It is opened at the first use, kept, and replaced when it
//! breaks or hangs.
//!
//! A connection can break silently: a NAT may have forgotten an idle connection, or the peer's
//! machine is gone. So a command gets half of its time on the current connection, and the other
//! half on a new one:
//!
//! ```text
//! 0                            half                          STORE_TIMEOUT_MS
//! ├ on the current connection ───┤ connect and ask again ───────┤ the operation failed
//! ```

use std::{collections::BTreeSet, io, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::FutureExt as _;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, Pipeline, RedisError, RedisFuture, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::super::StoreError;
use crate::{config::RedisUrl, secret::Secret};

/// Time without data from a server after which TCP sends a probe. The server has
/// [`KEEPALIVE_ANSWER`] to answer it. The probes come often enough that no firewall on the way
/// forgets a connection: AWS's security groups and load balancers keep an idle connection for 350 s
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Reasons why a command failed.
pub(super) enum Refusal {
    /// The server does not have the script.
    NoScript,
    Other(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoScript => Self::Failed("the server forgot a script at once".into()),
            Refusal::Other(error) => error,
        }
    }
}

/// The connection to a server or a cluster, and its settings.
pub(super) struct Link {
    /// The address of the server, for a person and without secrets.
    pub address: String,
    url: Secret,
    is_tls: bool,
    pub is_cluster: bool,
    /// The only certificate authority to trust, in PEM.
    ca: Option<Vec<u8>>,
    timeout: Duration,
    current: Mutex<Current>,
    renewal: Mutex<Renewal>,
}

/// The current connection and its number.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<Connection>,
}

/// The time at which the last new cluster client was created, and the number of new clients in a
/// row that got no answer.
#[derive(Default)]
struct Renewal {
    begun: Option<Instant>,
    failures: u32,
}

impl Renewal {
    /// Returns whether it is too soon for another new client. At least STORE_TIMEOUT_MS must pass
    /// between two new clients. While a server hangs, this pause grows to up to four times that, because
    /// many routers may try to reach the server.
    fn is_too_soon(&self, timeout: Duration) -> bool {
        let pause = timeout * 2u32.pow(self.failures.min(2));
        self.begun.is_some_and(|begun| begun.elapsed() < pause)
    }
}

impl Current {
    fn replace(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.number += 1;
    }
}

impl Link {
    pub fn new(url: &RedisUrl, timeout: Duration) -> Self {
        Self {
            address: url.to_string(),
            url: url.url.clone(),
            is_tls: url.is_tls(),
            is_cluster: url.cluster,
            ca: url.ca.as_ref().map(|ca| ca.pem.clone()),
            timeout,
            current: Mutex::default(),
            renewal: Mutex::default(),
        }
    }

    /// Returns the time limit for an operation.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the time by which an operation that begins now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs a command, until `deadline` at the latest. If the current connection is broken or
    /// hangs, it is run again on a new one. Commands may be repeated: those that write an event
    /// carry their owner, and the others read, or set the same entry again. If a discard or a
    /// change of an entry is repeated, the repetition may find nothing to do.
    pub async fn run<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, Refusal> {
        let (used, mut result) = match self.connection(None, deadline).await {
            Ok((number, mut connection)) => {
                // The first try gets half of the time that is left, because connecting may have
                // taken most of it.
                let half = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
                (Some(number), until(half, command.query_async(&mut connection)).await)
            }
            Err(error) => (None, Err(error)),
        };
        if result.as_ref().is_err_and(|error| self.is_stale(error)) {
            result = if self.is_cluster {
                until(deadline, Box::pin(self.ask_anew(command, used, deadline))).await
            } else {
                let again = Box::pin(async {
                    let (_, mut connection) = self.connection(used, deadline).await?;
                    command.query_async(&mut connection).await
                });
                until(deadline, again).await
            };
        }
        result.map_err(|error| match error.code() {
            Some("NOSCRIPT") => Refusal::NoScript,
            _ if error.is_timeout() => StoreError::Timeout(self.timeout).at(&self.address).into(),
            _ => StoreError::Failed(error.to_string()).at(&self.address).into(),
        })
    }

    /// Returns whether another connection may succeed: this one broke, hangs, or leads to a server
    /// that became a replica. The client of a cluster replaces broken connections and follows moved
    /// slots by itself. But it never gives up a connection to a server that hangs, even after
    /// another server has replaced it.
    fn is_stale(&self, error: &RedisError) -> bool {
        // Redis 6 names a script's READONLY error only in the text of the error.
        let is_replica = || error.to_string().contains("READONLY");
        let is_broken = || error.is_unrecoverable_error() || is_replica();
        error.is_timeout() || (!self.is_cluster && is_broken())
    }

    /// Runs a command with a new cluster client, and replaces the old client if the new one gets an
    /// answer. Without an answer, the server itself hangs, and the old client continues to serve
    /// the slots of the other servers without a pause.
    ///
    /// Timeouts in a row are no useful signal, because answers of the other servers arrive in
    /// between. So the first timeout already leads to a new client. [`Renewal`] prevents a flood of
    /// connections to a cluster whose server hangs.
    async fn ask_anew<T: FromRedisValue>(
        &self,
        command: &Cmd,
        used: Option<u64>,
        deadline: Instant,
    ) -> Result<T, RedisError> {
        // A caller that waited here finds the client that another caller has made.
        let mut renewal = self.renewal.lock().await;
        let (number, mut current) = self.connection(None, deadline).await?;
        if used != Some(number) || renewal.is_too_soon(self.timeout) {
            drop(renewal);
            return command.query_async(&mut current).await;
        }
        // This counts as a failure until there is an answer, because the deadline may come first.
        *renewal = Renewal { begun: Some(Instant::now()), failures: renewal.failures + 1 };
        let mut fresh = self.connect_anew(current).await?;
        let result = command.query_async(&mut fresh).await;
        // NOSCRIPT is an answer, too: a server that has just taken over does not have the scripts.
        let is_answer = |error: &RedisError| error.code() == Some("NOSCRIPT");
        if result.as_ref().err().is_none_or(is_answer) {
            tracing::warn!("a connection to the cluster hung, so all connections are replaced");
            renewal.failures = 0;
            self.current.lock().await.replace(fresh);
        }
        result
    }

    /// Returns the current connection and its number. It connects first if there is no connection,
    /// or if the current one is still the stale one.
    async fn connection(
        &self,
        stale: Option<u64>,
        deadline: Instant,
    ) -> Result<(u64, Connection), RedisError> {
        // The commonest case needs neither a clock nor a queue.
        if stale.is_none()
            && let Ok(current) = self.current.try_lock()
            && let Some(connection) = &current.connection
        {
            return Ok((current.number, connection.clone()));
        }
        let connecting = async {
            let mut current = self.current.lock().await;
            if stale == Some(current.number) {
                current.connection = None;
            }
            if current.connection.is_none() {
                // Boxed, because it is large and rare: otherwise, every command would move it.
                current.replace(Box::pin(self.connect(&[self.info()?])).await?);
            }
            let none = || RedisError::from((ErrorKind::Io, "not connected"));
            Ok((current.number, current.connection.clone().ok_or_else(none)?))
        };
        until(deadline, connecting.boxed()).await
    }

    /// Connects to the cluster through the server of the URL and, at the same time, through the
    /// servers that the current client knows. The first connection wins.
    async fn connect_anew(&self, current: Connection) -> Result<Connection, RedisError> {
        let info = self.info()?;
        let by_url = [info.clone()];
        let by_others = async {
            let servers = current.servers(&info).await?;
            self.connect(&servers).await
        };
        tokio::select! {
            Ok(connection) = self.connect(&by_url) => Ok(connection),
            Ok(connection) = by_others => Ok(connection),
            else => Err((ErrorKind::Io, "no server of the cluster can be reached").into()),
        }
    }

    /// Returns the address, user and settings of the server of the URL.
    fn info(&self) -> Result<ConnectionInfo, RedisError> {
        Ok(self.url.expose().into_connection_info()?.set_tcp_settings(tcp_settings(self.timeout)))
    }

    /// Connects. Without a configured CA, a server's certificate may come from the compiled-in
    /// public roots, or else from the system's roots. These are only read when they are needed.
    async fn connect(&self, servers: &[ConnectionInfo]) -> Result<Connection, RedisError> {
        // rustls uses the process's default provider. A second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match self.connect_with(servers, self.ca.clone()).await {
            Err(error) if self.ca.is_none() && error.to_string().contains("UnknownIssuer") => {
                self.connect_with(servers, Some(system_roots())).await
            }
            opened => opened,
        }
    }

    /// Connects to a server, or to a cluster through any of these servers. `root_cert` has roots in
    /// PEM that replace the compiled-in ones.
    async fn connect_with(
        &self,
        servers: &[ConnectionInfo],
        root_cert: Option<Vec<u8>>,
    ) -> Result<Connection, RedisError> {
        let timeout = self.timeout;
        let certificates = TlsCertificates { client_tls: None, root_cert };
        if self.is_cluster {
            // A server that hangs must not use up the time of the others: an answer gets half of
            // the time, and connecting less. Redirections count as retries, and TRYAGAIN is worth a
            // few retries.
            let mut builder = ClusterClientBuilder::new(servers.to_vec())
                .tcp_settings(tcp_settings(timeout))
                .connection_timeout(timeout / 3)
                .response_timeout(timeout / 2)
                .overall_response_timeout(Some(timeout))
                .retries(4)
                .min_retry_wait(20)
                .max_retry_wait(100);
            if self.is_tls {
                builder = builder.certs(certificates);
            }
            return Ok(Connection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let none = || RedisError::from((ErrorKind::InvalidClientConfig, "no server"));
        let info = servers.first().cloned().ok_or_else(none)?;
        let client = if self.is_tls {
            Client::build_with_tls(info, certificates)?
        } else {
            Client::open(info)?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(None);
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }
}

/// One multiplexed connection to a server, or to each server of a cluster.
#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Returns the servers of a cluster, as reported by the first server that answers, with the
    /// user and the settings of `info`. Servers that failed are left out.
    async fn servers(self, info: &ConnectionInfo) -> Result<Vec<ConnectionInfo>, RedisError> {
        // Without a cluster, the server of the URL is the only one.
        let Self::Cluster(mut cluster) = self else { return Ok(vec![info.clone()]) };
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let all = MultipleNodeRoutingInfo::AllNodes;
        let first = RoutingInfo::MultiNode((all, Some(ResponsePolicy::OneSucceeded)));
        // Each range has its first and last slot, then its servers. A server may occur in several
        // ranges.
        let ranges: Vec<Vec<Value>> =
            redis::from_redis_value(cluster.route_command(slots, first).await?)?;
        let servers = ranges.into_iter().flat_map(|range| range.into_iter().skip(2));
        let addresses: BTreeSet<(String, u16)> = servers.filter_map(address).collect();
        let at = |(host, port)| info.clone().set_addr(address_at(info, host, port));
        Ok(addresses.into_iter().map(at).collect())
    }
}

/// Reads the address of a server from the reply to CLUSTER SLOTS. A server without a host has the
/// host of the server that answered. The client does not tell which one that was, so it is left
/// out.
fn address(server: Value) -> Option<(String, u16)> {
    let Value::Array(server) = server else { return None };
    let mut fields = server.into_iter();
    let host: String = redis::from_redis_value(fields.next()?).ok()?;
    let port = redis::from_redis_value(fields.next()?).ok()?;
    (!host.is_empty() && host != "?").then_some((host, port))
}

/// Returns another address with the TLS settings of this one.
fn address_at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionAddr {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            let (insecure, tls_params) = (*insecure, tls_params.clone());
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// Returns the TCP settings. With them, TCP notices that a server is gone even if nothing is sent,
/// and gives up data that the server does not acknowledge within the time of an operation. Without
/// a delay, a small command does not wait until the previous one is acknowledged.
fn tcp_settings(timeout: Duration) -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_ANSWER);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(timeout);
    settings
}

/// Returns the result of a command, or a timeout error at the deadline.
fn until<T>(
    deadline: Instant,
    asked: impl Future<Output = Result<T, RedisError>>,
) -> impl Future<Output = Result<T, RedisError>> {
    timeout_at(deadline, asked).map(|in_time| {
        in_time.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    })
}

/// Returns the certificates that this machine trusts (SSL_CERT_FILE, or the system's bundle), in
/// PEM.
fn system_roots() -> Vec<u8> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let pem = certificates.iter().map(|certificate| {
        let base64 = BASE64_STANDARD.encode(certificate);
        format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
    });
    pem.collect::<String>().into_bytes()
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
