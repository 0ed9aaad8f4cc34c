//! The sorted sets of dead letters and of the inboxes.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{
    super::{StoreError, merge::merged},
    Redis, millis,
    scripts::UNLIST,
};
use crate::key::Key;

/// The list of dead letters on a single server. In a cluster, earlier versions wrote to it, so it is
/// still read.
pub(super) const DEAD_LETTERS: &str = "webhook:dead-letters";

impl Redis {
    /// Removes the entry of that time from a list. If that fails, a stale entry remains.
    pub(super) async fn unlist(
        &self,
        list: &str,
        key: &Key,
        time: Option<DateTime<Utc>>,
        deadline: Instant,
    ) {
        let Some(time) = time.map(millis) else { return };
        let (lists, entry) = ([list.to_owned()], key.to_string());
        let arguments = [entry.as_bytes(), time.as_bytes()];
        if let Err(error) = self.script_on(&UNLIST, &lists, &arguments, deadline).boxed().await {
            tracing::warn!(%key, list, %error, "a list has a stale entry");
        }
    }

    /// Removes the entry of that time from the lists of dead letters.
    pub(super) async fn unlist_letter(
        &self,
        key: &Key,
        time: Option<DateTime<Utc>>,
        deadline: Instant,
    ) {
        if time.is_some() {
            self.unlist(&self.letters_of(key), key, time, deadline).boxed().await;
            self.unlist_earlier_letter(key, time, deadline).boxed().await;
        }
    }

    /// Removes the entry of that time from the list that an earlier version wrote in a cluster.
    pub(super) async fn unlist_earlier_letter(
        &self,
        key: &Key,
        time: Option<DateTime<Utc>>,
        deadline: Instant,
    ) {
        if self.link.is_cluster {
            self.unlist(DEAD_LETTERS, key, time, deadline).await;
        }
    }

    /// Returns the list of dead letters that a key is on.
    pub(super) fn letters_of(&self, key: &Key) -> String {
        match self.link.is_cluster {
            true => format!("{DEAD_LETTERS}:{:x}", key.shard()),
            false => DEAD_LETTERS.to_owned(),
        }
    }

    /// Returns entries of several lists in one order.
    pub(super) async fn merged(
        &self,
        lists: &[String],
        after: Option<(DateTime<Utc>, Key)>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<(DateTime<Utc>, Key)>, StoreError> {
        merged(lists, after, limit, |list, after, limit| self.page(list, after, to, limit)).await
    }

    /// Returns entries of the lists that can be read. Fails only if no list can be read: the events
    /// on other servers must not wait for a server that is down.
    pub(super) async fn merged_from_any<'l>(
        &self,
        lists: &'l [String],
        after: Option<(DateTime<Utc>, Key)>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<(DateTime<Utc>, Key)>, StoreError> {
        let failures = Mutex::new(Vec::new());
        let page = |list: &'l String, after, limit| {
            let failures = &failures;
            async move {
                self.page(list, after, to, limit).await.or_else(|error| {
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    if failures.len() + 1 == lists.len() {
                        return Err(error);
                    }
                    failures.push(error);
                    Ok(Vec::new())
                })
            }
        };
        let entries = merged(lists, after, limit, page).await?;
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failures.last() {
            let lists = failures.len();
            tracing::warn!(lists, %error, "some lists of accepted events cannot be read");
        }
        Ok(entries)
    }

    /// Adds a key to the list, with the time of its failure. Returns 1 if the key was not on the
    /// list.
    pub(super) async fn list(
        &self,
        key: &Key,
        failed_at: &str,
        options: &[&str],
        deadline: Instant,
    ) -> Result<u32, StoreError> {
        let mut addition = redis::cmd("ZADD");
        addition.arg(self.letters_of(key)).arg(options).arg(failed_at).arg(key.to_string());
        self.command(&addition, deadline).await
    }

    /// Returns entries of a list with times within these bounds, which have Redis's notation.
    pub(super) async fn listed(
        &self,
        list: &str,
        from: &str,
        to: &str,
        limit: Option<usize>,
    ) -> Result<Vec<(DateTime<Utc>, Key)>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(list).arg(from).arg(to).arg("WITHSCORES");
        if let Some(limit) = limit {
            command.arg("LIMIT").arg(0).arg(limit);
        }
        let listed: Vec<(String, f64)> = self.command(&command, self.link.deadline()).await?;
        let entries = listed.into_iter().map(|(key, millis)| {
            // The mark of an entry is a fraction (scripts.rs).
            let time = DateTime::from_timestamp_millis(millis.ceil() as i64);
            let time = time.ok_or_else(|| StoreError::corrupt("no time"))?;
            Ok((time, key.parse().map_err(StoreError::corrupt)?))
        });
        entries.collect()
    }

    /// Returns entries of a list up to a bound, ordered by time and key, after an entry.
    pub(super) async fn page(
        &self,
        list: &str,
        after: Option<(DateTime<Utc>, Key)>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<(DateTime<Utc>, Key)>, StoreError> {
        let mut entries = Vec::new();
        let mut from = "-inf".to_owned();
        if let Some(after) = after {
            // Redis orders entries by time and key, but a range cannot begin at a key.
            let time = millis(after.0);
            entries = self.listed(list, &time, &time, None).await?;
            entries.retain(|entry| *entry > after);
            from = format!("({time}");
        }
        if let Some(wanted @ 1..) = limit.checked_sub(entries.len()) {
            entries.extend(self.listed(list, &from, to, Some(wanted)).await?);
        }
        entries.truncate(limit);
        Ok(entries)
    }
}
