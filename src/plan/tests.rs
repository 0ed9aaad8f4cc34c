//! Tests of `plan`: the plan of a delivery, or the reason for its refusal.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;
use crate::{
    key::{RoutingSecret, hmac_sha256},
    source::Certificate,
    testing::{delivery, lookup},
};

const BODY: &str = r#"{"vendor":"Stripe","event_type":"paid","created_at":"2026-05-06T12:34:56Z"}"#;
const ENVELOPE_KEY: &[u8] = b"test-only-sixteen-and-more";
const GITHUB: &str = "[sources.git]\nvendor = \"github\"\nsecrets = [\"plainly\"]\n";

fn intake(vars: &[(&str, &str)]) -> Intake {
    let common = [("ROUTING_SECRET", "of-the-tests"), ("ALLOW_UNSIGNED", "true")];
    Intake::from_vars(lookup(&[&common, vars].concat())).unwrap()
}

fn envelope() -> Delivery {
    delivery("/webhook", &[], BODY)
}

/// Creates GitHub's signed delivery to the source `git`.
fn github(event: &str, id: &str, body: &str) -> Delivery {
    let signature = hex::encode(hmac_sha256(b"plainly", &[body.as_bytes()]));
    let signature = format!("sha256={signature}");
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", event),
        ("x-github-delivery", id),
    ];
    delivery("/webhook/git", &headers, body)
}

fn planned(delivery: &Delivery, intake: &Intake) -> Result<Planned, Error> {
    plan(delivery, intake, None, Utc::now())
}

fn plan_of(delivery: &Delivery, intake: &Intake) -> Plan {
    planned(delivery, intake).unwrap().plan().unwrap()
}

fn status(delivery: &Delivery, intake: &Intake) -> u16 {
    planned(delivery, intake).map_or_else(|error| error.reply().status.as_u16(), |_| 200)
}

#[test]
fn the_route_byte_is_held_against_the_threshold() {
    let logical = plan_of(&envelope(), &intake(&[])).event.logical();
    let byte = u16::from(RouteBytes::derive(&RoutingSecret::new("of-the-tests"), &logical).route);
    for (threshold, route) in
        [(byte, Route::AWS), (byte + 1, Route::GCP), (0, Route::AWS), (256, Route::GCP)]
    {
        let intake = intake(&[("ROUTE_THRESHOLD", &threshold.to_string())]);
        assert_eq!(plan_of(&envelope(), &intake).route, route, "{byte}, {threshold}");
    }
}

#[test]
fn a_source_s_own_threshold_and_destination_come_first() {
    for (own, everywhere, route) in [
        ("threshold = 0", "256", Route::AWS),
        ("threshold = 256", "0", Route::GCP),
        ("destination = \"aws\"", "256", Route::AWS),
        ("destination = \"gcp\"", "0", Route::GCP),
        ("", "0", Route::AWS),
    ] {
        let sources = format!("{GITHUB}{own}");
        let intake = intake(&[("SOURCES", &sources), ("ROUTE_THRESHOLD", everywhere)]);
        assert_eq!(plan_of(&github("push", "1", "{}"), &intake).route, route, "{own}");
    }
}

