"""Vendors whose signature covers a time and the body."""

from signing import AT, SECONDS, URL, b64, b64url, case, dotted, dump, hexed, iso, joined, mac, stamped

stamped(
    "zendesk",
    "x-zendesk-webhook-signature",
    lambda n, a: {"type": "zen:event-type:ticket.created", "time": AT, "n": n},
    ("zen:event-type:ticket.created", AT, "01Z1"),
    joined,
    stamp="x-zendesk-webhook-signature-timestamp",
    stamp_text=lambda time: iso(time) + "Z",
    write=b64,
    extra=lambda n: {"x-zendesk-webhook-invocation-id": f"01Z{n}"},
)
stamped(
    "zoom",
    "x-zm-signature",
    lambda n, a: {"event": "meeting.started", "event_ts": SECONDS * 1000, "payload": {"n": n}},
    ("meeting.started", AT, ""),
    lambda when, text, headers: f"v0:{when}:{text}",
    stamp="x-zm-request-timestamp",
    form="v0={s}",
    tolerance=None,
)
stamped(
    "workos",
    "workos-signature",
    lambda n, a: {"id": f"event_{n}", "event": "dsync.user.created", "created_at": AT},
    ("dsync.user.created", AT, "event_1"),
    dotted,
    unit=1000,
    form="t={t}, v1={s}",
    tolerance=180,
)
stamped(
    "calendly",
    "calendly-webhook-signature",
    lambda n, a: {"event": "invitee.created", "created_at": AT, "payload": {"n": n}},
    ("invitee.created", AT, ""),
    dotted,
    form="t={t},v1={s}",
    tolerance=180,
)
stamped(
    "mux",
    "mux-signature",
    lambda n, a: {"id": f"mux-{n}", "type": "video.asset.ready", "created_at": AT, "attempts": [a]},
    ("video.asset.ready", AT, "mux-1"),
    dotted,
    form="t={t},v1={s}",
)
stamped(
    "buildkite",
    "x-buildkite-signature",
    lambda n, a: {"event": "build.finished", "build": {"number": n}},
    ("build.finished", "", ""),
    dotted,
    form="timestamp={t},signature={s}",
)
stamped(
    "webflow",
    "x-webflow-signature",
    lambda n, a: {"triggerType": "form_submission", "payload": {"id": n}},
    ("form_submission", "", ""),
    lambda when, text, headers: f"{when}:{text}",
    stamp="x-webflow-timestamp",
    unit=1000,
)
stamped(
    "twitch",
    "twitch-eventsub-message-signature",
    lambda n, a: {"subscription": {"type": "channel.follow", "status": "enabled"}, "event": {"n": 1}},
    ("channel.follow", "", "twitch-1"),
    lambda when, text, headers: f"{headers['twitch-eventsub-message-id']}{when}{text}",
    stamp="twitch-eventsub-message-timestamp",
    stamp_text=lambda time: iso(time, ".000000000") + "Z",
    form="sha256={s}",
    extra=lambda n: {"twitch-eventsub-message-id": f"twitch-{n}"},
    signed=["twitch-eventsub-message-id"],
    tolerance=600,
)
stamped(
    "box",
    "box-signature-secondary",
    lambda n, a: {"id": f"box-{n}", "trigger": "FILE.UPLOADED", "created_at": "2026-05-06T05:20:00-07:00"},
    ("FILE.UPLOADED", AT, "box-1"),
    lambda when, text, headers: f"{text}{when}",
    stamp="box-delivery-timestamp",
    stamp_text=lambda time: iso(time) + "Z",
    write=b64,
    tolerance=600,
)
stamped(
    "revolut",
    "revolut-signature",
    lambda n, a: {"event": "ORDER_COMPLETED", "timestamp": AT, "order_id": n},
    ("ORDER_COMPLETED", AT, ""),
    lambda when, text, headers: f"v1.{when}.{text}",
    stamp="revolut-request-timestamp",
    unit=1000,
    form="v1={s}",
)
stamped(
    "airwallex",
    "x-signature",
    lambda n, a: {"id": f"aw{n}", "name": "payment_intent.succeeded", "created_at": AT},
    ("payment_intent.succeeded", AT, "aw1"),
    joined,
    stamp="x-timestamp",
    unit=1000,
    tolerance=None,
)
stamped(
    "orb",
    "x-orb-signature",
    lambda n, a: {"id": f"orb{n}", "type": "invoice.issued", "created_at": AT},
    ("invoice.issued", AT, "orb1"),
    lambda when, text, headers: f"v1:{when}:{text}",
    stamp="x-orb-timestamp",
    stamp_text=lambda time: iso(time, ".000000"),
    form="v1={s}",
)
stamped(
    "elevenlabs",
    "elevenlabs-signature",
    lambda n, a: {"type": "post_call_transcription", "event_timestamp": SECONDS, "data": {"n": n}},
    ("post_call_transcription", AT, ""),
    dotted,
    form="t={t},v0={s}",
    tolerance=1800,
)
stamped(
    "retell",
    "x-retell-signature",
    lambda n, a: {"event": "call_ended", "call": {"call_id": n}},
    ("call_ended", "", ""),
    lambda when, text, headers: f"{text}{when}",
    unit=1000,
    form="v={t},d={s}",
)
stamped(
    "statsig",
    "x-statsig-signature",
    lambda n, a: {"data": [{"eventName": "config_change", "timestamp": SECONDS * 1000, "n": n}]},
    ("config_change", AT, ""),
    lambda when, text, headers: f"v0:{when}:{text}",
    stamp="x-statsig-request-timestamp",
    unit=1000,
    form="v0={s}",
    tolerance=None,
)
stamped(
    "knock",
    "x-knock-signature",
    lambda n, a: {"type": "message.delivered", "created_at": AT, "n": n},
    ("message.delivered", AT, ""),
    dotted,
    unit=1000,
    write=b64,
    form="t={t},s={s}",
)
stamped(
    "sanity",
    "sanity-webhook-signature",
    lambda n, a: {"_id": "d1"},
    ("", "", "san-1"),
    dotted,
    unit=1000,
    write=b64url,
    form="t={t},v1={s}",
    extra=lambda n: {"idempotency-key": f"san-{n}"},
    tolerance=None,
)
stamped(
    "tiktok",
    "tiktok-signature",
    lambda n, a: {"event": "video.publish.complete", "create_time": SECONDS, "n": n},
    ("video.publish.complete", AT, ""),
    dotted,
    form="t={t},s={s}",
    tolerance=None,
)


