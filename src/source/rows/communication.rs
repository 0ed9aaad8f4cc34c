//! Messages, calls and support.

use http::{HeaderName, StatusCode};

use super::built_in::{BuiltIn, row};
use crate::{
    json::Pointer,
    source::{
        builders::{
            HOUR, fields, header, hmac_body, names, pointer, pointer_to, sent, signed, stamp,
            standard, template,
        },
        description::{
            Algorithm, Description, Echo, Encoding, Fields, KeyForm, Sent, Signed, Stamp,
            StampPlace, Tolerance, Unit, Wish,
        },
    },
};

pub(super) static ALL: [BuiltIn; 12] = [
    row("slack", slack),
    row("twitch", twitch),
    row("telnyx", telnyx),
    row("retell", retell),
    row("knock", knock),
    row("pusher", pusher),
    row("discord", discord),
    row("sendgrid", sendgrid),
    row("zendesk", zendesk),
    row("intercom", intercom),
    row("resend", resend),
    row("mailgun", mailgun),
];

/// The signature covers type, time and id. A retry has a new timestamp and signature, and headers
/// that count the retries. Commands and interactions are forms without an id.
fn slack() -> Description {
    Description {
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
            answer: Some(pointer_to("/challenge")),
        }),
        retry_horizon: 25 * HOUR,
        wish: Wish { no_retry: Some(("x-slack-no-retry", "1")), ..Wish::default() },
        ..Description::default()
    }
}

/// The signature covers the id (from a header), the time of the message, and the body. The question
/// that Twitch asks first is answered with its challenge.
fn twitch() -> Description {
    Description {
        documentation: "https://dev.twitch.tv/docs/eventsub/handling-webhook-events",
        scheme: signed(Signed {
            prefix: "sha256=".into(),
            stamp: Some(Stamp {
                unit: Unit::Text,
                tolerance: Tolerance::Seconds(600),
                ..stamp(StampPlace::At(header("twitch-eventsub-message-timestamp")))
            }),
            template: template("{header:twitch-eventsub-message-id}{timestamp}{body}"),
            ..hmac_body("twitch-eventsub-message-signature")
        }),
        fields: Fields {
            id: vec![header("twitch-eventsub-message-id").into()],
            ..fields("/subscription/type", "", "")
        },
        handshake: Some(Echo {
            when: (
                pointer_to("/subscription/status"),
                "webhook_callback_verification_pending".into(),
            ),
            answer: Some(pointer_to("/challenge")),
        }),
        ..Description::default()
    }
}

/// The signature, made with an Ed25519 key of Telnyx, covers type, time and id.
fn telnyx() -> Description {
    Description {
        documentation: "https://developers.telnyx.com/docs/development/api-fundamentals/webhooks",
        scheme: signed(Signed {
            algorithm: Algorithm::Ed25519,
            encoding: Encoding::Base64,
            key: KeyForm::PublicKey,
            stamp: Some(stamp(StampPlace::At(header("telnyx-timestamp")))),
            template: template("{timestamp}|{body}"),
            ..hmac_body("telnyx-signature-ed25519")
        }),
        fields: fields("/data/event_type", "/data/occurred_at", "/data/id"),
        ..Description::default()
    }
}

/// The signature covers the type. There is no time that every event has, and there is no id. The
/// secret is the API key.
fn retell() -> Description {
    Description {
        documentation: "https://docs.retellai.com/features/secure-webhook",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "d=".into(),
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                ..stamp(StampPlace::Entry("v=".into()))
            }),
            template: template("{body}{timestamp}"),
            ..hmac_body("x-retell-signature")
        }),
        fields: fields("/event", "", ""),
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id.
fn knock() -> Description {
    Description {
        documentation: "https://docs.knock.app/developer-tools/outbound-webhooks/overview",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "s=".into(),
            encoding: Encoding::Base64,
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("x-knock-signature")
        }),
        fields: fields("/type", "/created_at", ""),
        ..Description::default()
    }
}

