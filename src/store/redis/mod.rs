//! The store in Redis, Valkey and ElastiCache, on a single server or a cluster.
//!
//! An event has two keys. They share a hash slot, so that one script may touch both
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>):
//!
//! - `webhook:dedup:<hex>`, the key itself, exists while the event is in flight, in the inbox or
//!   delivered. So a Python router's `SET key 1 NX EX ttl` and this router's claim exclude each
//!   other. The key lives for the lease, then for the TTL. In the inbox, it does not expire.
//! - `{webhook:dedup:<hex>}:event` holds the data that outlives a lease: the details with the
//!   route, the last owner, and the dead letter or the delivery of an accepted event.
//!
//! `webhook:dead-letters` is a sorted set of the keys that have dead letters, ordered by time. In a
//! cluster, it is spread over sixteen sets, `webhook:dead-letters:<0-f>`, which are in other slots.
//! So an entry is added before its letter is stored, and removed after the letter is cleared. An
//! entry may have no letter, but no letter is missing from the list.
//!
//! `webhook:due:<destination>` is a sorted set of the keys in a destination's inbox, ordered by the
//! time at which somebody must look at them. A single server changes it in the same script as the
//! event. `inbox.rs` says how a cluster does. `webhook:destinations` is a set of the names of the
//! destinations that have such lists. `gcp` and `aws` are not in it, because every process reads their
//! lists.

mod connection;
mod examine;
mod fields;
mod inbox;
mod lists;
mod scripts;

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use redis::{Cmd, FromRedisValue};
use tokio::time::Instant;

use self::{
    connection::{Link, Refusal},
    fields::Fields,
    lists::DEAD_LETTERS,
    scripts::{CLAIM, DISCARD, FAIL, FINISH, GET, Lua},
};
use super::{
    Accepted, Claim, DETAILS_TTL, DeadLetter, Delivered, Details, Discarded, Due, Entry, Lease,
    Page, Postponed, Record, Release, Settled, State, Store, StoreError, Take,
    named::{ALWAYS, Named},
    new_owner, stored,
};
use crate::{
    config::RedisUrl, delivery::Delivery, event::Identity, fault, finding::Finding, key::Key,
    plan::Plan, route::Route,
};

/// A store in Redis.
///
/// Leases and lifetimes end by the server's clock, so that routers whose clocks differ agree on who
/// may claim. The router and the server exchange the time that is left of a lease, not its end. The
/// end that a caller gets is computed by the caller's clock. A lease starts when the script runs, a
/// little after the caller read its clock, so it ends a little later than `Lease.until` says.
pub struct Redis {
    link: Link,
    is_callers_time: bool,
    named: Named,
    /// The destinations whose lists this process has used.
    used: Mutex<BTreeSet<Route>>,
}

