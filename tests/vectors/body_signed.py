"""Vendors whose signature covers the body alone, or that send the secret itself."""

from signing import AT, NOW, SECONDS, URL, b64, body_hmac, case, dump, hexed, iso, mac

# An HMAC over the body.
body_hmac(
    "meta",
    "x-hub-signature-256",
    lambda n, a: {
        "object": "whatsapp_business_account",
        "entry": [
            {"id": str(n), "changes": [{"field": "messages"}, {"field": "account_update"}]},
            {"id": "9", "changed_fields": ["flows"]},
        ],
    },
    (",".join(f"whatsapp_business_account.{field}" for field in ("messages", "account_update", "flows")), "", ""),
    form="sha256={}",
)
body_hmac(
    "meta/messenger",
    "x-hub-signature-256",
    lambda n, a: {"object": "page", "entry": [{"id": str(n), "messaging": [{"message": {"text": "hello"}}]}]},
    ("page", "", ""),
    form="sha256={}",
)
body_hmac(
    "intercom",
    "x-hub-signature",
    lambda n, a: {
        "type": "notification_event",
        "id": f"notif_{n}",
        "topic": "conversation.user.created",
        "created_at": SECONDS,
        "delivery_attempts": a + 1,
    },
    ("conversation.user.created", AT, "notif_1"),
    algorithm="sha1",
    form="sha1={}",
)
body_hmac(
    "typeform",
    "typeform-signature",
    lambda n, a: {
        "event_id": f"01H{n}",
        "event_type": "form_response",
        "form_response": {"submitted_at": AT},
    },
    ("form_response", AT, "01H1"),
    write=b64,
    form="sha256={}",
)
body_hmac(
    "pagerduty",
    "x-pagerduty-signature",
    lambda n, a: {"event": {"id": f"01D{n}", "event_type": "incident.triggered", "occurred_at": AT}},
    ("incident.triggered", AT, "01D1"),
    form="v1=" + "0" * 64 + ",v1={}",
)
body_hmac(
    "docusign",
    "x-docusign-signature-2",
    lambda n, a: {
        "event": "envelope-completed",
        "retryCount": a,
        "generatedDateTime": AT,
        "data": {"envelopeId": f"env-{n}"},
    },
    ("envelope-completed", AT, f"env-1:envelope-completed:{AT}"),
    write=b64,
)
body_hmac(
    "checkout-com",
    "cko-signature",
    lambda n, a: {"id": f"evt_{n}", "type": "payment_approved", "created_on": AT},
    ("payment_approved", AT, "evt_1"),
)
body_hmac(
    "circleci",
    "circleci-signature",
    lambda n, a: {"id": f"ev-{n}", "type": "workflow-completed", "happened_at": AT},
    ("workflow-completed", AT, "ev-1"),
    form="v1={},v2=00",
)
body_hmac(
    "sentry",
    "sentry-hook-signature",
    lambda n, a: {"action": "created", "data": {"n": n}},
    ("issue.created", "", ""),
    extra=lambda n: {"sentry-hook-resource": "issue"},
)
body_hmac(
    "terraform",
    "x-tfe-notification-signature",
    lambda n, a: {
        "run_id": f"run-{n}",
        "notifications": [
            {"trigger": "run:completed", "run_updated_at": AT},
            {"trigger": "run:errored", "run_updated_at": AT},
        ],
    },
    ("run:completed,run:errored", AT, ""),
    algorithm="sha512",
)
body_hmac(
    "terraform/workspace",
    "x-tfe-notification-signature",
    lambda n, a: {
        "trigger": "assessment:drifted",
        "workspace_id": f"ws-{n}",
        "details": {"new_assessment_result": {"created_at": AT}},
    },
    ("assessment:drifted", AT, ""),
    algorithm="sha512",
)
body_hmac(
    "woocommerce",
    "x-wc-webhook-signature",
    lambda n, a: {"id": n, "status": "processing"},
    ("order.created", "", ""),
    write=b64,
    extra=lambda n: {"x-wc-webhook-topic": "order.created"},
)
body_hmac(
    "xero",
    "x-xero-signature",
    lambda n, a: {
        "events": [
            {
                "resourceId": str(n),
                "eventCategory": "INVOICE",
                "eventType": "CREATE",
                "eventDateUtc": iso(SECONDS, ".5"),
            },
            {
                "resourceId": "9",
                "eventCategory": "CONTACT",
                "eventType": "UPDATE",
                "eventDateUtc": iso(SECONDS + 1),
            },
        ]
    },
    ("INVOICE.CREATE,CONTACT.UPDATE", AT.replace("Z", ".500000Z"), ""),
    write=b64,
)
body_hmac(
    "modern-treasury",
    "x-signature",
    lambda n, a: {"event": "completed", "data": {"id": n}},
    ("completed", "", ""),
)
body_hmac(
    "castle",
    "x-castle-signature",
    lambda n, a: {"type": "$review.opened", "created_at": AT, "data": {"id": n}},
    ("$review.opened", AT, ""),
    write=b64,
)
body_hmac(
    "fastspring",
    "x-fs-signature",
    lambda n, a: {
        "events": [
            {"id": f"f{n}", "type": "order.completed", "created": SECONDS * 1000},
            {"id": f"f{n}b", "type": "order.completed", "created": SECONDS * 1000},
        ]
    },
    ("order.completed", AT, "f1,f1b"),
    write=b64,
)
body_hmac(
    "ashby",
    "ashby-signature",
    lambda n, a: {"action": "applicationSubmit", "webhookActionId": f"w{n}", "attempt": a},
    ("applicationSubmit", "", "applicationSubmit/w1"),
    form="sha256={}",
)
body_hmac(
    "aftership",
    "aftership-hmac-sha256",
    lambda n, a: {"event": "tracking_update", "event_id": f"a{n}", "ts": SECONDS},
    ("tracking_update", AT, "a1"),
    write=b64,
)
body_hmac(
    "aftership/returns",
    "as-signature-hmac-sha256",
    lambda n, a: {"event_type": "return.submitted", "id": f"a{n}", "created_at": AT},
    ("return.submitted", AT, "a1"),
    write=b64,
)
body_hmac(
    "autodesk",
    "x-adsk-signature",
    lambda n, a: {"hook": {"event": "dm.version.added"}, "resourceUrn": str(n)},
    ("dm.version.added", "", ""),
    algorithm="sha1",
    form="sha1hash={}",
)
for form, write in (("hex", bytes.hex), ("base64", b64)):
    body_hmac(
        f"heroku/{form}",
        "heroku-webhook-hmac-sha256",
        lambda n, a: {
            "created_at": AT,
            "webhook_metadata": {"attempt": {"id": a}, "event": {"id": f"h{n}", "include": "api:build"}},
        },
        ("api:build", AT, "h1"),
        write=write,
    )


