"""Vendors that sign with a private key."""

import datetime
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import NameOID

from signing import AT, NOW, SECONDS, b64, b64url, case, dump, iso

ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER_ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
EC = ec.derive_private_key(0x0123456789ABCDEF, ec.SECP256R1())
OTHER_EC = ec.derive_private_key(0x0FEDCBA987654321, ec.SECP256R1())
SHA256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def info(key):
    return b64(
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def discord(number, attempt, time):
    text = dump(
        {
            "version": 1,
            "type": 1,
            "event": {"type": "ENTITLEMENT_CREATE", "timestamp": AT, "data": {"id": number}},
        }
    )
    return {
        "x-signature-timestamp": str(time),
        "x-signature-ed25519": ED.sign(f"{time}{text}".encode()).hex(),
    }, text


case(
    "discord",
    discord,
    "x-signature-ed25519",
    ("ENTITLEMENT_CREATE", AT, ""),
    secret=ED.public_key().public_bytes_raw().hex(),
    another=OTHER_ED.public_key().public_bytes_raw().hex(),
    signed=["x-signature-timestamp"],
)


def telnyx(number, attempt, time):
    text = dump(
        {
            "data": {"event_type": "message.received", "id": f"tel-{number}", "occurred_at": AT},
            "meta": {"attempt": attempt},
        }
    )
    return {
        "telnyx-timestamp": str(time),
        "telnyx-signature-ed25519": b64(ED.sign(f"{time}|{text}".encode())),
    }, text


case(
    "telnyx",
    telnyx,
    "telnyx-signature-ed25519",
    ("message.received", AT, "tel-1"),
    secret=b64(ED.public_key().public_bytes_raw()),
    another=b64(OTHER_ED.public_key().public_bytes_raw()),
    signed=["telnyx-timestamp"],
    tolerance=300,
)


def sendgrid(number, attempt, time):
    text = (
        dump(
            [
                {
                    "email": "a@example.com",
                    "event": "delivered",
                    "sg_event_id": f"sg{number}",
                    "timestamp": SECONDS,
                },
                {
                    "email": "b@example.com",
                    "event": "open",
                    "sg_event_id": f"sg{number}b",
                    "timestamp": SECONDS,
                },
            ]
        )
        + "\r\n"
    )
    signature = EC.sign(f"{time}{text}".encode(), SHA256)
    name = "x-twilio-email-event-webhook"
    return {f"{name}-timestamp": str(time), f"{name}-signature": b64(signature)}, text


case(
    "sendgrid",
    sendgrid,
    "x-twilio-email-event-webhook-signature",
    ("delivered,open", AT, "sg1,sg1b"),
    secret=info(EC),
    another=info(OTHER_EC),
    signed=["x-twilio-email-event-webhook-timestamp"],
)


def plaid(number, attempt, time):
    # Two events that differ in nothing but the time of signing.
    text = dump({"webhook_type": "TRANSACTIONS", "webhook_code": "SYNC_UPDATES_AVAILABLE", "item_id": "1"})
    time += number - 1
    header = b64url(dump({"alg": "ES256", "kid": "key-1", "typ": "JWT"}).encode())
    claims = b64url(
        dump({"iat": time, "request_body_sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()
    )
    r, s = utils.decode_dss_signature(EC.sign(f"{header}.{claims}".encode(), SHA256))
    return {"plaid-verification": f"{header}.{claims}.{b64url(r.to_bytes(32) + s.to_bytes(32))}"}, text


def jwk(key, expired_at=None):
    numbers = key.public_key().public_numbers()
    return dump(
        {
            "key": {
                "alg": "ES256",
                "crv": "P-256",
                "kid": "key-1",
                "kty": "EC",
                "use": "sig",
                "x": b64url(numbers.x.to_bytes(32)),
                "y": b64url(numbers.y.to_bytes(32)),
                "created_at": 1,
                "expired_at": expired_at,
            }
        }
    )


case(
    "plaid",
    plaid,
    "plaid-verification",
    ("TRANSACTIONS.SYNC_UPDATES_AVAILABLE", iso(NOW) + "Z", ""),
    secret="client:plainly-plaid",
    another="client:plainly-another",
    tolerance=300,
    fetched={"genuine": jwk(EC), "another": jwk(OTHER_EC), "expired": jwk(EC, expired_at=1)},
    retry_is_other=True,
)

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)


def certificate(key, end):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    day = lambda text: datetime.datetime.fromisoformat(text)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, day("2026-01-01"), day(end))
    signed = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("sns.amazonaws.com")]), False
    ).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


TOPIC = "arn:aws:sns:us-west-2:123456789012:orders"


def sns(version, kind):
    names = {"Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]}
    names = names.get(
        kind, ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    )
    # A subject is optional.
    has_subject = kind == "Notification" and version == "2"

    def make(number, attempt, time):
        message = {
            "Type": kind,
            "MessageId": f"sns-{number}",
            "TopicArn": TOPIC,
            "Message": "a parcel is on its way",
            "Timestamp": iso(SECONDS, ".123") + "Z",
            "SignatureVersion": version,
            "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem",
        }
        if has_subject:
            message["Subject"] = "parcels"
        if kind != "Notification":
            message["Token"] = "token"
            message["SubscribeURL"] = (
                f"https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=token"
            )
        signed = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
        chosen = hashes.SHA1() if version == "1" else hashes.SHA256()
        message["Signature"] = b64(RSA.sign(signed.encode(), padding.PKCS1v15(), chosen))
        message["MessageAttributes"] = {"attempt": attempt}
        return {"x-amz-sns-message-type": kind}, message

    return make


for version in ("1", "2"):
    covers = ["a parcel is on its way", "sns-1", iso(SECONDS, ".123"), TOPIC, 'Notification"']
    covers += ['parcels"'] if version == "2" else []
    case(
        f"aws-sns/{version}",
        sns(version, "Notification"),
        None,
        ("Notification", AT.replace("Z", ".123000Z"), "sns-1"),
        secret=TOPIC,
        another=TOPIC + "-other",
        covers=covers,
        fetched={
            "genuine": certificate(RSA, "2027-01-01"),
            "another": certificate(OTHER_RSA, "2027-01-01"),
            "expired": certificate(RSA, "2026-02-01"),
        },
    )

subscription = sns("2", "SubscriptionConfirmation")(1, 0, NOW)[1]
