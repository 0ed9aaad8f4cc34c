"""Key and route of a body, beside SHA-256 of its canonical bytes alone, as benches/functions/ measures them."""

import json
import os
import subprocess

from ..lines import Line, most_times

LIMITS = {"1 KB": 2.6, "64 KB": 3.0, "1 MB": 3.0}


def run(bench):
    measured = {name: measure(build, bench.folder) for name, build in bench.builds.items()}
    bench.chart("Key and route of a body, in times of SHA-256 alone", "times", {
        f"{name}, {body}": [measured[name][body]["key_ratio"]] for body in LIMITS for name in measured
    })
    return [line(body, {name: bodies[body] for name, bodies in measured.items()}) for body in LIMITS]


def line(body, measured):
    key = {name: [found["key_us"] / 1e6] for name, found in measured.items()}
    return Line(f"key and route of a body of {body}", "time", key["router"], key.get("before"),
                "SHA-256 alone", [measured["router"]["sha256_us"] / 1e6], most_times(LIMITS[body]))


def measure(build, folder):
    """Returns what a build's program found for each body."""
    path = os.path.join(folder, f"{build.name}.json")
    # No function has this name: the program measures only the ratios, which have their own rounds.
    command = [build.benchmarks["functions"], "--bench", "only the ratios"]
    variables = os.environ | {"FUNCTIONS_JSON": path}
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True, timeout=600)
    with open(path) as file:
        return {body["body"]: body for body in json.load(file)}
