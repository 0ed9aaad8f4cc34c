//! Braintree, which signs one field of a form
//! (<https://developer.paypal.com/braintree/docs/guides/webhooks/parse>).
//!
//! The form has two fields. `bt_payload` is the base64 of an XML document. `bt_signature` is a list
//! of `public key|signature` pairs. The signature covers the payload, and so its kind and time.
//! There is no id, so the hash of the payload is the id: everything else in the form could be changed
//! by anybody. The signing key is the SHA-1 of the private key. A secret is `public:private`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, StatusCode};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{
    Body, Check, Happened, Source, Vendor,
    description::Description,
    scheme::{MAX_ENTRIES, missing, wrong},
    sign::{CannotSign, Signing},
};
use crate::{
    delivery::{Delivery, Reply},
    error::Error,
    secret::Secret,
    timestamp::Timestamp,
};

const PAIR: &str = "must be `public key:private key`";

/// Largest number of fields in the form. Braintree sends two.
const MAX_FIELDS: usize = 16;

#[derive(Debug)]
pub(super) struct Braintree(Description);

impl Braintree {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "braintree".into(),
            documentation: "https://developer.paypal.com/braintree/docs/guides/webhooks/overview",
            ..Description::default()
        })
    }
}

impl Vendor for Braintree {
    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        let is_pair = pair(secret).is_some_and(|(public, private)| {
            !public.is_empty() && !public.contains(['|', '&']) && !private.is_empty()
        });
        if is_pair { Ok(()) } else { Err(PAIR) }
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let form = Form::of(&check.delivery.body).ok_or_else(missing)?;
        let is_allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'=' | b'/' | b'\n');
        // An attacker can send a short text of hex digits as a challenge, and gets its signature.
        // Such a text is never the base64 of XML, so a payload that is not XML is refused.
        if !form.payload.bytes().all(is_allowed) || form.xml().is_none() {
            return Err(wrong());
        }
        let pairs = form.signature.split('&').filter_map(|pair| pair.split_once('|'));
        let mut claimed = Vec::new();
        for (public, signature) in pairs {
            claimed.push((public, hex::decode(signature).ok().filter(|bytes| bytes.len() == 20)));
            if claimed.len() > MAX_ENTRIES {
                return Err(wrong());
            }
        }
        let is_genuine = check.secrets.iter().filter_map(pair).any(|(public, private)| {
            let of_this_key = claimed.iter().filter(|(name, _)| *name == public);
            let signatures: Vec<_> = of_this_key.filter_map(|(_, bytes)| bytes.as_ref()).collect();
            !signatures.is_empty() && {
                let mac = mac(private, form.payload.as_bytes());
                // The payload may have lost its final newline on the way.
                let with_newline = mac.clone().chain_update("\n").finalize().into_bytes();
                let expected = [mac.finalize().into_bytes(), with_newline];
                signatures.iter().any(|signature| {
                    expected.iter().any(|expected| bool::from(expected.ct_eq(&signature[..])))
                })
            }
        });
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    /// Signs the payload of a form. An XML document becomes the payload of a new form.
    fn sign(&self, mut delivery: Delivery, signing: &Signing<'_>) -> Result<Delivery, CannotSign> {
        let (public, private) = pair(signing.secret).ok_or(CannotSign::Secret(PAIR))?;
        let payload = if delivery.body.trim_ascii_start().starts_with(b"<") {
            Some(BASE64_STANDARD.encode(&delivery.body))
        } else {
            let mut fields = form_urlencoded::parse(&delivery.body).take(MAX_FIELDS);
            fields.find(|(name, _)| name == "bt_payload").map(|(_, value)| value.into_owned())
        };
        let payload = payload.filter(|payload| xml(payload).is_some()).ok_or_else(|| {
            CannotSign::Body("must be an XML document in UTF-8, or a form with bt_payload".into())
        })?;
        let signature = hex::encode(mac(private, payload.as_bytes()).finalize().into_bytes());
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("bt_signature", &format!("{public}|{signature}"));
        delivery.body = form.append_pair("bt_payload", &payload).finish().into();
        Ok(delivery)
    }

    fn happened(&self, delivery: &Delivery, _body: &Body<'_>) -> Vec<Happened> {
        let form = Form::of(&delivery.body);
        let xml = form.as_ref().and_then(Form::xml).unwrap_or_default();
        let event_type = element(&xml, "kind").map(str::to_owned);
        let created_at = element(&xml, "timestamp").and_then(|text| Timestamp::parse(text).ok());
        let id = form.map(|form| hex::encode(Sha256::digest(form.base64())));
        vec![Happened { event_type, created_at, id }]
    }

    /// Answers the challenge with which Braintree checks an address: `GET ?bt_challenge=...`.
    fn challenge(&self, delivery: &Delivery, source: &Source) -> Option<Reply> {
        if delivery.method != Method::GET {
            return None;
        }
        let query = delivery.query.as_deref()?;
        let mut pairs = form_urlencoded::parse(query.as_bytes()).take(MAX_FIELDS);
        let (_, challenge) = pairs.find(|(name, _)| name == "bt_challenge")?;
        // A stranger must not get a signature for any other text.
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_challenge = (20..=32).contains(&challenge.len()) && challenge.bytes().all(is_hex);
        let (public, private) = source.secrets.first().and_then(pair).filter(|_| is_challenge)?;
        let signature = hex::encode(mac(private, challenge.as_bytes()).finalize().into_bytes());
        Some(Reply::text(StatusCode::OK, format!("{public}|{signature}")))
    }
}

