"""Signs a delivery of each vendor beyond the first fifteen, and writes them to vendors.json.

Run it in the tests' Python environment: target/venv/bin/python tests/vectors/make.py

It shares nothing with the router: it follows the vendors' documentation with Python's hmac and the
cryptography package. Keys are plainly fake. RSA signatures differ in every run, because their key is
made anew and thrown away.
"""

import base64
import datetime
import hashlib
import hmac
import json
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import NameOID

NOW = 1_778_070_900  # 2026-05-06T12:35:00Z
HOUR = 3600
URL = "https://hooks.example.com/in"
WHSEC = "whsec_" + base64.b64encode(b"plainly fake key").decode()
OTHER_WHSEC = "whsec_" + base64.b64encode(b"another fake key").decode()

cases = []


def mac(key, message, algorithm="sha256"):
    key = key.encode() if isinstance(key, str) else key
    return hmac.new(key, message.encode(), algorithm).digest()


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def hexed(key, message, algorithm="sha256"):
    return mac(key, message, algorithm).hex()


def iso(seconds, fraction=""):
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S") + fraction


def dump(value):
    return json.dumps(value, separators=(",", ":"))


def case(
    name, make, signature, event, *, secret=None, another=None, signed=(), tolerance=None,
    covers="body", query=None, fetched=None, retry_is_other=False,
):
    """Adds a vendor: `make(event, attempt, time)` returns the headers and the body of a delivery.

    `signature` is the header that holds the signature, `signed` are other headers that it covers, and
    `covers` says what of the body is signed: "body", "nothing", or a list of its texts. `event` is
    the type, time and id of the first delivery.
    """
    vendor = name.split("/")[0]

    def delivery(number, attempt):
        time = NOW + attempt * HOUR
        headers, body = make(number, attempt, time)
        body = body if isinstance(body, str) else dump(body)
        return {"now": time, "headers": headers, "body": body}

    cases.append(
        {
            "id": name,
            "vendor": vendor,
            "secret": secret or f"plainly-{vendor}",
            "another": another or "plainly-another",
            "signature": signature,
            "signed_headers": list(signed),
            "covers": covers,
            "tolerance": tolerance,
            "query": query,
            "fetched": fetched,
            "event": dict(zip(("type", "time", "id"), event)),
            "first": delivery(1, 0),
            "retry": None if retry_is_other else delivery(1, 1),
            "other": delivery(2, 0),
        }
    )


def body_hmac(name, header, body, event, *, algorithm="sha256", write=bytes.hex, form="{}", extra=None, **more):
    """A vendor whose signature covers the body alone."""
    secret = f"plainly-{name.split('/')[0]}"

    def make(number, attempt, time):
        text = body(number, attempt)
        text = text if isinstance(text, str) else dump(text)
        headers = {header: form.format(write(mac(secret, text, algorithm)))}
        headers.update(extra(number) if extra else {})
        return headers, text

    case(name, make, header, event, **more)


def stamped(name, header, body, event, template, *, stamp=None, unit=1, write=bytes.hex, form="{s}", stamp_text=None, extra=None, tolerance=300, **more):
    """A vendor whose signature covers a time: in the header `stamp`, or in the signature's header."""
    secret = f"plainly-{name.split('/')[0]}"

    def make(number, attempt, time):
        text = dump(body(number, attempt))
        when = stamp_text(time) if stamp_text else str(time * unit)
        headers = {}
        if stamp:
            headers[stamp] = when
        headers.update(extra(number) if extra else {})
        message = template(when, text, headers)
        headers[header] = form.format(t=when, s=write(mac(secret, message)))
        return headers, text

    signed = ([stamp] if stamp else []) + list(more.pop("signed", []))
    case(name, make, header, event, signed=signed, tolerance=tolerance, **more)


def standard(name, body, event, *, family="webhook", secret=WHSEC, key=None, another=OTHER_WHSEC, extra=None):
    """A vendor that signs as Standard Webhooks."""
    key = key or base64.b64decode(secret.removeprefix("whsec_"))

    def make(number, attempt, time):
        text = dump(body(number))
        ident = f"msg_{number}"
        signature = "v1," + b64(mac(key, f"{ident}.{time}.{text}"))
        headers = {
            f"{family}-id": ident,
            f"{family}-timestamp": str(time),
            f"{family}-signature": signature,
        }
        headers.update(extra or {})
        return headers, text

    case(
        name, make, f"{family}-signature", event, secret=secret, another=another, tolerance=300,
        signed=(f"{family}-id", f"{family}-timestamp"),
    )


