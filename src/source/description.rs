//! How one kind of sender signs, and where its payload says what happened: data, which the
//! built-in rows and `vendor = "custom"` share.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION};

use super::template::Template;
use crate::{
    delivery::{Delivery, Reply},
    json::{Pointer, Value},
};

/// A vendor, described.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// In lower case, as in `/webhook/<name>`.
    pub name: String,
    /// Where the vendor documents its webhooks; nothing for a custom one.
    pub documentation: &'static str,
    /// How it signs; nothing when the vendor has a file of its own that knows.
    pub scheme: Option<Scheme>,
    /// Headers that a genuine delivery always has. One of each list must be there.
    pub required: Vec<Vec<HeaderName>>,
    pub fields: Fields,
    /// A signed question that is answered at once.
    pub handshake: Option<Echo>,
    /// For how long it goes on delivering an event that was not answered with 2xx, or an operator
    /// may have it redelivered. Nothing when that is not known, or a day or less.
    pub retry_horizon: Duration,
    pub wish: Wish,
    /// Headers of the signature beside those that the scheme names.
    pub signature_headers: Vec<HeaderName>,
    /// Headers that it sends beside the signature, for signing as it does.
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

/// How deliveries are signed.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A signature over a template of bytes.
    Signed(Box<Signed>),
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>,
    /// under the `webhook-` and the `svix-` headers.
    StandardWebhooks,
    /// A header holds the secret itself, behind a prefix.
    SharedSecret { header: HeaderName, prefix: String },
    /// `Authorization: Basic`; the secret is `user:password` (RFC 7617).
    Basic,
}

impl Scheme {
    /// Whether a signature may be there: a header that must hold it does hold something, or it
    /// stands in the body, which comes later.
    pub fn may_be_in(&self, headers: &HeaderMap) -> bool {
        let has = |name: &HeaderName| headers.get(name).is_some_and(|value| !value.is_empty());
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
    /// Where signatures stand. All of these places are read, and any signature may match.
    pub signature: Vec<Place>,
    /// What stands between the entries of a list. Without it, an entry is a line of the header, or
    /// a part of lines that a proxy folded into one with commas.
    pub separator: Option<String>,
    /// What an entry of the version that counts begins with.
    pub prefix: String,
    pub encoding: Encoding,
    /// How the text of a secret becomes the bytes of a key.
    pub key: KeyForm,
    /// The header that names the key: then a secret is `id:key`, and only the keys of that name
    /// are tried.
    pub key_id: Option<HeaderName>,
    pub stamp: Option<Stamp>,
    pub template: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    Ed25519,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// In lower case.
    Hex,
    /// With or without padding.
    Base64,
    Base64Url,
    /// Either, told apart by length: for a vendor that does not say.
    HexOrBase64,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// The bytes of the text are the key.
    Text,
    Hex,
    Base64,
    /// The 32 bytes of an Ed25519 key, in hex or base64.
    PublicKey,
}

/// When a delivery was signed.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub place: StampPlace,
    pub unit: Unit,
    pub tolerance: Tolerance,
}

#[derive(Debug, Clone)]
pub enum StampPlace {
    At(Place),
    /// An entry of the signature's list, behind this prefix.
    Entry(String),
}

/// How far a timestamp may lie from now, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// SIGNATURE_TOLERANCE_SECONDS.
    Configured,
    Seconds(u32),
    /// The vendor names none, and may sign long before it sends.
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

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// As text. Of a number, its seconds are taken.
    #[default]
    Text,
    Seconds,
    Milliseconds,
}

impl Unit {
    /// The time of a signature, which must be written exactly as the vendor writes it.
    pub fn read_stamp(self, text: &str) -> Option<DateTime<Utc>> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = || is_number.then(|| text.parse().ok()).flatten();
        match self {
            Self::Text => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
            Self::Seconds => DateTime::from_timestamp(number()?, 0),
            Self::Milliseconds => DateTime::from_timestamp_millis(number()?),
        }
    }
}

/// Where a value stands in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Header(HeaderName),
    Pointer(Pointer),
}

impl Place {
    /// The text there; nothing when there is none, or it is empty. `body` is what pointers begin
    /// at.
    pub fn text(&self, delivery: &Delivery, body: Option<Value<'_>>) -> Option<String> {
        let text = match self {
            Self::Header(name) => delivery.header(name.as_str())?.to_owned(),
            Self::Pointer(pointer) => pointer.find(body?)?.as_text()?,
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

/// Where a payload says what happened.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// The array of a batch's events, at which the other pointers then begin.
    pub each: Option<Pointer>,
    /// The first that is there counts.
    pub event_type: Vec<Joined>,
    /// The first that is there counts.
    pub created_at: Vec<Place>,
    pub unit: Unit,
    /// The first that is there counts. It must be the vendor's name for the event, the same in all
    /// of its deliveries and in no other's.
    pub id: Vec<Joined>,
}

/// A value that is made of several.
#[derive(Debug, Clone)]
pub struct Joined {
    pub places: Vec<Place>,
    pub with: &'static str,
    /// Whether it needs all of them, or only the first.
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

/// A question that is answered with a part of itself, once its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The value that tells the question from an event.
    pub when: (Pointer, String),
    /// What is sent back as text.
    pub answer: Pointer,
}

/// What a vendor wants to hear beside the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// The body of a success, with status 200.
    pub accepted: Option<&'static str>,
    /// The header that tells the vendor not to come again, with answers that stay the same.
    pub no_retry: Option<(&'static str, &'static str)>,
}

impl Wish {
    /// The reply as the vendor wants it.
    pub fn apply(self, reply: Reply) -> Reply {
        if let (true, Some(body)) = (reply.status.is_success(), self.accepted) {
            let Reply { headers, .. } = reply;
            let mut accepted = Reply::text(StatusCode::OK, body);
            let others = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
            let others = others.filter(|(name, _)| *name != http::header::CONTENT_TYPE);
            accepted.headers.extend(others);
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

/// Whether the same event would be answered the same way again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 409 | 425 | 429)
}
