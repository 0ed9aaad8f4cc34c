//! The description of a vendor: how it signs, and where its payload says what happened. The
//! built-in rows and `vendor = "custom"` share this data.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION};

use super::template::Template;
use crate::{
    delivery::{Delivery, Reply},
    json::{Pointer, Value},
};

/// The description of a vendor.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The name in lower case, as in `/webhook/<name>`.
    pub name: String,
    /// The address of the vendor's documentation. Empty for a custom vendor.
    pub documentation: &'static str,
    /// The scheme of its signatures. `None` if the vendor has a file of its own that verifies them.
    pub scheme: Option<Scheme>,
    /// Headers that a genuine delivery always has. One header of each list must be present.
    pub required: Vec<Vec<HeaderName>>,
    pub fields: Fields,
    /// A signed handshake that is answered at once.
    pub handshake: Option<Echo>,
    /// Time for which the vendor may deliver an event again after an answer other than 2xx, by
    /// itself or when somebody asks the vendor for it. Zero if that time is a day or less, or not
    /// known.
    pub retry_horizon: Duration,
    pub wish: Wish,
    /// Headers that go on with the event in addition to those that the scheme names: further
    /// headers of the signature, and unsigned ones that belong to it, such as the event's type.
    pub signature_headers: Vec<HeaderName>,
    /// Other headers that the vendor sends. Commands that sign as the vendor add them.
    pub sent: Vec<(HeaderName, Sent)>,
}

/// The value of a header that a vendor sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A sample value.
    Text(&'static str),
    /// A name for the event.
    Id,
    /// The time of sending, as RFC 3339.
    Time,
}

/// The scheme by which deliveries are signed.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A signature over a template of bytes.
    Signed(Box<Signed>),
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>,
    /// under the `webhook-` and the `svix-` headers.
    StandardWebhooks,
    /// The secret itself in a header, after a prefix.
    SharedSecret { header: HeaderName, prefix: String },
    /// `Authorization: Basic` (RFC 7617). The secret is `user:password`.
    Basic,
}

impl Scheme {
    /// Returns whether a signature may be present: a header that must hold it is not empty, or it
    /// is in the body, which arrives later.
    pub fn may_be_in(&self, headers: &HeaderMap) -> bool {
        let has = |name: &HeaderName| headers.get_all(name).iter().any(|value| !value.is_empty());
        match self {
            Self::Signed(signed) => signed.signature.iter().any(|place| match place {
                Place::Header(name) => has(name),
                Place::Pointer(_) => true,
            }),
            Self::StandardWebhooks => {
                let names = ["webhook-signature", "svix-signature"];
                names.into_iter().any(|name| has(&HeaderName::from_static(name)))
            }
            Self::SharedSecret { header, .. } => has(header),
            Self::Basic => has(&AUTHORIZATION),
        }
    }
}

/// A signature over a template of bytes.
#[derive(Debug, Clone)]
pub struct Signed {
    pub algorithm: Algorithm,
    /// The places of signatures. All of them are read, and any signature may match.
    pub signature: Vec<Place>,
    /// The text between the entries of a list. Spaces around the separator belong to the entries. If
    /// there is no separator, each line of the header is an entry. A proxy may join lines with
    /// commas, so each part between commas is an entry as well, and spaces around it do not count.
    pub separator: Option<String>,
    /// The text at the beginning of an entry of the verified version. A header may hold entries of
    /// several versions, such as Stripe's `v1=` and `v0=`. Only entries with this prefix are
    /// verified.
    pub prefix: String,
    pub encoding: Encoding,
    /// Decides how the text of a secret becomes the bytes of a key.
    pub key: KeyForm,
    /// The header that names the key. With it, a secret is `id:key`, and only keys with that id are
    /// tried.
    pub key_id: Option<HeaderName>,
    pub stamp: Option<Stamp>,
    pub template: Template,
    /// True if the vendor always sends a JSON object or array, and signs another text directly
    /// before or after it. Then the body must be JSON, so that an attacker cannot move characters
    /// between the two.
    pub is_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    Ed25519,
    /// ECDSA with P-256 and SHA-256. A signature is ASN.1 DER.
    EcdsaP256,
}

