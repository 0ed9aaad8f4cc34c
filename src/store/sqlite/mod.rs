//! The embedded store: one SQLite file, which several processes on one machine may share.
//!
//! With write-ahead logging, readers and a writer work at the same time
//! (<https://www.sqlite.org/wal.html>). With `synchronous=FULL`, every commit survives a loss of
//! power.

mod examine;
mod file;
mod inbox;
mod rows;
mod schema;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

pub(super) use self::examine::examine;
use self::{
    file::{connect, create, unusable},
    writer::Writer,
};
use super::{
    Accepted, Claim, DETAILS_TTL, DeadLetter, Delivered, Details, Discarded, Due, Entry, Lease,
    Page, Postponed, Record, Release, SUBJECT, Settled, State, Store, StoreError, Take, new_owner,
    stored,
};
use crate::{delivery::Delivery, fault, finding::Finding, key::Key, plan::Plan, route::Route};

/// Most expired records that one `finish` deletes. This is more than it adds, so that the file does
/// not grow.
const SWEPT_AT_ONCE: u32 = 4;

/// Extra time for a commit that has begun when the timeout ends.
const DISK_GRACE: Duration = Duration::from_millis(500);

/// A store in one SQLite file.
pub struct Sqlite {
    path: PathBuf,
    reader: Arc<Mutex<Connection>>,
    writer: Writer,
    timeout: Duration,
}

impl Sqlite {
    /// Opens the file, and creates it if there is none. Only its owner may use a new file, because
    /// dead letters hold payloads. An existing file keeps its mode.
    ///
    /// # Errors
    /// Fails if the folder does not exist or is not writable, or the file is a database of
    /// another program or of a later version.
    pub async fn open(path: &Path, timeout: Duration) -> Result<Self, StoreError> {
        let (path, opening) = (PathBuf::from(path), PathBuf::from(path));
        let opened = tokio::task::spawn_blocking(move || {
            let connections = create(&opening)
                .and_then(|()| connect(&opening, timeout))
                .and_then(|writer| Writer::start(writer, timeout))
                .and_then(|writer| Ok((connect(&opening, timeout)?, writer)));
            connections.map_err(|error| {
                StoreError::Failed(format!("{SUBJECT}: {}", unusable(&opening, &*error)))
            })
        });
        let opened = opened.await.map_err(|error| StoreError::Failed(error.to_string()))?;
        let (reader, writer) = opened?;
        Ok(Self { path, reader: Arc::new(Mutex::new(reader)), writer, timeout })
    }

    /// Runs an operation on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let (connection, timeout) = (Arc::clone(&self.reader), self.timeout);
        let ran = tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Timeout(timeout));
            }
            let result = connection.busy_timeout(left).and_then(|()| operation(&connection));
            result.map_err(|error| store_error(&error, timeout))
        });
        let panicked = |_| StoreError::Failed("bug: a panic".into());
        self.unless_hung(deadline, async { ran.await.map_err(panicked)? }).await
    }

    /// Runs an operation in a transaction that holds the write lock.
    async fn write<T: Send + 'static>(
        &self,
        operation: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.look_and_write(|_| Ok(None), operation).await
    }

    /// Runs an operation in a transaction that holds the write lock. While another process holds it, `look` may
    /// find the result without the lock.
    async fn look_and_write<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>> + Send + 'static,
        operation: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.timeout;
        self.unless_hung(deadline, self.writer.write(deadline, look, operation)).await
    }

    /// Waits for an operation. The operation begins within the timeout or not at all, and is not
    /// abandoned once it has begun. So no claim is won after its caller got an error. Only if the
    /// disk hangs does the caller give up first.
    async fn unless_hung<T>(
        &self,
        deadline: Instant,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let given_up = (deadline + DISK_GRACE).into();
        let ended = tokio::time::timeout_at(given_up, operation).await;
        ended.unwrap_or(Err(StoreError::Timeout(self.timeout)))
    }
}

