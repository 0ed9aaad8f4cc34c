"""The report: docs/benchmarks.md and its plots."""

import os
import re
import statistics

from . import plot
from .lines import shown, shown_limit, shown_spread, shown_values

# A quick run leaves a record in docs/ alone, and writes its page there.
RECORD, OTHER = "docs", "target"
KIND = "kind of run"

HEAD = """# Benchmarks

`make bench FULL=1` measures the router beside yardsticks, and writes this page. Do not edit it. Without `FULL=1`,
a quicker run writes `target/benchmarks.md` instead.
"""

METHOD = """
## Method

All programs run on one machine, over loopback: the load, the router, its store and its destination. So the
throughput is that of all of them together on these cores, and only the ratios can be compared with those of another
machine.
Every round measures the router and its yardsticks one after the other, so that other load on the machine affects
all of them. The order changes from round to round.

- *Key and route* parses a body, derives its key and chooses its route, without I/O (`benches/functions`).
- The load is [wrk](https://github.com/wg/wrk): every request is another event, with a body of 256 bytes. The
  destination is nginx, which answers at once, and counts the requests. A row fails if the answers do not agree with
  the requests that arrived.
- *CPU* is the time on the processor of the measured processes, as Linux's scheduler counts it, divided by the
  number of answers. It contains neither the store nor the destination.
- *p99* is the time that 99% of the answers take at most. wrk corrects it for requests that a slow answer holds up.
- *Half load* is a rate of half of the throughput of the same server in the same run, over 64 connections with
  random pauses. A row fails if the rate is more than a tenth off. A measurement goes on until it has 10,000
  answers, but for at most 20 s, or 4 s in a quick run.
- The *Python router* is a Flask service under gunicorn that claims with Redis' `SET NX EX`
  (`benches/yardsticks/router.py`). *Powertools* is a Lambda function in Python with Powertools' idempotency
  (`benches/yardsticks/function.py`). The *nginx proxy* neither reads nor claims anything. The *bare function* is
  a `lambda_http` function that does nothing (`benches/bare`). *With the same requests*, it only sends a
  conditional PutItem, a POST and an UpdateItem, through AWS's SDK and hyper (`benches/requests`).
- Functions run in AWS's Runtime Interface Emulator, with DynamoDB Local and the same destination.
- *With 10 records* is the time of a delivery while the store has 10 records. 200 deliveries are measured.
- *Claims on one connection* are made one after the other. redis-benchmark sends the same command as the router's
  claim. *Bare PutItem* is a write without a condition by the AWS SDK.
- *Memory*: a page that several processes share counts once. Under load, it is the largest memory that the kernel
  recorded.
- *Extra time of the first delivery* is the time of an instance's first delivery, its start included, less the
  median of the five after it.
"""

COLUMNS = """
A value is the median of the rounds. The *ratio* is the median of the rounds' ratios to the yardstick. The *limit* is
for the ratio (x) or for the value. The *spread* is the range of that ratio or value: over all rounds if there are fewer
than 8, and otherwise over the middle half of the rounds. *Met* is unclear if the limit is within the spread.
"""


def write(is_full, facts, notes, sections, charts, failed):
    """Writes the page and the plots. `facts` has a table for each heading. Returns the page's path."""
    folder = RECORD if is_full or not is_record(os.path.join(RECORD, "benchmarks.md")) else OTHER
    lines = [line for section in sections.values() for line in section]
    distances = {
        f"{line.what}{f' / {line.yardstick_is}' if line.is_ratio else ''}":
            line.limit.distance(statistics.median(line.judged()))
        for line in lines if line.limit
    }
    plots = {"Distance from the limit: 1 or less meets it": lambda: plot.distances(distances)}
    for (title, unit), bars in charts.items():
        medians = {label: statistics.median(values) for label, values in bars.items()}
        plots[title] = lambda title=title, unit=unit, medians=medians: plot.bars(
            title, medians, lambda value: shown(value, unit))

    page = [HEAD]
    if notes:
        page += [f"**{note}**" for note in notes] + [""]
    page += ["## Table", *COLUMNS.rstrip().split("\n"), "", *table(lines), ""]
    if failed:
        page += [f"These rows could not be measured: {', '.join(failed)}.", ""]
    for heading, table_of in facts.items():
        page += [f"## {heading}", "", *pairs(table_of), ""]
    page += [METHOD.lstrip(), "## Plots"]
    page += [f"\n![{title}](benchmarks/{file_name(title)})" for title in plots]
    path = os.path.join(folder, "benchmarks.md")
    with open(path, "w") as file:
        file.write("\n".join(page) + "\n")
    os.makedirs(os.path.join(folder, "benchmarks"), exist_ok=True)
    for title, draw in plots.items():
        with open(os.path.join(folder, "benchmarks", file_name(title)), "w") as file:
            file.write(draw())
    return path


def is_record(page):
    """Returns whether a page is of a full run."""
    if not os.path.exists(page):
        return False
    with open(page) as file:
        return f"| {KIND} | full" in file.read()


def notes(is_full, busy, cores):
    """Returns the reasons for which the page is not the record."""
    is_busy = busy > cores / 2
    if is_full and not is_busy:
        return []
    run = f"a {'full' if is_full else 'quick'} run{' on a busy machine' if is_busy else ''}"
    return [f"This page is of {run}, and is not the record."]


def file_name(title):
    return re.sub(r"[^a-z0-9]+", "-", title.split(":")[0].lower()).strip("-") + ".svg"


def pairs(facts):
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]


def table(lines):
    """Returns the lines of the table. The column of the build before is there if there was one."""
    has_before = any(line.before for line in lines)
    head = ["what", *(["before"] if has_before else []), "router", "yardstick", "ratio", "limit", "met", "spread"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        yardstick = f"{shown_values(line.yardstick, line.unit)}: {line.yardstick_is}" if line.yardstick else ""
        rows.append([
            line.what,
            *([shown_values(line.before, line.unit)] if has_before else []),
            shown_values(line.router, line.unit),
            yardstick,
            f"{statistics.median(line.ratios()):.3g} x" if line.yardstick else "",
            shown_limit(line),
            line.verdict() if line.limit else "",
            shown_spread(line),
        ])
    return [f"| {' | '.join(row)} |" for row in rows]
