//! Twilio, which signs the called address and the fields of the form
//! (<https://www.twilio.com/docs/usage/security#validating-requests>).
//!
//! The signature covers the address with its query, then the name and the distinct values of every
//! field, sorted. For a JSON body, the query has the SHA-256 of the body, as `bodySHA256`. The
//! signature does not cover `I-Twilio-Idempotency-Token`, the only name that Twilio gives to an
//! event: `MessageSid` and `CallSid` name the object that the event is about. There is no field
//! that every event has its type in. So the type is made from whichever status is present:
//! `CallStatus.completed`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base64::Engine as _;
use http::HeaderName;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Body, Check, Happened, Vendor,
    builders::{names, sent},
    description::{Algorithm, Description, Sent},
    lenient_base64::BASE64,
    scheme::{CHEAP_BODY_BYTES, hmac, missing, wrong},
    sign::{CannotSign, Signing, insert},
};
use crate::{
    delivery::Delivery,
    error::{Error, SignatureFault},
    json::Document,
    timestamp::Timestamp,
};

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
const TOKEN: &str = "i-twilio-idempotency-token";

/// The parameter of the address that holds the hash of a JSON body.
const BODY_HASH: &str = "bodySHA256";

/// Largest number of fields in a form. Twilio sends about fifty.
const MAX_FIELDS: usize = 1000;

/// Fields that hold a status. The first one that is present gives the type, by its name and value.
const STATUSES: [&str; 8] = [
    "EventType",
    "MessageStatus",
    "SmsStatus",
    "CallStatus",
    "RecordingStatus",
    "TranscriptionStatus",
    "StatusCallbackEvent",
    "Status",
];

#[derive(Debug)]
pub(super) struct Twilio(Description);

impl Twilio {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "twilio".into(),
            documentation: "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
            signature_headers: names(&[SIGNATURE.as_str(), SETTINGS.as_str(), TOKEN]),
            sent: vec![sent(TOKEN, Sent::Id)],
            ..Description::default()
        })
    }
}

impl Vendor for Twilio {
    fn has_signature(&self, delivery: &Delivery) -> bool {
        delivery.headers.contains_key(SIGNATURE)
    }

    fn description(&self) -> &Description {
        &self.0
    }