/// The signature covers the time of the batch and the types of its events, which have neither a time
/// nor an id of their own.
fn pusher() -> Description {
    Description {
        documentation: "https://pusher.com/docs/channels/server_api/webhooks/",
        scheme: signed(Signed {
            key_id: Some(HeaderName::from_static("x-pusher-key")),
            ..hmac_body("x-pusher-signature")
        }),
        fields: Fields {
            each: Some(pointer_to("/events")),
            of_batch: Some(pointer_to("/time_ms")),
            unit: Unit::Milliseconds,
            ..fields("/name", "", "")
        },
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. Every event, and the ping that checks the
/// address, is answered with 204 without a body. The documentation does not say whether a retry is
/// signed again, so a timestamp may have any age.
fn discord() -> Description {
    Description {
        documentation: "https://docs.discord.com/developers/events/webhook-events",
        scheme: signed(Signed {
            algorithm: Algorithm::Ed25519,
            key: KeyForm::PublicKey,
            stamp: Some(Stamp {
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::At(header("x-signature-timestamp")))
            }),
            template: template("{timestamp}{body}"),
            is_json: true,
            ..hmac_body("x-signature-ed25519")
        }),
        fields: fields("/event/type", "/event/timestamp", ""),
        handshake: Some(Echo { when: (pointer_to("/type"), "0".into()), answer: None }),
        wish: Wish { accepted: Some((StatusCode::NO_CONTENT, "")), ..Wish::default() },
        ..Description::default()
    }
}

/// The signature, made with a P-256 key, covers the time of sending, and type, time and id of every
/// event in the batch. The documentation does not say whether a retry, which may come after a day,
/// is signed again, so a timestamp may have any age.
fn sendgrid() -> Description {
    let timestamp = header("x-twilio-email-event-webhook-timestamp");
    Description {
        documentation: "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features",
        scheme: signed(Signed {
            algorithm: Algorithm::EcdsaP256,
            encoding: Encoding::Base64,
            key: KeyForm::PublicKeyInfo,
            stamp: Some(Stamp { tolerance: Tolerance::Any, ..stamp(StampPlace::At(timestamp)) }),
            template: template("{timestamp}{body}"),
            is_json: true,
            ..hmac_body("x-twilio-email-event-webhook-signature")
        }),
        fields: Fields {
            each: Some(Pointer::root()),
            unit: Unit::Seconds,
            ..fields("/event", "/timestamp", "/sg_event_id")
        },
        ..Description::default()
    }
}

/// The signature covers the time of sending and the body, but not the id, which is in a header that
/// anybody could change. Bodies of triggers have the form that a user gave them.
fn zendesk() -> Description {
    let timestamp = header("x-zendesk-webhook-signature-timestamp");
    Description {
        documentation: "https://developer.zendesk.com/documentation/webhooks/verifying/",
        scheme: signed(Signed {
            encoding: Encoding::Base64,
            stamp: Some(Stamp { unit: Unit::Text, ..stamp(StampPlace::At(timestamp)) }),
            template: template("{timestamp}{body}"),
            ..hmac_body("x-zendesk-webhook-signature")
        }),
        fields: Fields {
            id: vec![header("x-zendesk-webhook-invocation-id").into()],
            ..fields("/type", "/time", "")
        },
        signature_headers: names(&["x-zendesk-webhook-invocation-id"]),
        ..Description::default()
    }
}

/// The signature, an HMAC-SHA1, covers type, time and id. `delivery_attempts` changes between
/// deliveries.
fn intercom() -> Description {
    Description {
        documentation: "https://developers.intercom.com/docs/webhooks/setting-up-webhooks",
        scheme: signed(Signed {
            algorithm: Algorithm::HmacSha1,
            prefix: "sha1=".into(),
            ..hmac_body("x-hub-signature")
        }),
        fields: Fields { unit: Unit::Seconds, ..fields("/topic", "/created_at", "/id") },
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn resend() -> Description {
    let documentation = "https://resend.com/docs/webhooks/introduction";
    Description {
        sent: vec![sent("svix-id", Sent::Id)],
        ..standard(documentation, fields("/type", "/created_at", ""))
    }
}

/// The signature is in the body. It covers only a time and a random token, so anybody who has seen
/// one can send any event. The documentation does not say whether a retry is signed again, so a
/// timestamp may have any age. An event of a subaccount also has a second signature, made with the
/// key of the parent account.
fn mailgun() -> Description {
    Description {
        documentation: "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks",
        scheme: signed(Signed {
            signature: vec![
                pointer("/signature/signature"),
                pointer("/signature/parent-signature"),
            ],
            stamp: Some(Stamp {
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::At(pointer("/signature/timestamp")))
            }),
            template: template("{timestamp}{/signature/token}"),
            ..hmac_body("")
        }),
        fields: Fields {
            unit: Unit::Seconds,
            ..fields("/event-data/event", "/event-data/timestamp", "/event-data/id")
        },
        ..Description::default()
    }
}