def pusher(number, attempt, time):
    text = dump(
        {
            "time_ms": SECONDS * 1000,
            "events": [
                {"name": "channel_occupied", "channel": f"c{number}"},
                {"name": "member_added", "channel": f"c{number}", "user_id": "1"},
            ],
        }
    )
    return {"x-pusher-key": "key-1", "x-pusher-signature": hexed("plainly-pusher", text)}, text


case(
    "pusher",
    pusher,
    "x-pusher-signature",
    ("channel_occupied,member_added", AT, ""),
    secret="key-1:plainly-pusher",
    another="key-1:plainly-another",
    signed=["x-pusher-key"],
)

body_hmac(
    "bitbucket",
    "x-hub-signature",
    lambda n, a: {"push": {"changes": [{"new": {"target": {"hash": str(n), "date": AT}}}]}},
    ("repo:push", "", ""),
    form="sha256={}",
    extra=lambda n: {"x-event-key": "repo:push"},
)
body_hmac(
    "bitbucket/data-center",
    "x-hub-signature",
    lambda n, a: {"eventKey": "pr:opened", "date": "2026-05-06T12:20:00+0000", "pullRequest": {"id": n}},
    ("pr:opened", AT, ""),
    form="sha256={}",
    extra=lambda n: {"x-event-key": "pr:opened"},
)
body_hmac(
    "vercel",
    "x-vercel-signature",
    lambda n, a: {"id": f"v{n}", "type": "deployment.created", "createdAt": SECONDS * 1000, "payload": {}},
    ("deployment.created", AT, "v1"),
    algorithm="sha1",
)
body_hmac(
    "launchdarkly",
    "x-ld-signature",
    lambda n, a: {"_id": f"ld{n}", "kind": "flag", "date": SECONDS * 1000, "name": "a flag"},
    ("flag", AT, "ld1"),
)
body_hmac(
    "alchemy",
    "x-alchemy-signature",
    lambda n, a: {"webhookId": "wh_1", "id": f"whevt_{n}", "createdAt": AT, "type": "ADDRESS_ACTIVITY"},
    ("ADDRESS_ACTIVITY", AT, "whevt_1"),
)
body_hmac(
    "commerce-layer",
    "x-commercelayer-signature",
    lambda n, a: {"data": {"id": str(n), "type": "orders", "attributes": {"updated_at": AT}}},
    ("orders.place", "", ""),
    write=b64,
    extra=lambda n: {"x-commercelayer-topic": "orders.place"},
)
body_hmac(
    "coinbase-commerce",
    "x-cc-webhook-signature",
    lambda n, a: {
        "id": a,
        "attempt_number": a + 1,
        "event": {"id": f"cc{n}", "type": "charge:confirmed", "created_at": AT},
    },
    ("charge:confirmed", AT, "cc1"),
)


