//! Genuine deliveries of every vendor. The tests sign them with their own code, which shares
//! nothing with the router's.

use std::sync::{Arc, LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use webhook_router::{
    config::Intake,
    delivery::Delivery,
    plan::{Plan, Planned, plan},
    source::{Certificate, Fetched},
};

use crate::support::lookup;

/// The time at which deliveries are signed, in seconds.
pub const SIGNED_AT: i64 = 1_778_070_900;
pub const PUBLIC_URL: &str = "https://hooks.example.com/in";
const WHSEC: &str = "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE=";
const ADYEN_KEY: &str = "44782def547aaa06c910c43932b1eb0c71fc68d9d0c057550c48ec2acf6ba056";

/// PayPal's deliveries, whose signatures were made once.
#[derive(Deserialize)]
pub struct PayPal {
    webhook_id: String,
    pub certificate: String,
    pub certificate_of_another: String,
    body: String,
    transmissions: Vec<Transmission>,
}

#[derive(Deserialize)]
struct Transmission {
    id: String,
    time: String,
    signature: String,
}

pub static PAYPAL: LazyLock<PayPal> =
    LazyLock::new(|| serde_json::from_str(include_str!("../vectors/paypal.json")).unwrap());

/// A key pair that signs `v1a`.
pub static ED25519: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

fn whpk() -> String {
    format!("whpk_{}", BASE64_STANDARD.encode(ED25519.public_key().as_ref()))
}

/// A vendor's way of signing.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub source: &'static str,
    /// The headers that the signature covers, in addition to the body.
    pub signed_headers: &'static [&'static str],
    /// The header of the signature.
    pub signature: &'static str,
}

const fn kind(
    name: &'static str,
    source: &'static str,
    signature: &'static str,
    signed_headers: &'static [&'static str],
) -> Kind {
    Kind { name, source, signed_headers, signature }
}

const STANDARD: &[&str] = &["webhook-id", "webhook-timestamp"];
const PAYPALS: &[&str] = &["paypal-transmission-id", "paypal-transmission-time", "paypal-cert-url"];

pub const KINDS: [Kind; 19] = [
    kind("stripe", "stripe", "stripe-signature", &[]),
    kind("adyen", "adyen", "", &[]),
    kind("adyen-platform", "adyen", "hmacsignature", &[]),
    kind("github", "github", "x-hub-signature-256", &[]),
    kind("shopify", "shopify", "x-shopify-hmac-sha256", &[]),
    kind("shopify-events", "shopify", "shopify-hmac-sha256", &[]),
    kind("standard-webhooks", "standard-webhooks", "webhook-signature", STANDARD),
    kind("svix", "standard-webhooks", "svix-signature", &["svix-id", "svix-timestamp"]),
    kind("v1a", "standard-webhooks", "webhook-signature", STANDARD),
    kind("slack", "slack", "x-slack-signature", &["x-slack-request-timestamp"]),
    kind("paypal", "paypal", "paypal-transmission-sig", PAYPALS),
    kind("twilio", "twilio", "x-twilio-signature", &[]),
    kind("square", "square", "x-square-hmacsha256-signature", &[]),
    kind("paddle", "paddle", "paddle-signature", &[]),
    kind("razorpay", "razorpay", "x-razorpay-signature", &[]),
    kind("braintree", "braintree", "", &[]),
    kind("mollie", "mollie", "x-mollie-signature", &[]),
    kind("gocardless", "gocardless", "webhook-signature", &[]),
    kind("klarna", "klarna", "klarna-signature", &["klarna-signing-key-id"]),
];