fn store_error(error: &rusqlite::Error, timeout: Duration) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => StoreError::Timeout(timeout),
        _ if matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidQuery
        ) =>
        {
            StoreError::corrupt(error)
        }
        _ => StoreError::Failed(error.to_string()),
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn examine(&self) -> Vec<Finding> {
        examine(&self.path, self.timeout).await
    }

    /// Takes the lock that a claim takes, and releases it.
    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        let plan = Arc::new(plan.clone());
        let looked = Arc::clone(&plan);
        let look = move |connection: &Connection| taken(connection, &looked, now);
        self.look_and_write(look, move |connection| {
            let found =
                rows::select(connection, &plan.key, now)?.filter(|found| !found.is_expired(now));
            let claim = match found {
                Some(found) => match rows::convert(found.against(&plan, now))? {
                    Some(answer) => answer,
                    None => take_over(connection, found.record, now, until)?,
                },
                None => insert(connection, &plan, now, until)?,
            };
            Ok(claim)
        })
        .await
    }

    async fn accept(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        look_at: DateTime<Utc>,
    ) -> Result<Accepted, StoreError> {
        let (plan, delivery) = (Arc::new(plan.clone()), delivery.clone());
        let looked = Arc::clone(&plan);
        let look = move |connection: &Connection| {
            let taken = taken(connection, &looked, now)?;
            Ok(taken.map(|taken| Accepted::Taken(taken.into())))
        };
        self.look_and_write(look, move |connection| {
            let accepted = inbox::accept(connection, &plan, &delivery, now, due, look_at)?;
            fault::point("before acceptance is stored");
            Ok(accepted)
        })
        .await
    }

    async fn destinations(&self) -> Result<Vec<Route>, StoreError> {
        self.read(inbox::destinations).await
    }

    async fn due(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.read(move |connection| inbox::due(connection, route, by_now, after, limit)).await
    }

    async fn relist(
        &self,
        route: Route,
        entry: Due,
        _now: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError> {
        self.write(move |connection| inbox::relist(connection, route, entry, look)).await
    }

    async fn take(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError> {
        let key = *key;
        self.write(move |connection| inbox::take(connection, &key, early, now, until)).await
    }

    async fn postpone(&self, lease: &Lease, postponed: &Postponed) -> Result<Settled, StoreError> {
        let (lease, postponed) = (lease.clone(), postponed.clone());
        self.write(move |connection| {
            let settled = inbox::postpone(connection, &lease, &postponed)?;
            fault::point("before postpone commits");
            Ok(settled)
        })
        .await
    }

    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError> {
        let (lease, delivered) = (lease.clone(), delivered.clone());
        self.write(move |connection| {
            let Delivered { at, ttl, reply, attempts } = &delivered;
            let changed = connection
                .prepare_cached(
                    "UPDATE events SET until = NULL, attempts = ?3, delivered_at = ?4,
                            expires_at = ?5, reply_head = ?6, reply_body = ?7,
                            accepted = NULL, destination = NULL, due = NULL, ready = NULL
                     WHERE key = ?1 AND owner = ?2",
                )?
                .execute(params![
                    lease.key.to_string(),
                    lease.owner,
                    stored::to_json(&attempts),
                    at.timestamp_millis(),
                    at.timestamp_millis().saturating_add_unsigned(ttl.as_millis() as u64),
                    reply.as_ref().map(stored::reply_head),
                    reply.as_ref().map(|reply| reply.body.as_ref()),
                ])?;
            if changed == 0 {
                return Ok(Settled::LeaseLost);
            }
            clear_dead_letter(connection, &lease.key)?;
            inbox::clear_delivery(connection, &lease.key)?;
            sweep(connection, *at)?;
            fault::point("before finish commits");
            Ok(Settled::Stored)
        })
        .await
    }

    async fn fail(
        &self,
        lease: &Lease,
        letter: &DeadLetter,
        release: Release,
    ) -> Result<Settled, StoreError> {
        let (lease, letter) = (lease.clone(), letter.clone());
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE events SET attempts = ?3, expires_at = NULL,
                        until = CASE WHEN ?4 THEN NULL ELSE until END,
                        accepted = NULL, destination = NULL, due = NULL, ready = NULL
                 WHERE key = ?1 AND owner = ?2 AND delivered_at IS NULL",
                params![
                    lease.key.to_string(),
                    lease.owner,
                    stored::to_json(&letter.attempts),
                    release == Release::Now,
                ],
            )?;
            if changed == 0 {
                return Ok(Settled::LeaseLost);
            }
            connection.execute(
                "INSERT OR REPLACE INTO dead_letters (key, failed_at, failure, head, body)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    lease.key.to_string(),
                    letter.failed_at.timestamp_millis(),
                    stored::to_json(&letter.failure),
                    stored::delivery_head(&letter.delivery),
                    letter.delivery.body.as_ref(),
                ],
            )?;
            inbox::clear_delivery(connection, &lease.key)?;
            fault::point("before letter is stored");
            Ok(Settled::Stored)
        })
        .await
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let key = *key;
        self.read(move |connection| {
            let found = rows::select(connection, &key, now)?.filter(|found| !found.is_expired(now));
            Ok(found.map(|found| found.record))
        })
        .await
    }

    async fn find(&self, digits: &str, now: DateTime<Utc>) -> Result<Option<Vec<Key>>, StoreError> {
        let (first, now) = (format!("{}{digits}", Key::PREFIX), now.timestamp_millis());
        self.read(move |connection| {
            // `g` sorts after every hex digit.
            let last = format!("{first}g");
            connection
                .prepare_cached(
                    "SELECT key FROM events WHERE key >= ?1 AND key < ?2
                     AND (expires_at IS NULL OR expires_at > ?3) LIMIT 2",
                )?
                .query_map(params![first, last, now], rows::key)?
                .collect::<rusqlite::Result<_>>()
                .map(Some)
        })
        .await
    }

    async fn dead_letter(&self, key: &Key) -> Result<Option<DeadLetter>, StoreError> {
        let key = *key;
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM events JOIN dead_letters USING (key) WHERE events.key = ?1",
                )?
                .query_row([key.to_string()], rows::read_dead_letter)
                .optional()
        })
        .await
    }

    async fn delivery(&self, key: &Key) -> Result<Option<Delivery>, StoreError> {
        let key = *key;
        self.read(move |connection| inbox::delivery(connection, &key)).await
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError> {
        self.read(move |connection| {
            let (after, after_key) = match page.after {
                Some(Entry { failed_at, key }) => (failed_at.timestamp_millis(), key.to_string()),
                None => (i64::MIN, String::new()),
            };
            connection
                .prepare_cached(
                    "SELECT failed_at, key FROM dead_letters
                     WHERE (failed_at, key) > (?1, ?2) ORDER BY failed_at, key LIMIT ?3",
                )?
                .query_map(params![after, after_key, page.limit as i64], rows::entry)?
                .collect()
        })
        .await
    }

    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError> {
        let key = *key;
        self.write(move |connection| {
            let Some(rows::Found { record, .. }) = rows::select(connection, &key, now)? else {
                return Ok(Discarded::None);
            };
            if record.failed.is_none() && record.accepted.is_none() {
                return Ok(Discarded::None);
            }
            if let State::InFlight { until, .. } = record.state {
                return Ok(Discarded::InFlight { until });
            }
            clear_dead_letter(connection, &key)?;
            inbox::clear_delivery(connection, &key)?;
            connection.execute("DELETE FROM events WHERE key = ?1", [key.to_string()])?;
            Ok(Discarded::Done)
        })
        .await
    }
}