/// The encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Hex in lower case.
    Hex,
    /// Base64 with or without padding.
    Base64,
    Base64Url,
    /// Hex, or else base64, for a vendor whose documentation does not name the encoding. A
    /// signature has another length in each of them.
    HexOrBase64,
}

/// The encoding of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// The bytes of the text are the key.
    Text,
    Hex,
    Base64,
    /// The 32 bytes of an Ed25519 key, in hex or base64.
    PublicKey,
    /// A P-256 key as X.509 writes it (SubjectPublicKeyInfo, RFC 5480), in base64.
    PublicKeyInfo,
}

/// The time at which a delivery was signed.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub place: StampPlace,
    pub unit: Unit,
    pub tolerance: Tolerance,
}

#[derive(Debug, Clone)]
pub enum StampPlace {
    At(Place),
    /// The rest of the entry with this prefix, in the list of signatures.
    Entry(String),
}

/// The largest difference between a timestamp and now, in the past or future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// The value of SIGNATURE_TOLERANCE_SECONDS.
    Configured,
    Seconds(u32),
    /// No limit: the vendor names none, and may sign long before it sends.
    Any,
}

impl Tolerance {
    pub fn or(self, configured: TimeDelta) -> Option<TimeDelta> {
        match self {
            Self::Configured => Some(configured),
            Self::Seconds(seconds) => Some(TimeDelta::seconds(seconds.into())),
            Self::Any => None,
        }
    }
}

/// The format of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// Text: RFC 3339 for the time of a signature, and the formats of `created_at` for the time of
    /// an event.
    #[default]
    Text,
    /// Text as in ISO 8601, without a zone: it is UTC.
    TextInUtc,
    Seconds,
    Milliseconds,
}

/// Digits of a time in milliseconds, from the year 2001 to 2286.
const MILLISECOND_DIGITS: usize = 13;

impl Unit {
    /// Reads the time of a signature, which must have exactly the vendor's format. Some vendors
    /// sign the time and the body with nothing between them, so an attacker could move digits from
    /// one to the other, and the signature would still match. A time in milliseconds has a fixed
    /// length. A moved digit changes a time in seconds so much that the tolerance refuses it. If
    /// any age is allowed and nothing separates the two, the body must be JSON (`is_json`), or is
    /// not signed. A time in text form ends with its zone, or a separator follows it.
    pub fn read_stamp(self, text: &str) -> Option<DateTime<Utc>> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = || is_number.then(|| text.parse().ok()).flatten();
        match self {
            Self::Text => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
            Self::TextInUtc => text.parse().ok().map(|time: NaiveDateTime| time.and_utc()),
            Self::Seconds => DateTime::from_timestamp(number()?, 0),
            Self::Milliseconds if text.len() != MILLISECOND_DIGITS => None,
            Self::Milliseconds => DateTime::from_timestamp_millis(number()?),
        }
    }
}

/// The place of a value in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Header(HeaderName),
    Pointer(Pointer),
}

