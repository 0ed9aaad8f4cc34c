"""Key and route of a body, beside SHA-256 of its canonical bytes alone, as benches/functions/ measures them."""

import json
import os
import subprocess

from .. import programs
from ..lines import Line, most_times

LIMITS = {"1 KB": 2.6, "64 KB": 3.0, "1 MB": 3.0}


def run(bench):
    path = os.path.join(bench.folder, "functions.json")
    # No function has this name: the program measures only the ratios, which have their own rounds.
    command = [programs.benchmark("functions"), "--bench", "only the ratios"]
    variables = os.environ | {"FUNCTIONS_JSON": path}
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True, timeout=600)
    with open(path) as file:
        bodies = {body["body"]: body for body in json.load(file)}
    bench.chart("Key and route of a body, in times of SHA-256 alone", "times", {
        f"router, {name}": [body["key_ratio"]] for name, body in bodies.items()
    })
    return [
        Line(f"key and route of a body of {name}", "time", [bodies[name]["key_us"] / 1e6], None,
             "SHA-256 alone", [bodies[name]["sha256_us"] / 1e6], most_times(limit))
        for name, limit in LIMITS.items()
    ]
