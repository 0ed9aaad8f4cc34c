//! DynamoDB: one table, one item for an event.
//!
//! A claim is one conditional PutItem, which also brings the item that stands in its way
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html>). Only taking
//! over, from an owner that died or after a failure, costs a second write.
//!
//! An item has at most 400 KB
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>). The body
//! of a dead letter that is too large for that is compressed, and if need be split over items of
//! its own, which are written before the letter names them.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, SdkError},
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    primitives::Blob,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use super::{
    Attempt, Claim, DeadLetter, Delivered, Details, Lease, Page, Record, Settled, State, Store,
    StoreError, new_owner, readable, stored,
};
use crate::{aws, key::Key, plan::Plan};

/// The sparse index of dead letters: partition key `dead`, sort key `dead_letter`.
pub const INDEX: &str = "dead_letters";

/// Largest body, or part of one, in an item: 400 KB less room for the headers and all the rest.
const MAX_PART_BYTES: usize = 256 * 1024;

/// How long an event whose owner died keeps its route.
const DETAILS_TTL_SECONDS: i64 = 30 * 86_400;

type Item = HashMap<String, AttributeValue>;

/// A store in a DynamoDB table.
pub struct DynamoDb {
    table: String,
    timeout: Duration,
    /// Made for the first operation.
    client: OnceCell<Client>,
}

impl DynamoDb {
    /// A store in that table, with the region, credentials and endpoint of the standard AWS
    /// settings; nothing is connected yet.
    pub fn new(table: String, timeout: Duration) -> Self {
        Self { table, timeout, client: OnceCell::new() }
    }

    /// A store with settings of the caller's.
    pub fn with_sdk_config(table: String, timeout: Duration, sdk: &SdkConfig) -> Self {
        Self { table, timeout, client: OnceCell::new_with(Some(client(sdk, timeout))) }
    }

    async fn client(&self) -> &Client {
        let make = || async { client(&aws::sdk_config().await, self.timeout) };
        self.client.get_or_init(make).await
    }

