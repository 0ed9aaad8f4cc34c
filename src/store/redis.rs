//! Redis, Valkey and ElastiCache, alone or as a cluster.
//!
//! Two keys for an event, in one hash slot, so that one script may touch both
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>):
//!
//! - `webhook:dedup:<hex>`, the key itself, is there while the event is in flight or delivered. A
//!   Python router's `SET key 1 NX EX ttl` and our claim therefore exclude each other. Its time to
//!   live is the lease, then the TTL.
//! - `{webhook:dedup:<hex>}:event` keeps what outlives a lease: the details with the route, the
//!   last owner, and the dead letter.
//!
//! `webhook:dead-letters` is a sorted set of the keys that have dead letters, by time. It lies in
//! another slot, so it is written before a letter is kept and after it is cleared; an entry
//! without a letter is passed over.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    Pipeline, RedisError, RedisFuture, Script, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{
    Attempt, Claim, DeadLetter, Delivered, Details, Lease, Page, Record, Settled, State, Store,
    StoreError, new_owner, readable, stored,
};
use crate::{config::RedisUrl, key::Key, plan::Plan};

/// How long the route of an event is kept after its owner died.
const DETAILS_TTL: Duration = Duration::from_secs(30 * 86_400);

const DEAD_LETTERS: &str = "webhook:dead-letters";

/// Begins every script: whether the Python router has the key, which leaves the string `1` there.
/// Any other error, or value, is an error of ours: it must not pass for a delivered event.
const ELSEWHERE: &str = "
    local function elsewhere(main)
        if not main.err then return false end
        if main.err:find('WRONGTYPE') and redis.call('TYPE', KEYS[1]).ok == 'string'
            and redis.call('GET', KEYS[1]) == '1' then return true end
        error(main.err)
    end
";

static CLAIM: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now, until_, owner, details = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
         local main = redis.pcall('HMGET', KEYS[1], 'owner', 'until', 'delivered_at', 'expires_at')
         if elsewhere(main) then return {'elsewhere'} end
         local forgotten = main[4] and tonumber(main[4]) <= now
         if main[3] and not forgotten then
             return {'delivered', unpack(redis.call('HMGET', KEYS[1], 'details', 'attempts',
                 'delivered_at', 'expires_at', 'reply_head', 'reply_body'))}
         end
         if main[2] and main[1] ~= owner and tonumber(main[2]) > now then
             return {'in flight', main[2], redis.call('HGET', KEYS[2], 'details')}
         end
         local seen = {}
         if not forgotten then
             seen = redis.call('HMGET', KEYS[2], 'details', 'attempts', 'failed_at')
         end
         redis.call('HSET', KEYS[2], 'details', seen[1] or details, 'owner', owner, 'until', until_)
         if not seen[3] then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'until', until_)
         redis.call('PEXPIRE', KEYS[1], ARGV[5])
         return {'won', seen[1] or details, seen[2] or false}",
    )
});

/// A lease that ran out, and that nobody took over, still counts: then only the second key knows
/// the owner.
static FINISH: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner')
         if elsewhere(main) then return {'lost'} end
         local owner = main[1] or redis.call('HGET', KEYS[2], 'owner')
         if owner ~= ARGV[1] then return {'lost'} end
         local had_letter = redis.call('HEXISTS', KEYS[2], 'failed_at') == 1
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'details', ARGV[2], 'attempts', ARGV[3],
             'delivered_at', ARGV[4], 'expires_at', ARGV[5])
         if ARGV[7] ~= '' then
             redis.call('HSET', KEYS[1], 'reply_head', ARGV[7], 'reply_body', ARGV[8])
         end
         redis.call('PEXPIRE', KEYS[1], ARGV[6])
         redis.call('UNLINK', KEYS[2])
         return {'stored', had_letter and 'had letter' or false}",
    )
});

static FAIL: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'delivered_at')
         if elsewhere(main) or main[2] then return {'lost'} end
         local owner = main[1] or redis.call('HGET', KEYS[2], 'owner')
         if owner ~= ARGV[1] then return {'lost'} end
         redis.call('HSET', KEYS[2], 'owner', owner, 'details', ARGV[2], 'attempts', ARGV[3],
             'failed_at', ARGV[4], 'failure', ARGV[5], 'head', ARGV[6], 'body', ARGV[7])
         redis.call('PERSIST', KEYS[2])
         if ARGV[8] == 'free' then
             redis.call('DEL', KEYS[1])
             redis.call('HDEL', KEYS[2], 'until')
         end
         return {'stored'}",
    )
});

