//! Converts values to their stored form: JSON for small values, bytes for bodies.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::StoreError;
use crate::delivery::{Delivery, Reply};

/// A reply without its body.
#[derive(Serialize, Deserialize)]
pub(super) struct ReplyHead {
    status: u16,
    /// Bytes, because the value need not be UTF-8.
    content_type: Option<Vec<u8>>,
}

/// A delivery without its body.
#[derive(Serialize, Deserialize)]
pub struct DeliveryHead {
    method: String,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// A list, because a name may occur twice.
    headers: Vec<(String, HeaderText)>,
}

/// The value of a header, which need not be UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderText {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&HeaderValue> for HeaderText {
    fn from(value: &HeaderValue) -> Self {
        let bytes = value.as_bytes().to_owned();
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl HeaderText {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Stores bytes as a base64 string in JSON.
pub(super) mod base64 {
    use ::base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> String {
    // No value here has a map with keys other than strings, or a `Serialize` that fails.
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(StoreError::corrupt)
}

pub(super) fn reply_head(reply: &Reply) -> String {
    let content_type = reply.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_owned());
    to_json(&ReplyHead { status: reply.status.as_u16(), content_type })
}

pub(super) fn reply(head: &str, body: impl Into<Bytes>) -> Result<Reply, StoreError> {
    let ReplyHead { status, content_type } = from_json(head)?;
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        let value = HeaderValue::from_bytes(&content_type).map_err(StoreError::corrupt)?;
        headers.insert(CONTENT_TYPE, value);
    }
    let status = StatusCode::from_u16(status).map_err(StoreError::corrupt)?;
    Ok(Reply { status, headers, body: body.into() })
}

impl DeliveryHead {
    pub fn of(delivery: &Delivery) -> Self {
        let headers = delivery.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), HeaderText::from(value)));
        Self {
            method: delivery.method.to_string(),
            path: delivery.path.clone(),
            query: delivery.query.clone(),
            headers: headers.collect(),
        }
    }

    /// Restores the delivery.
    ///
    /// # Errors
    /// Fails if the head is not one of a delivery.
    pub fn with_body(self, body: impl Into<Bytes>) -> Result<Delivery, StoreError> {
        let Self { method, path, query, headers } = self;
        let method = Method::from_bytes(method.as_bytes()).map_err(StoreError::corrupt)?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(StoreError::corrupt)?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(StoreError::corrupt)?;
            map.append(name, value);
        }
        Ok(Delivery { method, path, query, headers: map, body: body.into() })
    }
}

pub(super) fn delivery_head(delivery: &Delivery) -> String {
    to_json(&DeliveryHead::of(delivery))
}

pub(super) fn delivery(head: &str, body: impl Into<Bytes>) -> Result<Delivery, StoreError> {
    from_json::<DeliveryHead>(head)?.with_body(body)
}

#[cfg(test)]
mod tests {
    use super::{delivery, delivery_head, from_json, to_json};
    use crate::store::Details;

    #[test]
    fn records_from_before_queries_and_absent_times_are_still_read() {
        let head = r#"{"method":"POST","path":"/webhook","headers":[["a","b"]]}"#;
        let read = delivery(head, "body").unwrap();
        assert_eq!((read.path.as_str(), read.query.as_deref()), ("/webhook", None));
        assert_eq!(delivery_head(&read), head);
        let details = r#"{"vendor":"v","event_type":"e","created_at":"2026-05-06T12:34:56Z","digest":"d","route":"gcp","first_seen":1}"#;
        let read: Details = from_json(details).unwrap();
        assert!(read.created_at.is_some());
        assert_eq!(to_json(&read), details);
        let without = Details { created_at: None, ..read };
        assert_eq!(from_json::<Details>(&to_json(&without)).unwrap(), without);
    }
}