    fn failed<E, R>(&self, error: SdkError<E, R>) -> StoreError
    where
        SdkError<E, R>: std::error::Error + Send + Sync + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => StoreError::Timeout(self.timeout),
            error => StoreError::Failed(DisplayErrorContext(error).to_string()),
        }
    }

    /// Updates the item of an event while its owner is that of the lease: what the item was before,
    /// or nothing when the lease is lost.
    async fn update(
        &self,
        lease: &Lease,
        update: &str,
        condition: &str,
        values: Item,
    ) -> Result<Option<Item>, StoreError> {
        let updated = self
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("key", text(lease.key))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::UpdatedOld)
            .send()
            .await;
        match updated {
            Ok(output) => Ok(Some(output.attributes.unwrap_or_default())),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(None),
                _ => Err(self.failed(error)),
            },
        }
    }

    /// Takes over an item that nobody holds, unless somebody is quicker.
    async fn take_over(
        &self,
        key: Key,
        found: Item,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        let record = record(key, &found)?;
        let details = record.details.ok_or_else(|| StoreError::corrupt("no details"))?;
        let owner = new_owner();
        let updated = self
            .client()
            .await
            .update_item()
            .table_name(&self.table)
            .key("key", text(key))
            .update_expression("SET held_by = :owner, held_until = :until")
            .condition_expression(
                "held_by = :before AND attribute_not_exists(delivered_at) \
                 AND (attribute_not_exists(held_until) OR held_until <= :now)",
            )
            .expression_attribute_values(":owner", text(&owner))
            .expression_attribute_values(":until", millis(until))
            .expression_attribute_values(":before", text(string(&found, "held_by")?))
            .expression_attribute_values(":now", millis(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = updated else {
            let attempts = record.attempts;
            return Ok(Claim::Won(Lease { key, owner, until, details, attempts }));
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                let found = refusal.item.clone().unwrap_or_default();
                // The answer to our own first try may have got lost.
                if string(&found, "held_by")? == owner {
                    let attempts = record.attempts;
                    return Ok(Claim::Won(Lease { key, owner, until, details, attempts }));
                }
                taken(key, &found, now)?
                    .ok_or_else(|| StoreError::Failed("the key changes hands too quickly".into()))
            }
            _ => Err(self.failed(error)),
        }
    }

    /// Writes the parts of a body that no item can hold, and returns the attributes that lead to
    /// the body.
    async fn put_body(&self, lease: &Lease, body: &[u8]) -> Result<Item, StoreError> {
        let plain = (body.len() <= MAX_PART_BYTES).then(|| body.to_vec());
        let (codec, bytes) = match plain {
            Some(plain) => ("plain", plain),
            None => ("zstd", zstd::bulk::compress(body, 0).map_err(StoreError::corrupt)?),
        };
        let mut item = Item::from([("codec".into(), text(codec))]);
        if bytes.len() <= MAX_PART_BYTES {
            item.insert("body".into(), AttributeValue::B(Blob::new(bytes)));
            return Ok(item);
        }
        let parts: Vec<_> = bytes.chunks(MAX_PART_BYTES).collect();
        let location = format!("{}#{}", lease.key, lease.owner);
        for (number, part) in parts.iter().enumerate() {
            self.client()
                .await
                .put_item()
                .table_name(&self.table)
                .item("key", text(format!("{location}#{number}")))
                .item("part", AttributeValue::B(Blob::new(*part)))
                .send()
                .await
                .map_err(|error| self.failed(error))?;
        }
        item.insert("part_count".into(), AttributeValue::N(parts.len().to_string()));
        item.insert("parts_at".into(), text(location));
        Ok(item)
    }

    async fn body(&self, item: &Item) -> Result<Vec<u8>, StoreError> {
        let mut bytes = match (optional_blob(item, "body"), parts(item)?) {
            (Some(body), _) => body,
            (None, keys) => {
                let mut bytes = Vec::new();
                for key in keys {
                    let part = self.item(text(key)).await?.unwrap_or_default();
                    bytes.extend(
                        optional_blob(&part, "part")
                            .ok_or_else(|| StoreError::corrupt("a part of a body is missing"))?,
                    );
                }
                bytes
            }
        };
        if string(item, "codec")? == "zstd" {
            bytes = zstd::stream::decode_all(&*bytes).map_err(StoreError::corrupt)?;
        }
        Ok(bytes)
    }

    /// Deletes the parts that a letter had before it was cleared or replaced. What stays is only
    /// garbage.
    async fn delete_parts(&self, before: &Item) {
        for key in parts(before).unwrap_or_default() {
            let deleted = self
                .client()
                .await
                .delete_item()
                .table_name(&self.table)
                .key("key", text(&key))
                .send()
                .await;
            if let Err(error) = deleted {
                let error = DisplayErrorContext(error);
                tracing::warn!(key, %error, "a part of an old dead letter could not be deleted");
            }
        }
    }

    async fn item(&self, key: AttributeValue) -> Result<Option<Item>, StoreError> {
        let got = self
            .client()
            .await
            .get_item()
            .table_name(&self.table)
            .key("key", key)
            .consistent_read(true)
            .send()
            .await;
        Ok(got.map_err(|error| self.failed(error))?.item)
    }

    async fn dead_letter(&self, key: Key) -> Result<Option<DeadLetter>, StoreError> {
        let Some(item) = self.item(text(key)).await?.filter(|item| item.contains_key("failure"))
        else {
            return Ok(None);
        };
        let record = record(key, &item)?;
        Ok(Some(DeadLetter {
            key,
            details: record.details.ok_or_else(|| StoreError::corrupt("no details"))?,
            failed_at: time(&item, "failed_at")?.ok_or_else(|| StoreError::corrupt("no time"))?,
            failure: stored::from_json(string(&item, "failure")?)?,
            attempts: record.attempts,
            delivery: stored::delivery(string(&item, "head")?, self.body(&item).await?)?,
        }))
    }
}

fn client(sdk: &SdkConfig, timeout: Duration) -> Client {
    // Every write carries its owner, so that it may be repeated once.
    let retry = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(25));
    let timeouts = TimeoutConfig::builder().connect_timeout(timeout).operation_timeout(timeout);
    let config = aws_sdk_dynamodb::config::Builder::from(sdk)
        .retry_config(retry)
        .timeout_config(timeouts.build())
        .build();
    Client::from_conf(config)
}

