//! Deliveries in a text form, and a router's settings with a source for every vendor.

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    source::{secrets_variable, vendors},
};

/// The time at which every delivery comes in. The test vectors are signed at this time.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_778_070_900, 0).unwrap()
}

/// Settings with a source for every vendor. The secrets are those of the test vectors, or made up.
pub static INTAKE: LazyLock<Intake> = LazyLock::new(|| {
    let vectors: Value =
        serde_json::from_str(include_str!("../tests/vectors/vendors.json")).unwrap();
    let mut variables = BTreeMap::from([
        ("ROUTING_SECRET".to_owned(), "fuzz-routing-secret".to_owned()),
        ("PUBLIC_URL".to_owned(), "https://hooks.example.com/in".to_owned()),
        ("META_VERIFY_TOKEN".to_owned(), "plainly-token".to_owned()),
        ("ENVELOPE_SECRETS".to_owned(), "whsec_cGxhaW5seSBmYWtlIGtleQ==".to_owned()),
    ]);
    for vector in vectors["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap().to_owned();
        let secrets = variables.entry(secrets_variable(&text("vendor"))).or_default();
        let before = if secrets.is_empty() { "" } else { "," };
        *secrets = format!("{secrets}{before}{}", text("secret"));
    }
    for vendor in vendors() {
        let secret = match vendor.name() {
            "adyen" => "44782def547aaa06c910c43932b1eb0c71fc68d9d0c057550c48ec2acf6ba056",
            "braintree" | "klarna" => "plainly-public:plainly-private",
            "standard-webhooks" => "whsec_cGxhaW5seSBmYWtlIGtleQ==",
            _ => "plainly-fuzz",
        };
        variables.entry(secrets_variable(vendor.name())).or_insert_with(|| secret.to_owned());
    }
    Intake::from_vars(|name| variables.get(name).cloned()).unwrap()
});

/// Reads a delivery: a line with method, path and query, then lines with headers, then an empty line
/// and the body. Returns `None` for a text that no server would turn into a delivery.
pub fn read(text: &[u8]) -> Option<Delivery> {
    let end = text.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (&text[..end], &text[end + 2..]);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = line[colon + 1..].trim_ascii();
        headers.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
    }
    Some(Delivery {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        path: path.to_owned(),
        query,
        headers,
        body: body.to_vec().into(),
    })
}