dotted = lambda when, text, headers: f"{when}.{text}"
joined = lambda when, text, headers: f"{when}{text}"
AT = iso(NOW - 900) + "Z"
SECONDS = NOW - 900

# The rows of Standard Webhooks.
standard("clerk", lambda n: {"type": "user.created", "timestamp": SECONDS * 1000, "data": {"id": f"user_{n}"}}, ("user.created", AT, "msg_1"), family="svix")
standard("resend", lambda n: {"type": "email.delivered", "created_at": AT, "data": {"email_id": n}}, ("email.delivered", AT, "msg_1"), family="svix")
standard("brex", lambda n: {"event_type": "TRANSFER_PROCESSED", "transfer_id": n}, ("TRANSFER_PROCESSED", "", "msg_1"))
standard("polar", lambda n: {"type": "order.paid", "timestamp": AT, "data": {"id": n}}, ("order.paid", AT, "msg_1"), secret="polar_whs_plainly_fake", key=b"polar_whs_plainly_fake", another="polar_whs_another")
standard("polar/base64", lambda n: {"type": "order.paid", "timestamp": AT, "data": {"id": n}}, ("order.paid", AT, "msg_1"))
standard("lithic", lambda n: {"event_type": "card.created", "token": n}, ("card.created", "", "msg_1"))
standard("openai", lambda n: {"object": "event", "id": f"evt_{n}", "type": "response.completed", "created_at": SECONDS}, ("response.completed", AT, "msg_1"))
standard("replicate", lambda n: {"id": f"p{n}", "status": "succeeded"}, ("succeeded", "", "msg_1"))
standard("gitlab/signed", lambda n: {"object_kind": "push", "n": n}, ("Push Hook", "", "msg_1"), extra={"x-gitlab-event": "Push Hook"})
case(
    "gitlab/token",
    lambda number, attempt, time: (
        {"x-gitlab-token": "plainly-gitlab", "x-gitlab-event": "Push Hook", "idempotency-key": f"key-{number}"},
        {"object_kind": "push"},
    ),
    "x-gitlab-token", ("Push Hook", "", "key-1"), covers="nothing",
)

