//! Checks that a single vendor needs: Plaid's token, the topics of Amazon SNS, addresses that are
//! signed beside the body.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    plan::needs,
    secret::Secret,
    source::{CannotSign, Fetch, Signing},
};

use crate::{
    signed_deliveries::{Kind, SIGNED_AT, adyen, answer, intake, now, sha256},
    support::lookup,
    vendors::{Vector, vector},
};

/// Checks that a delivery is refused before anything is fetched for it.
fn nothing_is_fetched(vector: &Vector, delivery: &Delivery, intake: &Intake, at: i64) {
    let refusal = needs(delivery, intake, now(at)).unwrap_err();
    assert_eq!(refusal.reply().status, 401);
    assert_eq!(vector.check(delivery, intake, at).err(), Some(401));
}

#[test]
fn plaids_tokens_with_another_algorithm_are_refused() {
    let vector = vector("plaid");
    let intake = vector.intake(&vector.secret);
    let genuine = vector.delivery(&vector.first);
    let token = genuine.headers["plaid-verification"].to_str().unwrap().to_owned();
    let (_, rest) = token.split_once('.').unwrap();
    for header in [
        r#"{"alg":"none","kid":"key-1","typ":"JWT"}"#,
        r#"{"alg":"HS256","kid":"key-1","typ":"JWT"}"#,
        r#"{"alg":"RS256","kid":"key-1","typ":"JWT"}"#,
        r#"{"alg":"ES256","kid":"../key","typ":"JWT"}"#,
        r#"{"alg":"ES256","typ":"JWT"}"#,
        "[]",
    ] {
        let mut changed = genuine.clone();
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        changed.headers.insert("plaid-verification", format!("{header}.{rest}").parse().unwrap());
        nothing_is_fetched(vector, &changed, &intake, vector.first.now);
    }
    let at = now(vector.first.now);
    let Some(Fetch::Key { first, others }) = needs(&genuine, &intake, at).unwrap() else {
        panic!("no key is asked for");
    };
    assert_eq!(first.address.host_str(), Some("production.plaid.com"));
    assert!(others.is_empty());
}

#[test]
fn each_of_a_few_secrets_asks_for_plaids_key() {
    let vector = vector("plaid");
    let secrets: Vec<_> = (0..6).map(|number| format!("sandbox:client:fake{number}")).collect();
    let secrets = format!("{},{}", vector.secret, secrets.join(","));
    let vars = [("ROUTING_SECRET", "test-routing-secret"), ("PLAID_SECRETS", secrets.as_str())];
    let intake = Intake::from_vars(lookup(&vars)).unwrap();
    let genuine = vector.delivery(&vector.first);
    let fetch = needs(&genuine, &intake, now(vector.first.now)).unwrap();
    let Some(Fetch::Key { first, others }) = fetch else { panic!("no key is asked for") };
    assert_eq!(first.address.host_str(), Some("production.plaid.com"));
    assert_eq!(others.len(), 3);
    for (number, other) in others.iter().enumerate() {
        assert_eq!(other.address.host_str(), Some("sandbox.plaid.com"));
        assert!(other.json.expose().contains(&format!("fake{number}")));
    }
}

#[test]
fn plaids_key_is_not_fetched_for_a_stale_token_or_another_body() {
    let vector = vector("plaid");
    let intake = vector.intake(&vector.secret);
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    assert!(needs(&genuine, &intake, now(at + 300)).is_ok());
    for stale in [at + 301, at - 301] {
        nothing_is_fetched(vector, &genuine, &intake, stale);
    }
    let changed = Delivery { body: "{}".into(), ..genuine };
    nothing_is_fetched(vector, &changed, &intake, at);
}

#[test]
fn two_webhooks_of_plaids_with_one_body_are_two_events() {
    let vector = vector("plaid");
    let intake = vector.intake(&vector.secret);
    let plan = |signed| vector.check(&vector.delivery(signed), &intake, vector.first.now).unwrap();
    let (first, other) = (plan(&vector.first), plan(&vector.other));
    assert_eq!(first.event.digest, other.event.digest);
    assert_ne!(first.key, other.key);
    // The same delivery, sent again by somebody else, is the same event.
    assert_eq!(first.key, plan(&vector.first).key);
}

