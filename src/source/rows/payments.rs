//! Payments, banking and accounting.

use http::HeaderName;

use super::built_in::{BuiltIn, row};
use crate::source::{
    builders::{
        DAY, HOUR, fields, header, hmac_body, joined, names, pointer, pointer_to, signed, stamp,
        standard, template,
    },
    description::{
        Description, Encoding, Fields, Joined, Scheme, Signed, Stamp, StampPlace, Tolerance, Unit,
    },
};

pub(super) static ALL: [BuiltIn; 18] = [
    row("stripe", stripe),
    row("square", square),
    row("paddle", paddle),
    row("razorpay", razorpay),
    row("mollie", mollie),
    row("gocardless", gocardless),
    row("klarna", klarna),
    row("revolut", revolut),
    row("airwallex", airwallex),
    row("modern-treasury", modern_treasury),
    row("orb", orb),
    row("lithic", lithic),
    row("chargebee", chargebee),
    row("fastspring", fastspring),
    row("xero", xero),
    row("brex", brex),
    row("checkout-com", checkout_com),
    row("coinbase-commerce", coinbase_commerce),
];

/// The signature covers type, time and id. `pending_webhooks` changes between deliveries, and each
/// delivery has a new timestamp and signature.
fn stripe() -> Description {
    Description {
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

/// The signature covers the called address and the body, and so type, time and id. A retry has
/// headers that count the retries.
fn square() -> Description {
    Description {
        documentation: "https://developer.squareup.com/docs/webhooks/step3validate",
        scheme: signed(Signed {
            encoding: Encoding::Base64,
            template: template("{url}{body}"),
            is_json: true,
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

/// The signature covers the type and, in events of Revolut Business, the time. Events of merchants
/// have no time. There is no id. After a rotation the header holds two signatures.
fn revolut() -> Description {
    Description {
        documentation: "https://developer.revolut.com/docs/guides/merchant/monitor-and-observe/webhooks/verify-the-payload-signature",
        scheme: signed(Signed {
            prefix: "v1=".into(),
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                ..stamp(StampPlace::At(header("revolut-request-timestamp")))
            }),
            template: template("v1.{timestamp}.{body}"),
            ..hmac_body("revolut-signature")
        }),
        fields: fields("/event", "/timestamp", ""),
        ..Description::default()
    }
}

/// The signature covers type, time and id. The documentation does not say whether a retry is
/// signed again, so a timestamp may have any age.
fn airwallex() -> Description {
    Description {
        documentation: "https://www.airwallex.com/docs/developer-tools/webhooks/webhooks-overview",
        scheme: signed(Signed {
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::At(header("x-timestamp")))
            }),
            template: template("{timestamp}{body}"),
            is_json: true,
            ..hmac_body("x-signature")
        }),
        fields: fields("/name", "/created_at", "/id"),
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}

/// The signature covers the type. There is no time that every event has, and there is no id.
fn modern_treasury() -> Description {
    Description {
        documentation: "https://docs.moderntreasury.com/platform/reference/webhooks",
        scheme: signed(hmac_body("x-signature")),
        fields: fields("/event", "", ""),
        ..Description::default()
    }
}

/// The signature covers type, time and id. The time of sending has no zone.
fn orb() -> Description {
    Description {
        documentation: "https://docs.withorb.com/integrations-and-exports/webhooks",
        scheme: signed(Signed {
            separator: Some(" ".into()),
            prefix: "v1=".into(),
            stamp: Some(Stamp {
                unit: Unit::TextInUtc,
                ..stamp(StampPlace::At(header("x-orb-timestamp")))
            }),
            template: template("v1:{timestamp}:{body}"),
            ..hmac_body("x-orb-signature")
        }),
        fields: fields("/type", "/created_at", "/id"),
        ..Description::default()
    }
}

/// The signature covers type and id. There is no time that every event has.
fn lithic() -> Description {
    standard("https://docs.lithic.com/docs/events-api", fields("/event_type", "", ""))
}

/// Nothing is signed: the credentials are those of HTTP Basic. `webhook_status` changes between
/// deliveries.
fn chargebee() -> Description {
    Description {
        documentation: "https://www.chargebee.com/docs/2.0/events_and_webhooks.html",
        scheme: Some(Scheme::Basic),
        fields: Fields { unit: Unit::Seconds, ..fields("/event_type", "/occurred_at", "/id") },
        retry_horizon: 4 * DAY,
        ..Description::default()
    }
}

/// The signature covers type, time and id of every event in the batch. An automatic retry has the
/// same ids. A retry by hand has new ids.
fn fastspring() -> Description {
    Description {
        documentation: "https://developer.fastspring.com/docs/message-security",
        scheme: signed(Signed { encoding: Encoding::Base64, ..hmac_body("x-fs-signature") }),
        fields: Fields {
            each: Some(pointer_to("/events")),
            unit: Unit::Milliseconds,
            ..fields("/type", "/created", "/id")
        },
        ..Description::default()
    }
}

/// The signature covers type and time of every event in the batch. There is no id. Before a
/// webhook is active, Xero sends empty batches, some of them wrongly signed, and wants 401 for those.
fn xero() -> Description {
    Description {
        documentation: "https://developer.xero.com/documentation/guides/webhooks/overview/",
        scheme: signed(Signed { encoding: Encoding::Base64, ..hmac_body("x-xero-signature") }),
        fields: Fields {
            each: Some(pointer_to("/events")),
            event_type: vec![joined(&["/eventCategory", "/eventType"], ".")],
            ..fields("", "/eventDateUtc", "")
        },
        ..Description::default()
    }
}

/// The signature covers type and id. There is no time that every event has.
fn brex() -> Description {
    standard("https://developer.brex.com/docs/webhooks/", fields("/event_type", "", ""))
}

/// The signature covers type, time and id.
fn checkout_com() -> Description {
    Description {
        documentation: "https://www.checkout.com/docs/workflows/set-up-your-webhook-receiver",
        scheme: signed(hmac_body("cko-signature")),
        fields: fields("/type", "/created_on", "/id"),
        ..Description::default()
    }
}

/// The signature covers type, time and id. `attempt_number` changes between deliveries.
fn coinbase_commerce() -> Description {
    Description {
        documentation: "https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-security",
        scheme: signed(hmac_body("x-cc-webhook-signature")),
        fields: fields("/event/type", "/event/created_at", "/event/id"),
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}
