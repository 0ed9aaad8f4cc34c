//! Properties of every vendor: retries have one key, and any change is refused.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest as _, Sha256};
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    plan::{Planned, plan},
    source::{Body, Certificate, Fetched, Source, vendor},
};

use crate::signed_deliveries::{
    KINDS, Kind, PAYPAL, SIGNED_AT, adyen, answer, intake, intake_with_other_secrets, now,
};

#[test]
fn a_retry_has_the_key_of_the_first_delivery_and_another_event_has_not() {
    let intake = intake();
    for kind in KINDS {
        let key = |event, attempt| {
            let delivery = kind.delivery(event, attempt);
            let (status, plan) = answer(&delivery, &intake, Kind::time(attempt));
            assert_eq!(status, 200, "{} {event} {attempt}", kind.name);
            let plan = plan.unwrap();
            assert_eq!(plan.event.vendor, kind.source);
            plan.key
        };
        assert_eq!(key(1, 0), key(1, 1), "{}", kind.name);
        // PayPal's signatures were made once, for one event: see below.
        assert!(kind.name == "paypal" || key(1, 0) != key(2, 0), "{}", kind.name);
    }
    let mut unverified = self::intake();
    let paypal = Source::new("paypal", Arc::clone(vendor("paypal").unwrap()));
    unverified.sources.insert(paypal.explained());
    let genuine = Kind::of("paypal").delivery(1, 0);
    let key = |body: String| {
        let delivery = Delivery { body: body.into(), ..genuine.clone() };
        answer(&delivery, &unverified, SIGNED_AT).1.unwrap().key
    };
    let body = String::from_utf8(genuine.body.to_vec()).unwrap();
    assert_ne!(key(body.clone()), key(body.replace("WH-TEST-1", "WH-TEST-2")));
}

#[test]
fn type_time_and_id_are_read() {
    let intake = intake();
    let adyen = "AUTHORISATION:11:Merchant:true,AUTHORISATION:12:Merchant:true";
    let transfer = "balancePlatform.transfer.updated";
    let form = Kind::of("braintree").delivery(1, 0).body;
    let payload = form_urlencoded::parse(&form).find(|(name, _)| name == "bt_payload").unwrap().1;
    let braintree = hex::encode(Sha256::digest(&*payload));
    let expected = [
        ("stripe", "invoice.paid", "2026-05-06T12:20:00Z", "evt_1"),
        ("adyen", "AUTHORISATION", "2026-05-06T10:30:00Z", adyen),
        ("adyen-platform", transfer, "2026-05-06T10:00:00Z", &format!("{transfer}:1:3")),
        ("github", "issues.opened", "", "id-1"),
        ("shopify", "orders/create", "2026-05-06T12:00:00.123456Z", "id-1"),
        ("shopify-events", "orders/create", "2026-05-06T12:00:00.123456Z", "id-1"),
        ("standard-webhooks", "contact.created", "2026-05-06T12:00:00Z", "id-1"),
        ("svix", "contact.created", "2026-05-06T12:00:00Z", "id-1"),
        ("v1a", "contact.created", "2026-05-06T12:00:00Z", "id-1"),
        ("slack", "app_mention", "2026-05-06T12:20:00Z", "Ev1"),
        ("paypal", "PAYMENT.CAPTURE.COMPLETED", "2026-05-06T12:34:56.789000Z", "WH-TEST-1"),
        ("twilio", "CallStatus.completed", "", "id-1"),
        ("square", "payment.updated", "2026-05-06T12:00:00.123456Z", "sq-1"),
        ("paddle", "transaction.paid", "2026-05-06T12:00:00.123456Z", "evt_1"),
        ("razorpay", "payment.captured", "2026-05-06T12:20:00Z", "id-1"),
        ("braintree", "subscription_canceled", "2026-05-06T12:00:00Z", &braintree),
        ("mollie", "payment-link.paid", "2026-05-06T12:00:00Z", "event_1"),
        (
            "gocardless",
            "payments.confirmed,mandates.created",
            "2026-05-06T12:00:00.404000Z",
            "EV1,EV1b",
        ),
        ("klarna", "payment.session.completed", "2026-05-06T12:00:00Z", "1"),
    ];
    let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(expected.map(|row| row.0)[..], kinds, "a row for each of KINDS, in their order");
    for (name, event_type, created_at, id) in expected {
        let kind = Kind::of(name);
        let event = answer(&kind.delivery(1, 0), &intake, SIGNED_AT).1.unwrap().event;
        let time = event.created_at.map(|time| time.to_string()).unwrap_or_default();
        let got = (event.event_type.as_str(), time.as_str(), event.id().unwrap_or_default());
        assert_eq!(got, (event_type, created_at, id), "{name}");
        let logical = match event.id() {
            Some(id) => format!("event-id|{}|{id}", kind.source),
            None => format!("{}|{event_type}|{created_at}|{}", kind.source, event.digest),
        };
        assert_eq!(event.logical(), logical);
    }
}