static GET: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'details', 'attempts', 'delivered_at',
             'expires_at', 'reply_head', 'reply_body')
         if elsewhere(main) then return {'elsewhere'} end
         if main[3] then return {'delivered', unpack(main)} end
         return {'open', unpack(redis.call('HMGET', KEYS[2], 'details', 'attempts', 'owner',
             'until', 'failed_at', 'failure'))}",
    )
});

/// A script, and the name that a server knows it by once it has had it.
struct Lua {
    code: String,
    sha1: String,
}

impl Lua {
    fn new(code: &str) -> Self {
        let code = format!("{ELSEWHERE}{code}");
        let sha1 = Script::new(&code).get_hash().to_owned();
        Self { code, sha1 }
    }
}

/// Why a command did not do what it was to do.
enum Refusal {
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

/// A store in Redis. One connection for the process, opened when first needed.
pub struct Redis {
    url: RedisUrl,
    timeout: Duration,
    connection: Mutex<Current>,
}

impl Redis {
    /// A store at that address; nothing is connected yet.
    pub fn new(url: RedisUrl, timeout: Duration) -> Self {
        Self { url, timeout, connection: Mutex::default() }
    }

    /// Runs a script on the keys of an event. A server that does not have it yet gets it whole.
    async fn script(
        &self,
        script: &Lua,
        key: &Key,
        arguments: &[&[u8]],
    ) -> Result<Fields, StoreError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(2).arg(key.to_string()).arg(event_key(key)).arg(arguments);
            command
        };
        let reply = match self.run(&command("EVALSHA", &script.sha1)).await {
            Err(Refusal::NoScript) => self.run(&command("EVAL", &script.code)).await,
            reply => reply,
        };
        let fields: Vec<Option<Vec<u8>>> = reply?;
        Ok(Fields(fields.into_iter()))
    }

    /// Runs a command.
    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        Ok(self.run(command).await?)
    }

    /// Runs a command within the timeout. A connection that broke, or that leads to a server that
    /// became a replica, is replaced once: every command may be repeated, because it carries its
    /// owner.
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Refusal> {
        let deadline = Instant::now() + self.timeout;
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
            let is_stale = error.is_unrecoverable_error() || error.is_timeout() || is_replica;
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
        let mut current = self.connection.lock().await;
        if current.connection.is_none() {
            current.connection = Some(Connection::open(&self.url, self.timeout).await?);
            current.number += 1;
        }
        *used = Some(current.number);
        let none = || RedisError::from((ErrorKind::Io, "not connected"));
        current.connection.clone().ok_or_else(none)
    }

    /// Drops the connection that was used, unless somebody has replaced it, or is about to.
    fn disconnect(&self, used: Option<u64>) {
        if let Ok(mut current) = self.connection.try_lock()
            && used == Some(current.number)
        {
            current.connection = None;
        }
    }

    /// The dead letter of a key, when it has one.
    async fn dead_letter(&self, key: Key) -> Result<Option<DeadLetter>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(event_key(&key));
        command.arg(&["details", "attempts", "failed_at", "failure", "head", "body"]);
        let mut fields = Fields(self.command::<Vec<Option<Vec<u8>>>>(&command).await?.into_iter());
        let (details, attempts) = (fields.json()?, fields.attempts()?);
        let (failed_at, failure) = (fields.time()?, fields.json()?);
        let (head, body) = (fields.text()?, fields.bytes());
        Ok(match (details, failed_at, failure, head, body) {
            (Some(details), Some(failed_at), Some(failure), Some(head), Some(body)) => {
                let delivery = stored::delivery(&head, body)?;
                Some(DeadLetter { key, details, failed_at, failure, attempts, delivery })
            }
            _ => None,
        })
    }
}