/// Returns variables with which every vendor is served.
pub fn secrets() -> Vec<(&'static str, String)> {
    vec![
        ("ROUTING_SECRET", "test-routing-secret".into()),
        ("STRIPE_SECRETS", "whsec_plainly_new, whsec_plainly_stripe".into()),
        ("ADYEN_SECRETS", ADYEN_KEY.into()),
        ("GITHUB_SECRETS", "plainly-github".into()),
        ("SHOPIFY_SECRETS", "plainly-shopify".into()),
        ("STANDARD_WEBHOOKS_SECRETS", format!("{WHSEC},{}", whpk())),
        ("SLACK_SECRETS", "plainly-slack".into()),
        ("PAYPAL_SECRETS", PAYPAL.webhook_id.clone()),
        ("TWILIO_SECRETS", "plainly-twilio".into()),
        ("SQUARE_SECRETS", "plainly-square".into()),
        ("PADDLE_SECRETS", "pdl_plainly".into()),
        ("RAZORPAY_SECRETS", "plainly-razorpay".into()),
        ("BRAINTREE_SECRETS", "public:plainly-private".into()),
        ("MOLLIE_SECRETS", "plainly-mollie".into()),
        ("GOCARDLESS_SECRETS", "plainly-gocardless".into()),
        ("KLARNA_SECRETS", "krn-1:plainly-klarna".into()),
        ("PUBLIC_URL", PUBLIC_URL.into()),
    ]
}

/// Returns the settings for planning deliveries of every vendor, with PayPal's certificate.
pub fn intake() -> Intake {
    let secrets = secrets();
    let vars: Vec<_> = secrets.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut intake = Intake::from_vars(lookup(&vars)).unwrap();
    let certificate = Certificate::from_pem(PAYPAL.certificate.as_bytes()).unwrap();
    intake.paypal_certificate = Some(Arc::new(Fetched::Certificate(certificate)));
    intake
}

