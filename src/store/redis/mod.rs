//! The store in Redis, Valkey and ElastiCache, on a single server or a cluster.
//!
//! An event has two keys. They share a hash slot, so that one script may touch both
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>):
//!
//! - `webhook:dedup:<hex>`, the key itself, exists while the event is in flight or delivered. So a
//!   Python router's `SET key 1 NX EX ttl` and this router's claim exclude each other. Its time to
//!   live is the lease, then the TTL.
//! - `{webhook:dedup:<hex>}:event` holds the data that outlives a lease: the details with the
//!   route, the last owner, and the dead letter.
//!
//! `webhook:dead-letters` is a sorted set of the keys that have dead letters, ordered by time. It
//! is in another slot. So an entry is added before its letter is stored, and removed after the
//! letter is cleared. An entry may have no letter, but no letter is missing from the list.

mod connection;
mod examine;
mod fields;
mod scripts;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redis::{Cmd, FromRedisValue};
use tokio::time::Instant;

use self::{
    connection::{Link, Refusal},
    fields::Fields,
    scripts::{CLAIM, DISCARD, FAIL, FINISH, GET, Lua, UNLIST},
};
use super::{
    Claim, DETAILS_TTL, DeadLetter, Delivered, Details, Discarded, Entry, Lease, Page, Record,
    Release, Settled, State, Store, StoreError, new_owner, stored,
};
use crate::{config::RedisUrl, event::Identity, fault, finding::Finding, key::Key, plan::Plan};

const DEAD_LETTERS: &str = "webhook:dead-letters";

/// A store in Redis.
///
/// Leases and lifetimes end by the server's clock, so that routers whose clocks differ agree on who
/// may claim. The router and the server exchange the time that is left of a lease, not its end. The
/// end that a caller gets is computed by the caller's clock. A lease starts when the script runs, a
/// little after the caller read its clock, so it ends a little later than `Lease.until` says.
pub struct Redis {
    link: Link,
    is_callers_time: bool,
}

impl Redis {
    /// Creates a store at that address. It does not connect yet.
    pub fn new(url: &RedisUrl, timeout: Duration) -> Self {
        Self { link: Link::new(url, timeout), is_callers_time: false }
    }

    /// Returns the same store with leases and lifetimes that end by the callers' time. The contract
    /// test of all stores uses it to choose its times, so that it need not wait.
    pub fn by_callers_time(self) -> Self {
        Self { is_callers_time: true, ..self }
    }

    /// Returns the time that a script uses. Empty means the server's time.
    fn time(&self, callers: DateTime<Utc>) -> String {
        if self.is_callers_time { millis(callers) } else { String::new() }
    }

    /// Runs a script on the keys of an event.
    async fn script(
        &self,
        script: &Lua,
        key: &Key,
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Fields, StoreError> {
        self.script_on(script, &[key.to_string(), event_key(key)], arguments, deadline).await
    }

    /// Runs a script. A server that does not have it yet gets its whole code.
    async fn script_on(
        &self,
        script: &Lua,
        keys: &[String],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Fields, StoreError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let reply = match self.link.run(&command("EVALSHA", &script.sha1), deadline).await {
            Err(Refusal::NoScript) => self.link.run(&command("EVAL", &script.code), deadline).await,
            reply => reply,
        };
        Ok(Fields::new(reply?))
    }

    async fn command<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, StoreError> {
        Ok(self.link.run(command, deadline).await?)
    }

    /// Removes the letter of that time from the list. If that fails, a stale entry remains.
    async fn unlist(&self, key: &Key, failed_at: Option<DateTime<Utc>>, deadline: Instant) {
        let Some(failed_at) = failed_at.map(millis) else { return };
        let (list, entry) = ([DEAD_LETTERS.to_owned()], key.to_string());
        let arguments = [entry.as_bytes(), failed_at.as_bytes()];
        if let Err(error) = self.script_on(&UNLIST, &list, &arguments, deadline).await {
            tracing::warn!(%key, %error, "the list of dead letters has a stale entry");
        }
    }

    /// Adds a key to the list, with the time of its failure. Returns 1 if the key was not on the
    /// list.
    async fn list(
        &self,
        key: &Key,
        failed_at: &str,
        options: &[&str],
        deadline: Instant,
    ) -> Result<u32, StoreError> {
        let mut addition = redis::cmd("ZADD");
        addition.arg(DEAD_LETTERS).arg(options).arg(failed_at).arg(key.to_string());
        self.command(&addition, deadline).await
    }

    /// Returns entries with times within these bounds, which have Redis's notation.
    async fn listed(
        &self,
        from: &str,
        to: &str,
        limit: Option<usize>,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(DEAD_LETTERS).arg(from).arg(to).arg("WITHSCORES");
        if let Some(limit) = limit {
            command.arg("LIMIT").arg(0).arg(limit);
        }
        let listed: Vec<(String, i64)> = self.command(&command, self.link.deadline()).await?;
        let entries = listed.into_iter().map(|(key, millis)| {
            let failed_at = DateTime::from_timestamp_millis(millis);
            Ok(Entry {
                failed_at: failed_at.ok_or_else(|| StoreError::corrupt("no time"))?,
                key: key.parse().map_err(StoreError::corrupt)?,
            })
        });
        entries.collect()
    }
}

#[async_trait]
impl Store for Redis {
    async fn examine(&self) -> Vec<Finding> {
        self.looked_at().await
    }

