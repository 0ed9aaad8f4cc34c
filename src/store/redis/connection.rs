//! The one connection of a process: opened when first needed, kept, and replaced when it broke.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    Pipeline, RedisError, RedisFuture, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::super::StoreError;
use crate::{config::RedisUrl, secret::Secret};

/// Why a command did not do what it was to do.
pub(super) enum Refusal {
    /// The server does not know the script of that name.
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

/// The way to a server or a cluster.
pub(super) struct Link {
    url: Secret,
    is_tls: bool,
    pub is_cluster: bool,
    /// The only authority to trust, in PEM.
    ca: Option<Vec<u8>>,
    timeout: Duration,
    current: Mutex<Current>,
}

/// The connection of the moment, and the how many-th it is.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<Connection>,
}

impl Link {
    pub fn open(url: &RedisUrl, timeout: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            url: url.url.clone(),
            is_tls: url.is_tls(),
            is_cluster: url.cluster,
            ca: url.ca_file.as_deref().map(read_ca).transpose()?,
            timeout,
            current: Mutex::default(),
        })
    }

    /// When an operation that begins now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs a command, until `deadline` at the latest. A connection that broke, or that leads to a
    /// server that became a replica, is replaced once: every command may be repeated, because it
    /// carries its owner. That to a cluster does the same for each of its servers by itself, and
    /// only it knows the servers beside those of the URL.
    pub async fn run<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, Refusal> {
        let mut may_repeat = true;
        loop {
            let mut used = None;
            let Ok(result) = timeout_at(deadline, self.try_once(command, &mut used)).await else {
                self.disconnect(used);
                return Err(StoreError::Timeout(self.timeout).into());
            };
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // Redis 6 hides a script's READONLY in the text.
            let is_replica = error.to_string().contains("READONLY");
            let is_broken = error.is_unrecoverable_error() || error.is_timeout() || is_replica;
            let is_stale = is_broken && !self.is_cluster;
            if is_stale {
                self.disconnect(used);
            }
            if !(is_stale && may_repeat) {
                return Err(match error.code() {
                    Some("NOSCRIPT") => Refusal::NoScript,
                    _ => StoreError::Failed(error.to_string()).into(),
                });
            }
            may_repeat = false;
        }
    }

    async fn try_once<T: FromRedisValue>(
        &self,
        command: &Cmd,
        used: &mut Option<u64>,
    ) -> Result<T, RedisError> {
        let mut connection = self.connection(used).await?;
        command.query_async(&mut connection).await
    }

    async fn connection(&self, used: &mut Option<u64>) -> Result<Connection, RedisError> {
        let mut current = self.current.lock().await;
        if current.connection.is_none() {
            current.connection = Some(self.connect().await?);
            current.number += 1;
        }
        *used = Some(current.number);
        let none = || RedisError::from((ErrorKind::Io, "not connected"));
        current.connection.clone().ok_or_else(none)
    }

    /// Connects. Without a CA of its own, a server's certificate may come from the public roots
    /// that are compiled in, or else from those of the system, which are only read when needed.
    async fn connect(&self) -> Result<Connection, RedisError> {
        // rustls takes its cryptography from the process; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match self.connect_with(self.ca.clone()).await {
            Err(error) if self.ca.is_none() && error.to_string().contains("UnknownIssuer") => {
                self.connect_with(Some(system_roots())).await
            }
            opened => opened,
        }
    }

    /// Connects, with roots in PEM in place of those that are compiled in.
    async fn connect_with(&self, root_cert: Option<Vec<u8>>) -> Result<Connection, RedisError> {
        let timeout = self.timeout;
        let certificates = TlsCertificates { client_tls: None, root_cert };
        if self.is_cluster {
            // One server that hangs must not take the time of the others: half of it for an answer,
            // and less to connect. Redirections count as retries, and TRYAGAIN is worth a few.
            let mut builder = ClusterClientBuilder::new([self.url.expose()])
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
        let info = self.url.expose().into_connection_info()?;
        let client = if self.is_tls {
            Client::build_with_tls(info, certificates)?
        } else {
            Client::open(info)?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// Drops the connection that was used, unless somebody has replaced it. Who holds the lock is
    /// using or replacing it, and will find out.
    fn disconnect(&self, used: Option<u64>) {
        if let Ok(mut current) = self.current.try_lock()
            && used == Some(current.number)
            && !self.is_cluster
        {
            current.connection = None;
        }
    }
}

/// One multiplexed connection, to a server or to each of a cluster's.
#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The certificates that this machine trusts (SSL_CERT_FILE, or the system's bundle), in PEM.
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

/// The certificates of REDIS_CA_FILE, in PEM.
fn read_ca(path: &Path) -> Result<Vec<u8>, StoreError> {
    let unusable = |error: &dyn std::fmt::Display| {
        let path = path.display();
        StoreError::Failed(format!("REDIS_CA_FILE: {path} is not a PEM file of a CA: {error}"))
    };
    let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    match certificates.next() {
        Some(Ok(_)) => Ok(pem),
        Some(Err(error)) => Err(unusable(&error)),
        None => Err(unusable(&"it holds no certificate")),
    }
}