#[async_trait]
impl Store for Redis {
    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        let (key, owner, details) = (plan.key, new_owner(), Details::new(plan, now));
        let lease = (until - now).num_milliseconds().max(1);
        let arguments = [
            millis(now),
            millis(until),
            owner.clone(),
            stored::to_json(&details),
            lease.to_string(),
            DETAILS_TTL.as_millis().to_string(),
        ];
        let mut fields =
            self.script(&CLAIM, &key, &arguments.each_ref().map(String::as_bytes)).await?;
        match fields.text()?.as_deref() {
            Some("won") => {
                let details = fields.json()?.unwrap_or(details);
                let attempts = fields.attempts()?;
                Ok(Claim::Won(Lease { key, owner, until, details, attempts }))
            }
            Some("in flight") => {
                let until = fields.time()?.unwrap_or(until);
                let route = fields.json()?.map_or(plan.route, |details: Details| details.route);
                Ok(Claim::InFlight { until, route })
            }
            Some("delivered") => Ok(Claim::Delivered(
                fields
                    .delivered(key, now)?
                    .ok_or_else(|| StoreError::corrupt("delivered and not"))?,
            )),
            Some("elsewhere") => Ok(Claim::Delivered(delivered_elsewhere(key))),
            other => Err(StoreError::corrupt(format!("claim gave {other:?}"))),
        }
    }

    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError> {
        let Delivered { at, ttl, reply, attempts } = delivered;
        let ttl = ttl.as_millis() as i64;
        let head = reply.as_ref().map(stored::reply_head).unwrap_or_default();
        let body = reply.as_ref().map(|reply| reply.body.as_ref()).unwrap_or_default();
        let texts = [
            lease.owner.clone(),
            stored::to_json(&lease.details),
            stored::to_json(attempts),
            millis(*at),
            (at.timestamp_millis() + ttl).to_string(),
            ttl.to_string(),
            head,
        ];
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        arguments.push(body);
        let mut fields = self.script(&FINISH, &lease.key, &arguments).await?;
        let settled = fields.settled()?;
        if fields.text()?.is_some() {
            let removed = redis::cmd("ZREM").arg(DEAD_LETTERS).arg(lease.key.to_string()).clone();
            if let Err(error) = self.command::<()>(&removed).await {
                // The entry is passed over from now on.
                tracing::warn!(key = %lease.key, %error, "the list of dead letters has a stale entry");
            }
        }
        Ok(settled)
    }

    async fn fail(&self, lease: &Lease, letter: &DeadLetter) -> Result<Settled, StoreError> {
        let failed_at = millis(letter.failed_at);
        let added =
            redis::cmd("ZADD").arg(DEAD_LETTERS).arg(&failed_at).arg(lease.key.to_string()).clone();
        self.command::<()>(&added).await?;
        let frees_key = letter.failure.outcome.is_known_failure();
        let texts = [
            lease.owner.clone(),
            stored::to_json(&letter.details),
            stored::to_json(&letter.attempts),
            failed_at,
            stored::to_json(&letter.failure),
            stored::delivery_head(&letter.delivery),
        ];
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        arguments.extend([&letter.delivery.body[..], if frees_key { b"free" } else { b"hold" }]);
        self.script(&FAIL, &lease.key, &arguments).await?.settled()
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let mut fields = self.script(&GET, key, &[]).await?;
        match fields.text()?.as_deref() {
            Some("elsewhere") => Ok(Some(delivered_elsewhere(*key))),
            Some("delivered") => fields.delivered(*key, now),
            _ => fields.open(*key),
        }
    }

    async fn find(&self, digits: &str) -> Result<Option<Vec<Key>>, StoreError> {
        if self.url.cluster {
            // SCAN asks one server, and the key may be on any.
            return Ok(None);
        }
        let mut found = std::collections::BTreeSet::new();
        // An event is under either key, or both.
        for pattern in [format!("{}{digits}*", Key::PREFIX), format!("{{{}{digits}*", Key::PREFIX)]
        {
            let mut cursor = 0u64;
            loop {
                let scan = redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(&pattern)
                    .arg("COUNT")
                    .arg(1000)
                    .clone();
                let (next, names): (u64, Vec<String>) = self.command(&scan).await?;
                let keys = names.iter().map(|name| {
                    name.trim_start_matches('{').split('}').next().unwrap_or_default().parse()
                });
                found.extend(keys.filter_map(Result::<Key, _>::ok));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(Some(found.into_iter().collect()))
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let (after, after_key) = match page.after {
            Some((failed_at, key)) => (failed_at.timestamp_millis(), key.to_string()),
            None => (0, String::new()),
        };
        let mut offset = 0;
        while letters.len() < page.limit {
            let listed = redis::cmd("ZRANGEBYSCORE")
                .arg(DEAD_LETTERS)
                .arg(after)
                .arg("+inf")
                .arg("WITHSCORES")
                .arg("LIMIT")
                .arg(offset)
                .arg(page.limit)
                .clone();
            let listed: Vec<(String, i64)> = self.command(&listed).await?;
            if listed.is_empty() {
                break;
            }
            offset += listed.len();
            for (key, failed_at) in listed {
                if (failed_at, &key) > (after, &after_key) && letters.len() < page.limit {
                    let key = key.parse().map_err(StoreError::corrupt)?;
                    letters.extend(readable(key, self.dead_letter(key).await)?);
                }
            }
        }
        Ok(letters)
    }
}

fn event_key(key: &Key) -> String {
    format!("{{{key}}}:event")
}

fn millis(time: DateTime<Utc>) -> String {
    time.timestamp_millis().to_string()
}

/// A value that the Python router wrote: `1`, and no more is known.
fn delivered_elsewhere(key: Key) -> Record {
    let state = State::Delivered { at: None, reply: None };
    Record { key, details: None, attempts: Vec::new(), state }
}

/// The fields of a reply, one after the other.
struct Fields(std::vec::IntoIter<Option<Vec<u8>>>);

impl Fields {
    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.0.next().flatten()
    }

    fn text(&mut self) -> Result<Option<String>, StoreError> {
        self.bytes().map(String::from_utf8).transpose().map_err(StoreError::corrupt)
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        self.text()?.map(|text| stored::from_json(&text)).transpose()
    }

    fn attempts(&mut self) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.json()?.unwrap_or_default())
    }

    fn time(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let millis = self.text()?.map(|text| text.parse()).transpose();
        Ok(millis.map_err(StoreError::corrupt)?.and_then(DateTime::from_timestamp_millis))
    }

    fn settled(&mut self) -> Result<Settled, StoreError> {
        match self.text()?.as_deref() {
            Some("stored") => Ok(Settled::Stored),
            Some("lost") => Ok(Settled::LeaseLost),
            other => Err(StoreError::corrupt(format!("a script gave {other:?}"))),
        }
    }

    fn delivered(&mut self, key: Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let (details, attempts) = (self.json()?, self.attempts()?);
        let (at, expires_at) = (self.time()?, self.time()?);
        let (head, body) = (self.text()?, self.bytes());
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Ok(None);
        }
        let reply = head.map(|head| stored::reply(&head, body.unwrap_or_default())).transpose()?;
        Ok(Some(Record { key, details, attempts, state: State::Delivered { at, reply } }))
    }

    fn open(&mut self, key: Key) -> Result<Option<Record>, StoreError> {
        let (details, attempts) = (self.json()?, self.attempts()?);
        let (owner, until) = (self.text()?, self.time()?);
        let (failed_at, failure) = (self.time()?, self.json()?);
        let state = match (owner, until, failed_at, failure) {
            (Some(owner), Some(until), ..) => State::InFlight { owner, until },
            (_, None, Some(at), Some(failure)) => State::DeadLetter { at, failure },
            _ => return Ok(None),
        };
        Ok(Some(Record { key, details, attempts, state }))
    }
}

