"""Runs every scenario, prints its figures, and writes them: docs/scale/ with tables and plots, and other pages."""

import os
import re
import sys
import time

from . import claims, plot, scenarios
from .scenario import Run

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "scale")

HEAD = """# Simulated figures

`make simulate` writes this page and its plots. Do not edit it. [scale.md](../scale.md) says what follows from it.
The destination takes 50 ms (99%: 200 ms), if nothing else is said. The router's own times are from
[benchmarks.md](../benchmarks.md), and the limits, prices and assumed times are in `scripts/simulate/aws.py`.
"""

LOAD_COLUMNS = ["scenario", "concurrency, most", "at the destination, most", "answer p50", "answer p99",
                "oldest that waits", "429", "503", "lost", "per million events"]
STORM_COLUMNS = ["scenario", "delivered", "attempts per event", "attempts/s, most", "destination broke",
                 "the last one was delivered", "oldest that waits", "429", "502", "503", "lost", "per million events"]


def write():
    runs = {}
    page = [HEAD]
    for heading, columns, group in [
        ("Steady load", LOAD_COLUMNS, scenarios.LOAD),
        ("Shapes of load", LOAD_COLUMNS, scenarios.SHAPES),
        ("A hot key", LOAD_COLUMNS, scenarios.HOT_KEY),
        ("A retry storm", STORM_COLUMNS, scenarios.STORMS),
    ]:
        rows = []
        for name, scenario in group.items():
            began = time.monotonic()
            runs[name] = Run(scenario).summary()
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
            rows.append(row(columns, name, runs[name]))
        text = table(columns, rows)
        print(f"\n{heading}\n\n{text}")
        page += [f"## {heading}", "", text, ""]
    os.makedirs(FOLDER, exist_ok=True)
    page.append("## Plots")
    for title, drawing in plots(runs).items():
        name = re.sub(r"[^a-z0-9]+", "-", title.split(":")[0].lower().replace(",", "")) + ".svg"
        save(name, drawing)
        page.append(f"\n![{title}]({name})")
    save("figures.md", "\n".join(page) + "\n")
    claims.save(runs)
    for change in claims.write():
        print(change, file=sys.stderr)


def plots(runs):
    """Returns the drawings by their titles."""
    storms = {name: runs[name] for name in scenarios.STORMS}
    step, shades = scenarios.STORM["step"], [outage[:2] for outage in scenarios.DOWN]
    series = lambda get: {name: get(run) for name, run in storms.items()}
    draw = lambda title, values: plot.lines(title, values, step, shades)
    day, burst = "a day around 1,000/s", "100/s, for a minute 1,000/s"
    at_once = lambda name, step: plot.lines(
        f"Invocations at once: {name}", {"concurrency": runs[name]["series"]["concurrency"]}, step)
    return {
        "Retry storm, deliveries: events delivered per second, the outage is grey": draw(
            "Retry storm: events delivered per second", series(lambda run: run["deliveries"])),
        "Retry storm, attempts: attempts at the destination per second": draw(
            "Retry storm: attempts at the destination per second", series(lambda run: run["arrivals"])),
        "Retry storm, concurrency: invocations that answer vendors": draw(
            "Retry storm: invocations that answer vendors", series(lambda run: run["series"]["concurrency"])),
        "Retry storm, answers: mean time of an answer": draw(
            "Retry storm: mean time of an answer to vendors, in seconds",
            series(lambda run: run["series"]["answer"])),
        "Retry storm, oldest: age of the oldest accepted event that waits": draw(
            "Retry storm: age of the oldest accepted event that waits, in seconds",
            {name: values for name, values in series(lambda run: run["series"]["oldest"]).items()
             if name.startswith("accepted")}),
        "Retry storm, cost: cost so far": draw(
            "Retry storm: cost so far, in USD", series(lambda run: run["series"]["cost"])),
        **{f"Retry storm, {name}: events": draw(f"Retry storm, {name}: events so far", fates(run))
           for name, run in storms.items()},
        "Daily load: invocations at once": at_once(day, 600.0),
        "Burst: invocations at once": at_once(burst, 1.0),
    }


def fates(run):
    """Returns what has become of the events at each step."""
    names = {"events": "all", "answered": "answered with 200", "delivered": "delivered", "lost": "lost"}
    return {shown: run["series"][name] for name, shown in names.items()}


def row(columns, name, run):
    answers = lambda status: f"{run['answers'].get(status, 0):,.0f}"
    values = {
        "scenario": name,
        "concurrency, most": f"{run['concurrency_most']:,.0f}",
        "at the destination, most": f"{run['at_destination_most']:,.0f}",
        "answer p50": shown(run["answer_p50"]), "answer p99": shown(run["answer_p99"]),
        "oldest that waits": shown(run["oldest_most"]),
        "429": answers("429"), "502": answers("502"), "503": answers("503"),
        "lost": f"{run['lost']:,.0f}",
        "delivered": f"{run['delivered']:,.0f} of {run['events']:,.0f}",
        "attempts per event": f"{run['attempts'] / run['events']:.2f}",
        "attempts/s, most": f"{max(run['arrivals']):,.0f}",
        "destination broke": f"{run['breaks']} times",
        "the last one was delivered": f"after {shown(run['last_delivery'])}",
        "per million events": f"${sum(run['cost'].values()):.2f}",
    }
    return [values[column] for column in columns]


def table(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(seconds):
    """Returns a time with three digits."""
    if seconds >= 7_200:
        return f"{seconds / 3_600:.3g} h"
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1_000:.3g} ms"


def save(name, text):
    with open(os.path.join(FOLDER, name), "w", encoding="utf-8") as file:
        file.write(text)