#[test]
fn a_topic_that_is_not_listed_is_refused_before_anything_is_fetched() {
    let vector = vector("aws-sns/2");
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    nothing_is_fetched(vector, &genuine, &vector.intake(&vector.another), at);
    let intake = vector.intake(&vector.secret);
    let body = std::str::from_utf8(&genuine.body).unwrap();
    for (part, other) in [
        ("sns.us-west-2.amazonaws.com", "sns.us-west-2.amazonaws.example"),
        ("https:", "http:"),
        ("\"SignatureVersion\":\"", "\"SignatureVersion\":\"3"),
        ("Notification", "Other"),
        ("\"Signature\"", "\"Signatures\""),
    ] {
        let body = body.replacen(part, other, 1).into();
        nothing_is_fetched(vector, &Delivery { body, ..genuine.clone() }, &intake, at);
    }
}

#[test]
fn a_message_with_a_repeated_name_is_refused() {
    let vector = vector("aws-sns/2");
    let intake = vector.intake(&vector.secret);
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    let body = std::str::from_utf8(&genuine.body).unwrap();
    // The last one counts, and is signed. A destination may read the first one.
    for first in [r#""Message":"forged""#, r#""Mess\u0061ge":"forged""#, r#""Timestamp":5"#] {
        let body = body.replacen('{', &format!("{{{first},"), 1).into();
        nothing_is_fetched(vector, &Delivery { body, ..genuine.clone() }, &intake, at);
    }
}

