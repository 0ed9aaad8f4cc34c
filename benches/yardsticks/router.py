"""The Python router, as a yardstick: key and route of an envelope, a claim by SET NX EX, one attempt.

It restates what the router replaces, with the libraries that such a service uses: Flask, redis-py,
python-dateutil, requests and gunicorn. It has no leases, no dead letters, no log and no signatures.
"""

import datetime
import hashlib
import hmac
import json
import os
import threading

import redis
import requests
from dateutil import parser
from flask import Flask, Response, request

SECRET = os.environ["ROUTING_SECRET"].encode()
THRESHOLD = int(os.environ.get("ROUTE_THRESHOLD", "128"))
TARGETS = {"gcp": os.environ["GCP_TARGET_URL"], "aws": os.environ.get("AWS_TARGET_URL", "")}
TTL = int(os.environ.get("DEDUP_TTL_SECONDS", "86400"))
TIMEOUT = 10
REQUIRED = ("vendor", "event_type", "created_at")

app = Flask(__name__)
store = redis.Redis.from_url(os.environ["REDIS_URL"])
local = threading.local()


def session():
    """Returns the thread's connections to the destinations."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
        # Without this, every request reads the environment's proxies and ~/.netrc anew.
        local.session.trust_env = False
    return local.session


def mac(text):
    return hmac.new(SECRET, text.encode(), hashlib.sha256)


def identify(payload):
    """Returns the key and the route of an envelope."""
    created = parser.parse(payload["created_at"])
    if created.tzinfo is None:
        created = created.replace(tzinfo=datetime.timezone.utc)
    created = created.astimezone(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    logical = f"{payload['vendor'].lower()}|{payload['event_type']}|{created}|{digest}"
    route = "gcp" if mac("route|" + logical).digest()[0] < THRESHOLD else "aws"
    return "webhook:dedup:" + mac(logical).hexdigest(), route


@app.post("/webhook")
def webhook():
    body = request.get_data()
    try:
        payload = json.loads(body)
    except ValueError:
        return "invalid json", 400
    if not isinstance(payload, dict):
        return "invalid json", 400
    missing = [name for name in REQUIRED if not isinstance(payload.get(name), str) or not payload[name]]
    if missing:
        return f"missing required fields: {', '.join(missing)}", 400
    try:
        key, route = identify(payload)
    except (ValueError, OverflowError):
        return "invalid created_at", 400
    headers = {"X-Webhook-Key": key, "X-Webhook-Destination": route}
    if not store.set(key, 1, nx=True, ex=TTL):
        return Response("duplicate ignored", headers={**headers, "Idempotent-Replayed": "true"})
    try:
        forwarded = {
            "Content-Type": request.content_type or "application/json",
            "Idempotency-Key": key,
            "X-Webhook-Vendor": payload["vendor"],
            "X-Webhook-Event-Type": payload["event_type"],
        }
        answer = session().post(TARGETS[route], body, headers=forwarded, timeout=TIMEOUT, allow_redirects=False)
    except requests.RequestException:
        store.delete(key)
        return Response("destination failed", 502, headers)
    if not answer.ok:
        store.delete(key)
    content_type = answer.headers.get("Content-Type")
    return Response(answer.content, answer.status_code, headers, content_type=content_type)