/// The connection of the moment, and the how many-th it is.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<Connection>,
}

/// One multiplexed connection, to a server or to each of a cluster's.
#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects. Without a CA of its own, a server's certificate may come from the public roots
    /// that are compiled in, or else from those of the system, which are only read when needed.
    async fn open(url: &RedisUrl, timeout: Duration) -> Result<Self, RedisError> {
        // rustls takes its cryptography from the process; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(path) = &url.ca_file {
            return Self::open_with(url, timeout, Some(read_ca(path)?)).await;
        }
        match Self::open_with(url, timeout, None).await {
            Err(error) if url.is_tls() && error.to_string().contains("UnknownIssuer") => {
                Self::open_with(url, timeout, Some(system_roots())).await
            }
            opened => opened,
        }
    }

    /// Connects, with roots in PEM in place of those that are compiled in.
    async fn open_with(
        url: &RedisUrl,
        timeout: Duration,
        root_cert: Option<Vec<u8>>,
    ) -> Result<Self, RedisError> {
        let certificates = TlsCertificates { client_tls: None, root_cert };
        if url.cluster {
            let mut builder = ClusterClientBuilder::new([url.url.expose()])
                .connection_timeout(timeout)
                .response_timeout(timeout)
                .retries(2);
            if url.is_tls() {
                builder = builder.certs(certificates);
            }
            return Ok(Self::Cluster(builder.build()?.get_async_connection().await?));
        }
        let info = url.url.expose().into_connection_info()?;
        let client = if url.is_tls() {
            Client::build_with_tls(info, certificates)?
        } else {
            Client::open(info)?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }
}

fn read_ca(path: &PathBuf) -> Result<Vec<u8>, RedisError> {
    std::fs::read(path).map_err(|error| {
        let detail = format!("{}: {error}", path.display());
        RedisError::from((ErrorKind::InvalidClientConfig, "REDIS_CA_FILE cannot be read", detail))
    })
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
