"""Signs and verifies deliveries with the vendors' own PyPI packages, for tests/it/libraries.rs.

The input and the output are those of libraries.mjs.
"""

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import parse_qs, urlencode

import Adyen
import braintree
import stripe
from braintree.webhook_notification_gateway import WebhookNotificationGateway
from braintree.webhook_testing_gateway import WebhookTestingGateway
from discord_interactions import verify_key
from elevenlabs.client import ElevenLabs
from paddle_billing.Notifications import Secret, Verifier
from paddle_billing.Notifications.PaddleSignature import PaddleSignature
from polar.webhooks import validate_event
from sendgrid.helpers.eventwebhook import EventWebhook, EventWebhookHeader
from slack_sdk.signature import SignatureVerifier
from square.utils.webhooks_helper import verify_signature as verify_square
from standardwebhooks.webhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as Svix

# Standard output belongs to the answers.
output, sys.stdout = sys.stdout, open(os.devnull, "w")
logging.disable()


def sign_stripe(one):
    header = stripe.WebhookSignature.generate_signature_header(one["body"], one["secret"])
    return {"headers": {"stripe-signature": header}}


def verify_stripe(one):
    stripe.Webhook.construct_event(one["body"], one["headers"]["stripe-signature"], one["secret"])


def sign_standard(library, family):
    def sign(one):
        now = datetime.now(UTC)
        signature = library(one["secret"]).sign("msg_library", now, one["body"])
        values = {"id": "msg_library", "timestamp": str(int(now.timestamp())), "signature": signature}
        return {"headers": {f"{family}-{name}": value for name, value in values.items()}}

    return sign


def verify_standard(library):
    return lambda one: library(one["secret"]).verify(one["body"], one["headers"])


def items(body):
    return [item["NotificationRequestItem"] for item in body["notificationItems"]]


def sign_adyen(one):
    body = json.loads(one["body"])
    if "notificationItems" not in body:
        signature = Adyen.util.generate_payload_sig(one["body"].encode(), one["secret"]).decode()
        return {"headers": {"hmacsignature": signature, "protocol": "HmacSHA256"}}
    for item in items(body):
        signature = Adyen.util.generate_notification_sig(item, one["secret"]).decode()
        item.setdefault("additionalData", {})["hmacSignature"] = signature
    return {"headers": {}, "body": json.dumps(body)}


def verify_adyen(one):
    body = json.loads(one["body"])
    if "notificationItems" in body:
        return all(Adyen.util.is_valid_hmac_notification(item, one["secret"]) for item in items(body))
    signature = one["headers"]["hmacsignature"]
    return Adyen.util.is_valid_hmac_payload(signature, one["secret"], one["body"].encode())


def sign_slack(one):
    when = str(int(time.time()))
    signature = SignatureVerifier(one["secret"]).generate_signature(timestamp=when, body=one["body"])
    return {"headers": {"x-slack-request-timestamp": when, "x-slack-signature": signature}}


def verify_slack(one):
    return SignatureVerifier(one["secret"]).is_valid_request(one["body"], one["headers"])


def sign_paddle(one):
    when = int(time.time())
    signed = f"{when}:{one['body']}".encode()
    signature = PaddleSignature.calculate_hmac(one["secret"], signed).hexdigest()
    return {"headers": {"paddle-signature": f"ts={when};h1={signature}"}}


def verify_paddle(one):
    headers = {"Paddle-Signature": one["headers"]["paddle-signature"]}
    request = SimpleNamespace(headers=headers, body=one["body"].encode())
    return Verifier().verify(request, Secret(one["secret"]))


def verify_square_delivery(one):
    return verify_square(
        request_body=one["body"],
        signature_header=one["headers"]["x-square-hmacsha256-signature"],
        signature_key=one["secret"],
        notification_url=one["url"],
    )


def verify_polar(one):
    types = frozenset([json.loads(one["body"])["type"]])
    validate_event(one["body"], one["headers"], one["secret"], types, lambda event: event)


def verify_sendgrid(one):
    header = EventWebhookHeader()
    signature, timestamp = (one["headers"][name.lower()] for name in (header.SIGNATURE, header.TIMESTAMP))
    return EventWebhook(one["secret"]).verify_signature(one["body"], signature, timestamp)


def verify_discord(one):
    signature, timestamp = (one["headers"][f"x-signature-{name}"] for name in ("ed25519", "timestamp"))
    return verify_key(one["body"].encode(), signature, timestamp, one["secret"])


def verify_elevenlabs(one):
    webhooks = ElevenLabs(api_key="plainly-no-key").webhooks
    webhooks.construct_event(one["body"], one["headers"]["elevenlabs-signature"], one["secret"])


def braintree_gateway(one):
    public, private = one["secret"].split(":")
    sandbox = braintree.Environment.Sandbox
    return braintree.BraintreeGateway(braintree.Configuration(sandbox, "merchant", public, private))


def sign_braintree(one):
    kind = braintree.WebhookNotification.Kind.SubscriptionWentPastDue
    fields = WebhookTestingGateway(braintree_gateway(one)).sample_notification(kind, "subscription-1")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return {"headers": headers, "body": urlencode(fields)}


def verify_braintree(one):
    fields = parse_qs(one["body"])
    parse = WebhookNotificationGateway(braintree_gateway(one)).parse
    parse(fields["bt_signature"][0], fields["bt_payload"][0])


# Vendor, library, signs, verifies. A library that returns False or raises refuses the delivery.
LIBRARIES = [
    ("stripe", "stripe", sign_stripe, verify_stripe),
    (
        "standard-webhooks",
        "standardwebhooks",
        sign_standard(StandardWebhook, "webhook"),
        verify_standard(StandardWebhook),
    ),
    ("standard-webhooks", "svix", sign_standard(Svix, "svix"), verify_standard(Svix)),
    ("adyen", "Adyen", sign_adyen, verify_adyen),
    ("slack", "slack_sdk", sign_slack, verify_slack),
    ("paddle", "paddle-python-sdk", sign_paddle, verify_paddle),
    ("square", "squareup", None, verify_square_delivery),
    ("polar", "polar-sdk", None, verify_polar),
    ("sendgrid", "sendgrid", None, verify_sendgrid),
    ("discord", "discord-interactions", None, verify_discord),
    ("elevenlabs", "elevenlabs", None, verify_elevenlabs),
    ("braintree", "braintree", sign_braintree, verify_braintree),
]


def verdict(verify, delivery):
    try:
        return "refused" if verify(delivery) is False else "accepted"
    except Exception as error:  # Each library raises errors of its own.
        return f"refused: {error!r}"


def answers(delivery):
    for vendor, library, sign, verify in LIBRARIES:
        if vendor == delivery["vendor"]:
            if "headers" in delivery:
                yield {"library": library, "verdict": verdict(verify, delivery)}
            elif sign:
                yield {"library": library, **sign(delivery)}


print(json.dumps([[vendor, library] for vendor, library, _, _ in LIBRARIES]), file=output, flush=True)
for line in sys.stdin:
    print(json.dumps(list(answers(json.loads(line)))), file=output, flush=True)
