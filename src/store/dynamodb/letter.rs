//! Stores the deliveries of dead letters and of the inbox. One item of DynamoDB can hold only a small
//! delivery.
//!
//! An item has at most 400 KB
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>). A larger
//! delivery is compressed and, if it is still too large, split over several items. These items are
//! written before the event's item refers to them. A crash in between leaves parts that no item
//! refers to, so each part is on a list, and a sweep checks it once a day.

use aws_sdk_dynamodb::{Client, primitives::Blob, types::AttributeValue};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::{
    super::{StoreError, stored},
    index::{self, PARTS},
    item::{Item, number, optional_blob, optional_string, sort_key, string, text},
};
use crate::{aws, delivery::Delivery, fault, key::Key};

/// Largest delivery, or part of one, in an item: 400 KB minus room for the other attributes.
const MAX_PART_BYTES: usize = 256 * 1024;

/// The attributes that locate a delivery. A write of a delivery removes those that it does not
/// set.
pub(super) const ATTRIBUTES: [&str; 4] = ["delivery", "codec", "part_count", "parts_at"];

/// A delivery in its stored form: a line of JSON, and the body.
pub(super) struct Packed {
    /// The attributes out of [`ATTRIBUTES`] that locate it.
    pub attributes: Item,
    /// The items that must be written before the event's item.
    pub parts: Vec<Item>,
}

impl Packed {
    pub fn new(
        key: &Key,
        owner: &str,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        let mut bytes = stored::delivery_head(delivery).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&delivery.body);
        let mut codec = "plain";
        if bytes.len() > MAX_PART_BYTES {
            codec = "zstd";
            bytes = zstd::bulk::compress(&bytes, 0).map_err(StoreError::corrupt)?;
        }
        let mut attributes = Item::from([("codec".into(), text(codec))]);
        if bytes.len() <= MAX_PART_BYTES {
            attributes.insert("delivery".into(), AttributeValue::B(Blob::new(bytes)));
            return Ok(Self { attributes, parts: Vec::new() });
        }
        let location = format!("{key}#{owner}");
        let parts = bytes.chunks(MAX_PART_BYTES).enumerate();
        let parts = parts.map(|(number, part)| {
            let name = format!("{location}#{number}");
            Item::from([
                ("key".into(), text(&name)),
                ("part".into(), AttributeValue::B(Blob::new(part))),
                ("dead".into(), text(index::partition(PARTS, key.shard()))),
                ("dead_letter".into(), text(sort_key(now, name))),
            ])
        });
        let parts: Vec<_> = parts.collect();
        attributes.insert("part_count".into(), AttributeValue::N(parts.len().to_string()));
        attributes.insert("parts_at".into(), text(location));
        Ok(Self { attributes, parts })
    }
}

/// Writes the parts of a delivery concurrently. `fault_point` names the place after each part.
pub(super) async fn write(
    client: &Client,
    table: &str,
    parts: Vec<Item>,
    fault_point: &str,
) -> Result<(), StoreError> {
    let mut writes = JoinSet::new();
    for part in parts {
        writes.spawn(client.put_item().table_name(table).set_item(Some(part)).send());
    }
    while let Some(written) = writes.join_next().await {
        written.map_err(failed)?.map_err(|error| failed(aws::describe(&error)))?;
        fault::point(fault_point);
    }
    Ok(())
}

/// Reads the delivery that an item's attributes locate, or returns `None` if a part is missing.
pub(super) async fn read(
    client: &Client,
    table: &str,
    item: &Item,
) -> Result<Option<Delivery>, StoreError> {
    let mut bytes = Vec::new();
    if let Some(whole) = optional_blob(item, "delivery") {
        bytes = whole;
    } else {
        let mut reads = JoinSet::new();
        for (index, key) in part_keys(item)?.into_iter().enumerate() {
            let get = client.get_item().table_name(table).key("key", text(key));
            let get = get.consistent_read(true).send();
            reads.spawn(async move { (index, get.await) });
        }
        let mut parts = vec![None; reads.len()];
        while let Some(read) = reads.join_next().await {
            let (index, got) = read.map_err(failed)?;
            let got = got.map_err(|error| failed(aws::describe(&error)))?;
            parts[index] = got.item.and_then(|item| optional_blob(&item, "part"));
        }
        for part in parts {
            let Some(part) = part else { return Ok(None) };
            bytes.extend(part);
        }
    }
    if string(item, "codec")? == "zstd" {
        bytes = zstd::stream::decode_all(&*bytes).map_err(StoreError::corrupt)?;
    }
    let head = bytes.iter().position(|byte| *byte == b'\n');
    let head = head.ok_or_else(|| StoreError::corrupt("a delivery has no head"))?;
    let body = Bytes::from(bytes);
    let text = std::str::from_utf8(&body[..head]).map_err(StoreError::corrupt)?;
    stored::delivery(text, body.slice(head + 1..)).map(Some)
}

/// Deletes the parts that an item refers to, concurrently. A part that remains is only garbage.
pub(super) async fn delete_parts(client: &Client, table: &str, item: &Item) {
    let mut deletions = JoinSet::new();
    for key in part_keys(item).unwrap_or_default() {
        deletions.spawn(client.delete_item().table_name(table).key("key", text(key)).send());
    }
    while let Some(deleted) = deletions.join_next().await {
        if let Ok(Err(error)) = deleted {
            let error = aws::describe(&error);
            tracing::warn!(error, "a part of an old delivery could not be deleted");
        }
    }
}

/// Returns the keys of the items that hold the parts of a delivery.
fn part_keys(item: &Item) -> Result<Vec<String>, StoreError> {
    let Some(location) = optional_string(item, "parts_at") else {
        return Ok(Vec::new());
    };
    let count: u32 = number(item, "part_count")?.unwrap_or_default();
    Ok((0..count).map(|number| format!("{location}#{number}")).collect())
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
