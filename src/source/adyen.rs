//! Adyen, which signs each item of a standard notification inside the body
//! (<https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures/>).
//!
//! A standard notification's signature covers `pspReference`, `originalReference`,
//! `merchantAccountCode`, `merchantReference`, `amount`, `eventCode` and `success`. Anybody could
//! change `eventDate` and the other fields. A platform webhook has one signature over the whole
//! body, in the `HmacSignature` header.
//!
//! Several events share a `pspReference`. So the id of a standard event consists of the signed
//! `eventCode`, `pspReference`, `merchantAccountCode` and `success`. Duplicates may differ in
//! everything that is not signed. Adyen retries for up to 30 days. Older configurations need
//! `[accepted]` in the answer.

use std::collections::HashSet;

use base64::Engine as _;
use http::{HeaderName, StatusCode};
use subtle::ConstantTimeEq as _;

use super::{
    Body, Check, Happened, Vendor,
    builders::{DAY, fields, joined, names, pointer_to, sent},
    description::{Algorithm, Description, Fields, Sent, Wish},
    happened,
    lenient_base64::BASE64,
    scheme::{hmac, is_json, missing, wrong},
    sign::{CannotSign, NO_JSON, Signing, insert, put_text},
};
use crate::{
    delivery::Delivery,
    error::Error,
    json::{Document, Value},
    secret::Secret,
    timestamp::Timestamp,
};

const SIGNATURE: HeaderName = HeaderName::from_static("hmacsignature");

const KEY: &str = "must be the HMAC key's hex digits";

/// The fields that an item's signature covers, in the order in which they are signed.
const SIGNED: [&[&str]; 8] = [
    &["pspReference"],
    &["originalReference"],
    &["merchantAccountCode"],
    &["merchantReference"],
    &["amount", "value"],
    &["amount", "currency"],
    &["eventCode"],
    &["success"],
];

/// The only signed field that may hold colons. The signed text joins the fields with colons, so with
/// colons in several fields, anybody could move text from one field to the next.
const MAY_HOLD_COLONS: &[&str] = &["merchantReference"];

#[derive(Debug)]
pub(super) struct Adyen(Description);

impl Adyen {
    pub(super) fn new() -> Self {
        // The fields of a platform webhook. Not every platform webhook has a time or an id.
        let fields = Fields {
            created_at: ["/timestamp", "/createdAt", "/data/creationDate"]
                .into_iter()
                .flat_map(|path| fields("", path, "").created_at)
                .collect(),
            id: vec![
                joined(&["/type", "/eventId"], ":"),
                joined(&["/type", "/data/id", "/data/sequenceNumber"], ":"),
            ],
            ..fields("/type", "", "")
        };
        Self(Description {
            name: "adyen".into(),
            documentation: "https://docs.adyen.com/development-resources/webhooks/",
            fields,
            retry_horizon: 30 * DAY,
            wish: Wish { accepted: Some((StatusCode::OK, "[accepted]")), ..Wish::default() },
            signature_headers: names(&["hmacsignature", "protocol"]),
            sent: vec![sent("protocol", Sent::Text("HmacSHA256"))],
            ..Description::default()
        })
    }
}

impl Vendor for Adyen {
    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        let is_key = key(secret).is_some_and(|key| !key.is_empty());
        if is_key { Ok(()) } else { Err(KEY) }
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let keys: Vec<_> = check.secrets.iter().filter_map(key).collect();
        let document = Document::parse(&check.delivery.body).ok();
        let root = document.as_ref().map(Document::root);
        match root.and_then(items) {
            Some(items) if items.is_empty() => Err(missing()),
            Some(_) if !root.is_some_and(has_unique_names) => Err(wrong()),
            Some(items) => verify_items(&items, &keys),
            None => verify_body(check.delivery, &keys),
        }
    }

    /// Signs every item of a standard notification, or the body as a whole.
    fn sign(&self, mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let key = key(signing.secret).ok_or(CannotSign::Secret(KEY))?;
        let signature =
            |message: &[u8]| BASE64.encode(hmac(Algorithm::HmacSha256, &key, &[message]));
        let document = Document::parse(&delivery.body).ok();
        let Some(items) = document.as_ref().and_then(|document| items(document.root())) else {
            if !is_json(&delivery.body) {
                return Err(CannotSign::Body(NO_JSON.into()));
            }
            let signature = signature(&delivery.body);
            insert(&mut delivery.headers, &SIGNATURE, &signature)?;
            return Ok(delivery);
        };
        if !are_sound(&items) {
            return Err(CannotSign::Body(UNSOUND.into()));
        }
        let signatures: Vec<_> =
            items.into_iter().map(|item| signature(signed_text(item).as_bytes())).collect();
        for (number, signature) in signatures.iter().enumerate() {
            let item = format!("/notificationItems/{number}");
            let inner = format!("{item}/NotificationRequestItem");
            let document = Document::parse(&delivery.body).ok();
            let is_wrapped =
                document.is_some_and(|document| pointer_to(&inner).find(document.root()).is_some());
            let item = if is_wrapped { inner } else { item };
            let place = pointer_to(&format!("{item}/additionalData/hmacSignature"));
            put_text(&mut delivery, &place, signature)?;
        }
        Ok(delivery)
    }

    fn happened(&self, delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
        match body.root().and_then(items) {
            Some(items) if !items.is_empty() => items.into_iter().map(item_happened).collect(),
            _ => happened::read(&self.0.fields, delivery, body),
        }
    }
}

