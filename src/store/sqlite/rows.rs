//! Reads the rows of the database.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::de::DeserializeOwned;

use super::super::{Claim, DeadLetter, Due, Entry, Failed, Record, State, StoreError, stored};
use crate::{
    delivery::{Delivery, Reply},
    key::Key,
    plan::Plan,
};

/// A record, and the time at which it is forgotten.
pub(super) struct Found {
    pub record: Record,
    expires_at: Option<DateTime<Utc>>,
}

impl Found {
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Returns the answer to a claim if the record cannot be claimed.
    pub fn against(&self, plan: &Plan, now: DateTime<Utc>) -> Result<Option<Claim>, StoreError> {
        if self.is_expired(now) { Ok(None) } else { self.record.against(plan, now) }
    }
}

pub(super) fn select(
    connection: &Connection,
    key: &Key,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT * FROM events LEFT JOIN dead_letters USING (key) WHERE events.key = ?1",
        )?
        .query_row([key.to_string()], |row| read_record(row, now))
        .optional()
}

fn read_record(row: &Row<'_>, now: DateTime<Utc>) -> rusqlite::Result<Found> {
    let failed = match time(row, "failed_at")? {
        Some(at) => Some(Failed { at, failure: from_json(row, "failure")? }),
        None => None,
    };
    let accepted: Option<String> = row.get("accepted")?;
    let accepted = accepted.map(|text| convert(stored::from_json(&text))).transpose()?;
    let held = Some(row.get("owner")?).zip(time(row, "until")?);
    let state = match (time(row, "delivered_at")?, time(row, "due")?) {
        (Some(at), _) => State::Delivered { at: Some(at), reply: read_reply(row)? },
        (None, Some(due)) => State::in_inbox(held, time(row, "ready")?.unwrap_or(due), now),
        (None, None) => {
            State::open(held, failed.is_some(), now).ok_or(rusqlite::Error::InvalidQuery)?
        }
    };
    let record = Record {
        key: key(row)?,
        details: Some(from_json(row, "details")?),
        attempts: from_json(row, "attempts")?,
        failed,
        accepted,
        state,
    };
    Ok(Found { record, expires_at: time(row, "expires_at")? })
}

/// Reads an entry of the list of dead letters.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { failed_at: required_time(row, "failed_at")?, key: key(row)? })
}

/// Reads an entry of the list of an inbox.
pub(super) fn due(row: &Row<'_>) -> rusqlite::Result<Due> {
    Ok(Due { at: required_time(row, "due")?, key: key(row)? })
}

/// Reads a delivery with the columns `head` and `body`.
pub(super) fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let (head, body): (String, Vec<u8>) = (row.get("head")?, row.get("body")?);
    convert(stored::delivery(&head, body))
}

fn read_reply(row: &Row<'_>) -> rusqlite::Result<Option<Reply>> {
    let head: Option<String> = row.get("reply_head")?;
    let read = |head: String| convert(stored::reply(&head, row.get::<_, Vec<u8>>("reply_body")?));
    head.map(read).transpose()
}

pub(super) fn read_dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        key: key(row)?,
        details: from_json(row, "details")?,
        failed_at: required_time(row, "failed_at")?,
        failure: from_json(row, "failure")?,
        attempts: from_json(row, "attempts")?,
        delivery: delivery(row)?,
    })
}

pub(super) fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    convert(row.get::<_, String>("key")?.parse())
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<DateTime<Utc>>> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(DateTime::from_timestamp_millis))
}

fn required_time(row: &Row<'_>, column: &str) -> rusqlite::Result<DateTime<Utc>> {
    time(row, column)?.ok_or(rusqlite::Error::InvalidQuery)
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    convert(stored::from_json(&row.get::<_, String>(column)?))
}

/// Converts the error for a value in the file that does not have the form that this code writes.
pub(super) fn convert<T, E>(result: Result<T, E>) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
