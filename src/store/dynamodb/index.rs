//! The index of the table: dead letters, the events of the inboxes, and the parts of deliveries.
//!
//! Its partition key, `dead`, names a list and a shard, and its sort key, `dead_letter`, has the time
//! and the key. A partition takes 1,000 writes a second, and an index that is throttled throttles its
//! table (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-gsi-throttling.html>).
//! So each list is spread over sixteen partitions by the first digit of the key, and read in order by
//! merging them.
//!
//! The item `webhook:destinations` keeps the names of the destinations that have lists.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;

use super::{
    super::{StoreError, merge::merged, named},
    DynamoDb, INDEX,
    item::{Item, entry, sort_key, string, text},
};
use crate::{key::Key, route::Route};

/// The list of dead letters.
pub(super) const LETTERS: &str = "dead";
/// The partition of the dead letters that earlier versions stored.
pub(super) const OLD_LETTERS: &str = "1";
/// The list of the parts of large deliveries, by the time at which they were written or a sweep
/// last saw them.
pub(super) const PARTS: &str = "parts";

/// The key of the item that keeps the names of the destinations that have inboxes. A query cannot list
/// the partitions of an index.
const DESTINATIONS: &str = "webhook:destinations";

/// Returns the name of a destination's inbox.
pub(super) fn inbox(route: Route) -> String {
    format!("due-{route}")
}

/// Returns the partition that a shard of a list is in.
pub(super) fn partition(list: &str, shard: u8) -> String {
    format!("{list}-{shard:x}")
}

/// Returns all partitions of a list.
pub(super) fn partitions(list: &str) -> impl Iterator<Item = String> {
    (0..Key::SHARDS).map(move |shard| partition(list, shard))
}

/// Returns the attributes that put an item on a list.
pub(super) fn entry_of(
    list: &str,
    time: DateTime<Utc>,
    key: &Key,
) -> [(String, AttributeValue); 2] {
    [
        ("dead".into(), text(partition(list, key.shard()))),
        ("dead_letter".into(), text(sort_key(time, key))),
    ]
}

impl DynamoDb {
    /// Adds the name of a destination before an event is put on its list.
    pub(super) async fn name(&self, route: Route) -> Result<(), StoreError> {
        if self.named.lacks(route) {
            let added = self
                .client()
                .await
                .update_item()
                .table_name(&self.table)
                .key("key", text(DESTINATIONS))
                .update_expression("ADD #destinations :name")
                .expression_attribute_names("#destinations", "destinations")
                .expression_attribute_values(":name", AttributeValue::Ss(vec![route.to_string()]))
                .send()
                .boxed()
                .await;
            self.named.added(route, added.map(drop).map_err(|error| self.failed(error)))?;
        }
        Ok(())
    }

    /// Returns the destinations that may have events.
    pub(super) async fn listed_destinations(&self) -> Result<Vec<Route>, StoreError> {
        let got = self
            .client()
            .await
            .get_item()
            .table_name(&self.table)
            .key("key", text(DESTINATIONS))
            .consistent_read(true)
            .send()
            .boxed()
            .await
            .map_err(|error| self.failed(error))?;
        let names = got.item.as_ref().and_then(|item| item.get("destinations")?.as_ss().ok());
        Ok(named::destinations(names.into_iter().flatten().map(String::as_str)))
    }

    /// Returns the times and keys of some partitions in order: those after `after`, up to `to`.
    pub(super) async fn entries(
        &self,
        partitions: impl Iterator<Item = String>,
        after: Option<(DateTime<Utc>, Key)>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<(DateTime<Utc>, Key)>, StoreError> {
        let after = after.map(|(time, key)| sort_key(time, key));
        let listed = self.listed(partitions, after.as_deref(), to, limit).await?;
        listed.iter().map(|sort_key| entry(sort_key)).collect()
    }

    /// Returns the sort keys of some partitions in order: those after `after`, up to `to`.
    pub(super) async fn listed(
        &self,
        partitions: impl Iterator<Item = String>,
        after: Option<&str>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let (partitions, after): (Vec<_>, _) = (partitions.collect(), after.map(str::to_owned));
        let page = |partition, after, limit| self.partition(partition, after, to, limit);
        merged(&partitions, after, limit, page).await
    }

    async fn partition(
        &self,
        partition: &String,
        after: Option<String>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let after = after.as_deref();
        let mut pages = self
            .client()
            .await
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            // A condition can compare the sort key only once. BETWEEN includes the entry `after`,
            // which is skipped below.
            .key_condition_expression("dead = :dead AND dead_letter BETWEEN :after AND :to")
            .expression_attribute_values(":dead", text(partition))
            .expression_attribute_values(":after", text(after.unwrap_or("0")))
            .expression_attribute_values(":to", text(to))
            .limit((limit + 1).min(1000) as i32)
            .into_paginator()
            .send();
        let mut listed = Vec::new();
        while listed.len() < limit
            && let Some(page) = pages.next().await
        {
            let items: Vec<Item> =
                page.map_err(|error| self.failed(error))?.items.unwrap_or_default();
            for item in items {
                let sort_key = string(&item, "dead_letter")?;
                if after != Some(sort_key) {
                    listed.push(sort_key.to_owned());
                }
            }
        }
        Ok(listed)
    }
}