/// Returns the answer to a claim of an event that is known and not free.
fn taken(
    connection: &Connection,
    plan: &Plan,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<Claim>> {
    let found = rows::select(connection, &plan.key, now)?;
    found.map_or(Ok(None), |found| rows::convert(found.against(plan, now)))
}

fn insert(
    connection: &Connection,
    plan: &Plan,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> rusqlite::Result<Claim> {
    let (owner, details) = (new_owner(), Details::new(plan, now));
    // This replaces an expired record.
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO events (key, details, owner, until, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            plan.key.to_string(),
            stored::to_json(&details),
            owner,
            until.timestamp_millis(),
            details_end(now),
        ])?;
    Ok(Claim::Won(Lease { key: plan.key, owner, until, details, attempts: Vec::new() }))
}

fn take_over(
    connection: &Connection,
    record: Record,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> rusqlite::Result<Claim> {
    let owner = new_owner();
    let Record { key, details, attempts, failed, .. } = record;
    let details = details.ok_or(rusqlite::Error::InvalidQuery)?;
    // A dead letter does not expire.
    let expires_at = failed.is_none().then(|| details_end(now));
    connection
        .prepare_cached("UPDATE events SET owner = ?2, until = ?3, expires_at = ?4 WHERE key = ?1")?
        .execute(params![key.to_string(), owner, until.timestamp_millis(), expires_at])?;
    Ok(Claim::Won(Lease { key, owner, until, details, attempts }))
}

/// Returns the time at which an event whose owner died, and its route, are forgotten.
fn details_end(now: DateTime<Utc>) -> i64 {
    (now + DETAILS_TTL).timestamp_millis()
}

/// Deletes expired records. Usually there are none. A single statement would create a temporary table each time.
fn sweep(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    let expired = connection
        .prepare_cached("SELECT key FROM events WHERE expires_at <= ?1 LIMIT ?2")?
        .query_map(params![now.timestamp_millis(), SWEPT_AT_ONCE], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for key in expired {
        connection.prepare_cached("DELETE FROM events WHERE key = ?1")?.execute([key])?;
    }
    Ok(())
}

fn clear_dead_letter(connection: &Connection, key: &Key) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM dead_letters WHERE key = ?1")?.execute([key.to_string()])
}