impl Redis {
    /// Creates a store at that address. It does not connect yet.
    pub fn new(url: &RedisUrl, timeout: Duration) -> Self {
        let used = Mutex::new(ALWAYS.into());
        let named = Named::default();
        Self { link: Link::new(url, timeout), is_callers_time: false, named, used }
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

    /// Runs a script on the keys of an event, and on the lists of some destinations.
    async fn script(
        &self,
        script: &Lua,
        key: &Key,
        routes: &[Route],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Fields, StoreError> {
        let mut keys = vec![key.to_string(), event_key(key)];
        if !self.link.is_cluster {
            keys.extend(routes.iter().map(|route| self.inbox_of(*route, key)));
        }
        let fields = self.script_on(script, &keys, arguments, deadline).await?;
        let Some(other) = fields.unlisted() else { return Ok(fields) };
        // The event has a destination that the caller does not know.
        self.name(other, deadline).boxed().await?;
        keys.push(self.inbox_of(other, key));
        self.script_on(script, &keys, arguments, deadline).boxed().await
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
            Err(Refusal::NoScript) => {
                self.link.run(&command("EVAL", &script.code), deadline).boxed().await
            }
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

    /// Reads the reply to a claim or an acceptance of a key that is not free.
    async fn taken(
        &self,
        plan: &Plan,
        mut fields: Fields,
        word: Option<&str>,
        now: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Claim, StoreError> {
        let details = |fields: &mut Fields| -> Result<Details, StoreError> {
            fields.json()?.ok_or_else(|| StoreError::corrupt("no details"))
        };
        match word {
            Some("in flight") => {
                let until = fields.end(now)?.unwrap_or(now);
                let details = details(&mut fields)?;
                let route = details.route;
                Ok(details.other_body(plan).unwrap_or(Claim::InFlight { until, route }))
            }
            Some("accepted") => Ok(Claim::Accepted { route: details(&mut fields)?.route }),
            Some("other body") => Ok(Claim::OtherBody { route: details(&mut fields)?.route }),
            Some("delivered") => {
                let record = fields.delivered(plan.key)?;
                let other = record.details.as_ref().and_then(|details| details.other_body(plan));
                Ok(other.unwrap_or(Claim::Delivered(record)))
            }
            Some("elsewhere") => {
                self.unlist_letter(&plan.key, fields.time()?, deadline).await;
                Ok(Claim::Delivered(delivered_elsewhere(plan.key)))
            }
            other => Err(StoreError::corrupt(format!("a script returned {other:?}"))),
        }
    }
}

/// Returns the digest of the body if the sender named the event.
fn named_digest(plan: &Plan) -> String {
    match plan.event.identity {
        Identity::Header(_) => plan.event.digest.clone(),
        Identity::Content | Identity::EventId(_) => String::new(),
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
            named_digest(plan),
        ];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let deadline = self.link.deadline();
        let mut fields = self.script(&CLAIM, &key, &[], &arguments, deadline).await?;
        let word = fields.text()?;
        match word.as_deref() {
            Some("won") => {
                let details = fields.json()?.unwrap_or(details);
                let attempts = fields.attempts()?;
                Ok(Claim::Won(Lease { key, owner, until, details, attempts }))
            }
            word => self.taken(plan, fields, word, now, deadline).await,
        }
    }

    async fn accept(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Accepted, StoreError> {
        self.accept_event(plan, delivery, now, due, look).await
    }

    async fn destinations(&self) -> Result<Vec<Route>, StoreError> {
        self.listed_destinations().await
    }

    async fn due(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.due_events(route, by_now, after, limit).await
    }

    async fn relist(
        &self,
        route: Route,
        entry: Due,
        now: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError> {
        self.relist_event(route, entry, now, look).await
    }

    async fn take(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError> {
        self.take_event(key, early, now, until).await
    }

    async fn postpone(&self, lease: &Lease, postponed: &Postponed) -> Result<Settled, StoreError> {
        self.postpone_event(lease, postponed).await
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
        let mut fields =
            self.script(&FINISH, &lease.key, &[lease.details.route], &arguments, deadline).await?;
        let settled = fields.settled()?;
        fault::point("after finish writes");
        self.unlist_letter(&lease.key, fields.time()?, deadline).await;
        let route = Some(lease.details.route);
        self.unlist_due(&lease.key, route, fields.time()?, deadline).await;
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
        let time = self.time(letter.failed_at);
        arguments.extend([&letter.delivery.body[..], release, time.as_bytes()]);
        // The letter is listed before it is stored, so that no letter is missing from the list. An
        // existing entry may belong to another owner's letter, so it only changes after ours is
        // stored. Meanwhile, a process with another clock may have removed the entry.
        let deadline = self.link.deadline();
        let is_new = self.list(&lease.key, &failed_at, &["NX"], deadline).await? == 1;
        fault::point("before letter is stored");
        let mut fields =
            self.script(&FAIL, &lease.key, &[lease.details.route], &arguments, deadline).await?;
        let settled = fields.settled()?;
        match settled {
            Settled::Stored => {
                let options: &[&str] = if is_new { &["NX"] } else { &[] };
                self.list(&lease.key, &failed_at, options, deadline).await?;
                let route = Some(lease.details.route);
                self.unlist_due(&lease.key, route, fields.time()?, deadline).await;
                self.unlist_earlier_letter(&lease.key, fields.time()?, deadline).await;
            }
            // If this call is a repetition, the existing letter may be our own.
            Settled::LeaseLost if fields.text()?.as_ref() != Some(&failed_at) => {
                self.unlist_letter(&lease.key, Some(letter.failed_at), deadline).await;
            }
            Settled::LeaseLost => {}
        }
        Ok(settled)
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let (time, deadline) = (self.time(now), self.link.deadline());
        let mut fields = self.script(&GET, key, &[], &[time.as_bytes()], deadline).await?;
        match fields.text()?.as_deref() {
            Some("elsewhere") => {
                let (details, failed) = (fields.json()?, fields.failed()?);
                Ok(Some(Record { details, failed, ..delivered_elsewhere(*key) }))
            }
            Some("delivered") => fields.delivered(*key).map(Some),
            Some("accepted") => fields.accepted(*key, now).map(Some),
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

    async fn delivery(&self, key: &Key) -> Result<Option<Delivery>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(event_key(key)).arg(&["head", "body"]);
        let mut fields = Fields::new(self.command(&command, self.link.deadline()).await?);
        let kept = fields.text()?.zip(fields.bytes());
        kept.map(|(head, body)| stored::delivery(&head, body)).transpose()
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError> {
        let after = page.after.map(|Entry { failed_at, key }| (failed_at, key));
        let mut lists = vec![DEAD_LETTERS.to_owned()];
        if self.link.is_cluster {
            lists.extend((0..Key::SHARDS).map(|shard| format!("{DEAD_LETTERS}:{shard:x}")));
        }
        let entries = self.merged(&lists, after, "+inf", page.limit).await?;
        Ok(entries.into_iter().map(|(failed_at, key)| Entry { failed_at, key }).collect())
    }

    async fn remove_entry(&self, Entry { failed_at, key }: Entry) {
        self.unlist_letter(&key, Some(failed_at), self.link.deadline()).await;
        // The letter may have been stored since the entry was read.
        let listed = match self.dead_letter(&key).await {
            Ok(Some(letter)) => {
                let (failed_at, deadline) = (millis(letter.failed_at), self.link.deadline());
                self.list(&key, &failed_at, &["NX"], deadline).await.map(drop)
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = listed {
            tracing::error!(%key, %error, "a dead letter may be missing from the list");
        }
    }

    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError> {
        let deadline = self.link.deadline();
        let time = self.time(now);
        let mut fields =
            self.script(&DISCARD, key, &self.used(), &[time.as_bytes()], deadline).await?;
        match fields.text()?.as_deref() {
            Some("discarded") => {
                self.unlist_letter(key, fields.time()?, deadline).await;
                // Damaged details name no list. An operator can still discard their event.
                let details = fields.json::<Details>().ok().flatten();
                let route = details.map(|details| details.route);
                self.unlist_due(key, route, fields.time()?, deadline).await;
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

/// Returns the record of an event that the Python router delivered. The value `1`, which that
/// router stores, says no more.
fn delivered_elsewhere(key: Key) -> Record {
    let state = State::Delivered { at: None, reply: None };
    Record { key, details: None, attempts: Vec::new(), failed: None, accepted: None, state }
}
