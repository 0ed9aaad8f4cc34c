//! The DynamoDB store: one table, with one item for each event.
//!
//! A claim is one conditional PutItem. If an existing item prevents it, the answer also has that
//! item (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html>). Only a
//! claim that takes the key over, after a failure or from an owner that died or hangs, needs a
//! second write. `item.rs` lists the attributes.
//!
//! Each request is boxed. The future of an operation is moved several times, and would otherwise
//! hold kilobytes for each request.

mod connections;
mod examine;
mod inbox;
mod index;
mod item;
mod letter;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, update_item::UpdateItemError,
    },
    primitives::Blob,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use self::{
    connections::client,
    item::{
        Item, against, assignment, dead_letter, is_forgotten, millis, ours, record, seconds,
        string, text,
    },
    letter::Packed,
};
use super::{
    Accepted, Claim, DETAILS_TTL, DeadLetter, Delivered, Details, Discarded, Due, Entry, Lease,
    Page, Postponed, Record, Release, Settled, State, Store, StoreError, Take, named::Named,
    new_owner, stored,
};
use crate::{aws, delivery::Delivery, fault, finding::Finding, key::Key, plan::Plan, route::Route};

/// The sparse index: partition key `dead`, sort key `dead_letter`. `index.rs` says what is in it.
pub const INDEX: &str = "dead_letters";

/// Most tries of an operation whose item changes while it runs.
const TRIES: u32 = 3;

/// A store in a DynamoDB table.
pub struct DynamoDb {
    table: String,
    timeout: Duration,
    /// Created for the first operation.
    client: OnceCell<Client>,
    named: Named,
}

impl DynamoDb {
    /// Creates a store in that table, with the region, credentials and endpoint of the standard AWS
    /// settings. It does not connect yet.
    pub fn new(table: String, timeout: Duration) -> Self {
        Self { table, timeout, client: OnceCell::new(), named: Named::default() }
    }

    /// Creates a store with the caller's region, credentials and endpoint.
    pub fn with_sdk_config(table: String, timeout: Duration, sdk: &SdkConfig) -> Self {
        let client = OnceCell::new_with(Some(client(sdk, timeout)));
        Self { table, timeout, client, named: Named::default() }
    }

    async fn client(&self) -> &Client {
        let make = || async { client(aws::sdk_config().await, self.timeout) };
        self.client.get_or_init(make).await
    }

    /// Returns the time by which an operation that begins now must have ended.
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs all requests of an operation, until `deadline` at the latest.
    fn within<T>(
        &self,
        deadline: Instant,
        requests: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        let late = |_| Err(StoreError::Timeout(self.timeout).at(self));
        timeout_at(deadline, requests).map(move |done| done.unwrap_or_else(late))
    }

