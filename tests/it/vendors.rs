//! The router accepts a genuine delivery of every vendor in tests/vectors/vendors.json. It refuses
//! every change of the delivery, another secret, and a time that is not close.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde::Deserialize;
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    error::Error,
    plan::{Plan, Planned, needs, plan},
    secret::Secret,
    source::{
        Address, CannotSign, Fetched, Glob, PrivateKey, Rules, Signing, Source, vendor,
        vendor_names, vendors,
    },
};

use crate::{
    signed_deliveries::{KINDS, PUBLIC_URL, now},
    support::intake,
};

#[derive(Deserialize)]
pub struct Vectors {
    pub vectors: Vec<Vector>,
    /// A signed question of Amazon SNS.
    pub subscription: String,
}

#[derive(Deserialize)]
pub struct Vector {
    pub id: String,
    pub vendor: String,
    pub secret: String,
    /// A secret that did not sign.
    pub another: String,
    /// The header of the signature. `None` if it is in the body.
    signature: Option<String>,
    /// Other headers that the signature covers.
    signed_headers: Vec<String>,
    covers: Covers,
    /// Seconds for which a delivery is fresh.
    tolerance: Option<i64>,
    query: Option<String>,
    /// The vendor's answers when it is asked for its certificate or key.
    pub fetched: Option<HashMap<String, String>>,
    event: Expected,
    pub first: Signed,
    retry: Option<Signed>,
    pub other: Signed,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Covers {
    /// `body` or `nothing`.
    Word(String),
    /// Parts of the body.
    Parts(Vec<String>),
}

#[derive(Deserialize)]
struct Expected {
    r#type: String,
    time: String,
    id: String,
}

#[derive(Deserialize)]
pub struct Signed {
    pub now: i64,
    headers: HashMap<String, String>,
    body: String,
}

pub static VECTORS: LazyLock<Vectors> =
    LazyLock::new(|| serde_json::from_str(include_str!("../vectors/vendors.json")).unwrap());

/// Returns the vector of that name.
pub fn vector(id: &str) -> &'static Vector {
    VECTORS.vectors.iter().find(|one| one.id == id).unwrap()
}

impl Vector {
    /// Returns the settings for a source with that secret.
    pub fn intake(&self, secret: &str) -> Intake {
        let vendor = vendor(&self.vendor).unwrap_or_else(|| panic!("{} is unknown", self.vendor));
        let secret = Secret::new(secret);
        assert_eq!(vendor.check_secret(&secret), Ok(()), "{}", self.id);
        let mut source = Source::new(&self.vendor, Arc::clone(vendor));
        source.secrets = vec![secret];
        source.address = Some(Address::Prefix(PUBLIC_URL.into()));
        let mut intake = intake("test-routing-secret");
        intake.sources.insert(source);
        intake
    }

    pub fn delivery(&self, signed: &Signed) -> Delivery {
        let headers = signed.headers.iter().map(|(name, value)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
        });
        Delivery {
            method: Method::POST,
            path: format!("/webhook/{}", self.vendor),
            query: self.query.clone(),
            headers: headers.collect(),
            body: signed.body.clone().into(),
        }
    }

    /// Returns what the vendor answers when the router asks for its certificate or key.
    fn fetched(&self, name: &str) -> Option<Fetched> {
        let answer = self.fetched.as_ref()?.get(name)?;
        let (genuine, intake) = (self.delivery(&self.first), self.intake(&self.secret));
        let fetch = needs(&genuine, &intake, now(self.first.now)).ok()??;
        Some(fetch.read(answer.as_bytes()).unwrap())
    }

    pub fn check(&self, delivery: &Delivery, intake: &Intake, at: i64) -> Result<Plan, u16> {
        self.check_with(delivery, intake, at, self.fetched("genuine").as_ref())
    }

    fn check_with(
        &self,
        delivery: &Delivery,
        intake: &Intake,
        at: i64,
        fetched: Option<&Fetched>,
    ) -> Result<Plan, u16> {
        let planned = self.planned(delivery, intake, at, fetched);
        planned.map_err(|refusal| refusal.reply().status.as_u16())
    }

    fn planned(
        &self,
        delivery: &Delivery,
        intake: &Intake,
        at: i64,
        fetched: Option<&Fetched>,
    ) -> Result<Plan, Error> {
        match plan(delivery, intake, fetched, now(at))? {
            Planned::Deliver(plan) => Ok(*plan),
            other => panic!("{}: {other:?}", self.id),
        }
    }

    /// Returns whether the rules of the source take the genuine delivery.
    fn is_taken(&self, rules: Rules) -> bool {
        let mut intake = self.intake(&self.secret);
        let mut source = intake.sources.get(&self.vendor).unwrap().as_ref().clone();
        source.rules = rules;
        intake.sources.insert(source);
        let (genuine, fetched) = (self.delivery(&self.first), self.fetched("genuine"));
        match plan(&genuine, &intake, fetched.as_ref(), now(self.first.now)) {
            Ok(Planned::Deliver(_)) => true,
            Ok(Planned::Filtered { .. }) => false,
            other => panic!("{}: {other:?}", self.id),
        }
    }

    /// Returns the places of a body that the signature covers.
    fn covered(&self, body: &str) -> BTreeSet<usize> {
        match &self.covers {
            Covers::Word(word) if word == "body" => (0..body.len()).collect(),
            Covers::Word(_) => BTreeSet::new(),
            Covers::Parts(parts) => {
                let places = parts.iter().flat_map(|part| {
                    assert!(body.contains(part.as_str()), "{} {part}", self.id);
                    body.match_indices(part.as_str())
                        .flat_map(|(start, part)| start..start + part.len())
                });
                // The address of the certificate is not signed.
                let address = body.find("https://").unwrap_or(body.len());
                let end = body[address..].find('"').map_or(body.len(), |length| address + length);
                places.filter(|at| !(address..end).contains(at)).collect()
            }
        }
    }
}

