//! Reads and writes the attributes of an event's item.
//!
//! | attribute | type | content |
//! |---|---|---|
//! | `key` | S | the key of the event; the only key of the table |
//! | `details` | S | the [`Details`](super::super::Details), as JSON |
//! | `held_by` | S | the last owner |
//! | `held_until` | N | the end of its lease; absent when the key is free or the event is delivered |
//! | `attempts` | S | the attempts, as JSON |
//! | `delivered_at`, `reply_head`, `reply_body` | N, S, B | the delivery, and the reply if it is kept |
//! | `forgotten_at` | N | the time from which a delivered event counts as forgotten |
//! | `expires_at` | N | the time in seconds at which the table's TTL may delete the item |
//! | `failed_at`, `failure` | N, S | the time and the reason of the failure in the dead letter |
//! | `dead`, `dead_letter` | S, S | the keys of the index: always `1`, and [`sort_key`] |
//! | `codec`, `delivery` | S, B | the delivery of the dead letter, `plain` or compressed by `zstd` |
//! | `part_count`, `parts_at` | N, S | the parts of a large delivery, in place of `delivery` |
//!
//! All other times are milliseconds since 1970. A part is an item of its own: its `key` is
//! `<parts_at>#<number>`, and its `part` (B) holds the bytes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::super::{Attempt, Claim, Entry, Failed, Record, State, StoreError, stored};
use crate::{key::Key, plan::Plan};

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
            State::open(held, failed.is_some(), now)
                .ok_or_else(|| StoreError::corrupt("no state"))?
        }
    };
    let details = Some(stored::from_json(string(item, "details")?)?);
    Ok(Record { key, details, attempts: attempts.unwrap_or_default(), failed, state })
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

pub(super) fn failed(item: &Item) -> Result<Option<Failed>, StoreError> {
    let failure = optional_string(item, "failure").map(stored::from_json).transpose()?;
    Ok(time(item, "failed_at")?.zip(failure).map(|(at, failure)| Failed { at, failure }))
}

pub(super) fn is_forgotten(item: &Item, now: DateTime<Utc>) -> Result<bool, StoreError> {
    Ok(time(item, "forgotten_at")?.is_some_and(|forgotten_at| forgotten_at <= now))
}

/// Returns the sort key of the index. It orders dead letters by time, and letters of one
/// millisecond by key.
pub(super) fn sort_key(entry: Entry) -> String {
    format!("{:015}#{}", entry.failed_at.timestamp_millis(), entry.key)
}

/// Reads the entry from a sort key.
pub(super) fn entry(sort_key: &str) -> Result<Entry, StoreError> {
    let parts = sort_key.split_once('#').and_then(|(millis, key)| {
        let failed_at = DateTime::from_timestamp_millis(millis.parse().ok()?)?;
        Some(Entry { failed_at, key: key.parse().ok()? })
    });
    parts.ok_or_else(|| StoreError::corrupt(format!("`{sort_key}` is not a time and a key")))
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
