"""Helpers that sign deliveries with Python's hmac, and collect them as vectors."""

import base64
import datetime
import hmac
import json

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
    name,
    make,
    signature,
    event,
    *,
    secret=None,
    another=None,
    signed=(),
    tolerance=None,
    covers="body",
    query=None,
    fetched=None,
    retry_is_other=False,
):
    """Adds a vendor: `make(event, attempt, time)` returns the headers and the body of a delivery.

    `signature` is the header that holds the signature, `signed` are other headers that it covers, and
    `covers` says what of the body is signed: "body", "nothing", or a list of its texts. `event` is
    the type, time and id of the first delivery, with "" for what is missing.
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


def body_hmac(
    name, header, body, event, *, algorithm="sha256", write=bytes.hex, form="{}", extra=None, **more
):
    """A vendor whose signature covers the body alone.

    `header` is that of the signature, and `form` its value, with `{}` in the place of the signature.
    `write` encodes the signature. `body(event, attempt)` returns the body, and `extra(event)` further
    headers. `event` and `more` are as for `case`.
    """
    secret = f"plainly-{name.split('/')[0]}"

    def make(number, attempt, time):
        text = body(number, attempt)
        text = text if isinstance(text, str) else dump(text)
        headers = {header: form.format(write(mac(secret, text, algorithm)))}
        headers.update(extra(number) if extra else {})
        return headers, text

    case(name, make, header, event, **more)


def stamped(
    name,
    header,
    body,
    event,
    template,
    *,
    stamp=None,
    unit=1,
    write=bytes.hex,
    form="{s}",
    stamp_text=None,
    extra=None,
    tolerance=300,
    **more,
):
    """A vendor whose signature covers the time of sending.

    The time is in the header `stamp`, or in that of the signature (`{t}` in `form`). `unit` is the
    number of its units in a second, and `stamp_text` writes it if it is no number. `template(time, body,
    headers)` returns the signed text. `tolerance` must be that of the row: seconds, or `None` for
    `Tolerance::Any`. The rest is as for `body_hmac`.
    """
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
        name,
        make,
        f"{family}-signature",
        event,
        secret=secret,
        another=another,
        tolerance=300,
        signed=(f"{family}-id", f"{family}-timestamp"),
    )


def dotted(when, text, headers):
    return f"{when}.{text}"


def joined(when, text, headers):
    return f"{when}{text}"


AT = iso(NOW - 900) + "Z"
SECONDS = NOW - 900
