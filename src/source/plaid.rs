//! Plaid, which signs with a key that it publishes
//! (<https://plaid.com/docs/api/webhooks/webhook-verification/>).
//!
//! `Plaid-Verification` holds a JSON Web Token (RFC 7519). The token covers the SHA-256 of the body
//! and the time of signing. Its algorithm is always ES256: a token that names another one is
//! refused. The key is asked for by its id, with the credentials of Plaid's API.
//!
//! There is neither an id nor a time of the event, and Plaid reports many events with the same body.
//! So the time of signing stands for the time of the event. A retry is signed again, because Plaid
//! wants a token that is older than five minutes to be refused. So a retry is another event.
//!
//! A secret is `client_id:secret`, and `sandbox:client_id:secret` for Plaid's Sandbox. The router
//! asks for the key with one secret after the other, until Plaid gives it.

use base64::Engine as _;
use chrono::DateTime;
use http::HeaderName;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{
    Body, Check, Fetch, Fetched, Happened, Question, Vendor,
    builders::{joined, names},
    description::{Description, Fields},
    happened,
    lenient_base64::BASE64_URL,
    scheme::{missing, stale, wrong},
    sign::{CannotSign, Signing},
};
use crate::{
    delivery::Delivery, error::Error, json::Document, secret::Secret, timestamp::Timestamp,
};

const TOKEN: HeaderName = HeaderName::from_static("plaid-verification");

/// Largest token that is read. Plaid's have about 400 bytes.
const MAX_TOKEN_BYTES: usize = 2048;

/// Largest number of secrets with which the router asks for a key. A stranger can name keys that do
/// not exist.
const MAX_QUESTIONS: usize = 4;

const PRODUCTION: &str = "https://production.plaid.com/webhook_verification_key/get";
const SANDBOX: &str = "https://sandbox.plaid.com/webhook_verification_key/get";

#[derive(Debug)]
pub(super) struct Plaid(Description);

impl Plaid {
    pub(super) fn new() -> Self {
        Self(Description {
            name: "plaid".into(),
            documentation: "https://plaid.com/docs/api/webhooks/webhook-verification/",
            fields: Fields {
                event_type: vec![joined(&["/webhook_type", "/webhook_code"], ".")],
                ..Fields::default()
            },
            signature_headers: names(&[TOKEN.as_str()]),
            ..Description::default()
        })
    }
}

/// The token of a delivery, as far as it can be checked without the key.
struct Token<'a> {
    key_id: String,
    signed: &'a str,
    signature: Vec<u8>,
    issued_at: f64,
    /// The SHA-256 of the body, in hex.
    body_hash: String,
}

impl<'a> Token<'a> {
    fn of(delivery: &'a Delivery) -> Result<Self, Error> {
        let token = delivery.single_header(&TOKEN).ok_or_else(missing)?;
        if delivery.body.is_empty() {
            return Err(missing());
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(wrong());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(wrong)?;
        let (header, claims) = signed.split_once('.').ok_or_else(wrong)?;
        let decode = |text: &str| BASE64_URL.decode(text).map_err(|_| wrong());
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let header = Document::parse(&header).map_err(|_| wrong())?;
        let claims = Document::parse(&claims).map_err(|_| wrong())?;
        let text = |document: &Document<'_>, name| document.root().get(name)?.as_str()?.ok();
        let key_id = text(&header, "kid").filter(|id| is_plain(id)).ok_or_else(wrong)?;
        let is_es256 = text(&header, "alg").as_deref() == Some("ES256");
        let issued_at = claims.root().get("iat").and_then(|value| value.as_f64());
        let issued_at = issued_at.ok_or_else(wrong)?;
        let body_hash = text(&claims, "request_body_sha256").ok_or_else(wrong)?;
        if !is_es256 || signature.len() != 64 {
            return Err(wrong());
        }
        Ok(Self { key_id, signed, signature, issued_at, body_hash })
    }

    fn check_time(&self, check: &Check<'_>) -> Result<(), Error> {
        let issued_at = DateTime::from_timestamp(self.issued_at as i64, 0).ok_or_else(wrong)?;
        check.is_fresh(issued_at, Some(check.tolerance)).then_some(()).ok_or_else(stale)
    }

    fn is_of(&self, body: &[u8]) -> bool {
        let found = hex::encode(Sha256::digest(body));
        found.as_bytes().ct_eq(self.body_hash.as_bytes()).into()
    }
}

/// Returns whether a text has the form of Plaid's ids and secrets. Such a text needs no escapes in
/// JSON.
fn is_plain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=128).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The credentials of Plaid's API.
struct Credentials<'a> {
    address: &'static str,
    client_id: &'a str,
    secret: &'a str,
}