    fn failed<E, R>(&self, error: SdkError<E, R>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        SdkError<E, R>: std::error::Error,
    {
        let error = match error {
            SdkError::TimeoutError(_) => StoreError::Timeout(self.timeout),
            error if error.code() == Some("ResourceNotFoundException") => StoreError::Failed(
                format!("no such table in this region: {}", aws::describe(&error)),
            ),
            error => StoreError::Failed(aws::describe(&error)),
        };
        error.at(self)
    }

    /// Updates the item of an event on a condition. Returns the old values of the attributes that
    /// the update names, or if the condition does not hold, the item as it is now.
    async fn update_item(
        &self,
        key: &Key,
        update: &str,
        condition: &str,
        values: Item,
    ) -> Result<Result<Item, Item>, StoreError> {
        let updated = self
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("key", text(key))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::UpdatedOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .boxed()
            .await;
        match updated {
            Ok(output) => Ok(Ok(output.attributes.unwrap_or_default())),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok(Err(refusal.item.clone().unwrap_or_default()))
                }
                _ => Err(self.failed(error)),
            },
        }
    }

    /// Creates the item of an event, in place of a forgotten one. Returns the lease, or the item
    /// that prevents the claim.
    async fn insert(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Result<Lease, Item>, StoreError> {
        let (key, owner, details) = (plan.key, new_owner(), Details::new(plan, now));
        let put = self
            .client()
            .await
            .put_item()
            .table_name(&self.table)
            .item("key", text(key))
            .item("details", text(stored::to_json(&details)))
            .item("held_by", text(&owner))
            .item("held_until", millis(until))
            .item("expires_at", details_end(now))
            // TTL may take days to delete an item, so the condition also checks the item's time.
            .condition_expression("attribute_not_exists(#key) OR forgotten_at <= :now")
            .expression_attribute_names("#key", "key")
            .expression_attribute_values(":now", millis(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .boxed()
            .await;
        let lease = Lease { key, owner, until, details, attempts: Vec::new() };
        let Err(error) = put else {
            return Ok(Ok(lease));
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(ours(lease, refusal.item.clone().unwrap_or_default()))
            }
            _ => Err(self.failed(error)),
        }
    }

    /// Takes over an item that nobody holds. Returns the lease, or the item as it is now if it has
    /// changed.
    async fn take_over(
        &self,
        key: Key,
        found: &Item,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Result<Lease, Item>, StoreError> {
        let Record { details, attempts, failed, .. } = record(key, found, now)?;
        let details = details.ok_or_else(|| StoreError::corrupt("no details"))?;
        let owner = new_owner();
        let request = self
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("key", text(key))
            .expression_attribute_values(":owner", text(&owner))
            .expression_attribute_values(":until", millis(until))
            .expression_attribute_values(":before", text(string(found, "held_by")?))
            .expression_attribute_values(":now", millis(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let is_free = "held_by = :before AND attribute_not_exists(delivered_at) \
                       AND (attribute_not_exists(held_until) OR held_until <= :now)";
        let request = match failed {
            // A dead letter does not expire.
            Some(failed) => request
                .update_expression("SET held_by = :owner, held_until = :until")
                .condition_expression(format!("{is_free} AND failed_at = :failed_at"))
                .expression_attribute_values(":failed_at", millis(failed.at)),
            None => request
                .update_expression(
                    "SET held_by = :owner, held_until = :until, expires_at = :expires_at",
                )
                .condition_expression(format!("{is_free} AND attribute_not_exists(failed_at)"))
                .expression_attribute_values(":expires_at", details_end(now)),
        };
        let lease = Lease { key, owner, until, details, attempts };
        let Err(error) = request.send().boxed().await else {
            return Ok(Ok(lease));
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(ours(lease, refusal.item.clone().unwrap_or_default()))
            }
            _ => Err(self.failed(error)),
        }
    }
}

/// Writes the store as STORE_URL names it.
impl fmt::Display for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb://{}", self.table)
    }
}

#[async_trait]
impl Store for DynamoDb {
    async fn examine(&self) -> Vec<Finding> {
        self.looked_at().await
    }

    /// Reads an item that does not exist.
    async fn ping(&self) -> Result<(), StoreError> {
        self.within(self.deadline(), self.item(&"ping")).await.map(drop)
    }

    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        self.within(self.deadline(), async {
            let mut claimed = self.insert(plan, now, until).await?;
            for _ in 0..TRIES {
                let found = match claimed {
                    Ok(lease) => return Ok(Claim::Won(lease)),
                    Err(found) => found,
                };
                if found.is_empty() {
                    // The item disappeared in between.
                    claimed = self.insert(plan, now, until).await?;
                } else if let Some(answer) = against(plan, &found, now)? {
                    return Ok(answer);
                } else {
                    claimed = self.take_over(plan.key, &found, now, until).await?;
                }
            }
            claimed.map(Claim::Won).map_err(|_| StoreError::contended())
        })
        .await
    }

    async fn accept(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        now: DateTime<Utc>,
        due: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Accepted, StoreError> {
        let deadline = self.deadline();
        self.within(deadline, self.accept_event(plan, delivery, [now, due, look], deadline)).await
    }

    async fn destinations(&self) -> Result<Vec<Route>, StoreError> {
        self.within(self.deadline(), self.listed_destinations()).await
    }

    async fn due(
        &self,
        route: Route,
        by_now: Option<DateTime<Utc>>,
        after: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Due>, StoreError> {
        self.within(self.deadline(), self.due_events(route, by_now, after, limit)).await
    }

    async fn relist(
        &self,
        route: Route,
        entry: Due,
        _now: DateTime<Utc>,
        look: DateTime<Utc>,
    ) -> Result<Option<Due>, StoreError> {
        self.within(self.deadline(), self.relist_event(route, entry, look)).await
    }

    async fn take(
        &self,
        key: &Key,
        early: bool,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Take, StoreError> {
        self.within(self.deadline(), self.take_event(key, early, now, until)).await
    }

    async fn postpone(&self, lease: &Lease, postponed: &Postponed) -> Result<Settled, StoreError> {
        self.within(self.deadline(), self.postpone_event(lease, postponed)).await
    }

    async fn sweep(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.sweep_parts(now).await
    }

    async fn finish(&self, lease: &Lease, delivered: &Delivered) -> Result<Settled, StoreError> {
        let Delivered { at, ttl, reply, attempts } = delivered;
        let forgotten_at = *at + *ttl;
        let mut update =
            "SET attempts = :attempts, delivered_at = :at, forgotten_at = :forgotten, \
                          expires_at = :expires"
                .to_owned();
        let mut values = Item::from([
            (":owner".into(), text(&lease.owner)),
            (":attempts".into(), text(stored::to_json(attempts))),
            (":at".into(), millis(*at)),
            (":forgotten".into(), millis(forgotten_at)),
            (":expires".into(), seconds(forgotten_at.timestamp() + 1)),
        ]);
        if let Some(reply) = reply {
            update += ", reply_head = :head, reply_body = :body";
            values.insert(":head".into(), text(stored::reply_head(reply)));
            values.insert(":body".into(), AttributeValue::B(Blob::new(reply.body.clone())));
        }
        update += " REMOVE held_until, dead, dead_letter, failed_at, failure, delivery, codec, \
                    part_count, parts_at, accepted, accepted_by, due";
        let deadline = self.deadline();
        let updated = self.update_item(&lease.key, &update, "held_by = :owner", values);
        match self.within(deadline, updated).await? {
            Ok(before) => {
                fault::point("after finish writes");
                self.delete_parts(&before, deadline).await;
                Ok(Settled::Stored)
            }
            Err(_) => Ok(Settled::LeaseLost),
        }
    }

    async fn fail(
        &self,
        lease: &Lease,
        letter: &DeadLetter,
        release: Release,
    ) -> Result<Settled, StoreError> {
        let packed = Packed::new(&lease.key, &lease.owner, &letter.delivery, letter.failed_at)?;
        let mut set = packed.attributes.clone();
        set.extend([
            ("attempts".into(), text(stored::to_json(&letter.attempts))),
            ("failed_at".into(), millis(letter.failed_at)),
            ("failure".into(), text(stored::to_json(&letter.failure))),
        ]);
        set.extend(index::entry_of(index::LETTERS, letter.failed_at, &lease.key));
        let mut remove = vec!["expires_at", "accepted", "due"];
        remove.extend(letter::ATTRIBUTES.iter().filter(|name| !set.contains_key(**name)));
        if release == Release::Now {
            remove.push("held_until");
        }
        let (update, mut values) = assignment(set, &remove);
        values.insert(":owner".into(), text(&lease.owner));
        let condition = "held_by = :owner AND attribute_not_exists(delivered_at)";
        let deadline = self.deadline();
        let updated = self.within(deadline, async {
            letter::write(self.client().await, &self.table, packed.parts, "after part of letter")
                .await?;
            fault::point("before letter is stored");
            self.update_item(&lease.key, &update, condition, values).await
        });
        // Parts that the letter does not refer to are deleted: the parts of the previous letter or
        // of the acceptance, or this call's own parts if it lost the lease. If this call is a
        // repetition, the item refers to the same parts, and they stay.
        let (settled, garbage, kept) = match updated.await? {
            Ok(before) => (Settled::Stored, before, packed.attributes),
            Err(found) => (Settled::LeaseLost, packed.attributes, found),
        };
        if garbage.get("parts_at") != kept.get("parts_at") {
            self.delete_parts(&garbage, deadline).await;
        }
        Ok(settled)
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        match self.within(self.deadline(), self.item(key)).await? {
            Some(item) if !is_forgotten(&item, now)? => record(*key, &item, now).map(Some),
            _ => Ok(None),
        }
    }

    /// Never searches, because a search would read, and AWS would charge for, the whole table.
    async fn find(
        &self,
        _digits: &str,
        _now: DateTime<Utc>,
    ) -> Result<Option<Vec<Key>>, StoreError> {
        Ok(None)
    }

    async fn dead_letter(&self, key: &Key) -> Result<Option<DeadLetter>, StoreError> {
        let is_letter = |item: &Item| item.contains_key("failed_at");
        match self.item_and_delivery(key, is_letter).await? {
            Some((item, delivery)) => dead_letter(*key, &item, delivery),
            None => Ok(None),
        }
    }

    async fn delivery(&self, key: &Key) -> Result<Option<Delivery>, StoreError> {
        let has_delivery = |item: &Item| item.contains_key("codec");
        Ok(self.item_and_delivery(key, has_delivery).await?.map(|(_, delivery)| delivery))
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<Entry>, StoreError> {
        let after = page.after.map(|Entry { failed_at, key }| (failed_at, key));
        let lists = index::partitions(index::LETTERS).chain([index::OLD_LETTERS.to_owned()]);
        let entries = self.entries(lists, after, "~", page.limit).await?;
        Ok(entries.into_iter().map(|(failed_at, key)| Entry { failed_at, key }).collect())
    }

    async fn discard(&self, key: &Key, now: DateTime<Utc>) -> Result<Discarded, StoreError> {
        let deadline = self.deadline();
        let deleted = self.within(deadline, async {
            let deleted = self
                .client()
                .await
                .delete_item()
                .table_name(&self.table)
                .key("key", text(key))
                .condition_expression(
                    "(attribute_exists(failed_at) OR attribute_exists(accepted)) \
                     AND (attribute_not_exists(held_until) OR held_until <= :now)",
                )
                .expression_attribute_values(":now", millis(now))
                .return_values(ReturnValue::AllOld)
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .send()
                .boxed()
                .await;
            match deleted {
                Ok(output) => Ok(Ok(output.attributes.unwrap_or_default())),
                Err(error) => match error.as_service_error() {
                    Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                        Ok(Err(refusal.item.clone().unwrap_or_default()))
                    }
                    _ => Err(self.failed(error)),
                },
            }
        });
        match deleted.await? {
            Ok(before) => {
                self.delete_parts(&before, deadline).await;
                Ok(Discarded::Done)
            }
            Err(found) if found.contains_key("failed_at") || found.contains_key("accepted") => {
                match record(*key, &found, now)?.state {
                    State::InFlight { until, .. } => Ok(Discarded::InFlight { until }),
                    _ => Ok(Discarded::None),
                }
            }
            Err(_) => Ok(Discarded::None),
        }
    }
}

fn details_end(now: DateTime<Utc>) -> AttributeValue {
    seconds((now + DETAILS_TTL).timestamp())
}