/// Returns the items of a standard notification.
fn items(root: Value<'_>) -> Option<Vec<Value<'_>>> {
    let items = root.get("notificationItems")?.elements()?;
    Some(
        items.into_iter().map(|item| item.get("NotificationRequestItem").unwrap_or(item)).collect(),
    )
}

/// Returns whether no name on the way to a signed field is repeated. If two members have the same
/// name, a destination may read the one that was not verified here.
fn has_unique_names(root: Value<'_>) -> bool {
    let is_unique = |item: Value<'_>| {
        let inner = item.get("NotificationRequestItem");
        let amount = inner.unwrap_or(item).get("amount");
        [Some(item), inner, amount].into_iter().flatten().all(Value::has_unique_names)
    };
    let items = root.get("notificationItems").and_then(Value::elements).unwrap_or_default();
    root.has_unique_names() && items.into_iter().all(is_unique)
}

/// Checks every item, because a batch is delivered as a whole.
fn verify_items(items: &[Value<'_>], keys: &[Vec<u8>]) -> Result<(), Error> {
    if !are_sound(items) {
        return Err(wrong());
    }
    items.iter().try_for_each(|item| verify_item(*item, keys))
}

const UNSOUND: &str = "must have items, none of them twice, and no colon in a signed field other than merchantReference";

/// Returns whether the signatures of these items leave no doubt about them. No signature covers the
/// list of items in a batch, so a batch with a repeated item would count as another event.
fn are_sound(items: &[Value<'_>]) -> bool {
    let is_plain = |item: Value<'_>| {
        let mut paths = SIGNED.iter().filter(|path| **path != MAY_HOLD_COLONS);
        paths.all(|path| text(item, path).is_none_or(|text| !text.contains(':')))
    };
    let ids: HashSet<_> = items.iter().map(|item| item_happened(*item).id).collect();
    !items.is_empty() && items.iter().all(|item| is_plain(*item)) && ids.len() == items.len()
}

fn verify_item(item: Value<'_>, keys: &[Vec<u8>]) -> Result<(), Error> {
    let claimed = text(item, &["additionalData", "hmacSignature"]).ok_or_else(missing)?;
    let claimed = BASE64.decode(claimed).map_err(|_| wrong())?;
    is_signed(&claimed, signed_text(item).as_bytes(), keys)
}

/// Returns the text that an item's signature covers.
fn signed_text(item: Value<'_>) -> String {
    SIGNED.map(|path| text(item, path).unwrap_or_default()).join(":")
}

fn verify_body(delivery: &Delivery, keys: &[Vec<u8>]) -> Result<(), Error> {
    if delivery.body.is_empty() {
        return Err(missing());
    }
    let claimed = delivery.single_header(&SIGNATURE).ok_or_else(missing)?;
    let claimed = BASE64.decode(claimed).map_err(|_| wrong())?;
    is_signed(&claimed, &delivery.body, keys)?;
    // The signed text of an item is no JSON. So whoever has seen an item cannot send it as a body.
    if is_json(&delivery.body) { Ok(()) } else { Err(wrong()) }
}

fn is_signed(claimed: &[u8], message: &[u8], keys: &[Vec<u8>]) -> Result<(), Error> {
    let is_by = |key: &Vec<u8>| {
        let expected = hmac(Algorithm::HmacSha256, key, &[message]);
        expected.ct_eq(claimed).into()
    };
    // A text that does not have the length of a signature is not worth a hash.
    if claimed.len() == 32 && keys.iter().any(is_by) { Ok(()) } else { Err(wrong()) }
}

fn key(secret: &Secret) -> Option<Vec<u8>> {
    hex::decode(secret.expose()).ok()
}

fn item_happened(item: Value<'_>) -> Happened {
    let code = text(item, &["eventCode"]);
    let reference = text(item, &["pspReference"]);
    let others = || [&["merchantAccountCode"], &["success"]].map(|path| text(item, path));
    let id = code.clone().zip(reference).map(|(code, reference)| {
        let parts = [Some(code), Some(reference)].into_iter().chain(others());
        parts.map(Option::unwrap_or_default).collect::<Vec<_>>().join(":")
    });
    let created_at = text(item, &["eventDate"]).and_then(|text| Timestamp::parse(&text).ok());
    Happened { event_type: code, created_at, id }
}

/// Returns the text, number or truth value at a path, or `None` if it is absent, empty or null.
fn text(item: Value<'_>, path: &[&str]) -> Option<String> {
    let value = path.iter().try_fold(item, |value, name| value.get(name))?;
    let text = value.as_text().or_else(|| value.as_bool().map(|is| is.to_string()));
    text.filter(|text| !text.is_empty())
}