#[test]
fn a_subject_that_is_not_a_text_is_refused() {
    let vector = vector("aws-sns/1");
    let intake = vector.intake(&vector.secret);
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    let body = std::str::from_utf8(&genuine.body).unwrap();
    assert!(!body.contains("Subject") && vector.check(&genuine, &intake, at).is_ok());
    for subject in ["null", "5", "true", "[]", r#"{"a":"b"}"#, r#"["parcels"]"#] {
        let body = body.replacen('{', &format!(r#"{{"Subject":{subject},"#), 1).into();
        nothing_is_fetched(vector, &Delivery { body, ..genuine.clone() }, &intake, at);
    }
    // A subject that is a text is signed.
    let body = body.replacen('{', r#"{"Subject":"parcels","#, 1).into();
    let changed = Delivery { body, ..genuine };
    assert_eq!(vector.check(&changed, &intake, at).err(), Some(401));
}

// The same signature would otherwise cover a message with another id.
#[test]
fn a_line_break_outside_the_message_of_sns_is_refused() {
    let vector = vector("aws-sns/1");
    let intake = vector.intake(&vector.secret);
    let (genuine, at) = (vector.delivery(&vector.first), vector.first.now);
    for name in ["Subject", "MessageId", "Timestamp"] {
        let mut message: Value = serde_json::from_slice(&genuine.body).unwrap();
        message[name] = "a\nMessageId\nb".into();
        let body = message.to_string().into();
        nothing_is_fetched(vector, &Delivery { body, ..genuine.clone() }, &intake, at);
    }
}

#[test]
fn text_that_moves_between_the_address_and_the_body_is_refused() {
    let refused = |delivery: &Delivery, intake: &Intake, at: i64| {
        assert_eq!(answer(delivery, intake, at).0, 200);
        let (body, query) = (delivery.body.clone(), delivery.query.clone().unwrap());
        for length in 1..body.len() {
            let start = std::str::from_utf8(&body[..length]).unwrap();
            let changed = Delivery {
                query: Some(format!("{query}{start}")),
                body: body.slice(length..),
                ..delivery.clone()
            };
            assert_eq!(answer(&changed, intake, at).0, 401, "{} {start}", delivery.path);
        }
        for length in 1..query.len() {
            let (start, end) = query.split_at(length);
            let changed = Delivery {
                query: Some(start.into()),
                body: [end.as_bytes(), &body].concat().into(),
                ..delivery.clone()
            };
            assert_eq!(answer(&changed, intake, at).0, 401, "{} {end}", delivery.path);
        }
    };
    let vector = vector("hubspot");
    refused(&vector.delivery(&vector.first), &vector.intake(&vector.secret), vector.first.now);
    // Square calls an address with a query.
    let intake = intake();
    let square = Kind::of("square").delivery(1, 0);
    let source = intake.sources.get("square").unwrap();
    let unsigned =
        Delivery { headers: HeaderMap::new(), query: Some("to=1".into()), ..square.clone() };
    let signing = Signing { secret: &source.secrets[0], key: None, url: None, now: now(SIGNED_AT) };
    refused(&source.sign(&unsigned, &signing).unwrap(), &intake, SIGNED_AT);
}

#[test]
fn the_time_of_airwallex_has_thirteen_digits_and_its_body_is_json() {
    let vector = vector("airwallex");
    let intake = vector.intake(&vector.secret);
    let genuine = vector.delivery(&vector.first);
    let signed = |time: &str, body: &'static str| {
        let signature = hex::encode(sha256(&vector.secret, &format!("{time}{body}")));
        let mut delivery =
            Delivery { body: Bytes::from_static(body.as_bytes()), ..genuine.clone() };
        delivery.headers.insert("x-timestamp", HeaderValue::try_from(time).unwrap());
        delivery.headers.insert("x-signature", signature.parse().unwrap());
        vector.check(&delivery, &intake, vector.first.now).map_or_else(|status| status, |_| 200)
    };
    for (time, body, expected) in [
        ("1778070900000", r#"{"id":"1"}"#, 200),
        ("177807090000", r#"{"id":"1"}"#, 401),
        ("17780709000000", r#"{"id":"1"}"#, 401),
        ("+778070900000", r#"{"id":"1"}"#, 401),
        ("2026-05-06T12:35:00", r#"{"id":"1"}"#, 401),
        ("1778070900000", r#"0{"id":"1"}"#, 401),
        ("1778070900000", "5", 401),
        ("1778070900000", "text", 401),
    ] {
        assert_eq!(signed(time, body), expected, "{time} {body}");
    }
}

#[test]
fn a_signed_time_without_a_zone_is_orbs_alone() {
    let vector = vector("zendesk");
    let intake = vector.intake(&vector.secret);
    let name = "x-zendesk-webhook-signature-timestamp";
    let status = |time: &str| {
        let mut delivery = vector.delivery(&vector.first);
        let body = std::str::from_utf8(&delivery.body).unwrap();
        let signature = BASE64_STANDARD.encode(sha256(&vector.secret, &format!("{time}{body}")));
        delivery.headers.insert(name, HeaderValue::try_from(time).unwrap());
        delivery.headers.insert("x-zendesk-webhook-signature", signature.parse().unwrap());
        vector.check(&delivery, &intake, vector.first.now).map_or_else(|status| status, |_| 200)
    };
    assert_eq!(status("2026-05-06T12:35:00Z"), 200);
    assert_eq!(status("2026-05-06T12:35:00"), 401);
}

#[test]
fn a_body_that_would_be_refused_is_not_signed() {
    for id in ["airwallex", "hubspot", "trello"] {
        let vector = vector(id);
        let intake = vector.intake(&vector.secret);
        let source = intake.sources.get(id).unwrap();
        let at = now(vector.first.now);
        let signing = Signing { secret: &source.secrets[0], key: None, url: None, now: at };
        for body in ["no", "5", r#""{}""#, "{}{}"] {
            let unsigned = Delivery {
                body: body.into(),
                headers: HeaderMap::new(),
                ..vector.delivery(&vector.first)
            };
            let expected = CannotSign::Body("must be a JSON object or array".into());
            assert_eq!(source.sign(&unsigned, &signing).err(), Some(expected), "{id} {body}");
        }
    }
}

#[test]
fn a_repeated_name_on_the_way_to_a_signed_field_of_adyen_is_refused() {
    let (intake, genuine) = (intake(), Kind::of("adyen").delivery(1, 0));
    let body = serde_json::from_slice::<Value>(&genuine.body).unwrap().to_string();
    let is_taken = |body: String| {
        let delivery = Delivery { body: body.into(), ..genuine.clone() };
        answer(&delivery, &intake, SIGNED_AT).0 == 200
    };
    assert!(is_taken(body.clone()));
    // The last one counts, and is signed. A destination may read the first one.
    for (place, first) in [
        ("{", r#""notificationItems":[{}],"#),
        (r#"{"NotificationRequestItem""#, r#""NotificationRequestItem":{},"#),
        (r#""NotificationRequestItem":{"#, r#""amount":{},"#),
        (r#""amount":{"#, r#""value":1,"#),
    ] {
        let (before, after) = body.split_once(place).unwrap_or_else(|| panic!("{place}: {body}"));
        let (brace, rest) = place.split_at(if place.ends_with('{') { place.len() } else { 1 });
        assert!(!is_taken(format!("{before}{brace}{first}{rest}{after}")), "{first}");
    }
}

#[test]
fn the_signed_text_of_an_adyen_item_is_no_delivery() {
    let (intake, genuine) = (intake(), Kind::of("adyen-platform").delivery(1, 0));
    for (body, is_taken) in [
        (std::str::from_utf8(&genuine.body).unwrap(), true),
        ("7914073381342284::Merchant:order-1:1130:EUR:AUTHORISATION:true", false),
    ] {
        let mut delivery = Delivery { body: body.to_owned().into(), ..genuine.clone() };
        delivery.headers.insert("hmacsignature", adyen(body).parse().unwrap());
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0 == 200, is_taken, "{body}");
    }
}

#[test]
fn while_a_sender_replaces_its_ed25519_key_large_bodies_are_taken_by_either() {
    let intake = intake();
    let source = intake.sources.get("standard-webhooks").unwrap();
    let signed_by = |seed: u8, size: usize| {
        let unsigned = Delivery {
            method: Method::POST,
            path: source.path(),
            query: None,
            headers: HeaderMap::new(),
            body: format!(r#"{{"type":"{}"}}"#, "x".repeat(size)).into(),
        };
        let secret = Secret::new(format!("whsk_{}", BASE64_STANDARD.encode([seed; 32])));
        let signing = Signing { secret: &secret, key: None, url: None, now: now(SIGNED_AT) };
        source.sign(&unsigned, &signing).unwrap()
    };
    for size in [10, 20_000] {
        let mut delivery = signed_by(7, size);
        let entry = |delivery: &Delivery| {
            delivery.headers["webhook-signature"].to_str().unwrap().to_owned()
        };
        let (known, other) = (entry(&delivery), entry(&signed_by(8, size)));
        for entries in [format!("{known} {other}"), format!("{other} {known}")] {
            delivery.headers.insert("webhook-signature", entries.parse().unwrap());
            assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, 200, "{size}");
        }
        // More signatures cost a large body no more hashes.
        let many = format!("{other} {other} {known}");
        delivery.headers.insert("webhook-signature", many.parse().unwrap());
        let status = if size == 10 { 200 } else { 401 };
        assert_eq!(answer(&delivery, &intake, SIGNED_AT).0, status, "{size}");
    }
}

#[test]
fn deliveries_of_adyen_that_would_be_refused_are_not_signed() {
    let intake = intake();
    let source = intake.sources.get("adyen").unwrap();
    let item = r#"{"NotificationRequestItem":{"pspReference":"1","eventCode":"REFUND"}}"#;
    let colon = item.replace("REFUND", "RE:FUND");
    let reference = item.replace("eventCode", "merchantReference\":\"a:b\",\"eventCode");
    let list = |items: &str| format!(r#"{{"notificationItems":[{items}]}}"#);
    for (body, is_signed) in [
        (list(item), true),
        (list(&reference), true),
        // Found by fuzzing.
        (list(&colon), false),
        (list(&format!("{item},{item}")), false),
        (list(""), false),
        (r#"{"type":"a"}"#.to_owned(), true),
        ("1::Merchant:order-1:1130:EUR:REFUND:true".to_owned(), false),
    ] {
        let unsigned = Delivery {
            method: Method::POST,
            path: "/webhook/adyen".into(),
            query: None,
            headers: HeaderMap::new(),
            body: body.clone().into(),
        };
        let secret = &source.secrets[0];
        let signing = Signing { secret, key: None, url: None, now: now(SIGNED_AT) };
        assert_eq!(source.sign(&unsigned, &signing).is_ok(), is_signed, "{body}");
    }
}
