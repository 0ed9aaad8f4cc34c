//! Shops, forms, contracts and people.

use super::built_in::{BuiltIn, row};
use crate::source::{
    builders::{
        DAY, HOUR, fields, header, hmac_body, joined, names, pointer, sent, signed, stamp, template,
    },
    description::{
        Description, Encoding, Fields, Joined, Place, Sent, Signed, Stamp, StampPlace, Tolerance,
        Unit,
    },
};

pub(super) static ALL: [BuiltIn; 10] = [
    row("shopify", shopify),
    row("woocommerce", woocommerce),
    row("aftership", aftership),
    row("castle", castle),
    row("tiktok", tiktok),
    row("ashby", ashby),
    row("calendly", calendly),
    row("typeform", typeform),
    row("docusign", docusign),
    row("commerce-layer", commerce_layer),
];

/// The signature covers only the body. Topic, time and id are in headers that anybody could change.
/// All topics that one action of a merchant triggers share an `X-Shopify-Event-Id`, so
/// `X-Shopify-Webhook-Id` is the id. A retry has the payload of the first delivery.
fn shopify() -> Description {
    let either = |name: &str| names(&[&format!("x-shopify-{name}"), &format!("shopify-{name}")]);
    let places = |name: &str| either(name).into_iter().map(Place::Header).collect::<Vec<_>>();
    let required = ["topic", "shop-domain", "api-version", "webhook-id"];
    Description {
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

/// The signature covers the body alone: the topic is in a header that anybody could change. Two
/// events of one second share `X-WC-Webhook-Delivery-ID`, so it is no id. A failed delivery is not
/// repeated. The unsigned ping that a new webhook sends is refused.
fn woocommerce() -> Description {
    Description {
        documentation: "https://developer.woocommerce.com/docs/webhooks/",
        scheme: signed(Signed {
            encoding: Encoding::Base64,
            ..hmac_body("x-wc-webhook-signature")
        }),
        fields: Fields {
            event_type: vec![header("x-wc-webhook-topic").into()],
            ..Fields::default()
        },
        signature_headers: names(&["x-wc-webhook-topic"]),
        ..Description::default()
    }
}

/// The signature covers type, time and id. The products Tracking and Shipping sign in one header,
/// and the products Returns and Warranty in another.
fn aftership() -> Description {
    let signatures = names(&["aftership-hmac-sha256", "as-signature-hmac-sha256"]);
    Description {
        documentation: "https://www.aftership.com/docs/tracking/webhook/webhook-signature",
        scheme: signed(Signed {
            signature: signatures.into_iter().map(Place::Header).collect(),
            encoding: Encoding::Base64,
            ..hmac_body("")
        }),
        fields: Fields {
            event_type: vec![pointer("/event").into(), pointer("/event_type").into()],
            created_at: vec![pointer("/ts"), pointer("/created_at"), pointer("/date_time")],
            unit: Unit::Seconds,
            id: vec![pointer("/event_id").into(), pointer("/id").into()],
            ..Fields::default()
        },
        retry_horizon: 69 * HOUR,
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. The secret is the API secret.
fn castle() -> Description {
    Description {
        documentation: "https://docs.castle.io/docs/webhooks",
        scheme: signed(Signed { encoding: Encoding::Base64, ..hmac_body("x-castle-signature") }),
        fields: fields("/type", "/created_at", ""),
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. The documentation does not say whether a
/// retry is signed again, so a timestamp may have any age.
fn tiktok() -> Description {
    Description {
        documentation: "https://developers.tiktok.com/doc/webhooks-verification",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "s=".into(),
            stamp: Some(Stamp {
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("tiktok-signature")
        }),
        fields: Fields { unit: Unit::Seconds, ..fields("/event", "/create_time", "") },
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}

/// The signature covers type and id. Several webhooks of one event share its id, and there is no
/// time that every event has.
fn ashby() -> Description {
    Description {
        documentation: "https://developers.ashbyhq.com/docs/authenticating-webhooks",
        scheme: signed(Signed { prefix: "sha256=".into(), ..hmac_body("ashby-signature") }),
        fields: Fields {
            id: vec![joined(&["/action", "/webhookActionId"], "/")],
            ..fields("/action", "", "")
        },
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. `payload` describes the invitee.
fn calendly() -> Description {
    Description {
        documentation: "https://developer.calendly.com/api-docs/4c305798a61d3-webhook-signatures",
        scheme: signed(Signed {
            prefix: "v1=".into(),
            stamp: Some(Stamp {
                tolerance: Tolerance::Seconds(180),
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("calendly-webhook-signature")
        }),
        fields: fields("/event", "/created_at", ""),
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn typeform() -> Description {
    Description {
        documentation: "https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
        scheme: signed(Signed {
            prefix: "sha256=".into(),
            encoding: Encoding::Base64,
            ..hmac_body("typeform-signature")
        }),
        fields: fields("/event_type", "/form_response/submitted_at", "/event_id"),
        ..Description::default()
    }
}

/// The signature covers type and time. Each active key signs in a header of its own. DocuSign
/// allows a hundred keys, but a delivery with more than 16 signatures is refused. There is no id,
/// and `retryCount` changes between deliveries, so the content cannot name the event. Envelope,
/// event, recipient and time name it instead.
fn docusign() -> Description {
    let signatures = (1..=100).map(|number| format!("x-docusign-signature-{number}"));
    let signatures: Vec<_> = signatures.filter_map(|name| name.parse().ok()).collect();
    let id = ["/data/envelopeId", "/event", "/data/recipientId", "/generatedDateTime"];
    Description {
        documentation: "https://developers.docusign.com/platform/webhooks/connect/validate/",
        scheme: signed(Signed {
            signature: signatures.into_iter().map(Place::Header).collect(),
            encoding: Encoding::Base64,
            ..hmac_body("")
        }),
        fields: Fields {
            id: vec![Joined { needs_all: false, ..joined(&id, ":") }],
            ..fields("/event", "/generatedDateTime", "")
        },
        retry_horizon: 15 * DAY,
        ..Description::default()
    }
}

/// The signature covers the body alone: the topic is in a header that anybody could change. There is
/// neither an id nor a time that all events have.
fn commerce_layer() -> Description {
    Description {
        documentation: "https://docs.commercelayer.io/core/callbacks-security",
        scheme: signed(Signed {
            encoding: Encoding::Base64,
            ..hmac_body("x-commercelayer-signature")
        }),
        fields: Fields {
            event_type: vec![header("x-commercelayer-topic").into()],
            ..Fields::default()
        },
        signature_headers: names(&["x-commercelayer-topic"]),
        ..Description::default()
    }
}
