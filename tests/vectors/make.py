"""Signs a delivery of each vendor beyond the first fifteen, and writes them to vendors.json.

Run it with `make vectors`. It shares nothing with the router: it follows the vendors' documentation with
Python's hmac and the cryptography package. Keys are plainly fake. Amazon SNS's RSA key is made anew and
thrown away, so its deliveries stay as they are, unless `make vectors RENEW=1` asks for others.
"""

import json
import os
import pathlib

import body_signed  # noqa: F401 (adds its vendors to the cases)
import standard_signed  # noqa: F401
import time_signed  # noqa: F401
from key_signed import subscription
from signing import cases, dump

out = pathlib.Path(__file__).with_name("vendors.json")
about = "Deliveries that tests/vectors/make.py signed. Their keys are plainly fake."
vectors = {"about": about, "vectors": cases, "subscription": dump(subscription)}
if not os.environ.get("RENEW"):
    old = json.loads(out.read_text())
    kept = {one["id"]: one for one in old["vectors"] if one["vendor"] == "aws-sns"}
    vectors["vectors"] = [kept.get(one["id"], one) for one in cases]
    vectors["subscription"] = old["subscription"]
out.write_text(json.dumps(vectors, indent=1) + "\n")
print(f"{len(cases)} vectors of {len({one['vendor'] for one in cases})} vendors (the first fifteen are not among them)")