#[test]
fn a_source_s_event_is_known_by_its_id_or_by_its_content() {
    let by_id = intake(&[("SOURCES", GITHUB)]);
    let event = plan_of(&github("push", "7", "{}"), &by_id).event;
    assert_eq!((event.logical(), event.id()), ("event-id|git|7".into(), Some("7")));
    assert_eq!((event.vendor.as_str(), event.source.as_deref()), ("github", Some("git")));
    let without = plan_of(&github("push", "", "{}"), &by_id).event;
    assert_eq!(without.identity, Identity::Content);

    let sources = format!("{GITHUB}key = \"content\"\nignore = [\"/n\"]");
    let by_content = intake(&[("SOURCES", &sources)]);
    let key = |id, body| plan_of(&github("push", id, body), &by_content).key;
    assert_eq!(key("1", r#"{"n":1}"#), key("2", r#"{"n":2}"#));
    assert_ne!(key("1", r#"{"m":1}"#), key("1", r#"{"m":2}"#));
}

#[test]
fn rules_leave_events_out_once_they_are_verified() {
    let intake = intake(&[("SOURCES", &format!("{GITHUB}only = [\"issues.*\"]"))]);
    let body = r#"{"action":"opened"}"#;
    assert!(planned(&github("issues", "1", body), &intake).unwrap().plan().is_some());
    match planned(&github("push", "1", body), &intake).unwrap() {
        Planned::Filtered { event, reply } => {
            assert_eq!((reply.status, &*reply.body), (StatusCode::OK, &b"filtered"[..]));
            assert_eq!(event.event_type, "push.opened");
        }
        other => panic!("{other:?}"),
    }
    let forged = Delivery { body: "{}".into(), ..github("push", "1", body) };
    assert_eq!(status(&forged, &intake), 401);
}

#[test]
fn a_batch_is_one_event_of_all_its_ids_and_types() {
    let sources = "[sources.pay]\nvendor = \"gocardless\"\nsecrets = [\"plainly\"]";
    let intake = intake(&[("SOURCES", sources)]);
    let one = |id: &str, action: &str| {
        format!(r#"{{"id":"{id}","resource_type":"payments","action":"{action}"}}"#)
    };
    let batch = [one("1", "paid"), one("2", "paid"), one("3", "failed")].join(",");
    let body = format!(r#"{{"events":[{batch}]}}"#);
    let signature = hex::encode(hmac_sha256(b"plainly", &[body.as_bytes()]));
    let sent = delivery("/webhook/pay", &[("webhook-signature", &signature)], &body);
    let event = plan_of(&sent, &intake).event;
    assert_eq!(event.logical(), "event-id|pay|1,2,3");
    assert_eq!(event.event_type, "payments.paid,payments.failed");
}

#[test]
fn a_head_is_refused_before_its_body_comes() {
    let vars = [("SOURCES", GITHUB), ("MAX_BODY_BYTES", "100")];
    let open = intake(&vars);
    let refused = |delivery: &Delivery, length: u64| {
        admit(delivery, length, &open).err().map(|error| error.reply().status.as_u16())
    };
    assert_eq!(refused(&envelope(), 100), None);
    assert_eq!(refused(&envelope(), 101), Some(413));
    let get = Delivery { method: Method::GET, ..envelope() };
    assert_eq!(refused(&get, 0), Some(405));
    assert_eq!(refused(&delivery("/webhook/git", &[], ""), 0), Some(401));
    assert_eq!(refused(&github("push", "1", ""), 0), None);
    assert_eq!(refused(&delivery("/webhook/nobody", &[], ""), 0), Some(404));
    assert_eq!(refused(&delivery("/webhook/stripe", &[], ""), 0), Some(404));
    assert_eq!(refused(&delivery("/", &[], ""), 0), Some(404));

    let closed = intake(&[("ALLOW_UNSIGNED", "")]);
    assert!(matches!(admit(&envelope(), 0, &closed), Err(Error::NotServed { .. })));
    let local = Intake { unsigned: Unsigned::FromThisMachine, ..closed };
    assert!(admit(&delivery("/webhook", &[("host", "localhost")], ""), 0, &local).is_ok());
    let elsewhere = delivery("/webhook", &[("host", "evil.example")], "");
    assert!(matches!(admit(&elsewhere, 0, &local), Err(Error::NotFromHere(_))));
}

/// Creates a signed envelope with additional headers.
fn signed<'a>(id: &'a str, more: &[(&'static str, &'a str)]) -> Delivery {
    let time = Utc::now().timestamp().to_string();
    let message = format!("{id}.{time}.{BODY}");
    let signature = hmac_sha256(ENVELOPE_KEY, &[message.as_bytes()]);
    let signature = format!("v1,{}", BASE64_STANDARD.encode(signature));
    let own = [
        ("webhook-id", id),
        ("webhook-timestamp", time.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    delivery("/webhook", &[&own, more].concat(), BODY)
}

#[test]
fn a_trusted_header_names_an_envelope_but_only_webhook_id_names_a_signed_one() {
    let trusting = intake(&[("TRUST_IDEMPOTENCY_HEADER", "true")]);
    let named = |intake: &Intake, headers: &[(&'static str, &str)]| {
        plan_of(&delivery("/webhook", headers, BODY), intake).event.identity
    };
    let order = || Identity::Header("7".into());
    assert_eq!(named(&trusting, &[("idempotency-key", "7")]), order());
    let both = [("idempotency-key", ""), ("x-idempotency-key", "7")];
    assert_eq!(named(&trusting, &both), order());
    assert_eq!(named(&trusting, &[]), Identity::Content);
    assert_eq!(named(&intake(&[]), &[("idempotency-key", "7")]), Identity::Content);

    let secret = format!("whsec_{}", BASE64_STANDARD.encode(ENVELOPE_KEY));
    let secret = ("ENVELOPE_SECRETS", secret.as_str());
    let signing = intake(&[secret, ("TRUST_IDEMPOTENCY_HEADER", "true")]);
    assert_eq!(plan_of(&signed("7", &[]), &signing).event.identity, order());
    let same = signed("7", &[("idempotency-key", "7")]);
    assert_eq!(plan_of(&same, &signing).event.identity, order());
    let other = signed("7", &[("x-idempotency-key", "8")]);
    assert!(matches!(planned(&other, &signing), Err(Error::OtherName)));
    let untrusting = plan_of(&signed("7", &[]), &intake(&[secret]));
    assert_eq!(untrusting.event.identity, Identity::Content);

    let missing = planned(&envelope(), &signing);
    assert!(matches!(missing, Err(Error::Signature(SignatureFault::Missing))));
    let forged = Delivery { body: "{}".into(), ..signed("7", &[]) };
    assert_eq!(status(&forged, &signing), 401);
}

#[test]
fn the_key_before_a_rotation_is_derived_as_well() {
    let old = plan_of(&envelope(), &intake(&[]));
    assert_eq!(old.previous_key, None);
    let rotated = [("ROUTING_SECRET", "anew"), ("ROUTING_SECRET_PREVIOUS", "of-the-tests")];
    let new = plan_of(&envelope(), &intake(&rotated));
    assert_eq!(new.previous_key, Some(old.key));
    assert_ne!(new.key, old.key);
}

#[test]
fn a_plan_knows_what_its_vendor_wants() {
    let day = Duration::from_secs(24 * 3600);
    let of_envelope = plan_of(&envelope(), &intake(&[]));
    // An envelope may name a built-in vendor, in any case.
    assert_eq!(of_envelope.retry_horizon(), 3 * day);
    let body = BODY.replace("Stripe", "acme");
    let unknown = plan_of(&delivery("/webhook", &[], &body), &intake(&[]));
    assert_eq!(unknown.retry_horizon(), Duration::ZERO);
    assert_eq!((unknown.signature_headers(), unknown.secret_headers()), (vec![], vec![]));
    assert_eq!((unknown.wish(), unknown.source_name()), (Wish::default(), None));

    let of_source = plan_of(&github("push", "1", "{}"), &intake(&[("SOURCES", GITHUB)]));
    let source = of_source.source.clone().unwrap();
    assert_eq!(of_source.source_name(), Some("git"));
    assert_eq!(of_source.retry_horizon(), source.vendor.description().retry_horizon);
    let has = |headers: Vec<HeaderName>, name: &str| headers.iter().any(|one| one == name);
    assert!(has(of_source.signature_headers(), "x-hub-signature-256"));
    assert!(has(of_source.secret_headers(), "authorization"));

    let slack = "[sources.git]\nvendor = \"slack\"\nsecrets = [\"plainly\"]";
    let slack = intake(&[("SOURCES", slack)]).sources.get("git").cloned();
    let Plan { event, key, route, .. } = of_source;
    assert!(Plan::kept(event, key, route, slack).wish().no_retry.is_some());
}

#[test]
fn only_paypals_deliveries_lead_to_a_certificate() {
    let sources = "[sources.pal]\nvendor = \"paypal\"\nsecrets = [\"WH-1\"]";
    let intake = intake(&[("SOURCES", &format!("{sources}\n{GITHUB}"))]);
    let address = "https://api.paypal.com/v1/notifications/certs/CERT-1";
    let signature = BASE64_STANDARD.encode([7; 256]);
    let headers = [
        ("paypal-transmission-id", "1"),
        ("paypal-transmission-time", "2026-05-06T12:34:56Z"),
        ("paypal-transmission-sig", &signature),
        ("paypal-cert-url", address),
        ("paypal-auth-algo", "SHA256withRSA"),
    ];
    let genuine = delivery("/webhook/pal", &headers, "{}");
    let found = needs(&genuine, &intake, Utc::now()).unwrap();
    let Some(Fetch::Certificate(url)) = found else { panic!("no certificate") };
    assert_eq!(url.as_str(), address);
    // A configured certificate is used, and none is fetched.
    let vector: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/vectors/paypal.json")).unwrap();
    let pem = vector["certificate"].as_str().unwrap();
    let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
    let configured = Some(Arc::new(Fetched::Certificate(certificate)));
    let configured = Intake { paypal_certificate: configured, ..intake.clone() };
    assert!(needs(&genuine, &configured, Utc::now()).unwrap().is_none());
    for other in [github("push", "1", "{}"), envelope(), delivery("/nobody", &headers, "{}")] {
        assert!(needs(&other, &intake, Utc::now()).unwrap().is_none());
    }
}