# An HMAC over the body.
body_hmac("meta", "x-hub-signature-256", lambda n, a: {"object": "whatsapp_business_account", "entry": [{"id": str(n), "changes": [{"field": "messages"}]}]}, ("whatsapp_business_account.messages", "", ""), form="sha256={}")
body_hmac("intercom", "x-hub-signature", lambda n, a: {"type": "notification_event", "id": f"notif_{n}", "topic": "conversation.user.created", "created_at": SECONDS, "delivery_attempts": a + 1}, ("conversation.user.created", AT, "notif_1"), algorithm="sha1", form="sha1={}")
body_hmac("typeform", "typeform-signature", lambda n, a: {"event_id": f"01H{n}", "event_type": "form_response", "form_response": {"submitted_at": AT}}, ("form_response", AT, "01H1"), write=b64, form="sha256={}")
body_hmac("pagerduty", "x-pagerduty-signature", lambda n, a: {"event": {"id": f"01D{n}", "event_type": "incident.triggered", "occurred_at": AT}}, ("incident.triggered", AT, "01D1"), form="v1=" + "0" * 64 + ",v1={}")
body_hmac("docusign", "x-docusign-signature-2", lambda n, a: {"event": "envelope-completed", "retryCount": a, "generatedDateTime": AT, "data": {"envelopeId": f"env-{n}"}}, ("envelope-completed", AT, f"env-1:envelope-completed:{AT}"), write=b64)
body_hmac("checkout-com", "cko-signature", lambda n, a: {"id": f"evt_{n}", "type": "payment_approved", "created_on": AT}, ("payment_approved", AT, "evt_1"))
body_hmac("circleci", "circleci-signature", lambda n, a: {"id": f"ev-{n}", "type": "workflow-completed", "happened_at": AT}, ("workflow-completed", AT, "ev-1"), form="v1={},v2=00")
body_hmac("sentry", "sentry-hook-signature", lambda n, a: {"action": "created", "data": {"n": n}}, ("issue.created", "", ""), extra=lambda n: {"sentry-hook-resource": "issue"})
body_hmac("terraform", "x-tfe-notification-signature", lambda n, a: {"run_id": f"run-{n}", "notifications": [{"trigger": "run:completed", "run_updated_at": AT}]}, ("run:completed", AT, ""), algorithm="sha512")
body_hmac("woocommerce", "x-wc-webhook-signature", lambda n, a: {"id": n, "status": "processing"}, ("order.created", "", ""), write=b64, extra=lambda n: {"x-wc-webhook-topic": "order.created"})
body_hmac("xero", "x-xero-signature", lambda n, a: {"events": [{"resourceId": str(n), "eventCategory": "INVOICE", "eventType": "CREATE", "eventDateUtc": iso(SECONDS, ".5")}, {"resourceId": "9", "eventCategory": "CONTACT", "eventType": "UPDATE", "eventDateUtc": iso(SECONDS + 1)}]}, ("INVOICE.CREATE,CONTACT.UPDATE", AT.replace("Z", ".500000Z"), ""), write=b64)
body_hmac("modern-treasury", "x-signature", lambda n, a: {"event": "completed", "data": {"id": n}}, ("completed", "", ""))
body_hmac("castle", "x-castle-signature", lambda n, a: {"type": "$review.opened", "created_at": AT, "data": {"id": n}}, ("$review.opened", AT, ""), write=b64)
body_hmac("fastspring", "x-fs-signature", lambda n, a: {"events": [{"id": f"f{n}", "type": "order.completed", "created": SECONDS * 1000}, {"id": f"f{n}b", "type": "order.completed", "created": SECONDS * 1000}]}, ("order.completed", AT, "f1,f1b"), write=b64)
body_hmac("ashby", "ashby-signature", lambda n, a: {"action": "applicationSubmit", "webhookActionId": f"w{n}", "attempt": a}, ("applicationSubmit", "", "applicationSubmit/w1"), form="sha256={}")
body_hmac("aftership", "aftership-hmac-sha256", lambda n, a: {"event": "tracking_update", "event_id": f"a{n}", "ts": SECONDS}, ("tracking_update", AT, "a1"), write=b64)
body_hmac("aftership/returns", "as-signature-hmac-sha256", lambda n, a: {"event_type": "return.submitted", "id": f"a{n}", "created_at": AT}, ("return.submitted", AT, "a1"), write=b64)
body_hmac("autodesk", "x-adsk-signature", lambda n, a: {"hook": {"event": "dm.version.added"}, "resourceUrn": str(n)}, ("dm.version.added", "", ""), algorithm="sha1", form="sha1hash={}")
for form, write in (("hex", bytes.hex), ("base64", b64)):
    body_hmac(f"heroku/{form}", "heroku-webhook-hmac-sha256", lambda n, a: {"created_at": AT, "webhook_metadata": {"attempt": {"id": a}, "event": {"id": f"h{n}", "include": "api:build"}}}, ("api:build", AT, "h1"), write=write)


def pusher(number, attempt, time):
    text = dump({"time_ms": SECONDS * 1000, "events": [{"name": "channel_occupied", "channel": f"c{number}"}]})
    return {"x-pusher-key": "key-1", "x-pusher-signature": hexed("plainly-pusher", text)}, text


case("pusher", pusher, "x-pusher-signature", ("channel_occupied", AT, ""), secret="key-1:plainly-pusher", another="key-1:plainly-another", signed=["x-pusher-key"])