/// Returns whether a vendor signs the byte at this place of a body. In Adyen's standard
/// notifications, only some bytes are signed.
fn is_signed(kind: &Kind, body: &str, at: usize) -> bool {
    let signed = ["1130", "EUR", "AUTHORISATION", "order-1", "\"Merchant\"", "\"11\""];
    let covers = |value: &&str| {
        body.match_indices(*value).any(|(start, _)| (start..start + value.len()).contains(&at))
    };
    kind.name != "adyen" || signed.iter().any(covers)
}

#[test]
fn flipping_any_signed_byte_is_refused() {
    let intake = intake();
    for kind in KINDS {
        let genuine = kind.delivery(1, 0);
        let refused = |changed: &Delivery, what: &str, at: usize| {
            let (status, _) = answer(changed, &intake, SIGNED_AT);
            assert_eq!(status, 401, "{} {what} {at}", kind.name);
        };
        let body = std::str::from_utf8(&genuine.body).unwrap();
        for at in (0..body.len()).filter(|at| is_signed(kind, body, *at)) {
            let mut bytes = genuine.body.to_vec();
            bytes[at] ^= 1;
            refused(&Delivery { body: bytes.into(), ..genuine.clone() }, "body", at);
        }
        let names = kind.signed_headers.iter().chain([&kind.signature]);
        for name in names.filter(|name| !name.is_empty()) {
            let name = HeaderName::from_static(name);
            let value = genuine.headers[&name].as_bytes();
            for at in 0..value.len() {
                let mut bytes = value.to_vec();
                bytes[at] ^= 1;
                // Bytes that are not a header's value never reach the router.
                let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut changed = genuine.clone();
                changed.headers.insert(name.clone(), value);
                // Another address may also be one of PayPal's certificates. Then the certificate
                // decides.
                let is_address = name == "paypal-cert-url" && at >= 46;
                if !is_address {
                    refused(&changed, name.as_str(), at);
                }
            }
            let mut without = genuine.clone();
            without.headers.remove(&name);
            refused(&without, "without", 0);
        }
        refused(&Delivery { body: Bytes::new(), ..genuine.clone() }, "empty", 0);
        let get = Delivery { method: Method::GET, ..genuine.clone() };
        assert_eq!(answer(&get, &intake, SIGNED_AT).0, 405, "{}", kind.name);
        let outside = if kind.stamped { 401 } else { 200 };
        for (at, status) in
            [(300, 200), (-300, 200), (301, outside), (-301, outside), (1_000_000, outside)]
        {
            assert_eq!(answer(&genuine, &intake, SIGNED_AT + at).0, status, "{} {at}", kind.name);
        }
    }
}

#[test]
fn a_delivery_that_another_secret_signed_is_refused() {
    let (intake, other) = (intake(), intake_with_other_secrets());
    for kind in KINDS {
        let delivery = kind.delivery(1, 0);
        let status = |intake| answer(&delivery, intake, SIGNED_AT).0;
        assert_eq!((status(&intake), status(&other)), (200, 401), "{}", kind.name);
    }
}

