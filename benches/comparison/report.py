"""The report: docs/benchmarks.md and its plots."""

import os
import re
import statistics

from . import plot
from .lines import shown, shown_reach, shown_values

PAGE, PLOTS = "docs/benchmarks.md", "docs/benchmarks"

HEAD = """# Benchmarks

`make bench` measures the router beside yardsticks, and writes this page. Do not edit it. `make bench FULL=1`
takes longer, and makes the record.

All programs run on one machine, over loopback: the load, the router, its store and its destination. So the
throughput is that of all of them together on these cores, and only the ratios compare with another machine.
Every round measures the router and its yardsticks one after the other, so that other load on the machine affects
all of them.

- *Key and route* are the functions of a delivery that touch nothing else (`benches/functions`).
- The load is [wrk](https://github.com/wg/wrk): every request is another event, with a body of 256 bytes. The
  destination is nginx, which answers at once.
- *CPU* is the time on the processor of the measured processes, as Linux's scheduler counts it, divided by the
  number of answers. It contains neither the store nor the destination.
- *Half load* is a rate of half of the throughput of the same server in the same run, over 64 connections with
  random pauses.
- The *Python router* is a Flask service under gunicorn that claims with Redis' `SET NX EX`
  (`benches/yardsticks/router.py`). *Powertools* is a Lambda function in Python with Powertools' idempotency
  (`benches/yardsticks/function.py`). The *nginx proxy* neither reads nor claims anything. The *bare function* is
  one of `lambda_http` that does nothing (`benches/bare`).
- Functions run in AWS's Runtime Interface Emulator, with DynamoDB Local and the same destination.
- *Claims on one connection* are made one after the other. redis-benchmark sends the very command of the router's
  claim, and *bare PutItem* is a write without a condition by the AWS SDK.
- *More than a later one* is the time of an instance's first delivery, its start included, less the median of the
  five after it.
"""

COLUMNS = """
A value is the median of the rounds. The *ratio* is the median of the rounds' ratios to the yardstick. The
*spread* is the range of the middle half of the router's values, as a part of their median. The *reach* is the
limit for the ratio (x) or for the value.
"""


def write(facts, sections, charts, failed):
    """Writes the page and the plots."""
    os.makedirs(PLOTS, exist_ok=True)
    lines = [line for section in sections.values() for line in section]
    page = [HEAD, "## The run", "", "| | |", "| --- | --- |"]
    page += [f"| {name} | {value} |" for name, value in facts.items()]
    page += ["", "## Table", *COLUMNS.rstrip().split("\n"), "", *table(lines)]
    if failed:
        page += ["", f"These rows could not be measured: {', '.join(failed)}."]
    page += ["", "## Plots"]
    distances = {
        f"{line.what}{f' / {line.yardstick_is}' if line.reach.of_ratio else ''}": line.reach.distance(line.reached())
        for line in lines if line.reach
    }
    plots = {"Distance from the reach: 1 or less is reached": plot.distances(distances)}
    for (title, unit), bars in charts.items():
        medians = {label: statistics.median(values) for label, values in bars.items()}
        plots[title] = plot.bars(title, medians, lambda value, unit=unit: shown(value, unit))
    for title, image in plots.items():
        name = re.sub(r"[^a-z0-9]+", "-", title.split(":")[0].lower()).strip("-") + ".svg"
        with open(os.path.join(PLOTS, name), "w") as file:
            file.write(image)
        page += ["", f"![{title}](benchmarks/{name})"]
    with open(PAGE, "w") as file:
        file.write("\n".join(page) + "\n")
    print(f"{PAGE} is written", flush=True)


def table(lines):
    """Returns the lines of the table. The column of the build before is there if there was one."""
    has_before = any(line.before for line in lines)
    head = ["what", *(["before"] if has_before else []), "router", "yardstick", "ratio", "reach", "reached", "spread"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        yardstick = f"{shown_values(line.yardstick, line.unit)}: {line.yardstick_is}" if line.yardstick else ""
        ratio, spread = line.ratio(), line.spread()
        rows.append([
            line.what,
            *([shown_values(line.before, line.unit)] if has_before else []),
            shown_values(line.router, line.unit),
            yardstick,
            f"{ratio:.3g} x" if ratio else "",
            shown_reach(line),
            "" if not line.reach else "yes" if line.reach.is_met(line.reached()) else "no",
            f"{spread:.0%}" if spread is not None else "",
        ])
    return [f"| {' | '.join(row)} |" for row in rows]