# An HMAC over a time and the body.
stamped("zendesk", "x-zendesk-webhook-signature", lambda n, a: {"type": "zen:event-type:ticket.created", "time": AT, "n": n}, ("zen:event-type:ticket.created", AT, "01Z1"), joined, stamp="x-zendesk-webhook-signature-timestamp", stamp_text=lambda time: iso(time) + "Z", write=b64, extra=lambda n: {"x-zendesk-webhook-invocation-id": f"01Z{n}"})
stamped("zoom", "x-zm-signature", lambda n, a: {"event": "meeting.started", "event_ts": SECONDS * 1000, "payload": {"n": n}}, ("meeting.started", AT, ""), lambda when, text, headers: f"v0:{when}:{text}", stamp="x-zm-request-timestamp", form="v0={s}")
stamped("workos", "workos-signature", lambda n, a: {"id": f"event_{n}", "event": "dsync.user.created", "created_at": AT}, ("dsync.user.created", AT, "event_1"), dotted, unit=1000, form="t={t}, v1={s}", tolerance=180)
stamped("calendly", "calendly-webhook-signature", lambda n, a: {"event": "invitee.created", "created_at": AT, "payload": {"n": n}}, ("invitee.created", AT, ""), dotted, form="t={t},v1={s}", tolerance=180)
stamped("mux", "mux-signature", lambda n, a: {"id": f"mux-{n}", "type": "video.asset.ready", "created_at": AT, "attempts": [a]}, ("video.asset.ready", AT, "mux-1"), dotted, form="t={t},v1={s}")
stamped("buildkite", "x-buildkite-signature", lambda n, a: {"event": "build.finished", "build": {"number": n}}, ("build.finished", "", ""), dotted, form="timestamp={t},signature={s}")
stamped("webflow", "x-webflow-signature", lambda n, a: {"triggerType": "form_submission", "payload": {"id": n}}, ("form_submission", "", ""), lambda when, text, headers: f"{when}:{text}", stamp="x-webflow-timestamp", unit=1000)
stamped("twitch", "twitch-eventsub-message-signature", lambda n, a: {"subscription": {"type": "channel.follow", "status": "enabled"}, "event": {"n": 1}}, ("channel.follow", "", "twitch-1"), lambda when, text, headers: f"{headers['twitch-eventsub-message-id']}{when}{text}", stamp="twitch-eventsub-message-timestamp", stamp_text=lambda time: iso(time, ".000000000") + "Z", form="sha256={s}", extra=lambda n: {"twitch-eventsub-message-id": f"twitch-{n}"}, signed=["twitch-eventsub-message-id"], tolerance=600)
stamped("box", "box-signature-secondary", lambda n, a: {"id": f"box-{n}", "trigger": "FILE.UPLOADED", "created_at": "2026-05-06T05:20:00-07:00"}, ("FILE.UPLOADED", AT, ""), lambda when, text, headers: f"{text}{when}", stamp="box-delivery-timestamp", stamp_text=lambda time: iso(time) + "Z", write=b64, tolerance=600)
stamped("revolut", "revolut-signature", lambda n, a: {"event": "ORDER_COMPLETED", "timestamp": AT, "order_id": n}, ("ORDER_COMPLETED", AT, ""), lambda when, text, headers: f"v1.{when}.{text}", stamp="revolut-request-timestamp", unit=1000, form="v1={s}")
stamped("airwallex", "x-signature", lambda n, a: {"id": f"aw{n}", "name": "payment_intent.succeeded", "created_at": AT}, ("payment_intent.succeeded", AT, "aw1"), joined, stamp="x-timestamp", unit=1000, tolerance=None)
stamped("orb", "x-orb-signature", lambda n, a: {"id": f"orb{n}", "type": "invoice.issued", "created_at": AT}, ("invoice.issued", AT, "orb1"), lambda when, text, headers: f"v1:{when}:{text}", stamp="x-orb-timestamp", stamp_text=lambda time: iso(time, ".000000"), form="v1={s}")
stamped("elevenlabs", "elevenlabs-signature", lambda n, a: {"type": "post_call_transcription", "event_timestamp": SECONDS, "data": {"n": n}}, ("post_call_transcription", AT, ""), dotted, form="t={t},v0={s}", tolerance=1800)
stamped("retell", "x-retell-signature", lambda n, a: {"event": "call_ended", "call": {"call_id": n}}, ("call_ended", "", ""), lambda when, text, headers: f"{text}{when}", unit=1000, form="v={t},d={s}")
stamped("statsig", "x-statsig-signature", lambda n, a: {"data": [{"eventName": "config_change", "timestamp": SECONDS * 1000, "n": n}]}, ("config_change", AT, ""), lambda when, text, headers: f"v0:{when}:{text}", stamp="x-statsig-request-timestamp", unit=1000, form="v0={s}", tolerance=None)
stamped("knock", "x-knock-signature", lambda n, a: {"type": "message.delivered", "created_at": AT, "n": n}, ("message.delivered", AT, ""), dotted, unit=1000, write=b64, form="t={t},s={s}")
stamped("sanity", "sanity-webhook-signature", lambda n, a: {"_id": "d1"}, ("", "", "san-1"), dotted, unit=1000, write=b64url, form="t={t},v1={s}", extra=lambda n: {"idempotency-key": f"san-{n}"}, tolerance=None)
stamped("tiktok", "tiktok-signature", lambda n, a: {"event": "video.publish.complete", "create_time": SECONDS, "n": n}, ("video.publish.complete", AT, ""), dotted, form="t={t},s={s}", tolerance=None)


