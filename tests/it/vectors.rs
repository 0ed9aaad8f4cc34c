//! Checks vendors' signatures and ids with test vectors. Vendors' own libraries confirm the vectors
//! of this project. If VECTORS_DIR names a folder, the vectors in it are checked, too.

use std::{collections::HashMap, path::Path, sync::Arc};

use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    plan::plan,
    secret::Secret,
    source::{Address, Certificate, Fetched, Source, vendor},
};

use crate::support::intake;

/// A request and whether it is genuine.
#[derive(Deserialize)]
struct Vector {
    id: String,
    vendor: String,
    secrets: Vec<String>,
    headers: HashMap<String, String>,
    body: String,
    now: Option<i64>,
    valid: bool,
    url: Option<String>,
    pair: Option<String>,
    /// Braintree's secrets are pairs.
    public_key: Option<String>,
    /// PayPal's certificate.
    cert_pem: Option<String>,
}

/// Vectors whose expectation differs from this router's. The router is strict on both sides of a
/// timestamp, and gives Paddle as much time as the other vendors.
const OTHERWISE: [(&str, bool); 2] =
    [("stripe/future_timestamp_1day", false), ("paddle/stale_6s_sdk_default", true)];

impl Vector {
    fn all_in(file: &Path) -> Vec<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// Returns the router's answer and the key.
    fn answer(&self) -> (u16, Option<String>) {
        let name = match self.vendor.as_str() {
            "standardwebhooks" | "svix" => "standard-webhooks",
            name => name,
        };
        let mut source = Source::new(name, Arc::clone(vendor(name).unwrap()));
        let secrets = self.secrets.iter().map(|secret| match &self.public_key {
            Some(public) => Secret::new(format!("{public}:{secret}")),
            None => Secret::new(secret.clone()),
        });
        source.secrets = secrets.collect();
        source.address = self.url.clone().map(Address::Whole);
        let mut intake: Intake = intake("test-routing-secret");
        intake.sources.insert(source);
        let headers = self.headers.iter().map(|(name, value)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
        });
        let delivery = Delivery {
            method: Method::POST,
            path: format!("/webhook/{name}"),
            query: None,
            headers: headers.collect(),
            body: self.body.clone().into(),
        };
        let certificate = self.cert_pem.as_ref();
        let certificate = certificate.map(|pem| Certificate::from_pem(pem.as_bytes()).unwrap());
        let fetched = certificate.map(Fetched::Certificate);
        let now = self.now.map_or_else(Utc::now, |now| DateTime::from_timestamp(now, 0).unwrap());
        match plan(&delivery, &intake, fetched.as_ref(), now) {
            Ok(planned) => (200, planned.plan().map(|plan| plan.key.to_string())),
            Err(refusal) => (refusal.reply().status.as_u16(), None),
        }
    }
}

/// Checks vectors, and checks that all deliveries of a pair have one key.
fn check(vectors: &[Vector]) {
    let mut pairs = HashMap::<&str, Vec<Option<String>>>::new();
    let mut wrong = Vec::new();
    for vector in vectors.iter().filter(|vector| vendor_is_known(&vector.vendor)) {
        let otherwise = OTHERWISE.iter().find(|(id, _)| *id == vector.id);
        let is_valid = otherwise.map_or(vector.valid, |(_, is_valid)| *is_valid);
        let (status, key) = vector.answer();
        if status != if is_valid { 200 } else { 401 } {
            wrong.push((vector.id.as_str(), status));
        }
        if let Some(pair) = &vector.pair {
            pairs.entry(pair).or_default().push(key);
        }
    }
    assert_eq!(wrong, []);
    for (pair, keys) in pairs {
        assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]), "{pair}: {keys:?}");
    }
}

fn vendor_is_known(name: &str) -> bool {
    matches!(name, "standardwebhooks" | "svix") || vendor(name).is_some()
}

#[test]
fn constructed_vectors_get_their_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    check(&Vector::all_in(&folder.join("constructed.json")));
}

#[test]
fn published_vectors_get_their_answers() {
    let Some(folder) = std::env::var_os("VECTORS_DIR") else { return };
    let published = Path::new(&folder).join("vectors.published.json");
    let constructed = Path::new(&folder).join("vectors.constructed.json");
    check(
        &[Vector::all_in(&published), Vector::all_in(&constructed)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    );
}