    /// Removes an entry that does not exist from the list of dead letters. A replica refuses this
    /// write, as it refuses a claim.
    async fn ping(&self) -> Result<(), StoreError> {
        let mut removal = redis::cmd("ZREM");
        removal.arg(DEAD_LETTERS).arg("");
        self.command::<u32>(&removal, self.link.deadline()).await.map(drop)
    }

    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        let (key, owner, details) = (plan.key, new_owner(), Details::new(plan, now));
        let lease = (until - now).num_milliseconds().max(1);
        let arguments = [
            self.time(now),
            lease.to_string(),
            owner.clone(),
            stored::to_json(&details),
            DETAILS_TTL.as_millis().to_string(),
            match plan.event.identity {
                Identity::Header(_) => plan.event.digest.clone(),
                Identity::Content | Identity::EventId(_) => String::new(),
            },
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let deadline = self.link.deadline();
        let mut fields = self.script(&CLAIM, &key, &arguments, deadline).await?;
        match fields.text()?.as_deref() {
            Some("won") => {
                let details = fields.json()?.unwrap_or(details);
                let attempts = fields.attempts()?;
                Ok(Claim::Won(Lease { key, owner, until, details, attempts }))
            }
            Some("in flight") => {
                let until = fields.end(now)?.unwrap_or(until);
                let details = fields.json()?.unwrap_or(details);
                Ok(details
                    .other_body(plan)
                    .unwrap_or(Claim::InFlight { until, route: details.route }))
            }
            Some("other body") => {
                let details = fields.json()?.unwrap_or(details);
                Ok(Claim::OtherBody { route: details.route })
            }
            Some("delivered") => {
                let record = fields.delivered(key)?;
                let other = record.details.as_ref().and_then(|details| details.other_body(plan));
                Ok(other.unwrap_or(Claim::Delivered(record)))
            }
            Some("elsewhere") => {
                self.unlist(&key, fields.time()?, deadline).await;
                Ok(Claim::Delivered(delivered_elsewhere(key)))
            }
            other => Err(StoreError::corrupt(format!("claim returned {other:?}"))),
        }
    }

    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError> {
        let Delivered { at, ttl, reply, attempts } = delivered;
        let head = reply.as_ref().map(stored::reply_head).unwrap_or_default();
        let body = reply.as_ref().map(|reply| reply.body.as_ref()).unwrap_or_default();
        let texts = [
            self.time(*at),
            lease.owner.clone(),
            stored::to_json(&lease.details),
            stored::to_json(attempts),
            millis(*at),
            ttl.as_millis().to_string(),
            head,
        ];
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        arguments.push(body);
        let deadline = self.link.deadline();
        let mut fields = self.script(&FINISH, &lease.key, &arguments, deadline).await?;
        let settled = fields.settled()?;
        fault::point("after finish writes");
        self.unlist(&lease.key, fields.time()?, deadline).await;
        Ok(settled)
    }

