"""Vendors that sign as Standard Webhooks."""

from signing import AT, SECONDS, case, standard

standard(
    "clerk",
    lambda n: {"type": "user.created", "timestamp": SECONDS * 1000, "data": {"id": f"user_{n}"}},
    ("user.created", AT, "msg_1"),
    family="svix",
)
standard(
    "resend",
    lambda n: {"type": "email.delivered", "created_at": AT, "data": {"email_id": n}},
    ("email.delivered", AT, "msg_1"),
    family="svix",
)
standard(
    "brex",
    lambda n: {"event_type": "TRANSFER_PROCESSED", "transfer_id": n},
    ("TRANSFER_PROCESSED", "", "msg_1"),
)
standard(
    "polar",
    lambda n: {"type": "order.paid", "timestamp": AT, "data": {"id": n}},
    ("order.paid", AT, "msg_1"),
    secret="polar_whs_plainly_fake",
    key=b"polar_whs_plainly_fake",
    another="polar_whs_another",
)
standard(
    "polar/base64",
    lambda n: {"type": "order.paid", "timestamp": AT, "data": {"id": n}},
    ("order.paid", AT, "msg_1"),
)
standard("lithic", lambda n: {"event_type": "card.created", "token": n}, ("card.created", "", "msg_1"))
standard(
    "openai",
    lambda n: {"object": "event", "id": f"evt_{n}", "type": "response.completed", "created_at": SECONDS},
    ("response.completed", AT, "msg_1"),
)
standard("replicate", lambda n: {"id": f"p{n}", "status": "succeeded"}, ("succeeded", "", "msg_1"))
standard(
    "gitlab/signed",
    lambda n: {"object_kind": "push", "n": n},
    ("Push Hook", "", "msg_1"),
    extra={"x-gitlab-event": "Push Hook"},
)
case(
    "gitlab/token",
    lambda number, attempt, time: (
        {
            "x-gitlab-token": "plainly-gitlab",
            "x-gitlab-event": "Push Hook",
            "idempotency-key": f"key-{number}",
        },
        {"object_kind": "push"},
    ),
    "x-gitlab-token",
    ("Push Hook", "", "key-1"),
    covers="nothing",
)
