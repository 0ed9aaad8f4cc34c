//! Code, infrastructure, identity and models.

use http::HeaderName;

use super::built_in::{BuiltIn, row};
use crate::source::{
    builders::{
        DAY, fields, header, hmac_body, joined, names, pointer, pointer_to, sent, signed, stamp,
        standard, template,
    },
    description::{
        Algorithm, Description, Encoding, Fields, Joined, Scheme, Sent, Signed, Stamp, StampPlace,
        Tolerance, Unit,
    },
};

pub(super) static ALL: [BuiltIn; 19] = [
    row("github", github),
    row("circleci", circleci),
    row("buildkite", buildkite),
    row("sentry", sentry),
    row("terraform", terraform),
    row("heroku", heroku),
    row("statsig", statsig),
    row("autodesk", autodesk),
    row("huggingface", huggingface),
    row("openai", openai),
    row("replicate", replicate),
    row("linear", linear),
    row("pagerduty", pagerduty),
    row("workos", workos),
    row("clerk", clerk),
    row("bitbucket", bitbucket),
    row("vercel", vercel),
    row("launchdarkly", launchdarkly),
    row("alchemy", alchemy),
];

/// The signature covers only the body. Type and id are in headers that anybody could change. There
/// is no time that every event has. A redelivery at an operator's request has the same
/// `X-GitHub-Delivery` and the same body. The SHA-1 signature in `X-Hub-Signature` is not accepted.
fn github() -> Description {
    Description {
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

/// The signature covers type, time and id. Only entries of the version `v1` count.
fn circleci() -> Description {
    Description {
        documentation: "https://circleci.com/docs/guides/integration/outbound-webhooks/",
        scheme: signed(Signed { prefix: "v1=".into(), ..hmac_body("circleci-signature") }),
        fields: fields("/type", "/happened_at", "/id"),
        ..Description::default()
    }
}

/// The signature covers the type. Builds and jobs have times of their own, and there is no id. The
/// service must send a signature: a token in `X-Buildkite-Token` is not taken.
fn buildkite() -> Description {
    Description {
        documentation: "https://buildkite.com/docs/apis/webhooks/pipelines",
        scheme: signed(Signed {
            separator: Some(",".into()),
            prefix: "signature=".into(),
            stamp: Some(stamp(StampPlace::Entry("timestamp=".into()))),
            template: template("{timestamp}.{body}"),
            ..hmac_body("x-buildkite-signature")
        }),
        fields: fields("/event", "", ""),
        ..Description::default()
    }
}

/// The signature covers the body alone: resource and timestamp are in headers that anybody could
/// change. `Request-ID` is new in every request, so there is no id.
fn sentry() -> Description {
    Description {
        documentation: "https://docs.sentry.io/organization/integrations/integration-platform/webhooks/",
        scheme: signed(hmac_body("sentry-hook-signature")),
        fields: Fields {
            event_type: vec![Joined {
                places: vec![header("sentry-hook-resource"), pointer("/action")],
                with: ".",
                needs_all: false,
            }],
            ..Fields::default()
        },
        signature_headers: names(&["sentry-hook-resource", "sentry-hook-timestamp"]),
        ..Description::default()
    }
}

/// The signature covers type and time. There is no id. Events of runs and of workspaces differ in
/// form. Terraform saves a configuration only after a notification with the trigger `verification`
/// has succeeded.
fn terraform() -> Description {
    Description {
        documentation: "https://developer.hashicorp.com/terraform/cloud-docs/api-docs/notification-configurations",
        scheme: signed(Signed {
            algorithm: Algorithm::HmacSha512,
            ..hmac_body("x-tfe-notification-signature")
        }),
        fields: Fields {
            each: Some(pointer_to("/notifications")),
            created_at: vec![
                pointer("/run_updated_at"),
                pointer("/details/new_assessment_result/created_at"),
            ],
            ..fields("/trigger", "", "")
        },
        ..Description::default()
    }
}

/// The signature covers type, time and id. The body also names the attempt and the delivery, which
/// differ in every delivery. Hex and base64 are both taken.
fn heroku() -> Description {
    Description {
        documentation: "https://devcenter.heroku.com/articles/app-webhooks",
        scheme: signed(Signed {
            encoding: Encoding::HexOrBase64,
            ..hmac_body("heroku-webhook-hmac-sha256")
        }),
        fields: fields(
            "/webhook_metadata/event/include",
            "/created_at",
            "/webhook_metadata/event/id",
        ),
        ..Description::default()
    }
}

/// The signature covers type and time of every change in the batch. There is no id. Exposures come
/// as a bare array, which is one event.
fn statsig() -> Description {
    Description {
        documentation: "https://docs.statsig.com/integrations/event_webhook",
        scheme: signed(Signed {
            prefix: "v0=".into(),
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                tolerance: Tolerance::Any,
                ..stamp(StampPlace::At(header("x-statsig-request-timestamp")))
            }),
            template: template("v0:{timestamp}:{body}"),
            ..hmac_body("x-statsig-signature")
        }),
        fields: Fields {
            each: Some(pointer_to("/data")),
            unit: Unit::Milliseconds,
            ..fields("/eventName", "/timestamp", "")
        },
        ..Description::default()
    }
}