pub fn now(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// Returns the status of a delivery, and its plan if it is an event.
pub fn answer(delivery: &Delivery, intake: &Intake, at: i64) -> (u16, Option<Plan>) {
    match plan(delivery, intake, None, now(at)) {
        Ok(Planned::Deliver(plan)) => (200, Some(*plan)),
        Ok(
            Planned::Handshake(reply)
            | Planned::Confirm { reply, .. }
            | Planned::Filtered { reply, .. },
        ) => (reply.status.as_u16(), None),
        Err(refusal) => (refusal.reply().status.as_u16(), None),
    }
}

pub fn mac<M: Mac + KeyInit>(key: &[u8], message: impl AsRef<[u8]>) -> Vec<u8> {
    let mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

pub fn sha256(key: &str, message: &str) -> Vec<u8> {
    mac::<Hmac<Sha256>>(key.as_bytes(), message)
}

fn adyen(message: &str) -> String {
    let key = hex::decode(ADYEN_KEY).unwrap();
    BASE64_STANDARD.encode(mac::<Hmac<Sha256>>(&key, message))
}

impl Kind {
    pub fn of(name: &str) -> Self {
        *KINDS.iter().find(|kind| kind.name == name).unwrap()
    }

    /// Returns a body that reports event number `event`. `attempt` appears in the fields that
    /// vendors change.
    fn body(&self, event: u32, attempt: u32) -> String {
        match self.name {
            "stripe" => format!(
                r#"{{"id":"evt_{event}","type":"invoice.paid","created":1778070000,"livemode":true,"pending_webhooks":{attempt}}}"#
            ),
            "adyen" => {
                let item = |number: u32| {
                    let id = format!("{event}{number}");
                    let signature =
                        adyen(&format!("{id}::Merchant:order-1:1130:EUR:AUTHORISATION:true"));
                    format!(
                        r#"{{"NotificationRequestItem":{{"additionalData":{{"hmacSignature":"{signature}"}},"amount":{{"value":1130,"currency":"EUR"}},"pspReference":"{id}","eventCode":"AUTHORISATION","eventDate":"2026-05-06T12:3{attempt}:00+02:00","merchantAccountCode":"Merchant","merchantReference":"order-1","success":"true"}}}}"#
                    )
                };
                format!(r#"{{"live":"false","notificationItems":[{},{}]}}"#, item(1), item(2))
            }
            "adyen-platform" => format!(
                r#"{{"type":"balancePlatform.transfer.updated","timestamp":"2026-05-06T12:00:00+02:00","data":{{"id":"{event}","sequenceNumber":3}}}}"#
            ),
            "github" => format!(r#"{{"action":"opened","number":{event}}}"#),
            "slack" => format!(
                r#"{{"type":"event_callback","event":{{"type":"app_mention"}},"event_id":"Ev{event}","event_time":1778070000}}"#
            ),
            "paypal" => PAYPAL.body.clone(),
            "twilio" => {
                format!("CallSid=CA1&CallStatus=completed&From=%2B1415&Tag=b&Tag=a&N={event}")
            }
            "braintree" => {
                let payload = BASE64_STANDARD.encode(format!(
                    r#"<notification><timestamp type="datetime">2026-05-06T12:00:00Z</timestamp><kind>subscription_canceled</kind><subject><id>{event}</id></subject></notification>"#
                ));
                let key = Sha1::digest("plainly-private");
                let signature = hex::encode(mac::<Hmac<Sha1>>(&key, &payload));
                let payload = payload.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
                format!("bt_signature=public%7C{signature}&bt_payload={payload}")
            }
            "square" => format!(
                r#"{{"type":"payment.updated","event_id":"sq-{event}","created_at":"2026-05-06T12:00:00.123456789Z"}}"#
            ),
            "paddle" => format!(
                r#"{{"event_id":"evt_{event}","event_type":"transaction.paid","occurred_at":"2026-05-06T12:00:00.123456Z"}}"#
            ),
            "razorpay" => {
                format!(r#"{{"event":"payment.captured","created_at":1778070000,"n":{event}}}"#)
            }
            "mollie" => format!(
                r#"{{"resource":"event","id":"event_{event}","type":"payment-link.paid","createdAt":"2026-05-06T12:00:00.0Z"}}"#
            ),
            "gocardless" => format!(
                r#"{{"events":[{{"id":"EV{event}","created_at":"2026-05-06T12:00:00.404Z","resource_type":"payments","action":"confirmed"}},{{"id":"EV{event}b","created_at":"2026-05-06T12:00:01.404Z","resource_type":"mandates","action":"created"}}]}}"#
            ),
            "klarna" => format!(
                r#"{{"metadata":{{"event_type":"payment.session.completed","event_id":"{event}","occurred_at":"2026-05-06T12:00:00Z"}}}}"#
            ),
            _ => format!(
                r#"{{"type":"contact.created","timestamp":"2026-05-06T12:00:00Z","n":{event}}}"#
            ),
        }
    }

    fn headers(&self, event: u32, attempt: u32, time: i64, body: &str) -> Vec<(String, String)> {
        let id = format!("id-{event}");
        let hex = |key: &str, message: &str| hex::encode(sha256(key, message));
        let base64 = |key: &str, message: &str| BASE64_STANDARD.encode(sha256(key, message));
        let headers: Vec<(&str, String)> = match self.name {
            "stripe" => {
                let signature = hex("whsec_plainly_stripe", &format!("{time}.{body}"));
                vec![("stripe-signature", format!("t={time},v1={signature}"))]
            }
            "adyen-platform" => {
                vec![("hmacsignature", adyen(body)), ("protocol", "HmacSHA256".into())]
            }
            "github" => vec![
                ("x-hub-signature-256", format!("sha256={}", hex("plainly-github", body))),
                ("x-github-event", "issues".into()),
                ("x-github-delivery", id),
            ],
            "shopify" | "shopify-events" => {
                let prefix = if self.name == "shopify" { "x-shopify-" } else { "shopify-" };
                let signature = base64("plainly-shopify", body);
                return [
                    ("hmac-sha256", signature.as_str()),
                    ("topic", "orders/create"),
                    ("shop-domain", "shop.example"),
                    ("api-version", "2026-01"),
                    ("webhook-id", &id),
                    ("triggered-at", "2026-05-06T12:00:00.123456789Z"),
                ]
                .map(|(name, value)| (format!("{prefix}{name}"), value.to_owned()))
                .into();
            }
            "standard-webhooks" | "svix" | "v1a" => {
                let message = format!("{id}.{time}.{body}");
                let key = BASE64_STANDARD.decode(&WHSEC["whsec_".len()..]).unwrap();
                let signature = match self.name {
                    "v1a" => {
                        let signature = ED25519.sign(message.as_bytes());
                        format!("v1a,{}", BASE64_STANDARD.encode(signature))
                    }
                    _ => {
                        let signature = mac::<Hmac<Sha256>>(&key, message);
                        format!("v1,{}", BASE64_STANDARD.encode(signature))
                    }
                };
                let names = match self.name {
                    "svix" => ["svix-id", "svix-timestamp", "svix-signature"],
                    _ => ["webhook-id", "webhook-timestamp", "webhook-signature"],
                };
                names.into_iter().zip([id, time.to_string(), signature]).collect()
            }
            "slack" => {
                let signature = hex("plainly-slack", &format!("v0:{time}:{body}"));
                vec![
                    ("x-slack-signature", format!("v0={signature}")),
                    ("x-slack-request-timestamp", time.to_string()),
                    ("x-slack-retry-num", attempt.to_string()),
                ]
            }
            "paypal" => {
                let Transmission { id, time, signature } = &PAYPAL.transmissions[attempt as usize];
                let address = "https://api.paypal.com/v1/notifications/certs/CERT-1-2";
                vec![
                    ("paypal-transmission-id", id.clone()),
                    ("paypal-transmission-time", time.clone()),
                    ("paypal-transmission-sig", signature.clone()),
                    ("paypal-cert-url", address.into()),
                    ("paypal-auth-algo", "SHA256withRSA".into()),
                    ("paypal-auth-version", "v2".into()),
                ]
            }
            "twilio" => {
                let fields = format!("CallSidCA1CallStatuscompletedFrom+1415N{event}TagaTagb");
                let signed = format!("{PUBLIC_URL}/webhook/twilio?a=%20b{fields}");
                let signature = mac::<Hmac<Sha1>>(b"plainly-twilio", signed);
                vec![
                    ("x-twilio-signature", BASE64_STANDARD.encode(signature)),
                    ("content-type", "application/x-www-form-urlencoded".into()),
                    ("i-twilio-idempotency-token", id),
                ]
            }
            "square" => {
                let signed = format!("{PUBLIC_URL}/webhook/square{body}");
                vec![("x-square-hmacsha256-signature", base64("plainly-square", &signed))]
            }
            "paddle" => {
                let signature = hex("pdl_plainly", &format!("{time}:{body}"));
                vec![("paddle-signature", format!("ts={time};h1={signature}"))]
            }
            "razorpay" => vec![
                ("x-razorpay-signature", hex("plainly-razorpay", body)),
                ("x-razorpay-event-id", id),
            ],
            "mollie" => {
                vec![("x-mollie-signature", format!("sha256={}", hex("plainly-mollie", body)))]
            }
            "gocardless" => vec![("webhook-signature", hex("plainly-gocardless", body))],
            "klarna" => vec![
                ("klarna-signature", hex("plainly-klarna", body)),
                ("klarna-signing-key-id", "krn-1".into()),
            ],
            _ => vec![],
        };
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Returns the delivery of an event: the first one, or a retry. Each attempt is an hour later.
    pub fn delivery(&self, event: u32, attempt: u32) -> Delivery {
        self.delivery_at(event, attempt, Self::time(attempt))
    }

    /// Returns the delivery of an event, signed at that second.
    pub fn delivery_at(&self, event: u32, attempt: u32, time: i64) -> Delivery {
        let body = self.body(event, attempt);
        let headers = self.headers(event, attempt, time, &body).into_iter();
        let headers: HeaderMap = headers
            .map(|(name, value)| {
                (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
            })
            .collect();
        Delivery {
            method: Method::POST,
            path: format!("/webhook/{}", self.source),
            query: (self.name == "twilio").then(|| "a=%20b".into()),
            headers,
            body: body.into(),
        }
    }

    /// Returns the time at which an attempt is signed.
    pub fn time(attempt: u32) -> i64 {
        SIGNED_AT + 3600 * i64::from(attempt)
    }
}