#[test]
fn headers_that_are_repeated_or_folded_or_huge_do_no_harm() {
    let intake = intake();
    for kind in KINDS.iter().filter(|kind| !kind.signature.is_empty()) {
        let genuine = kind.delivery(1, 0);
        let name = HeaderName::from_static(kind.signature);
        let value = genuine.headers[&name].to_str().unwrap();
        let status = |values: &[&str], name: &HeaderName| {
            let mut changed = genuine.clone();
            changed.headers.remove(name);
            for value in values {
                changed.headers.append(name, HeaderValue::try_from(*value).unwrap());
            }
            answer(&changed, &intake, SIGNED_AT).0
        };
        // Wrong signatures never make a right one, however many there are.
        let mut wrong = value.as_bytes().to_vec();
        let last = wrong.len() - 3;
        wrong[last] ^= 1;
        let wrong = String::from_utf8(wrong).unwrap();
        assert_eq!(status(&[&wrong, &wrong], &name), 401, "{}", kind.name);
        for separator in [",", ", ", ";", " "] {
            let folded = [wrong.as_str(), &wrong].join(separator);
            assert_eq!(status(&[&folded], &name), 401, "{}", kind.name);
        }
        for signed in kind.signed_headers {
            let signed = HeaderName::from_static(signed);
            let value = genuine.headers[&signed].to_str().unwrap();
            assert_eq!(status(&[value, value], &signed), 401, "{} {signed}", kind.name);
        }
        for filler in ["x", ",", "v1=00,", "v1,AAAA ", "v0=", "h1=00;", "sha256=00,"] {
            let huge = filler.repeat(1024 * 1024 / filler.len());
            assert_eq!(status(&[huge.trim()], &name), 401, "{} {filler}", kind.name);
        }
    }
    // After a rotation, Mollie sends two lines, which a Function URL joins into one.
    let mut delivery = Kind::of("mollie").delivery(1, 0);
    let genuine = delivery.headers["x-mollie-signature"].to_str().unwrap().to_owned();
    let other = format!("sha256={}", "0".repeat(64));
    for folded in [format!("{other},{genuine}"), format!("{genuine}, {other}")] {
        delivery.headers.insert("x-mollie-signature", folded.parse().unwrap());
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, 200);
    }
    delivery.headers.insert("x-mollie-signature", other.parse().unwrap());
    delivery.headers.append("x-mollie-signature", genuine.parse().unwrap());
    assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, 200);
}

#[test]
fn headers_of_the_other_family_cannot_rename_an_event() {
    let intake = intake();
    for (name, family, other) in
        [("svix", "svix", "webhook"), ("standard-webhooks", "webhook", "svix")]
    {
        let genuine = Kind::of(name).delivery(1, 0);
        let key = answer(&genuine, &intake, SIGNED_AT).1.unwrap().key;
        let mut doubled = genuine.clone();
        for header in ["id", "timestamp", "signature"] {
            let other = HeaderName::try_from(format!("{other}-{header}")).unwrap();
            let mut changed = genuine.clone();
            changed.headers.insert(other.clone(), HeaderValue::from_static("fresh"));
            assert_eq!(answer(&changed, &intake, SIGNED_AT).0, 401, "{name} {other}");
            let value = genuine.headers[format!("{family}-{header}")].clone();
            doubled.headers.insert(other, value);
        }
        // A sender may use both families for the same values.
        assert_eq!(answer(&doubled, &intake, SIGNED_AT).1.unwrap().key, key, "{name}");
    }
}

#[test]
fn what_braintree_does_not_sign_makes_no_other_event() {
    let intake = intake();
    let genuine = Kind::of("braintree").delivery(1, 0);
    let key = |body: String| {
        answer(&Delivery { body: body.into(), ..genuine.clone() }, &intake, SIGNED_AT)
            .1
            .unwrap()
            .key
    };
    let form = std::str::from_utf8(&genuine.body).unwrap();
    let fields: Vec<_> = form.split('&').collect();
    let reordered = fields.iter().rev().copied().collect::<Vec<_>>().join("&");
    let encoded = form.replacen("bt_payload", "%62t_payload", 1);
    for changed in [format!("{form}&x=1"), reordered, encoded] {
        assert_eq!(key(changed.clone()), key(form.to_owned()), "{changed}");
    }
}