def linear(number, attempt, time):
    text = dump({"action": "create", "type": "Issue", "createdAt": AT, "webhookTimestamp": time * 1000})
    return {"linear-signature": hexed("plainly-linear", text), "linear-delivery": f"lin-{number}"}, text


case("linear", linear, "linear-signature", ("Issue.create", AT, "lin-1"), tolerance=60)


def hubspot(escaped):
    def make(number, attempt, time):
        text = dump(
            [
                {
                    "eventId": number,
                    "subscriptionId": 12,
                    "objectId": 3,
                    "occurredAt": SECONDS * 1000,
                    "subscriptionType": "contact.creation",
                    "attemptNumber": attempt,
                },
                {
                    "eventId": 7,
                    "subscriptionId": 12,
                    "occurredAt": SECONDS * 1000,
                    "subscriptionType": "deal.creation",
                    "attemptNumber": attempt,
                },
            ]
        )
        address = f"{URL}/webhook/hubspot?to={escaped}"
        signature = b64(mac("plainly-hubspot", f"POST{address}{text}{time * 1000}"))
        return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": str(time * 1000)}, text

    return make


for name, written in (("hubspot", "https://a/%20"), ("hubspot/undecoded", "https%3A%2F%2Fa/%20")):
    case(
        name,
        hubspot(written),
        "x-hubspot-signature-v3",
        ("contact.creation,deal.creation", AT, f"1:12:3:{SECONDS}000,7:12:{SECONDS}000"),
        signed=["x-hubspot-request-timestamp"],
        tolerance=300,
        query="to=https%3A%2F%2Fa/%20",
    )
