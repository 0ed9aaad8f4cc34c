//! Media, files and websites.

use super::built_in::{BuiltIn, row};
use crate::source::{
    builders::{fields, header, hmac_body, names, sent, signed, stamp, template},
    description::{
        Description, Encoding, Fields, Place, Sent, Signed, Stamp, StampPlace, Tolerance, Unit,
    },
};

pub(super) static ALL: [BuiltIn; 5] = [
    row("mux", mux),
    row("webflow", webflow),
    row("box", box_),
    row("sanity", sanity),
    row("elevenlabs", elevenlabs),
];

/// The signature covers type, time and id. `attempts` in the body grows with every delivery.
fn mux() -> Description {
    Description {
        documentation: "https://www.mux.com/docs/core/verify-webhook-signatures",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "v1=".into(),
            stamp: Some(stamp(StampPlace::Entry("t=".into()))),
            template: template("{timestamp}.{body}"),
            ..hmac_body("mux-signature")
        }),
        fields: fields("/type", "/created_at", "/id"),
        ..Description::default()
    }
}

/// The signature covers the type. There is no time that every event has, and there is no id. Webhooks
/// that were made in the dashboard are not signed, so they are refused.
fn webflow() -> Description {
    Description {
        documentation: "https://developers.webflow.com/data/docs/working-with-webhooks",
        scheme: signed(Signed {
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                ..stamp(StampPlace::At(header("x-webflow-timestamp")))
            }),
            template: template("{timestamp}:{body}"),
            ..hmac_body("x-webflow-signature")
        }),
        fields: fields("/triggerType", "", ""),
        ..Description::default()
    }
}

/// The signature covers type, time and id. During a rotation two keys sign, each in a header. The id
/// in the body is the same in every delivery of an event, `Box-Delivery-Id` is not.
fn box_() -> Description {
    let signatures = names(&["box-signature-primary", "box-signature-secondary"]);
    Description {
        documentation: "https://developer.box.com/guides/webhooks/v2/signatures-v2",
        // Box's own libraries refuse a delivery without these headers.
        signature_headers: names(&["box-signature-version", "box-signature-algorithm"]),
        sent: vec![
            sent("box-signature-version", Sent::Text("1")),
            sent("box-signature-algorithm", Sent::Text("HmacSHA256")),
        ],
        scheme: signed(Signed {
            signature: signatures.into_iter().map(Place::Header).collect(),
            encoding: Encoding::Base64,
            stamp: Some(Stamp {
                unit: Unit::Text,
                tolerance: Tolerance::Seconds(600),
                ..stamp(StampPlace::At(header("box-delivery-timestamp")))
            }),
            template: template("{body}{timestamp}"),
            ..hmac_body("")
        }),
        fields: fields("/trigger", "/created_at", "/id"),
        ..Description::default()
    }
}

/// The signature covers the body, whose form the user of Sanity chooses, but not the id, which is
/// in a header that anybody could change.
fn sanity() -> Description {
    Description {
        documentation: "https://www.sanity.io/docs/webhooks",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "v1=".into(),
            encoding: Encoding::Base64Url,
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("sanity-webhook-signature")
        }),
        fields: Fields { id: vec![header("idempotency-key").into()], ..Fields::default() },
        signature_headers: names(&["idempotency-key"]),
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. ElevenLabs' library allows a timestamp to be
/// half an hour old.
fn elevenlabs() -> Description {
    Description {
        documentation: "https://elevenlabs.io/docs/overview/administration/webhooks",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "v0=".into(),
            stamp: Some(Stamp {
                tolerance: Tolerance::Seconds(1800),
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("elevenlabs-signature")
        }),
        fields: Fields { unit: Unit::Seconds, ..fields("/type", "/event_timestamp", "") },
        ..Description::default()
    }
}
