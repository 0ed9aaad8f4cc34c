//! Reads the reply of a script, field by field.

use chrono::{DateTime, TimeDelta, Utc};

use super::super::{Attempt, Failed, Record, Settled, State, StoreError, stored};
use crate::{key::Key, route::Route};

/// The fields of a reply that are not read yet.
pub(super) struct Fields(std::vec::IntoIter<Option<Vec<u8>>>);

impl Fields {
    pub fn new(fields: Vec<Option<Vec<u8>>>) -> Self {
        Self(fields.into_iter())
    }

    /// Returns the destination whose list a script asks for.
    pub fn unlisted(&self) -> Option<Route> {
        let [Some(word), Some(name)] = self.0.as_slice() else { return None };
        let name = str::from_utf8(name).ok().filter(|_| word == b"unlisted")?;
        name.parse().ok()
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        self.0.next().flatten()
    }

    pub fn text(&mut self) -> Result<Option<String>, StoreError> {
        self.bytes().map(String::from_utf8).transpose().map_err(StoreError::corrupt)
    }

    pub fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        self.text()?.map(|text| stored::from_json(&text)).transpose()
    }

    pub fn attempts(&mut self) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.json()?.unwrap_or_default())
    }

    pub fn time(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let millis = self.text()?.map(|text| text.parse()).transpose();
        Ok(millis.map_err(StoreError::corrupt)?.and_then(DateTime::from_timestamp_millis))
    }

    /// Returns the end of a lease by the caller's clock. The script returns the time that is left.
    pub fn end(&mut self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, StoreError> {
        let left =
            self.text()?.map(|text| text.parse()).transpose().map_err(StoreError::corrupt)?;
        Ok(left.and_then(TimeDelta::try_milliseconds).map(|left| now + left))
    }

    pub fn settled(&mut self) -> Result<Settled, StoreError> {
        match self.text()?.as_deref() {
            Some("stored") => Ok(Settled::Stored),
            Some("lost") => Ok(Settled::LeaseLost),
            other => Err(StoreError::corrupt(format!("a script returned {other:?}"))),
        }
    }

    /// Reads a delivered event.
    pub fn delivered(&mut self, key: Key) -> Result<Record, StoreError> {
        let (details, attempts, at) = (self.json()?, self.attempts()?, self.time()?);
        let (head, body) = (self.text()?, self.bytes());
        let reply = head.map(|head| stored::reply(&head, body.unwrap_or_default())).transpose()?;
        let state = State::Delivered { at, reply };
        Ok(Record { key, details, attempts, failed: None, accepted: None, state })
    }

    /// Reads an event that is not delivered, or returns `None` if nobody has claimed it.
    pub fn open(&mut self, key: Key, now: DateTime<Utc>) -> Result<Option<Record>, StoreError> {
        let (details, attempts) = (self.json()?, self.attempts()?);
        let held = self.text()?.zip(self.end(now)?);
        let failed = self.failed()?;
        let state = State::open(held, failed.is_some(), now);
        Ok(state.map(|state| Record { key, details, attempts, failed, accepted: None, state }))
    }

    /// Reads an event of the inbox.
    pub fn accepted(&mut self, key: Key, now: DateTime<Utc>) -> Result<Record, StoreError> {
        let (accepted, due) = (self.json()?, self.end(now)?.unwrap_or(now));
        let (details, attempts) = (self.json()?, self.attempts()?);
        let held = self.text()?.zip(self.end(now)?);
        let state = State::in_inbox(held, due, now);
        Ok(Record { key, details, attempts, failed: None, accepted, state })
    }

    pub fn failed(&mut self) -> Result<Option<Failed>, StoreError> {
        let (at, failure) = (self.time()?, self.json()?);
        Ok(at.zip(failure).map(|(at, failure)| Failed { at, failure }))
    }
}