#[async_trait]
impl Store for DynamoDb {
    async fn claim(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
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
            .item("expires_at", seconds(now.timestamp() + DETAILS_TTL_SECONDS))
            // TTL deletes an item within days, so its time is looked at as well.
            .condition_expression("attribute_not_exists(#key) OR forgotten_at <= :now")
            .expression_attribute_names("#key", "key")
            .expression_attribute_values(":now", millis(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = put else {
            return Ok(Claim::Won(Lease { key, owner, until, details, attempts: Vec::new() }));
        };
        let found = match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                refusal.item.clone().unwrap_or_default()
            }
            _ => return Err(self.failed(error)),
        };
        // The answer to our own first try may have got lost.
        if string(&found, "held_by")? == owner {
            return Ok(Claim::Won(Lease { key, owner, until, details, attempts: Vec::new() }));
        }
        match taken(key, &found, now)? {
            Some(taken) => Ok(taken),
            None => self.take_over(key, found, now, until).await,
        }
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
        update += " REMOVE held_until, dead, dead_letter, failed_at, failure, head, body, codec, \
                    part_count, parts_at";
        match self.update(lease, &update, "held_by = :owner", values).await? {
            Some(before) => {
                self.delete_parts(&before).await;
                Ok(Settled::Stored)
            }
            None => Ok(Settled::LeaseLost),
        }
    }

    async fn fail(&self, lease: &Lease, letter: &DeadLetter) -> Result<Settled, StoreError> {
        let body = self.put_body(lease, &letter.delivery.body).await?;
        let failed_at = letter.failed_at;
        let mut values = Item::from([
            (":owner".into(), text(&lease.owner)),
            (":attempts".into(), text(stored::to_json(&letter.attempts))),
            (":dead".into(), text("1")),
            (":dead_letter".into(), text(sort_key(failed_at, &lease.key))),
            (":failed_at".into(), millis(failed_at)),
            (":failure".into(), text(stored::to_json(&letter.failure))),
            (":head".into(), text(stored::delivery_head(&letter.delivery))),
        ]);
        let mut update = "SET attempts = :attempts, dead = :dead, dead_letter = :dead_letter, \
                          failed_at = :failed_at, failure = :failure, head = :head"
            .to_owned();
        let mut remove = vec!["expires_at"];
        for (name, expression) in [
            ("body", "body = :body"),
            ("codec", "codec = :codec"),
            ("part_count", "part_count = :part_count"),
            ("parts_at", "parts_at = :parts_at"),
        ] {
            match body.get(name) {
                Some(value) => {
                    update = format!("{update}, {expression}");
                    values.insert(format!(":{name}"), value.clone());
                }
                None => remove.push(name),
            }
        }
        if letter.failure.outcome.is_known_failure() {
            remove.push("held_until");
        }
        let update = format!("{update} REMOVE {}", remove.join(", "));
        let condition = "held_by = :owner AND attribute_not_exists(delivered_at)";
        match self.update(lease, &update, condition, values).await? {
            Some(before) => {
                // Written again by the same owner, the parts are those that the letter has now.
                if before.get("parts_at") != body.get("parts_at") {
                    self.delete_parts(&before).await;
                }
                Ok(Settled::Stored)
            }
            // The parts stay: when this is a repetition, a letter may lead to them.
            None => Ok(Settled::LeaseLost),
        }
    }

    async fn get(&self, key: &Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        match self.item(text(key)).await? {
            Some(item) if !is_forgotten(&item, now)? => record(*key, &item).map(Some),
            _ => Ok(None),
        }
    }

