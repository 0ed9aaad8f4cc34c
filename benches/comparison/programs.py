"""The benchmarks in Rust, which cargo builds."""

import json
import subprocess


def benchmark(name):
    """Builds a benchmark, and returns its program."""
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", name, "--message-format", "json"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    # The output also names the programs of the package.
    return next(one["executable"] for one in built if one.get("executable") and one["target"]["name"] == name)
