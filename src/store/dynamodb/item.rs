//! Reads and writes the attributes of an event's item.
//!
//! | attribute | type | content |
//! |---|---|---|
//! | `key` | S | the key of the event; the only key of the table |
//! | `details` | S | the [`Details`](super::super::Details), as JSON |
//! | `held_by` | S | the last owner |
//! | `held_until` | N | the end of its lease; absent when no owner holds the event |
//! | `accepted`, `due` | S, N | in the inbox: the [`Acceptance`](super::super::Acceptance), as JSON, and the time of the next attempt or the end of the lease |
//! | `accepted_by` | S | the token of the acceptance. By it, a repeated write sees that the first one is stored |
//! | `attempts` | S | the attempts, as JSON |
//! | `delivered_at`, `reply_head`, `reply_body` | N, S, B | the time at which the event was delivered, and the reply if it is kept |
//! | `forgotten_at` | N | the time from which a delivered event counts as forgotten |
//! | `expires_at` | N | the time in seconds at which the table's TTL may delete the item |
//! | `failed_at`, `failure` | N, S | the time and the reason of the failure in the dead letter |
//! | `dead`, `dead_letter` | S, S | the keys of the index (`index.rs`): a partition, and [`sort_key`] |
//! | `codec`, `delivery` | S, B | the delivery of a dead letter or accepted event, `plain` or compressed by `zstd` |
//! | `part_count`, `parts_at` | N, S | the parts of a large delivery, in place of `delivery` |
//!
//! All other times are milliseconds since 1970. A part is an item of its own: its `key` is
//! `<parts_at>#<number>`, and its `part` (B) holds the bytes. Its `dead_letter` has the time at
//! which it was written or a sweep last saw it.

use std::{collections::HashMap, fmt::Display};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::super::{Attempt, Claim, DeadLetter, Failed, Lease, Record, State, StoreError, stored};
use crate::{delivery::Delivery, key::Key, plan::Plan};

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn record(key: Key, item: &Item, now: DateTime<Utc>) -> Result<Record, StoreError> {
    let attempts: Option<Vec<Attempt>> =
        optional_string(item, "attempts").map(stored::from_json).transpose()?;
    let failed = failed(item)?;
    let state = match time(item, "delivered_at")? {
        Some(at) => {
            let body = optional_blob(item, "reply_body").unwrap_or_default();
            let head = optional_string(item, "reply_head");
            let reply = head.map(|head| stored::reply(head, body)).transpose()?;
            State::Delivered { at: Some(at), reply }
        }
        None => {
            let until = time(item, "held_until")?;
            let held = optional_string(item, "held_by").map(str::to_owned).zip(until);
            match time(item, "due")? {
                Some(due) => State::in_inbox(held, due, now),
                None => State::open(held, failed.is_some(), now)
                    .ok_or_else(|| StoreError::corrupt("no state"))?,
            }
        }
    };
    let accepted = optional_string(item, "accepted").map(stored::from_json).transpose()?;
    let details = Some(stored::from_json(string(item, "details")?)?);
    Ok(Record { key, details, attempts: attempts.unwrap_or_default(), failed, accepted, state })
}

/// Reads a dead letter, or returns `None` if the item is not one.
pub(super) fn dead_letter(
    key: Key,
    item: &Item,
    delivery: Delivery,
) -> Result<Option<DeadLetter>, StoreError> {
    let Some(Failed { at, failure }) = failed(item)? else { return Ok(None) };
    let Record { details, attempts, .. } = record(key, item, at)?;
    let details = details.ok_or_else(|| StoreError::corrupt("no details"))?;
    Ok(Some(DeadLetter { key, details, failed_at: at, failure, attempts, delivery }))
}

/// Returns the answer to a claim if this item prevents it, or `None` if the item may be taken over.
pub(super) fn against(
    plan: &Plan,
    item: &Item,
    now: DateTime<Utc>,
) -> Result<Option<Claim>, StoreError> {
    if is_forgotten(item, now)? {
        Ok(None)
    } else {
        record(plan.key, item, now)?.against(plan, now)
    }
}

fn failed(item: &Item) -> Result<Option<Failed>, StoreError> {
    let failure = optional_string(item, "failure").map(stored::from_json).transpose()?;
    Ok(time(item, "failed_at")?.zip(failure).map(|(at, failure)| Failed { at, failure }))
}

pub(super) fn is_forgotten(item: &Item, now: DateTime<Utc>) -> Result<bool, StoreError> {
    Ok(time(item, "forgotten_at")?.is_some_and(|forgotten_at| forgotten_at <= now))
}

/// Returns the sort key of the index. It orders entries by time, and entries of one millisecond by
/// key.
pub(super) fn sort_key(time: DateTime<Utc>, key: impl Display) -> String {
    format!("{:015}#{key}", time.timestamp_millis())
}

/// Returns a text that sorts after all sort keys of that time, and before all later ones.
pub(super) fn end_of(time: DateTime<Utc>) -> String {
    format!("{:015}~", time.timestamp_millis())
}

/// Reads the time and the key from a sort key.
pub(super) fn entry(sort_key: &str) -> Result<(DateTime<Utc>, Key), StoreError> {
    let parts = sort_key.split_once('#').and_then(|(millis, key)| {
        Some((DateTime::from_timestamp_millis(millis.parse().ok()?)?, key.parse().ok()?))
    });
    parts.ok_or_else(|| StoreError::corrupt(format!("`{sort_key}` is not a time and a key")))
}

/// Returns whether an item was written by that owner.
pub(super) fn is_held_by(item: &Item, owner: &str) -> bool {
    optional_string(item, "held_by") == Some(owner)
}

/// Returns the lease if the existing item belongs to it: the answer to this call's first try may
/// have been lost. Otherwise returns that item.
pub(super) fn ours(lease: Lease, found: Item) -> Result<Lease, Item> {
    if is_held_by(&found, &lease.owner) { Ok(lease) } else { Err(found) }
}

/// Builds the expression of an update that sets some attributes and removes others. Returns it with
/// its values.
pub(super) fn assignment(set: Item, remove: &[&str]) -> (String, Item) {
    let (mut parts, mut values) = (Vec::new(), Item::new());
    for (name, value) in set {
        parts.push(format!("{name} = :{name}"));
        values.insert(format!(":{name}"), value);
    }
    (format!("SET {} REMOVE {}", parts.join(", "), remove.join(", ")), values)
}

pub(super) fn text(text: impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

pub(super) fn millis(time: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(time.timestamp_millis().to_string())
}

pub(super) fn seconds(seconds: i64) -> AttributeValue {
    AttributeValue::N(seconds.to_string())
}

pub(super) fn optional_string<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn string<'a>(item: &'a Item, name: &str) -> Result<&'a str, StoreError> {
    optional_string(item, name).ok_or_else(|| StoreError::corrupt(format!("no {name}")))
}

pub(super) fn optional_blob(item: &Item, name: &str) -> Option<Vec<u8>> {
    Some(item.get(name)?.as_b().ok()?.clone().into_inner())
}

pub(super) fn number<T>(item: &Item, name: &str) -> Result<Option<T>, StoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = item.get(name).and_then(|value| value.as_n().ok());
    text.map(|text| text.parse()).transpose().map_err(StoreError::corrupt)
}

pub(super) fn time(item: &Item, name: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(number(item, name)?.and_then(DateTime::from_timestamp_millis))
}