#[test]
fn every_vendor_has_a_vector() {
    let mut tested: BTreeSet<_> = VECTORS.vectors.iter().map(|one| one.vendor.as_str()).collect();
    tested.extend(KINDS.iter().map(|kind| kind.source));
    let known: BTreeSet<_> = vendors().iter().map(|vendor| vendor.name()).collect();
    let differing: Vec<_> = known.symmetric_difference(&tested).collect();
    assert!(
        differing.is_empty(),
        "tests/vectors/vendors.json lacks, or has too much: {differing:?} (after a change of a \
         script, run `make vectors`)"
    );
    assert_eq!(known.len(), vendors().len(), "two vendors have one name");
    // A vendor with a file of its own repeats its name.
    let named = vendors().into_iter().map(|vendor| vendor.name());
    assert_eq!(named.collect::<Vec<_>>(), vendor_names());
}

#[test]
fn a_genuine_delivery_is_accepted_and_its_event_read() {
    for vector in &VECTORS.vectors {
        let intake = vector.intake(&vector.secret);
        let planned = |signed: &Signed| {
            let fetched = vector.fetched("genuine");
            let delivery = vector.delivery(signed);
            let plan = vector.planned(&delivery, &intake, signed.now, fetched.as_ref());
            plan.unwrap_or_else(|refusal| {
                panic!("{}: the genuine delivery is refused: {refusal}", vector.id)
            })
        };
        let Plan { event, key, .. } = planned(&vector.first);
        let time = event.created_at.map(|time| time.to_string()).unwrap_or_default();
        let Expected { r#type, time: expected_time, id } = &vector.event;
        assert_eq!(
            (&event.event_type, &time, event.id().unwrap_or_default()),
            (r#type, expected_time, id.as_str()),
            "{}",
            vector.id
        );
        assert_eq!(event.vendor, vector.vendor);
        if let Some(retry) = &vector.retry {
            assert_eq!(planned(retry).key, key, "{}: a retry has another key", vector.id);
        }
        assert_ne!(planned(&vector.other).key, key, "{}: two events have one key", vector.id);
    }
}

/// Signs the vector's body as `event` does.
fn sign(vector: &Vector, secret: &str, key: Option<&PrivateKey>) -> Result<Delivery, CannotSign> {
    let intake = vector.intake(secret);
    let source = intake.sources.get(&vector.vendor).unwrap();
    let unsigned = Delivery { headers: HeaderMap::new(), ..vector.delivery(&vector.first) };
    let signing =
        Signing { secret: &source.secrets[0], key, url: None, now: now(vector.first.now) };
    source.sign(&unsigned, &signing)
}

#[test]
fn what_the_router_signs_is_accepted() {
    let mut refused = BTreeSet::new();
    for vector in &VECTORS.vectors {
        match sign(vector, &vector.secret, None) {
            Ok(signed) => {
                let plan = vector.check(&signed, &vector.intake(&vector.secret), vector.first.now);
                assert!(plan.is_ok(), "{}: {plan:?} {signed:?}", vector.id);
            }
            Err(CannotSign::NoKey(_)) => drop(refused.insert((vector.vendor.as_str(), "key"))),
            Err(error) => drop(refused.insert((&*vector.vendor, error.to_string().leak()))),
        }
    }
    let expected = [
        ("aws-sns", "only Amazon SNS has the key to sign with"),
        ("discord", "key"),
        ("plaid", "only Plaid has the key to sign with"),
        ("sendgrid", "key"),
        ("telnyx", "key"),
    ];
    assert_eq!(refused, BTreeSet::from(expected));
}

#[test]
fn a_p256_key_signs_as_sendgrid() {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let start = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let public = BASE64_STANDARD.encode([&start, pair.public_key().as_ref()].concat());
    let text = BASE64_STANDARD.encode(document.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let key = PrivateKey::from_pem(pem.as_bytes()).unwrap();
    let vector = vector("sendgrid");
    let signed = sign(vector, &public, Some(&key)).unwrap();
    let at = vector.first.now;
    assert!(vector.check(&signed, &vector.intake(&public), at).is_ok());
    assert_eq!(vector.check(&signed, &vector.intake(&vector.secret), at).err(), Some(401));
}

#[test]
fn a_batch_is_left_out_only_with_all_of_its_events() {
    for vector in VECTORS.vectors.iter().filter(|one| !one.event.r#type.is_empty()) {
        let types: Vec<_> = vector.event.r#type.split(',').collect();
        let globs = |types: &[&str]| types.iter().map(|one| Glob::new(one)).collect();
        let only = |types: &[&str]| Rules { only: globs(types), ..Rules::default() };
        let except = |types: &[&str]| Rules { except: globs(types), ..Rules::default() };
        assert!(!vector.is_taken(only(&["another"])), "{}", vector.id);
        assert!(!vector.is_taken(except(&types)), "{}", vector.id);
        for (number, name) in types.iter().enumerate() {
            assert!(vector.is_taken(only(&[*name])), "{} {name}", vector.id);
            let others = [&types[..number], &types[number + 1..]].concat();
            assert!(vector.is_taken(except(&others)), "{} {name}", vector.id);
        }
    }
}

#[test]
fn text_that_moves_to_what_is_signed_beside_it_is_refused() {
    for vector in &VECTORS.vectors {
        let intake = vector.intake(&vector.secret);
        let genuine = vector.delivery(&vector.first);
        let fetched = vector.fetched("genuine");
        let refused = |changed: Option<Delivery>, what: &str, length: usize| {
            // Bytes that are not a header's value never reach the router.
            let Some(changed) = changed else { return };
            let result = vector.check_with(&changed, &intake, vector.first.now, fetched.as_ref());
            assert_eq!(result.err(), Some(401), "{} {what} {length}", vector.id);
        };
        let body = vector.first.body.as_str();
        let stamps = [vector.first.now.to_string(), (vector.first.now * 1000).to_string()];
        for name in vector.signed_headers.iter().chain(&vector.signature) {
            let value = vector.first.headers[name].as_str();
            // The time may be a part of the signature's header.
            let is_covered = vector.signed_headers.contains(name);
            let whole = is_covered.then_some(value);
            let stamp = stamps.iter().rev().find(|stamp| value.contains(*stamp));
            let Some(text) = whole.or(stamp.map(String::as_str)) else { continue };
            let name = HeaderName::try_from(name).unwrap();
            let with = |shorter: &str, body: String| {
                let mut changed = Delivery { body: body.into(), ..genuine.clone() };
                let value = HeaderValue::try_from(value.replacen(text, shorter, 1)).ok()?;
                changed.headers.insert(&name, value);
                Some(changed)
            };
            for length in 1..text.len() {
                let (start, end) = text.split_at(text.len() - length);
                refused(with(start, format!("{end}{body}")), "end of a header", length);
                let (start, end) = text.split_at(length);
                refused(with(end, format!("{body}{start}")), "start of a header", length);
            }
            for length in (1..20.min(body.len())).filter(|at| body.is_char_boundary(*at)) {
                let (start, end) = body.split_at(length);
                refused(with(&format!("{text}{start}"), end.into()), "start of the body", length);
                let (start, end) = body.split_at(body.len() - length);
                refused(with(&format!("{end}{text}"), start.into()), "end of the body", length);
            }
        }
    }
}

#[test]
fn any_flipped_byte_is_refused() {
    for vector in &VECTORS.vectors {
        let intake = vector.intake(&vector.secret);
        let genuine = vector.delivery(&vector.first);
        let fetched = vector.fetched("genuine");
        let refused = |changed: &Delivery, what: &str, at: usize| {
            let result = vector.check_with(changed, &intake, vector.first.now, fetched.as_ref());
            assert_eq!(result.err(), Some(401), "{} {what} {at}", vector.id);
        };
        let body = std::str::from_utf8(&genuine.body).unwrap();
        for at in vector.covered(body) {
            let mut bytes = body.as_bytes().to_vec();
            bytes[at] ^= 1;
            refused(&Delivery { body: bytes.into(), ..genuine.clone() }, "body", at);
        }
        refused(&Delivery { body: "".into(), ..genuine.clone() }, "empty", 0);
        for name in vector.signed_headers.iter().chain(&vector.signature) {
            let name = HeaderName::try_from(name).unwrap();
            let value = genuine.headers[&name].as_bytes();
            // The list may begin with entries that do not count.
            let counts = genuine.headers[&name].to_str().unwrap();
            let from = counts.find(",v1=").filter(|_| counts.starts_with("v1=0")).unwrap_or(0);
            let to = counts.find(",v2=").unwrap_or(value.len());
            for at in from..to {
                let mut bytes = value.to_vec();
                bytes[at] ^= 1;
                let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut changed = genuine.clone();
                changed.headers.insert(name.clone(), value);
                refused(&changed, name.as_str(), at);
            }
            let mut without = genuine.clone();
            without.headers.remove(&name);
            refused(&without, "without", 0);
            let mut twice = genuine.clone();
            twice.headers.append(name.clone(), genuine.headers[&name].clone());
            if vector.signed_headers.iter().any(|signed| name == **signed) {
                refused(&twice, "twice", 0);
            }
        }
        let get = Delivery { method: Method::GET, ..genuine.clone() };
        assert_eq!(vector.check(&get, &intake, vector.first.now).err(), Some(405));
    }
}

#[test]
fn another_secret_is_refused() {
    for vector in &VECTORS.vectors {
        let genuine = vector.delivery(&vector.first);
        let is_fetched = vector.vendor == "plaid";
        // Plaid's secret only serves to fetch the key. The key decides.
        if !is_fetched {
            let intake = vector.intake(&vector.another);
            let result = vector.check(&genuine, &intake, vector.first.now);
            assert_eq!(result.err(), Some(401), "{}", vector.id);
        }
        let intake = vector.intake(&vector.secret);
        for name in ["another", "expired"] {
            if let Some(fetched) = vector.fetched(name) {
                let result = vector.check_with(&genuine, &intake, vector.first.now, Some(&fetched));
                assert_eq!(result.err(), Some(401), "{} {name}", vector.id);
            }
        }
    }
}

#[test]
fn a_time_that_is_not_close_is_stale() {
    for vector in &VECTORS.vectors {
        let intake = vector.intake(&vector.secret);
        let genuine = vector.delivery(&vector.first);
        let status = |seconds: i64| {
            let result = vector.check(&genuine, &intake, vector.first.now + seconds);
            result.map_or_else(|status| status, |_| 200)
        };
        match vector.tolerance {
            Some(seconds) => {
                for (at, expected) in [
                    (seconds, 200),
                    (-seconds, 200),
                    (seconds + 1, 401),
                    (-seconds - 1, 401),
                    (1_000_000, 401),
                ] {
                    assert_eq!(status(at), expected, "{} {at}", vector.id);
                }
            }
            None => assert_eq!(status(1_000_000), 200, "{}", vector.id),
        }
    }
}

#[test]
fn an_unsigned_request_is_refused_before_its_body_is_read() {
    for vector in &VECTORS.vectors {
        let intake = vector.intake(&vector.secret);
        let mut delivery = vector.delivery(&vector.first);
        delivery.headers = HeaderMap::new();
        let known = vector.check(&delivery, &intake, vector.first.now);
        let expected = vector.signature.as_ref().map(|_| 401);
        assert_eq!(known.err(), expected, "{}", vector.id);
        delivery.body = bytes::Bytes::new();
        let refusal = webhook_router::plan::admit(&delivery, 4096, &intake).err();
        assert_eq!(
            refusal.map(|refusal| refusal.reply().status.as_u16()),
            expected,
            "{}",
            vector.id
        );
    }
}

#[test]
fn secrets_are_neither_forwarded_nor_stored() {
    for vector in &VECTORS.vectors {
        let vendor = vendor(&vector.vendor).unwrap();
        let kept = vector.delivery(&vector.first).kept(&vendor.signature_headers());
        for (name, value) in &kept.headers {
            assert!(!vendor.secret_headers().contains(name), "{}: {name}", vector.id);
            let value = value.to_str().unwrap();
            assert!(!value.contains(&vector.secret), "{}: {name}", vector.id);
        }
    }
}