    fn signs_url(&self) -> bool {
        true
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let delivery = check.delivery;
        let claimed = delivery.single_header(&SIGNATURE).ok_or_else(missing)?;
        let algorithm = algorithm(delivery);
        let claimed = BASE64.decode(claimed).map_err(|_| wrong())?;
        if delivery.body.is_empty() {
            return Err(missing());
        }
        if !algorithm.signature_bytes().contains(&claimed.len()) {
            return Err(wrong());
        }
        let url = check.url.ok_or(Error::Signature(SignatureFault::NoUrl))?;
        let fields = match body_hash(url) {
            Some(expected) => {
                let found = hex::encode(Sha256::digest(&delivery.body));
                if !bool::from(found.as_bytes().ct_eq(expected.to_ascii_lowercase().as_bytes())) {
                    return Err(wrong());
                }
                String::new()
            }
            None => sorted_fields(&delivery.body).ok_or_else(wrong)?,
        };
        // Twilio signs the address with or without its port, and not always as the address is
        // written.
        let urls = [Cow::Borrowed(url), other_port(url)];
        let tried = if fields.len() <= CHEAP_BODY_BYTES { 2 } else { 1 };
        let is_genuine = check.secrets.iter().any(|secret| {
            let key = secret.expose().as_bytes();
            urls.iter().take(tried).any(|url| {
                let expected = hmac(algorithm, key, &[url.as_bytes(), fields.as_bytes()]);
                expected.ct_eq(&claimed).into()
            })
        });
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    /// Signs a form, or the address with the hash of a JSON body. The hash is added to the query.
    fn sign(&self, mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let mut url = signing.url.ok_or(CannotSign::NoUrl)?.to_owned();
        let fields = if Document::parse(&delivery.body).is_ok() {
            if body_hash(&url).is_none() {
                let hash = hex::encode(Sha256::digest(&delivery.body));
                let hash = format!("{BODY_HASH}={hash}");
                url += if url.contains('?') { "&" } else { "?" };
                url += &hash;
                let query = delivery.query.into_iter().chain([hash]).collect::<Vec<_>>();
                delivery.query = Some(query.join("&"));
            }
            String::new()
        } else {
            let fields = sorted_fields(&delivery.body);
            fields.ok_or_else(|| CannotSign::Body("has too many fields".into()))?
        };
        let key = signing.secret.expose().as_bytes();
        let signature = hmac(algorithm(&delivery), key, &[url.as_bytes(), fields.as_bytes()]);
        insert(&mut delivery.headers, &SIGNATURE, &BASE64.encode(signature))?;
        Ok(delivery)
    }

    fn happened(&self, delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
        let id = delivery.header(TOKEN).filter(|token| !token.is_empty()).map(str::to_owned);
        let fields: BTreeMap<_, _> = match body.root() {
            Some(_) => BTreeMap::new(),
            None => form_urlencoded::parse(&delivery.body).take(MAX_FIELDS).collect(),
        };
        let status = STATUSES.iter().find_map(|name| {
            let value = fields.get(*name).filter(|value| !value.is_empty())?;
            Some(format!("{name}.{value}"))
        });
        let created_at = fields.get("Timestamp").and_then(|text| Timestamp::parse(text).ok());
        vec![Happened { event_type: status, created_at, id }]
    }
}

/// Returns the algorithm that the delivery names.
fn algorithm(delivery: &Delivery) -> Algorithm {
    let settings = delivery.header(SETTINGS.as_str()).unwrap_or_default();
    match settings.split(',').any(|one| one.trim() == "algorithm=HMAC_SHA256") {
        true => Algorithm::HmacSha256,
        false => Algorithm::HmacSha1,
    }
}

/// Returns the hash of the body that the address contains.
fn body_hash(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == BODY_HASH).map(|(_, value)| value.into_owned())
}

/// Returns names and distinct values, sorted and concatenated, or `None` for a form with too many
/// fields.
fn sorted_fields(body: &[u8]) -> Option<String> {
    let mut fields = BTreeMap::<_, BTreeSet<_>>::new();
    for (count, (name, value)) in form_urlencoded::parse(body).enumerate() {
        if count >= MAX_FIELDS {
            return None;
        }
        fields.entry(name).or_default().insert(value);
    }
    let mut text = String::new();
    for (name, values) in &fields {
        for value in values {
            text += name;
            text += value;
        }
    }
    Some(text)
}

/// Returns the address without its port, or with the standard port if it has none.
fn other_port(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let port = authority
        .rsplit_once(':')
        .filter(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    match port {
        Some((host, _)) => format!("{scheme}://{host}{path}").into(),
        None => {
            let port = if scheme == "http" { 80 } else { 443 };
            format!("{scheme}://{authority}:{port}{path}").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{other_port, sorted_fields};

    #[test]
    fn ports_are_added_and_removed() {
        for (url, other) in [
            ("https://a.example/x?y=1", "https://a.example:443/x?y=1"),
            ("http://a.example", "http://a.example:80"),
            ("https://a.example:1234/x:9", "https://a.example/x:9"),
            ("https://[::1]/x", "https://[::1]:443/x"),
        ] {
            assert_eq!(other_port(url), other);
        }
    }

    #[test]
    fn fields_are_sorted_and_distinct() {
        assert_eq!(sorted_fields(b"b=2&a=%2B1&b=1&b=2&c=").as_deref(), Some("a+1b1b2c"));
        assert_eq!(sorted_fields(&b"a&".repeat(1001)), None);
    }
}
