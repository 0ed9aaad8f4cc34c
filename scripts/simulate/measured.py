"""Figures that this project has measured: the table of docs/benchmarks.md, which `make bench` writes."""

import os
import re

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "benchmarks.md")
UNITS = {
    "ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0,
    "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "/s": 1.0,
}
VALUE = re.compile(r"([\d,.]+) ?([^\s:]+)")

# The rows that the simulator uses.
ROWS = {
    "cpu_redis": "CPU of a delivery, Redis, default log",
    "cpu_invocation": "CPU of an invocation, DynamoDB Local",
    "first_delivery": "extra time of the first delivery of an instance",
    "init": "INIT, DynamoDB, both destinations",
    "init_with_secret": "INIT with SECRETS_ARN, without moto's own time",
    "log_line": "log line of a delivery, with its metrics",
}


def table(page=PAGE):
    """Returns the router's value in each row, in seconds, bytes or per second."""
    with open(page, encoding="utf-8") as file:
        rows = [line.strip().strip("|").split("|") for line in file if line.startswith("|")]
    head = next(row for row in rows if row[0].strip() == "what")
    column = [name.strip() for name in head].index("router")
    values = {}
    for row in rows:
        match = VALUE.match(row[column].strip()) if len(row) == len(head) else None
        if match and match[2] in UNITS:
            values.setdefault(row[0].strip(), float(match[1].replace(",", "")) * UNITS[match[2]])
    return values


def read(page=PAGE):
    """Returns the figures that the simulator uses, by their names here."""
    values = table(page)
    if missing := [row for row in ROWS.values() if row not in values]:
        raise SystemExit(f"docs/benchmarks.md has no row {'; '.join(missing)}: see scripts/simulate/measured.py")
    return {name: values[row] for name, row in ROWS.items()}


def first_delivery(measured):
    """Returns how much longer the first delivery of an instance takes than others, if it reads a secret at start."""
    return measured["first_delivery"] + measured["init_with_secret"] - measured["init"]