impl Place {
    /// Returns the text at the place, or `None` if it is absent or empty. Pointers start at `body`.
    pub fn text(&self, delivery: &Delivery, body: Option<Value<'_>>) -> Option<String> {
        let text = match self {
            Self::Header(name) => delivery.header(name.as_str())?.to_owned(),
            Self::Pointer(pointer) => pointer.find(body?)?.as_text()?,
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

/// The places where a payload says what happened.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// The array with the events of a batch. The other pointers then start at each of its elements.
    pub each: Option<Pointer>,
    /// The places of the type. The first one that is present counts.
    pub event_type: Vec<Joined>,
    /// The places of the time. The first one that is present counts.
    pub created_at: Vec<Place>,
    /// The place of the time of a whole batch, for events without a time of their own.
    pub of_batch: Option<Pointer>,
    pub unit: Unit,
    /// The places of the id. The first one that is present counts. The id must be the vendor's name
    /// for the event: equal in all deliveries of the event, and different for every other event.
    pub id: Vec<Joined>,
}

/// A value that is joined from several values.
#[derive(Debug, Clone)]
pub struct Joined {
    pub places: Vec<Place>,
    pub with: &'static str,
    /// True if all values must be present. Otherwise, only the first must be.
    pub needs_all: bool,
}

impl From<Place> for Joined {
    fn from(place: Place) -> Self {
        Self { places: vec![place], with: "", needs_all: true }
    }
}

impl Joined {
    pub fn text(&self, delivery: &Delivery, body: Option<Value<'_>>) -> Option<String> {
        let texts = self.places.iter().map(|place| place.text(delivery, body));
        let texts: Vec<_> = texts.collect();
        let is_there = |text: &Option<String>| text.is_some();
        let is_enough = if self.needs_all {
            texts.iter().all(is_there)
        } else {
            texts.first().is_some_and(is_there)
        };
        is_enough.then(|| texts.into_iter().flatten().collect::<Vec<_>>().join(self.with))
    }
}

/// A handshake that is answered with a part of itself, after its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The place and the value that distinguish the handshake from an event.
    pub when: (Pointer, String),
    /// The place of the value that is sent back as text. Without it, the answer is 204 without a
    /// body.
    pub answer: Option<Pointer>,
}

/// The vendor's requirements for an answer, in addition to the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// The status and the body that the vendor requires of a success.
    pub accepted: Option<(StatusCode, &'static str)>,
    /// The header that tells the vendor not to retry, for answers that would not change.
    pub no_retry: Option<(&'static str, &'static str)>,
}

impl Wish {
    /// Returns the reply in the form that the vendor requires.
    pub fn apply(self, reply: Reply) -> Reply {
        if let (true, Some((status, body))) = (reply.status.is_success(), self.accepted) {
            let Reply { mut headers, .. } = reply;
            headers.remove(http::header::CONTENT_TYPE);
            let mut accepted = Reply::text(status, body);
            accepted.headers.extend(headers);
            return accepted;
        }
        match self.no_retry {
            Some((name, value)) if is_final(reply.status) => {
                reply.with_header(HeaderName::from_static(name), HeaderValue::from_static(value))
            }
            _ => reply,
        }
    }
}

/// Returns whether the same event would get the same answer again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 409 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::CONTENT_TYPE};

    use super::*;

    fn reply(status: u16) -> Reply {
        let mut reply = Reply::text(StatusCode::from_u16(status).unwrap(), "said");
        for value in ["one", "two"] {
            reply.headers.append("x-more", HeaderValue::from_static(value));
        }
        reply
    }

    #[test]
    fn a_success_gets_the_vendors_form_and_keeps_its_headers() {
        let accepted = Some((StatusCode::ACCEPTED, "[accepted]"));
        let wish = Wish { accepted, no_retry: None };
        let success = wish.apply(reply(200));
        assert_eq!((success.status.as_u16(), &success.body[..]), (202, &b"[accepted]"[..]));
        assert_eq!(success.headers.get_all("x-more").iter().count(), 2);
        assert_eq!(success.headers.get_all(CONTENT_TYPE).iter().count(), 1);
        assert_eq!(wish.apply(reply(500)), reply(500));
    }

    #[test]
    fn a_vendor_is_told_not_to_retry_what_would_not_change() {
        let wish = Wish { accepted: None, no_retry: Some(("x-no-retry", "1")) };
        for (status, is_final) in
            [(200, false), (400, true), (404, true), (408, false), (409, false), (425, false)]
        {
            let told = wish.apply(reply(status)).headers.contains_key("x-no-retry");
            assert_eq!(told, is_final, "{status}");
        }
        for status in [429, 500, 503] {
            assert!(!wish.apply(reply(status)).headers.contains_key("x-no-retry"), "{status}");
        }
    }
}