/// The signature, an HMAC-SHA1, covers the type. There is no time that every event has, and there is
/// no id.
fn autodesk() -> Description {
    Description {
        documentation: "https://aps.autodesk.com/en/docs/webhooks/v1/tutorials/how-to-verify-payload-signature/",
        scheme: signed(Signed {
            algorithm: Algorithm::HmacSha1,
            prefix: "sha1hash=".into(),
            ..hmac_body("x-adsk-signature")
        }),
        fields: fields("/hook/event", "", ""),
        ..Description::default()
    }
}

/// Nothing is signed: a header holds the secret. There is neither a time nor an id.
fn huggingface() -> Description {
    Description {
        documentation: "https://huggingface.co/docs/hub/webhooks",
        scheme: Some(Scheme::SharedSecret {
            header: HeaderName::from_static("x-webhook-secret"),
            prefix: String::new(),
        }),
        fields: Fields {
            event_type: vec![joined(&["/event/scope", "/event/action"], ".")],
            ..Fields::default()
        },
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn openai() -> Description {
    let fields = Fields { unit: Unit::Seconds, ..fields("/type", "/created_at", "") };
    standard("https://platform.openai.com/docs/guides/webhooks", fields)
}

/// The signature covers the id. The body is the prediction. Its status is the type, and no field
/// has the time of the event.
fn replicate() -> Description {
    standard("https://replicate.com/docs/topics/webhooks", fields("/status", "", ""))
}

/// The signature covers the body, and so type and time, but not the id, which is in a header that
/// anybody could change. The time of sending is in the body, and changes between deliveries.
fn linear() -> Description {
    Description {
        documentation: "https://linear.app/developers/webhooks",
        scheme: signed(Signed {
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                tolerance: Tolerance::Seconds(60),
                ..stamp(StampPlace::At(pointer("/webhookTimestamp")))
            }),
            ..hmac_body("linear-signature")
        }),
        fields: Fields {
            event_type: vec![Joined { needs_all: false, ..joined(&["/type", "/action"], ".") }],
            id: vec![header("linear-delivery").into()],
            ..fields("", "/createdAt", "")
        },
        signature_headers: names(&["linear-delivery", "linear-event"]),
        ..Description::default()
    }
}

/// The signature covers type, time and id. During a rotation, the header holds several signatures.
fn pagerduty() -> Description {
    Description {
        documentation: "https://developer.pagerduty.com/docs/verifying-webhook-signatures",
        scheme: signed(Signed { prefix: "v1=".into(), ..hmac_body("x-pagerduty-signature") }),
        fields: fields("/event/event_type", "/event/occurred_at", "/event/id"),
        ..Description::default()
    }
}

/// The signature covers type, time and id. The time of sending is in milliseconds.
fn workos() -> Description {
    Description {
        documentation: "https://workos.com/docs/events/data-syncing/webhooks",
        scheme: signed(Signed {
            prefix: "v1=".into(),
            stamp: Some(Stamp {
                unit: Unit::Milliseconds,
                tolerance: Tolerance::Seconds(180),
                ..stamp(StampPlace::Entry("t=".into()))
            }),
            template: template("{timestamp}.{body}"),
            ..hmac_body("workos-signature")
        }),
        fields: fields("/event", "/created_at", "/id"),
        retry_horizon: 3 * DAY,
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn clerk() -> Description {
    let fields = Fields { unit: Unit::Milliseconds, ..fields("/type", "/timestamp", "") };
    let documentation = "https://clerk.com/docs/guides/development/webhooks/overview";
    Description { sent: vec![sent("svix-id", Sent::Id)], ..standard(documentation, fields) }
}

/// The signature covers the body alone: the type is in a header that anybody could change.
/// `X-Request-UUID` names the request, so it is no id. Only Data Center's bodies have a time.
fn bitbucket() -> Description {
    Description {
        documentation: "https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/",
        scheme: signed(Signed { prefix: "sha256=".into(), ..hmac_body("x-hub-signature") }),
        fields: Fields {
            event_type: vec![header("x-event-key").into()],
            ..fields("", "/date", "")
        },
        signature_headers: names(&["x-event-key"]),
        sent: vec![sent("x-event-key", Sent::Text("repo:push"))],
        ..Description::default()
    }
}

/// The signature, an HMAC-SHA1, covers type, time and id.
fn vercel() -> Description {
    Description {
        documentation: "https://vercel.com/docs/webhooks/webhooks-api",
        scheme: signed(Signed {
            algorithm: Algorithm::HmacSha1,
            ..hmac_body("x-vercel-signature")
        }),
        fields: Fields { unit: Unit::Milliseconds, ..fields("/type", "/createdAt", "/id") },
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn launchdarkly() -> Description {
    Description {
        documentation: "https://launchdarkly.com/docs/home/infrastructure/webhooks",
        scheme: signed(hmac_body("x-ld-signature")),
        fields: Fields { unit: Unit::Milliseconds, ..fields("/kind", "/date", "/_id") },
        ..Description::default()
    }
}

/// The signature covers type, time and id.
fn alchemy() -> Description {
    Description {
        documentation: "https://docs.alchemy.com/reference/notify-api-faq",
        scheme: signed(hmac_body("x-alchemy-signature")),
        fields: fields("/type", "/createdAt", "/id"),
        ..Description::default()
    }
}
