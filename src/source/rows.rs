//! The table of vendors. A vendor that a description fits is a row of data. Every other vendor has
//! a file.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    Described, Vendor,
    adyen::Adyen,
    braintree::Braintree,
    description::{
        Algorithm, Description, Echo, Encoding, Fields, Joined, KeyForm, Place, Scheme, Sent,
        Signed, Stamp, StampPlace, Tolerance, Unit, Wish,
    },
    paypal::PayPal,
    template::Template,
    twilio::Twilio,
};
use crate::json::Pointer;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns every built-in vendor, in the order in which the commands list them.
pub(super) fn all() -> Vec<Arc<dyn Vendor>> {
    vec![
        row(stripe()),
        Arc::new(Adyen::new()),
        row(github()),
        row(shopify()),
        row(standard_webhooks()),
        row(slack()),
        Arc::new(PayPal::new()),
        Arc::new(Twilio::new()),
        row(square()),
        row(paddle()),
        row(razorpay()),
        Arc::new(Braintree::new()),
        row(mollie()),
        row(gocardless()),
        row(klarna()),
    ]
}

fn row(description: Description) -> Arc<dyn Vendor> {
    Arc::new(Described(description))
}

/// The signature covers type, time and id. `pending_webhooks` changes between deliveries, and each
/// delivery has a new timestamp and signature.
fn stripe() -> Description {
    Description {
        name: "stripe".into(),
        documentation: "https://docs.stripe.com/webhooks",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "v1=".into(),
            stamp: Some(stamp(StampPlace::Entry("t=".into()))),
            template: template("{timestamp}.{body}"),
            ..hmac_body("stripe-signature")
        }),
        fields: Fields { unit: Unit::Seconds, ..fields("/type", "/created", "/id") },
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}

/// The signature covers only the body. Type and id are in headers that anybody could change. No
/// field has the time of all events. A redelivery at an operator's request has the same
/// `X-GitHub-Delivery` and the same body. The SHA-1 signature in `X-Hub-Signature` is not accepted.
fn github() -> Description {
    Description {
        name: "github".into(),
        documentation: "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
        scheme: signed(Signed { prefix: "sha256=".into(), ..hmac_body("x-hub-signature-256") }),
        fields: Fields {
            event_type: vec![Joined {
                places: vec![header("x-github-event"), pointer("/action")],
                with: ".",
                needs_all: false,
            }],
            id: vec![header("x-github-delivery").into()],
            ..Fields::default()
        },
        retry_horizon: 3 * DAY,
        signature_headers: names(&["x-github-event", "x-github-delivery"]),
        sent: vec![sent("x-github-event", Sent::Text("push"))],
        ..Description::default()
    }
}

/// The signature covers only the body. Topic, time and id are in headers that anybody could change.
/// All topics that one action of a merchant triggers share an `X-Shopify-Event-Id`, so
/// `X-Shopify-Webhook-Id` is the id. A retry has the payload of the first delivery.
fn shopify() -> Description {
    let either = |name: &str| names(&[&format!("x-shopify-{name}"), &format!("shopify-{name}")]);
    let places = |name: &str| either(name).into_iter().map(Place::Header).collect::<Vec<_>>();
    let required = ["topic", "shop-domain", "api-version", "webhook-id"];
    Description {
        name: "shopify".into(),
        documentation: "https://shopify.dev/docs/apps/build/webhooks/verify-deliveries",
        scheme: signed(Signed {
            signature: places("hmac-sha256"),
            encoding: Encoding::Base64,
            ..hmac_body("")
        }),
        required: required.iter().map(|name| either(name)).collect(),
        fields: Fields {
            event_type: vec![
                header("x-shopify-topic").into(),
                Joined {
                    places: vec![header("shopify-topic"), header("shopify-action")],
                    with: "/",
                    needs_all: false,
                },
            ],
            created_at: places("triggered-at"),
            id: places("webhook-id").into_iter().map(Joined::from).collect(),
            ..Fields::default()
        },
        signature_headers: required
            .iter()
            .chain(&["triggered-at"])
            .flat_map(|name| either(name))
            .chain(names(&["shopify-action"]))
            .collect(),
        sent: vec![
            sent("x-shopify-topic", Sent::Text("orders/create")),
            sent("x-shopify-shop-domain", Sent::Text("example.myshopify.com")),
            sent("x-shopify-api-version", Sent::Text("2026-01")),
            sent("x-shopify-triggered-at", Sent::Time),
        ],
        ..Description::default()
    }
}