def linear(number, attempt, time):
    text = dump({"action": "create", "type": "Issue", "createdAt": AT, "webhookTimestamp": time * 1000})
    return {"linear-signature": hexed("plainly-linear", text), "linear-delivery": f"lin-{number}"}, text


case("linear", linear, "linear-signature", ("Issue.create", AT, "lin-1"), tolerance=60)


def hubspot(escaped):
    def make(number, attempt, time):
        text = dump([{"eventId": number, "subscriptionId": 12, "objectId": 3, "occurredAt": SECONDS * 1000, "subscriptionType": "contact.creation", "attemptNumber": attempt}, {"eventId": 7, "subscriptionId": 12, "occurredAt": SECONDS * 1000, "subscriptionType": "deal.creation", "attemptNumber": attempt}])
        address = f"{URL}/webhook/hubspot?to={escaped}"
        signature = b64(mac("plainly-hubspot", f"POST{address}{text}{time * 1000}"))
        return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": str(time * 1000)}, text

    return make


for name, written in (("hubspot", "https://a/%20"), ("hubspot/undecoded", "https%3A%2F%2Fa/%20")):
    case(name, hubspot(written), "x-hubspot-signature-v3", ("contact.creation,deal.creation", AT, f"1:12:3:{SECONDS}000,7:12:{SECONDS}000"), signed=["x-hubspot-request-timestamp"], tolerance=300, query="to=https%3A%2F%2Fa/%20")

# A secret that is sent as it is.
case("huggingface", lambda number, attempt, time: ({"x-webhook-secret": "plainly-huggingface"}, {"event": {"scope": "repo.content", "action": "update"}, "n": number}), "x-webhook-secret", ("repo.content.update", "", ""), covers="nothing")
case("chargebee", lambda number, attempt, time: ({"authorization": "Basic " + b64(b"router:plainly-chargebee")}, {"id": f"ev_{number}", "event_type": "invoice_generated", "occurred_at": SECONDS, "webhook_status": str(attempt)}), "authorization", ("invoice_generated", AT, "ev_1"), secret="router:plainly-chargebee", another="router:plainly-another", covers="nothing")