#[test]
fn an_adyen_item_counts_once_in_a_batch_and_keeps_its_fields() {
    let intake = intake();
    let genuine = Kind::of("adyen").delivery(1, 0);
    let body: serde_json::Value = serde_json::from_slice(&genuine.body).unwrap();
    let status = |body: &serde_json::Value| {
        let body = body.to_string().into();
        answer(&Delivery { body, ..genuine.clone() }, &intake, SIGNED_AT).0
    };
    assert_eq!(status(&body), 200);
    let mut repeated = body.clone();
    let items = repeated["notificationItems"].as_array_mut().unwrap();
    items.push(items[0].clone());
    assert_eq!(status(&repeated), 401);
    // Colons in several fields would let text move from one field to the next.
    let signature = adyen("13::Merchant:order:1:1130:EUR:AUTHORISATION:true");
    let item = |original: &str, account: &str, reference: &str| {
        serde_json::json!({ "notificationItems": [{ "NotificationRequestItem": {
            "additionalData": { "hmacSignature": signature },
            "pspReference": "13", "originalReference": original,
            "merchantAccountCode": account, "merchantReference": reference,
            "amount": { "value": 1130, "currency": "EUR" },
            "eventCode": "AUTHORISATION", "success": "true",
        } }] })
    };
    assert_eq!(status(&item("", "Merchant", "order:1")), 200);
    assert_eq!(status(&item(":Merchant", "order", "1")), 401);
}

#[test]
fn sixteen_signatures_of_the_version_that_counts_are_looked_at_and_no_more() {
    let intake = intake();
    let genuine = Kind::of("stripe").delivery(1, 0);
    let header = genuine.headers["stripe-signature"].to_str().unwrap();
    let (time, signature) = header.split_once(',').unwrap();
    let wrong = format!("v1={}", "0".repeat(64));
    for (entry, count, status) in [
        (wrong.as_str(), 15, 200),
        (&wrong, 16, 401),
        ("v1=malformed", 15, 200),
        ("v1=malformed", 16, 401),
        ("v0=00", 1000, 200),
        ("nonsense", 1000, 200),
    ] {
        let header = format!("{time},{}{signature}", format!("{entry},").repeat(count));
        let mut delivery = genuine.clone();
        delivery.headers.insert("stripe-signature", header.parse().unwrap());
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, status, "{count} {entry}");
    }
    let mut delivery = Kind::of("v1a").delivery(1, 0);
    let genuine = delivery.headers["webhook-signature"].to_str().unwrap().to_owned();
    let other = format!("v1a,{}== ", "A".repeat(86));
    for (header, status) in [
        (format!("{other}{genuine}"), 200),
        (format!("{genuine} v2,x nonsense"), 200),
        (format!("{}{genuine}", other.repeat(16)), 401),
    ] {
        delivery.headers.insert("webhook-signature", header.parse().unwrap());
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, status);
    }
}

#[test]
fn unsigned_and_forged_requests_cost_no_more_than_verified_ones() {
    let intake = intake();
    let (mut all_unsigned, mut all_verified) = (Duration::ZERO, Duration::ZERO);
    for kind in KINDS {
        let genuine = kind.delivery(1, 0);
        let mut unsigned = genuine.clone();
        unsigned.headers.clear();
        if kind.signature.is_empty() {
            // The signature is in the body.
            let body = String::from_utf8(genuine.body.to_vec()).unwrap();
            let body = body.replace("hmacSignature", "no").replace("bt_signature", "no");
            unsigned.body = body.into();
        }
        let forged = kind.forged(SIGNED_AT);
        for (delivery, status) in [(&unsigned, 401), (&forged, 401), (&genuine, 200)] {
            assert_eq!(answer(delivery, &intake, SIGNED_AT).0, status, "{}", kind.name);
        }
        let [unsigned, forged, verified] = shortest_times([&unsigned, &forged, &genuine], &intake);
        // Where verifying takes nearly all of the time, a forged request takes as long as a genuine
        // one. Half as much again allows for a busy machine.
        let limit = verified.mul_f64(1.5);
        assert!(unsigned < limit, "{}: {unsigned:?}, {verified:?}", kind.name);
        assert!(forged < limit, "{}: {forged:?}, {verified:?}", kind.name);
        all_unsigned += unsigned;
        all_verified += verified;
    }
    // A flood of requests of every kind costs less without signatures.
    assert!(all_unsigned < all_verified, "{all_unsigned:?}, {all_verified:?}");
}

