"""The programs that cargo builds in a checkout: the router, and the benchmarks in Rust."""

import json
import os
import subprocess

ROUTER = "target/release/webhook-router"


def benchmarks(checkout):
    """Builds the benchmarks, and returns the program of each. Call `router` after it."""
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", "claims", "--bench", "functions"]
    command += ["--message-format", "json"]
    output = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {one["target"]["name"]: one["executable"] for one in built if one.get("executable")}


def router(checkout):
    """Builds the router, and returns its program. `benchmarks` leaves one with fault points there."""
    command = ["cargo", "build", "--locked", "--release", "--bin", "webhook-router"]
    subprocess.run(command, cwd=checkout, check=True)
    return os.path.join(checkout, ROUTER)