impl<'a> Credentials<'a> {
    fn of(secret: &'a Secret) -> Option<Self> {
        let parts: Vec<_> = secret.expose().split(':').collect();
        let (address, client_id, secret) = match parts[..] {
            [client_id, secret] => (PRODUCTION, client_id, secret),
            ["sandbox", client_id, secret] => (SANDBOX, client_id, secret),
            _ => return None,
        };
        (is_plain(client_id) && is_plain(secret)).then_some(Self { address, client_id, secret })
    }

    /// Returns the question for a key.
    fn question(&self, key_id: &str) -> Option<Question> {
        let Self { address, client_id, secret } = self;
        let json =
            format!(r#"{{"client_id":"{client_id}","secret":"{secret}","key_id":"{key_id}"}}"#);
        Some(Question { address: Url::parse(address).ok()?, json: Secret::new(json) })
    }
}

impl Vendor for Plaid {
    fn has_signature(&self, delivery: &Delivery) -> bool {
        delivery.headers.contains_key(TOKEN)
    }

    fn description(&self) -> &Description {
        &self.0
    }

    fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        Credentials::of(secret)
            .map(|_| ())
            .ok_or("must be `client_id:secret`, or `sandbox:client_id:secret`")
    }

    fn verify(&self, check: &Check<'_>) -> Result<(), Error> {
        let token = Token::of(check.delivery)?;
        token.check_time(check)?;
        let key = check.fetched.and_then(Fetched::key);
        let key = key.ok_or_else(|| Error::NotFetched("no key".into()))?;
        // The hash comes last, so that a stranger's token costs only the hash in `needs`.
        let is_genuine = key.is_valid_at(check.now)
            && key.has_signed(token.signed.as_bytes(), &token.signature)
            && token.is_of(&check.delivery.body);
        if is_genuine { Ok(()) } else { Err(wrong()) }
    }

    fn sign(&self, _: Delivery, _: &Signing<'_>) -> Result<Delivery, CannotSign> {
        Err(CannotSign::OnlyVendor("Plaid"))
    }

    fn happened(&self, delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
        let token = Token::of(delivery).ok();
        let issued_at =
            token.and_then(|token| Timestamp::from_micros((token.issued_at * 1_000_000.0) as i64));
        let read = happened::read(&self.0.fields, delivery, body);
        read.into_iter().map(|one| Happened { created_at: issued_at, ..one }).collect()
    }

    fn needs(&self, check: &Check<'_>) -> Result<Option<Fetch>, Error> {
        let token = Token::of(check.delivery)?;
        token.check_time(check)?;
        if !token.is_of(&check.delivery.body) {
            return Err(wrong());
        }
        let credentials = check.secrets.iter().filter_map(Credentials::of).take(MAX_QUESTIONS);
        let mut questions = credentials.filter_map(|one| one.question(&token.key_id));
        let Some(first) = questions.next() else { return Ok(None) };
        Ok(Some(Fetch::Key { first, others: questions.collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Plaid, Question};
    use crate::{secret::Secret, source::Vendor as _};

    #[test]
    fn the_key_is_asked_for_with_the_credentials() {
        for (secret, host) in
            [("id:key", "production.plaid.com"), ("sandbox:id:key", "sandbox.plaid.com")]
        {
            let secret = Secret::new(secret);
            let question = Credentials::of(&secret).unwrap().question("kid-1").unwrap();
            let Question { address, json } = question;
            assert_eq!(address.host_str(), Some(host));
            assert_eq!(address.path(), "/webhook_verification_key/get");
            let expected = r#"{"client_id":"id","secret":"key","key_id":"kid-1"}"#;
            assert_eq!(json.expose(), expected);
        }
    }

    #[test]
    fn secrets_are_credentials() {
        let check = |text: &str| Plaid::new().check_secret(&Secret::new(text)).is_ok();
        assert!(check("5f1a:9c3b") && check("sandbox:5f1a:9c3b"));
        for bad in ["", "5f1a", "5f1a:", ":9c3b", "production:5f1a:9c3b", "5f1a:\"", "a:b:c:d"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