/// Returns the shortest time that planning each of these deliveries takes. The deliveries take
/// turns, so that a slower processor slows all of them. Other load lengthens some runs, so the
/// shortest of a hundred counts.
fn shortest_times<const N: usize>(deliveries: [&Delivery; N], intake: &Intake) -> [Duration; N] {
    let mut shortest = [Duration::MAX; N];
    for _ in 0..100 {
        for (delivery, shortest) in deliveries.into_iter().zip(&mut shortest) {
            let started = Instant::now();
            let _ = black_box(plan(black_box(delivery), intake, None, now(SIGNED_AT)));
            *shortest = started.elapsed().min(*shortest);
        }
    }
    shortest
}

#[test]
fn paypals_certificate_must_be_paypals_and_valid_when_paypal_signed() {
    let mut intake = intake();
    let paypal = Kind::of("paypal");
    // A delivery that was signed before the certificate's end is still genuine after it.
    assert_eq!(answer(&paypal.delivery(1, 0), &intake, SIGNED_AT * 2).0, 200);
    assert_eq!(answer(&paypal.delivery(1, 2), &intake, SIGNED_AT).0, 401);
    let mut elsewhere = paypal.delivery(1, 0);
    let address = "https://evil.example/v1/notifications/certs/CERT-1".parse().unwrap();
    elsewhere.headers.insert("paypal-cert-url", address);
    assert_eq!(answer(&elsewhere, &intake, SIGNED_AT).0, 401);
    let another = Certificate::from_pem(PAYPAL.certificate_of_another.as_bytes()).unwrap();
    intake.paypal_certificate = Some(Arc::new(Fetched::Certificate(another)));
    assert_eq!(answer(&paypal.delivery(1, 0), &intake, SIGNED_AT).0, 401);
    assert!(Certificate::from_pem(b"no certificate").is_err());
}

#[test]
fn a_time_is_read_by_its_unit_and_absent_when_it_cannot_be_read() {
    let intake = intake();
    for (name, body, expected) in [
        ("square", r#"{"created_at":"2018-19-12T22:20:32.000Z"}"#, None),
        ("square", r#"{"created_at":{}}"#, None),
        ("stripe", r#"{"created":"2026-05-06T12:00:00.5Z"}"#, Some("2026-05-06T12:00:00.500000Z")),
        ("stripe", r#"{"created":1778070000.25}"#, Some("2026-05-06T12:20:00.250000Z")),
        ("stripe", r#"{"created":1e300}"#, None),
        ("stripe", r#"{"created":99999999999999999999}"#, None),
        ("stripe", r#"{"created":true}"#, None),
    ] {
        let source = intake.sources.get(name).unwrap();
        let delivery = Delivery { body: body.into(), ..Kind::of(name).delivery(1, 0) };
        let read = source.vendor.happened(&delivery, &Body::new(body.as_bytes()));
        let time = read[0].created_at.map(|time| time.to_string());
        assert_eq!(time.as_deref(), expected, "{body}");
    }
}

#[test]
fn braintrees_challenge_is_answered_narrowly() {
    let intake = intake();
    let challenge = "20f9f8ed05f77439fe955c977e4c8a53";
    let mut delivery = Delivery {
        method: Method::GET,
        path: "/webhook/braintree".into(),
        query: Some(format!("bt_challenge={challenge}")),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let Ok(Planned::Handshake(reply)) = plan(&delivery, &intake, None, now(SIGNED_AT)) else {
        panic!("no handshake");
    };
    let signature = std::str::from_utf8(&reply.body).unwrap().strip_prefix("public|").unwrap();
    assert_eq!(signature.len(), 40);
    for query in [
        "bt_challenge=20f9f8ed05f77439fe9",
        "bt_challenge=20f9f8ed05f77439fe955c977e4c8a530",
        "bt_challenge=20F9F8ED05F77439FE955C977E4C8A53",
        "bt_challenge=PG5vdGlmaWNhdGlvbj48",
        "bt_challenge=",
        "x=20f9f8ed05f77439fe955c977e4c8a53",
    ] {
        delivery.query = Some(query.into());
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, 405, "{query}");
    }
    // The answer to the challenge is not a signature of an event.
    let body = format!("bt_signature=public%7C{signature}&bt_payload={challenge}").into();
    let forged = Delivery { method: Method::POST, query: None, body, ..delivery };
    assert_eq!(answer(&forged, &intake, SIGNED_AT).0, 401);
}