def mailgun(parent):
    """The signature is in the body, and covers nothing of the event."""

    def make(number, attempt, time):
        token = f"{number}{attempt}" * 25
        signature = {"token": token, "timestamp": str(time), "signature": hexed("plainly-mailgun", f"{time}{token}")}
        if parent:
            signature["parent-signature"] = signature["signature"]
            signature["signature"] = hexed("plainly-subaccount", f"{time}{token}")
        event = {"id": f"mg{number}", "event": "delivered", "timestamp": SECONDS + 0.5}
        return {}, {"signature": signature, "event-data": event}

    return make


for name, parent in (("mailgun", False), ("mailgun/subaccount", True)):
    case(
        name,
        mailgun(parent),
        None,
        ("delivered", AT.replace("Z", ".500000Z"), "mg1"),
        covers=["10" * 25, str(NOW)],
    )


def trello(number, attempt, time):
    text = dump({"action": {"id": f"tr{number}", "type": "updateCard", "date": iso(SECONDS, ".123") + "Z"}})
    signature = b64(mac("plainly-trello", f"{text}{URL}/webhook/trello", "sha1"))
    return {"x-trello-webhook": signature}, text


case("trello", trello, "x-trello-webhook", ("updateCard", AT.replace("Z", ".123000Z"), "tr1"))

# A secret that is sent as it is.
case(
    "huggingface",
    lambda number, attempt, time: (
        {"x-webhook-secret": "plainly-huggingface"},
        {"event": {"scope": "repo.content", "action": "update"}, "n": number},
    ),
    "x-webhook-secret",
    ("repo.content.update", "", ""),
    covers="nothing",
)
case(
    "chargebee",
    lambda number, attempt, time: (
        {"authorization": "Basic " + b64(b"router:plainly-chargebee")},
        {
            "id": f"ev_{number}",
            "event_type": "invoice_generated",
            "occurred_at": SECONDS,
            "webhook_status": str(attempt),
        },
    ),
    "authorization",
    ("invoice_generated", AT, "ev_1"),
    secret="router:plainly-chargebee",
    another="router:plainly-another",
    covers="nothing",
)