    async fn fail(
        &self,
        lease: &Lease,
        letter: &DeadLetter,
        release: Release,
    ) -> Result<Settled, StoreError> {
        let failed_at = millis(letter.failed_at);
        let release: &[u8] = match release {
            Release::Now => b"free",
            Release::AtLeaseEnd => b"hold",
        };
        let texts = [
            lease.owner.clone(),
            stored::to_json(&letter.details),
            stored::to_json(&letter.attempts),
            failed_at.clone(),
            stored::to_json(&letter.failure),
            stored::delivery_head(&letter.delivery),
        ];
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        arguments.extend([&letter.delivery.body[..], release]);
        // The letter is listed before it is stored, so that no letter is missing from the list. An
        // existing entry may belong to another owner's letter, so it only changes after ours is
        // stored.
        let deadline = self.link.deadline();
        let is_new = self.list(&lease.key, &failed_at, &["NX"], deadline).await? == 1;
        fault::point("before letter is stored");
        let mut fields = self.script(&FAIL, &lease.key, &arguments, deadline).await?;
        let settled = fields.settled()?;
        match settled {
            Settled::Stored if !is_new => {
                self.list(&lease.key, &failed_at, &[], deadline).await?;
            }
            // If this call is a repetition, the existing letter may be our own.
            Settled::LeaseLost if fields.text()?.as_ref() != Some(&failed_at) => {
                self.unlist(&lease.key, Some(letter.failed_at), deadline).await;
            }
            Settled::Stored | Settled::LeaseLost => {}
        }
        Ok(settled)
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let (time, deadline) = (self.time(now), self.link.deadline());
        let mut fields = self.script(&GET, key, &[time.as_bytes()], deadline).await?;
        match fields.text()?.as_deref() {
            Some("elsewhere") => {
                let (details, failed) = (fields.json()?, fields.failed()?);
                Ok(Some(Record { details, failed, ..delivered_elsewhere(*key) }))
            }
            Some("delivered") => fields.delivered(*key).map(Some),
            Some("forgotten") => Ok(None),
            _ => fields.open(*key, now),
        }
    }

    async fn find(&self, digits: &str, now: DateTime<Utc>) -> Result<Option<Vec<Key>>, StoreError> {
        if self.link.is_cluster {
            // SCAN searches one server, but the key may be on another.
            return Ok(None);
        }
        let mut found = BTreeSet::new();
        // An event has either key, or both.
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
                let (next, names): (u64, Vec<String>) =
                    self.command(&scan, self.link.deadline()).await?;
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
        // SCAN may list events that are forgotten already. They are left out.
        let mut known = Vec::new();
        for key in found {
            if self.get(&key, now).await?.is_some() {
                known.push(key);
            }
        }
        Ok(Some(known))
    }

    async fn dead_letter(&self, key: &Key) -> Result<Option<DeadLetter>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(event_key(key));
        command.arg(&["details", "attempts", "failed_at", "failure", "head", "body"]);
        let mut fields = Fields::new(self.command(&command, self.link.deadline()).await?);
        let (details, attempts) = (fields.json()?, fields.attempts()?);
        let (failed_at, failure) = (fields.time()?, fields.json()?);
        let (head, body) = (fields.text()?, fields.bytes());
        Ok(match (details, failed_at, failure, head, body) {
            (Some(details), Some(failed_at), Some(failure), Some(head), Some(body)) => {
                let delivery = stored::delivery(&head, body)?;
                Some(DeadLetter { key: *key, details, failed_at, failure, attempts, delivery })
            }
            _ => None,
        })
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut from = "-inf".to_owned();
        if let Some(after) = page.after {
            // Redis orders entries by time and key, but a range cannot begin at a key.
            let time = millis(after.failed_at);
            entries = self.listed(&time, &time, None).await?;
            entries.retain(|entry| *entry > after);
            from = format!("({time}");
        }
        if let Some(wanted @ 1..) = page.limit.checked_sub(entries.len()) {
            entries.extend(self.listed(&from, "+inf", Some(wanted)).await?);
        }
        entries.truncate(page.limit);
        Ok(entries)
    }

    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError> {
        let deadline = self.link.deadline();
        let time = self.time(now);
        let mut fields = self.script(&DISCARD, key, &[time.as_bytes()], deadline).await?;
        match fields.text()?.as_deref() {
            Some("discarded") => {
                self.unlist(key, fields.time()?, deadline).await;
                Ok(Discarded::Done)
            }
            Some("in flight") => Ok(Discarded::InFlight { until: fields.end(now)?.unwrap_or(now) }),
            _ => Ok(Discarded::None),
        }
    }
}

fn event_key(key: &Key) -> String {
    format!("{{{key}}}:event")
}

fn millis(time: DateTime<Utc>) -> String {
    time.timestamp_millis().to_string()
}

/// Returns the record of an event that the Python router delivered. Its value `1` says nothing
/// else.
fn delivered_elsewhere(key: Key) -> Record {
    let state = State::Delivered { at: None, reply: None };
    Record { key, details: None, attempts: Vec::new(), failed: None, state }
}
