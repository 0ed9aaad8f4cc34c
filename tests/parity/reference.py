"""The Python router's key and route, as the reference that the Rust code is held against.

    reference.py --seed N --bodies N --timestamps N    generated cases with their answers
    reference.py --lower                               str.lower() of awkward texts

A case is a line: family, body (base64), status and, when that is 200, key, destination,
created_at and digest, separated by tabs.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import sys
import warnings

from dateutil import parser as dateparser

import generate

SECRET = "parity-secret-é"
THRESHOLD = 128
REQUIRED = ("vendor", "event_type", "created_at")
MAX_TIMESTAMP_BYTES = 128

warnings.simplefilter("ignore")


class Refused(Exception):
    """The router answers 400."""


class FixedCenturyInfo(dateparser.parserinfo):
    """Refuses a year whose century depends on today."""

    def convertyear(self, year, century_specified=False):
        if year < 100 and not century_specified:
            raise Refused("two-digit year")
        return year


class UnambiguousParser(dateparser.parser):
    """Refuses what dateutil would complete from the clock or the host's zone."""

    def _parse(self, *args, **kwargs):
        result, skipped = super()._parse(*args, **kwargs)
        if result is None or None in (result.year, result.month, result.day):
            raise Refused("no full date")
        utc = result.tzoffset == 0 and result.tzname in ("UTC", "GMT", "Z", "z")
        if result.tzname and not utc:
            raise Refused("zone name")
        return result, skipped


PARSER = UnambiguousParser(FixedCenturyInfo())


def created_at_utc(text):
    if len(text.encode()) > MAX_TIMESTAMP_BYTES:
        raise Refused("too long")
    try:
        parsed = PARSER.parse(text)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=datetime.timezone.utc)
        utc = parsed.astimezone(datetime.timezone.utc)
    except Exception as error:  # dateutil raises much beside its own ParserError
        raise Refused(str(error)) from error
    return utc.isoformat().replace("+00:00", "Z")


def refuse_constant(name):
    raise Refused(name)


def identify(body):
    """(key, destination, created_at, digest) of an envelope."""
    try:
        payload = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    if not isinstance(payload, dict):
        raise Refused("not an object")
    for name in REQUIRED:
        if not isinstance(payload.get(name), str) or not payload[name]:
            raise Refused(name)
    try:
        vendor, event_type, created_at = (payload[name] for name in REQUIRED)
        (vendor + event_type + created_at).encode()
    except UnicodeEncodeError as error:
        raise Refused("lone surrogate") from error
    created_at = created_at_utc(created_at)
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    logical = f"{vendor.lower()}|{event_type}|{created_at}|{digest}"

    def mac(text):
        return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256)

    destination = "gcp" if mac("route|" + logical).digest()[0] < THRESHOLD else "aws"
    return "webhook:dedup:" + mac(logical).hexdigest(), destination, created_at, digest


def answer(body):
    try:
        return ("200", *identify(body))
    except Refused:
        return ("400",)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--bodies", type=int, default=0)
    options.add_argument("--timestamps", type=int, default=0)
    options.add_argument("--lower", action="store_true")
    options = options.parse_args()
    if options.lower:
        for text in generate.awkward_words():
            # No text in UTF-8 contains this byte.
            sys.stdout.buffer.write(text.lower().encode() + b"\xff")
        return
    for family, body in generate.cases(options.seed, options.bodies, options.timestamps):
        print(family, base64.b64encode(body).decode(), *answer(body), sep="\t")


if __name__ == "__main__":
    sys.exit(main())