fn pair(secret: &Secret) -> Option<(&str, &str)> {
    secret.expose().split_once(':')
}

fn mac(private: &str, message: &[u8]) -> Hmac<Sha1> {
    let key = Sha1::digest(private);
    #[expect(clippy::expect_used, reason = "RFC 2104 defines HMAC for keys of every length")]
    let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&key).expect("any length of key is valid");
    mac.chain_update(message)
}

/// The fields of a delivery.
struct Form {
    signature: String,
    payload: String,
}

impl Form {
    fn of(body: &[u8]) -> Option<Self> {
        let (mut signature, mut payload) = (None, None);
        for (name, value) in form_urlencoded::parse(body).take(MAX_FIELDS) {
            match &*name {
                "bt_signature" => signature = Some(value.into_owned()),
                "bt_payload" => payload = Some(value.into_owned()),
                _ => {}
            }
        }
        Some(Self { signature: signature?, payload: payload? })
    }

    /// Returns the payload without newlines, because the last newline may get lost on the way.
    fn base64(&self) -> String {
        self.payload.replace('\n', "")
    }

    /// Returns the XML document in the payload, or `None` if the payload is not XML.
    fn xml(&self) -> Option<String> {
        xml(&self.payload)
    }
}

fn xml(payload: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(payload.replace('\n', "")).ok()?;
    String::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with('<'))
}

/// Returns the text of the first element of that name.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let opening = format!("<{name}");
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once(opening.as_str()) {
        let (attributes, content) = after.split_once('>')?;
        if attributes.is_empty() || attributes.starts_with(' ') {
            return Some(content.split_once('<')?.0).filter(|text| !text.is_empty());
        }
        rest = content;
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn only_a_document_that_the_router_accepts_is_signed() {
        let braintree = Braintree::new();
        let secret = &Secret::new("public:plainly-private");
        let signing = Signing { secret, key: None, url: None, now: chrono::Utc::now() };
        let signs = |body: &'static [u8]| {
            let delivery = Delivery {
                method: Method::POST,
                path: "/webhook/braintree".into(),
                query: None,
                headers: HeaderMap::new(),
                body: Bytes::from_static(body),
            };
            braintree.sign(delivery, &signing).is_ok()
        };
        assert!(signs(b"<a/>") && signs(b"bt_payload=PGEv%0APg%3D%3D%0A"));
        // Found by fuzzing.
        assert!(!signs(b"<a>\xb1</a>") && !signs(b"bt_payload=PGE") && !signs(b"{}"));
    }

    #[test]
    fn elements_are_found_by_their_whole_name() {
        let xml = r#"<n><kinds>no</kinds><kind>paid</kind><timestamp type="datetime">2026-01-02T03:04:05Z</timestamp><empty/></n>"#;
        assert_eq!(element(xml, "kind"), Some("paid"));
        assert_eq!(element(xml, "timestamp"), Some("2026-01-02T03:04:05Z"));
        assert_eq!(element(xml, "absent"), None);
        assert_eq!(element("<kind", "kind"), None);
    }
}