/// The signature covers the body and the id, which is the same in every attempt. The timestamp in
/// the header is the time of the attempt. Svix's own headers begin with `svix-`.
fn standard_webhooks() -> Description {
    Description {
        name: "standard-webhooks".into(),
        documentation: "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        scheme: Some(Scheme::StandardWebhooks),
        fields: Fields {
            id: vec![header("webhook-id").into(), header("svix-id").into()],
            ..fields("/type", "/timestamp", "")
        },
        // The example in the specification ends after 75.6 hours.
        retry_horizon: 76 * HOUR,
        signature_headers: names(&[
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ]),
        ..Description::default()
    }
}

/// The signature covers type, time and id. A retry has a new timestamp and signature, and headers
/// that count the retries. Commands and interactions are forms without an id.
fn slack() -> Description {
    Description {
        name: "slack".into(),
        documentation: "https://docs.slack.dev/authentication/verifying-requests-from-slack",
        scheme: signed(Signed {
            prefix: "v0=".into(),
            stamp: Some(stamp(StampPlace::At(header("x-slack-request-timestamp")))),
            template: template("v0:{timestamp}:{body}"),
            ..hmac_body("x-slack-signature")
        }),
        fields: Fields {
            event_type: vec![pointer("/event/type").into(), pointer("/type").into()],
            unit: Unit::Seconds,
            ..fields("", "/event_time", "/event_id")
        },
        handshake: Some(Echo {
            when: (pointer_to("/type"), "url_verification".into()),
            answer: pointer_to("/challenge"),
        }),
        retry_horizon: 25 * HOUR,
        wish: Wish { no_retry: Some(("x-slack-no-retry", "1")), ..Wish::default() },
        ..Description::default()
    }
}

/// The signature covers the called address and the body, and so type, time and id. A retry has
/// headers that count the retries.
fn square() -> Description {
    Description {
        name: "square".into(),
        documentation: "https://developer.squareup.com/docs/webhooks/step3validate",
        scheme: signed(Signed {
            encoding: Encoding::Base64,
            template: template("{url}{body}"),
            ..hmac_body("x-square-hmacsha256-signature")
        }),
        fields: fields("/type", "/created_at", "/event_id"),
        ..Description::default()
    }
}