# Public keys.
ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER_ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
EC = ec.derive_private_key(0x0123456789ABCDEF, ec.SECP256R1())
OTHER_EC = ec.derive_private_key(0x0FEDCBA987654321, ec.SECP256R1())
SHA256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def info(key):
    return b64(key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def discord(number, attempt, time):
    text = dump({"version": 1, "type": 1, "event": {"type": "ENTITLEMENT_CREATE", "timestamp": AT, "data": {"id": number}}})
    return {"x-signature-timestamp": str(time), "x-signature-ed25519": ED.sign(f"{time}{text}".encode()).hex()}, text


case("discord", discord, "x-signature-ed25519", ("ENTITLEMENT_CREATE", AT, ""), secret=ED.public_key().public_bytes_raw().hex(), another=OTHER_ED.public_key().public_bytes_raw().hex(), signed=["x-signature-timestamp"], tolerance=300)


def telnyx(number, attempt, time):
    text = dump({"data": {"event_type": "message.received", "id": f"tel-{number}", "occurred_at": AT}, "meta": {"attempt": attempt}})
    return {"telnyx-timestamp": str(time), "telnyx-signature-ed25519": b64(ED.sign(f"{time}|{text}".encode()))}, text


case("telnyx", telnyx, "telnyx-signature-ed25519", ("message.received", AT, "tel-1"), secret=b64(ED.public_key().public_bytes_raw()), another=b64(OTHER_ED.public_key().public_bytes_raw()), signed=["telnyx-timestamp"], tolerance=300)


def sendgrid(number, attempt, time):
    text = dump([{"email": "a@example.com", "event": "delivered", "sg_event_id": f"sg{number}", "timestamp": SECONDS}, {"email": "b@example.com", "event": "open", "sg_event_id": f"sg{number}b", "timestamp": SECONDS}]) + "\r\n"
    signature = EC.sign(f"{time}{text}".encode(), SHA256)
    name = "x-twilio-email-event-webhook"
    return {f"{name}-timestamp": str(time), f"{name}-signature": b64(signature)}, text


case("sendgrid", sendgrid, "x-twilio-email-event-webhook-signature", ("delivered,open", AT, "sg1,sg1b"), secret=info(EC), another=info(OTHER_EC), signed=["x-twilio-email-event-webhook-timestamp"], tolerance=300)


def plaid(number, attempt, time):
    text = dump({"webhook_type": "ITEM", "webhook_code": "ERROR", "item_id": str(number)})
    header = b64url(dump({"alg": "ES256", "kid": "key-1", "typ": "JWT"}).encode())
    claims = b64url(dump({"iat": time, "request_body_sha256": hashlib.sha256(text.encode()).hexdigest()}).encode())
    r, s = utils.decode_dss_signature(EC.sign(f"{header}.{claims}".encode(), SHA256))
    return {"plaid-verification": f"{header}.{claims}.{b64url(r.to_bytes(32) + s.to_bytes(32))}"}, text


def jwk(key):
    numbers = key.public_key().public_numbers()
    return dump({"key": {"alg": "ES256", "crv": "P-256", "kid": "key-1", "kty": "EC", "use": "sig", "x": b64url(numbers.x.to_bytes(32)), "y": b64url(numbers.y.to_bytes(32)), "created_at": 1, "expired_at": None}})


case("plaid", plaid, "plaid-verification", ("ITEM.ERROR", "", ""), secret="client:plainly-plaid", another="client:plainly-another", tolerance=300, fetched={"genuine": jwk(EC), "another": jwk(OTHER_EC)})

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)


def certificate(key, end):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    day = lambda text: datetime.datetime.fromisoformat(text)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, day("2026-01-01"), day(end))
    signed = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("sns.amazonaws.com")]), False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


TOPIC = "arn:aws:sns:us-west-2:123456789012:orders"


def sns(version, kind):
    names = {"Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]}
    names = names.get(kind, ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"])

    def make(number, attempt, time):
        message = {"Type": kind, "MessageId": f"sns-{number}", "TopicArn": TOPIC, "Message": "a parcel is on its way", "Timestamp": iso(SECONDS, ".123") + "Z", "SignatureVersion": version, "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem"}
        if kind == "Notification":
            message["Subject"] = "parcels"
        else:
            message["Token"] = "token"
            message["SubscribeURL"] = f"https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=token"
        signed = "".join(f"{name}\n{message[name]}\n" for name in names)
        chosen = hashes.SHA1() if version == "1" else hashes.SHA256()
        message["Signature"] = b64(RSA.sign(signed.encode(), padding.PKCS1v15(), chosen))
        message["MessageAttributes"] = {"attempt": attempt}
        return {"x-amz-sns-message-type": kind}, message

    return make


for version in ("1", "2"):
    covers = ["a parcel is on its way", "parcels\"", "sns-1", iso(SECONDS, ".123"), TOPIC, "Notification\""]
    case(f"aws-sns/{version}", sns(version, "Notification"), None, ("Notification", AT.replace("Z", ".123000Z"), "sns-1"), secret=TOPIC, another=TOPIC + "-other", covers=covers, fetched={"genuine": certificate(RSA, "2027-01-01"), "another": certificate(OTHER_RSA, "2027-01-01"), "expired": certificate(RSA, "2026-02-01")})

subscription = sns("2", "SubscriptionConfirmation")(1, 0, NOW)[1]

out = pathlib.Path(__file__).with_name("vendors.json")
about = "Deliveries that tests/vectors/make.py signed. Their keys are plainly fake."
vectors = {"about": about, "vectors": cases, "subscription": dump(subscription)}
out.write_text(json.dumps(vectors, indent=1) + "\n")
print(f"{len(cases)} vectors of {len({one['vendor'] for one in cases})} vendors")