    /// Never: it would read, and cost, the whole table.
    async fn find(&self, _digits: &str) -> Result<Option<Vec<Key>>, StoreError> {
        Ok(None)
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>, StoreError> {
        let after = page.after.map(|(failed_at, key)| sort_key(failed_at, &key));
        let mut pages = self
            .client()
            .await
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("dead = :dead AND dead_letter > :after")
            .expression_attribute_values(":dead", text("1"))
            .expression_attribute_values(":after", text(after.unwrap_or_else(|| "0".into())))
            .into_paginator()
            .page_size(page.limit.min(100) as i32)
            .send();
        let mut letters = Vec::new();
        while letters.len() < page.limit
            && let Some(listed) = pages.next().await
        {
            for item in listed.map_err(|error| self.failed(error))?.items.unwrap_or_default() {
                let key = string(&item, "key")?.parse().map_err(StoreError::corrupt)?;
                if letters.len() < page.limit {
                    letters.extend(readable(key, self.dead_letter(key).await)?);
                }
            }
        }
        Ok(letters)
    }
}

/// The answer to a claim that an item stands in the way of; nothing when it may be taken over.
fn taken(key: Key, item: &Item, now: DateTime<Utc>) -> Result<Option<Claim>, StoreError> {
    let record = record(key, item)?;
    Ok(match &record.state {
        State::Delivered { .. } if !is_forgotten(item, now)? => Some(Claim::Delivered(record)),
        State::InFlight { until, .. } if *until > now => {
            let details = record.details.ok_or_else(|| StoreError::corrupt("no details"))?;
            Some(Claim::InFlight { until: *until, route: details.route })
        }
        _ => None,
    })
}

fn record(key: Key, item: &Item) -> Result<Record, StoreError> {
    let attempts: Option<Vec<Attempt>> =
        optional_string(item, "attempts").map(stored::from_json).transpose()?;
    let state = match (time(item, "held_until")?, time(item, "delivered_at")?) {
        (Some(until), _) => State::InFlight { owner: string(item, "held_by")?.to_owned(), until },
        (None, Some(at)) => {
            let body = optional_blob(item, "reply_body").unwrap_or_default();
            let head = optional_string(item, "reply_head");
            let reply = head.map(|head| stored::reply(head, body)).transpose()?;
            State::Delivered { at: Some(at), reply }
        }
        (None, None) => State::DeadLetter {
            at: time(item, "failed_at")?.ok_or_else(|| StoreError::corrupt("no state"))?,
            failure: stored::from_json(string(item, "failure")?)?,
        },
    };
    let details = Some(stored::from_json(string(item, "details")?)?);
    Ok(Record { key, details, attempts: attempts.unwrap_or_default(), state })
}

fn is_forgotten(item: &Item, now: DateTime<Utc>) -> Result<bool, StoreError> {
    Ok(time(item, "forgotten_at")?.is_some_and(|forgotten_at| forgotten_at <= now))
}

/// The keys of the items that a body is split over.
fn parts(item: &Item) -> Result<Vec<String>, StoreError> {
    let Some(location) = optional_string(item, "parts_at") else {
        return Ok(Vec::new());
    };
    let count: u32 = number(item, "part_count")?.unwrap_or_default();
    Ok((0..count).map(|number| format!("{location}#{number}")).collect())
}

/// Dead letters are listed by time, those of one millisecond by key.
fn sort_key(failed_at: DateTime<Utc>, key: &Key) -> String {
    format!("{:015}#{key}", failed_at.timestamp_millis())
}

fn text(text: impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

fn millis(time: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(time.timestamp_millis().to_string())
}

fn seconds(seconds: i64) -> AttributeValue {
    AttributeValue::N(seconds.to_string())
}

fn optional_string<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn string<'a>(item: &'a Item, name: &str) -> Result<&'a str, StoreError> {
    optional_string(item, name).ok_or_else(|| StoreError::corrupt(format!("no {name}")))
}

fn optional_blob(item: &Item, name: &str) -> Option<Vec<u8>> {
    Some(item.get(name)?.as_b().ok()?.clone().into_inner())
}

fn number<T>(item: &Item, name: &str) -> Result<Option<T>, StoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = item.get(name).and_then(|value| value.as_n().ok());
    text.map(|text| text.parse()).transpose().map_err(StoreError::corrupt)
}

fn time(item: &Item, name: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(number(item, name)?.and_then(DateTime::from_timestamp_millis))
}
