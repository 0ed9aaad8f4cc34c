"""The cost of a million events on AWS, which docs/cost.md computes."""

import os
import re

from ..lines import Line, most

PAGE = "docs/cost.md"
EVENTS = "**a million events**"
FIXED = "metrics, alarms, dashboard, secret: per month, for any number of events"


def run(bench):
    events, fixed = amounts(bench, EVENTS), amounts(bench, FIXED)
    return [
        Line("a million events on AWS, DynamoDB (cost.md)", "USD", events["router"], events.get("before"),
             limit=most(1.80)),
        Line("fixed cost of a month on AWS (cost.md)", "USD", fixed["router"], fixed.get("before"), limit=most(6)),
    ]


def amounts(bench, row):
    return {name: [cell(build.checkout, row)] for name, build in bench.builds.items()}


def cell(checkout, name):
    """Returns the amount in the first column of a row of the page's table."""
    with open(os.path.join(checkout, PAGE)) as file:
        page = file.read()
    found = re.search(rf"^\| {re.escape(name)} \| \**\$([0-9.]+)", page, re.MULTILINE)
    if not found:
        raise RuntimeError(f"{PAGE} has no row {name!r}: change rows/cost.py")
    return float(found[1])