/// The signature covers type, time and id. Paddle's libraries accept a timestamp for only 5
/// seconds, which is less than a cold start takes. So the configured tolerance applies instead.
fn paddle() -> Description {
    Description {
        name: "paddle".into(),
        documentation: "https://developer.paddle.com/webhooks/signature-verification",
        scheme: signed(Signed {
            separator: Some(";".into()),
            prefix: "h1=".into(),
            stamp: Some(stamp(StampPlace::Entry("ts=".into()))),
            template: template("{timestamp}:{body}"),
            ..hmac_body("paddle-signature")
        }),
        fields: fields("/event_type", "/occurred_at", "/event_id"),
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}

/// The signature covers type and time, but not the id, which is in a header that anybody could
/// change. Events may be replayed for seven days.
fn razorpay() -> Description {
    Description {
        name: "razorpay".into(),
        documentation: "https://razorpay.com/docs/webhooks/validate-test/",
        scheme: signed(hmac_body("x-razorpay-signature")),
        fields: Fields {
            id: vec![header("x-razorpay-event-id").into()],
            unit: Unit::Seconds,
            ..fields("/event", "/created_at", "")
        },
        retry_horizon: 7 * DAY,
        signature_headers: names(&["x-razorpay-event-id"]),
        ..Description::default()
    }
}

/// The signature of next-generation webhooks covers type, time and id. After a rotation, the header
/// occurs twice. Classic webhooks are not signed, so they are refused.
fn mollie() -> Description {
    Description {
        name: "mollie".into(),
        documentation: "https://docs.mollie.com/reference/webhooks-new",
        scheme: signed(Signed { prefix: "sha256=".into(), ..hmac_body("x-mollie-signature") }),
        fields: fields("/type", "/createdAt", "/id"),
        retry_horizon: 26 * HOUR,
        ..Description::default()
    }
}

/// The signature covers type, time and id of every event in the batch.
fn gocardless() -> Description {
    Description {
        name: "gocardless".into(),
        documentation: "https://developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks",
        scheme: signed(hmac_body("webhook-signature")),
        fields: Fields {
            each: Some(pointer_to("/events")),
            event_type: vec![Joined {
                places: vec![pointer("/resource_type"), pointer("/action")],
                with: ".",
                needs_all: false,
            }],
            ..fields("", "/created_at", "/id")
        },
        ..Description::default()
    }
}

/// The signature covers type, time and id. The documentation does not name the encoding, so hex and
/// base64 are both accepted.
fn klarna() -> Description {
    Description {
        name: "klarna".into(),
        documentation: "https://docs.klarna.com/acquirer/klarna/get-started/setup-your-webhooks/",
        scheme: signed(Signed {
            encoding: Encoding::HexOrBase64,
            key_id: Some(HeaderName::from_static("klarna-signing-key-id")),
            ..hmac_body("klarna-signature")
        }),
        fields: fields("/metadata/event_type", "/metadata/occurred_at", "/metadata/event_id"),
        ..Description::default()
    }
}

fn signed(signed: Signed) -> Option<Scheme> {
    Some(Scheme::Signed(Box::new(signed)))
}

/// Describes HMAC-SHA256 over only the body, in hex, with the text of the secret as the key.
pub(super) fn hmac_body(name: &str) -> Signed {
    Signed {
        algorithm: Algorithm::HmacSha256,
        signature: names(&[name]).into_iter().map(Place::Header).collect(),
        separator: None,
        prefix: String::new(),
        encoding: Encoding::Hex,
        key: KeyForm::Text,
        key_id: None,
        stamp: None,
        template: Template::default(),
    }
}

fn stamp(place: StampPlace) -> Stamp {
    Stamp { place, unit: Unit::Seconds, tolerance: Tolerance::Configured }
}

/// Describes fields at these pointers. An empty pointer means no field.
pub(super) fn fields(event_type: &str, created_at: &str, id: &str) -> Fields {
    let place = |path: &str| (!path.is_empty()).then(|| pointer(path));
    Fields {
        event_type: place(event_type).map(Joined::from).into_iter().collect(),
        created_at: place(created_at).into_iter().collect(),
        id: place(id).map(Joined::from).into_iter().collect(),
        ..Fields::default()
    }
}

#[expect(clippy::expect_used, reason = "a test reads every row of this table")]
fn template(text: &str) -> Template {
    text.parse().expect("a template")
}

#[expect(clippy::expect_used, reason = "a test reads every row of this table")]
pub(super) fn pointer_to(path: &str) -> Pointer {
    path.parse().expect("a pointer")
}

/// Describes a value that is joined from the values at all of these pointers.
pub(super) fn joined(paths: &[&str], with: &'static str) -> Joined {
    Joined { places: paths.iter().map(|path| pointer(path)).collect(), with, needs_all: true }
}

fn pointer(path: &str) -> Place {
    Place::Pointer(pointer_to(path))
}

fn header(name: &'static str) -> Place {
    Place::Header(HeaderName::from_static(name))
}

pub(super) fn sent(name: &'static str, sent: Sent) -> (HeaderName, Sent) {
    (HeaderName::from_static(name), sent)
}

/// Returns the headers of these names. Empty names are left out.
pub(super) fn names(names: &[&str]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
