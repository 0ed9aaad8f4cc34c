"""The cost of a million events on AWS, which docs/cost.md computes."""

import re

from ..lines import Line, most

PAGE = "docs/cost.md"


def run(_):
    with open(PAGE) as file:
        page = file.read()
    return [
        Line("a million events on AWS, DynamoDB (cost.md)", "USD",
             [cell(page, "**a million events**")], limit=most(1.80)),
        Line("fixed cost of a month on AWS (cost.md)", "USD",
             [cell(page, "metrics, alarms, dashboard, secret: per month, for any number of events")], limit=most(6)),
    ]


def cell(page, name):
    """Returns the amount in the first column of a row of the page's table."""
    found = re.search(rf"^\| {re.escape(name)} \| \**\$([0-9.]+)", page, re.MULTILINE)
    if not found:
        raise RuntimeError(f"{PAGE} has no row {name!r}: change rows/cost.py")
    return float(found[1])
