//! Signs a delivery by the [`Description`] of a vendor, in the way that `scheme.rs` verifies. Only
//! commands that try the router use it. The router itself never signs as a vendor.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use sha2::{Digest as _, Sha256};

use super::{
    Source,
    body::Body,
    description::{
        Algorithm, Description, Encoding, Joined, Place, Scheme, Sent, Signed, Stamp, StampPlace,
        Unit,
    },
    private_key::PrivateKey,
    scheme::{hmac, is_json, key_bytes},
    standard_webhooks,
};
use crate::{
    delivery::Delivery,
    json::{Document, Pointer},
    secret::Secret,
};

/// Value of a required header whose content is not described.
const SAMPLE: &str = "sample";

/// The error about a body that is not JSON, if the vendor only sends JSON.
pub(super) const NO_JSON: &str = "must be a JSON object or array";

/// The secret, keys, address and time that a delivery is signed with.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    pub secret: &'a Secret,
    /// The private key, for vendors that sign with one.
    pub key: Option<&'a PrivateKey>,
    /// The address that the vendor calls. Needed if its signature covers the address.
    pub url: Option<&'a str>,
    pub now: DateTime<Utc>,
}

/// The reason why a delivery cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    #[error("the signature covers the address that the vendor calls, which is not known")]
    NoUrl,
    #[error("the vendor signs with {0}")]
    NoKey(&'static str),
    #[error("only {0} has the key to sign with")]
    OnlyVendor(&'static str),
    #[error("the secret {0}")]
    Secret(&'static str),
    #[error("the body {0}")]
    Body(String),
    #[error("the signature is in the body, and would have to cover itself")]
    Circular,
    #[error("the value for the header `{0}` is not allowed in a header")]
    Header(HeaderName),
}

impl Source {
    /// Signs a delivery as the source's vendor does. Adds the other headers that the vendor sends,
    /// if they are missing. If the vendor sends the id of the event in a header, the id is derived
    /// from the body. So the same body is the same event.
    ///
    /// # Errors
    /// Fails with the reason if the delivery cannot be signed.
    pub fn sign(&self, delivery: &Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let address = self.address.as_ref().filter(|_| self.vendor.signs_url());
        let configured = address.map(|address| address.of(delivery));
        let signing = Signing { url: signing.url.or(configured.as_deref()), ..*signing };
        let description = self.vendor.description();
        let delivery = with_usual_headers(description, delivery, signing.now)?;
        let mut signed = self.vendor.sign(delivery, &signing)?;
        if !signed.headers.contains_key(CONTENT_TYPE) {
            let content_type = match Document::parse(&signed.body) {
                Ok(_) => "application/json",
                Err(_) => "application/x-www-form-urlencoded",
            };
            signed.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(signed)
    }
}

/// Adds the headers that the vendor sends in addition to its signature.
fn with_usual_headers(
    description: &Description,
    delivery: &Delivery,
    now: DateTime<Utc>,
) -> Result<Delivery, CannotSign> {
    let mut delivery = delivery.clone();
    let id = event_id(&delivery.body);
    let is_there = |headers: &HeaderMap, name: &HeaderName| {
        let alternatives = description.required.iter().filter(|names| names.contains(name));
        headers.contains_key(name) || alternatives.flatten().any(|one| headers.contains_key(one))
    };
    for (name, sent) in &description.sent {
        if !is_there(&delivery.headers, name) {
            let value = match sent {
                Sent::Text(text) => (*text).to_owned(),
                Sent::Id => id.clone(),
                Sent::Time => now.to_rfc3339_opts(SecondsFormat::Secs, true),
            };
            insert(&mut delivery.headers, name, &value)?;
        }
    }
    if let Some(name) = header_of_id(description, &delivery) {
        insert(&mut delivery.headers, &name, &id)?;
    }
    let covered = match &description.scheme {
        Some(Scheme::Signed(signed)) => signed.template.headers().cloned().collect(),
        _ => Vec::new(),
    };
    let required = description.required.iter().filter_map(|names| names.first());
    for name in required.chain(&covered) {
        if !is_there(&delivery.headers, name) {
            insert(&mut delivery.headers, name, SAMPLE)?;
        }
    }
    Ok(delivery)
}

/// Returns the header in which the vendor sends its id, unless the delivery has an id.
fn header_of_id(description: &Description, delivery: &Delivery) -> Option<HeaderName> {
    let ids = &description.fields.id;
    let body = Body::new(&delivery.body);
    let has_id = ids.iter().any(|id| id.text(delivery, body.root()).is_some());
    let header = |id: &Joined| match id.places.as_slice() {
        [Place::Header(name)] => Some(name.clone()),
        _ => None,
    };
    if has_id { None } else { ids.iter().find_map(header) }
}

/// Returns an id for the event with this body, in the form of a UUID.
pub(super) fn event_id(body: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(body));
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Signs a delivery by the description of a vendor that needs no code of its own.
pub(super) fn by_description(
    description: &Description,
    mut delivery: Delivery,
    signing: &Signing<'_>,
) -> Result<Delivery, CannotSign> {
    match &description.scheme {
        None => {}
        Some(Scheme::Signed(signed)) => return by_template(signed, delivery, signing),
        Some(Scheme::StandardWebhooks) => return standard_webhooks::sign(delivery, signing),
        Some(Scheme::SharedSecret { header, prefix }) => {
            let value = format!("{prefix}{}", signing.secret.expose());
            insert(&mut delivery.headers, header, &value)?;
        }
        Some(Scheme::Basic) => {
            let credentials = BASE64_STANDARD.encode(signing.secret.expose());
            let value = format!("Basic {credentials}");
            insert(&mut delivery.headers, &AUTHORIZATION, &value)?;
        }
    }
    Ok(delivery)
}

fn by_template(
    signed: &Signed,
    mut delivery: Delivery,
    signing: &Signing<'_>,
) -> Result<Delivery, CannotSign> {
    // The vendor may sign under one of two names. If the delivery already has one of them, that one
    // is used.
    let is_there = |place: &&Place| matches!(place, Place::Header(name) if delivery.headers.contains_key(name));
    let places = &signed.signature;
    let place = places.iter().find(is_there).or(places.first());
    if matches!(place, Some(Place::Pointer(_))) && signed.template.has_body() {
        return Err(CannotSign::Circular);
    }
    let stamp = signed.stamp.as_ref().map(|stamp| (stamp, stamp.unit.write_stamp(signing.now)));
    if let Some((Stamp { place: StampPlace::At(place), unit, .. }, text)) = &stamp {
        match place {
            Place::Header(name) => insert(&mut delivery.headers, name, text)?,
            Place::Pointer(pointer) => put_time(&mut delivery, pointer, *unit, text)?,
        }
    }
    let mut key_id = None;
    if let Some(name) = &signed.key_id {
        let (id, _) =
            signing.secret.expose().split_once(':').ok_or(CannotSign::Secret(KEY_PAIR))?;
        insert(&mut delivery.headers, name, id)?;
        key_id = Some(id);
    }
    let needs_url = signed.template.needs_url();
    let url = signing.url.filter(|_| needs_url);
    if needs_url && url.is_none() {
        return Err(CannotSign::NoUrl);
    }
    if signed.is_json && !is_json(&delivery.body) {
        return Err(CannotSign::Body(NO_JSON.into()));
    }
    let timestamp = stamp.as_ref().map(|(_, text)| text.as_str());
    let pieces = signed.template.pieces(&delivery, timestamp, url);
    let pieces = pieces.ok_or_else(|| CannotSign::Body("must be JSON".into()))?;
    let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
    let signature = match signed.algorithm {
        Algorithm::Ed25519 => ed25519(signing, &pieces.concat())?,
        Algorithm::EcdsaP256 => {
            let signature = signing.key.and_then(|key| key.sign_p256(&pieces.concat()));
            signature.ok_or(CannotSign::NoKey("a P-256 private key"))?
        }
        algorithm => {
            let key = key_bytes(signed, signing.secret, key_id);
            hmac(
                algorithm,
                &key.ok_or(CannotSign::Secret("does not have the form of a key"))?,
                &pieces,
            )
        }
    };
    let signature = format!("{}{}", signed.prefix, signed.encoding.encode(&signature));
    match place {
        Some(Place::Pointer(pointer)) => put_text(&mut delivery, pointer, &signature)?,
        Some(Place::Header(name)) => {
            let entry = match &stamp {
                Some((Stamp { place: StampPlace::Entry(prefix), .. }, text)) => {
                    let separator = signed.separator.as_deref().unwrap_or(",");
                    format!("{prefix}{text}{separator}")
                }
                _ => String::new(),
            };
            insert(&mut delivery.headers, name, &format!("{entry}{signature}"))?;
        }
        None => {}
    }
    Ok(delivery)
}

const KEY_PAIR: &str = "must be `key-id:key`";

/// Signs with the given private key, or with the private key in the secret.
pub(super) fn ed25519(signing: &Signing<'_>, message: &[u8]) -> Result<Vec<u8>, CannotSign> {
    let own = PrivateKey::from_text(signing.secret.expose());
    let signature = signing.key.or(own.as_ref()).and_then(|key| key.sign_ed25519(message));
    signature.ok_or(CannotSign::NoKey("an Ed25519 private key, and the secret is not one"))
}

/// Puts a text into the body.
pub(super) fn put_text(
    delivery: &mut Delivery,
    pointer: &Pointer,
    text: &str,
) -> Result<(), CannotSign> {
    put(delivery, pointer, &serde_json::Value::from(text).to_string())
}

/// Puts the time into the body: as text if the body has text at that place, else as a number.
fn put_time(
    delivery: &mut Delivery,
    pointer: &Pointer,
    unit: Unit,
    text: &str,
) -> Result<(), CannotSign> {
    let document = Document::parse(&delivery.body).ok();
    let found = document.as_ref().and_then(|document| pointer.find(document.root()));
    let is_text = matches!(unit, Unit::Text | Unit::TextInUtc)
        || found.is_some_and(|value| value.as_str().is_some());
    if is_text { put_text(delivery, pointer, text) } else { put(delivery, pointer, text) }
}

fn put(delivery: &mut Delivery, pointer: &Pointer, json: &str) -> Result<(), CannotSign> {
    let body = pointer.put(&delivery.body, json);
    let body = body.ok_or_else(|| CannotSign::Body(format!("has no place for {pointer}")))?;
    delivery.body = Bytes::from(body);
    Ok(())
}

pub(super) fn insert(
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: &str,
) -> Result<(), CannotSign> {
    let value = HeaderValue::try_from(value).map_err(|_| CannotSign::Header(name.clone()))?;
    headers.insert(name, value);
    Ok(())
}

impl Encoding {
    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexOrBase64 => hex::encode(bytes),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
            Self::Base64Url => BASE64_URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

impl Unit {
    /// Writes the time of a signature as the vendor does.
    fn write_stamp(self, time: DateTime<Utc>) -> String {
        match self {
            Self::Text => time.to_rfc3339_opts(SecondsFormat::Secs, true),
            Self::TextInUtc => time.naive_utc().format("%FT%T").to_string(),
            Self::Seconds => time.timestamp().to_string(),
            Self::Milliseconds => time.timestamp_millis().to_string(),
        }
    }
}
