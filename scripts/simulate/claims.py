"""The figures in docs/scale.md and docs/deploy.md that follow from the benchmarks, from docs/cost.md and from the
simulation.

`make simulate` writes them into the pages, and a test holds the pages to docs/scale/figures.json. A sentence that
is worded anew must be worded anew here, too.
"""

import json
import math
import os
import re

from . import aws, measured
from .destination import Latency

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs")
FIGURES = os.path.join(DOCS, "scale", "figures.json")

FIGURE = r"([\d,]*\.?\d+)"


def save(runs):
    """Writes the figures of the runs, and of the benchmarks that they come from."""
    of_runs = {name: json.dumps(scalars(run)) for name, run in runs.items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {of_run}" for name, of_run in of_runs.items())
    text = f'{{\n"measured": {json.dumps(measured.read())},\n"runs": {{\n{lines}\n}}\n}}\n'
    with open(FIGURES, "w", encoding="utf-8") as file:
        file.write(text)


def scalars(run):
    values = {name: round(value, 6) for name, value in run.items() if isinstance(value, (int, float))}
    values |= {"cost": round(sum(run["cost"].values()), 4), "answers": run["answers"]}
    return values | {"arrivals_most": max(run["arrivals"]), "deliveries_most": max(run["deliveries"])}


def check():
    """Returns what is out of date."""
    figures = read()
    if figures["measured"] != measured.read():
        return ["docs/scale/figures.json is of other benchmarks than docs/benchmarks.md"]
    return update(figures, lambda name, text: None)


def write():
    """Writes the figures into the pages. Returns what has changed."""
    return update(read(), save_page)


def read():
    with open(FIGURES, encoding="utf-8") as file:
        return json.load(file)


def save_page(name, text):
    with open(os.path.join(DOCS, name), "w", encoding="utf-8") as file:
        file.write(text)


def update(figures, save_page):
    changes = []
    for name, of_page in sentences(figures["measured"], figures["runs"]).items():
        with open(os.path.join(DOCS, name), encoding="utf-8") as file:
            text, changed = filled(name, file.read(), of_page)
        save_page(name, text)
        changes += changed
    return changes


def filled(name, page, sentences):
    """Returns a page with its figures filled in, and what has changed."""
    changes = []
    for sentence, *values in sentences:
        # A figure is `{}`. Lines may be broken anywhere.
        parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in sentence.split("{}")]
        found = re.findall(FIGURE.join(parts), page)
        if len(found) != 1:
            raise SystemExit(f"docs/{name} has {len(found)} times: {sentence}: see scripts/simulate/claims.py")
        match = re.search(FIGURE.join(parts), page)
        assert match.re.groups == len(values), sentence
        for number, value in reversed(list(enumerate(values, 1))):
            if match[number] != value:
                changes.append(f"docs/{name}: {match[number]} is {value} now: {sentence}")
                page = page[:match.start(number)] + value + page[match.end(number):]
    return page, changes


def digits(value, count=2):
    """Returns a number with this many digits that count."""
    if not value:
        return "0"
    places = count - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def whole(value):
    return f"{value:,.0f}"


def cost(pattern):
    """Returns a figure of docs/cost.md."""
    with open(os.path.join(DOCS, "cost.md"), encoding="utf-8") as file:
        found = re.search(pattern, file.read())
    if not found:
        raise SystemExit(f"docs/cost.md does not say {pattern}: see scripts/simulate/claims.py")
    return float(found[1])


def sentences(cpu, runs):
    """Returns the sentences of each page, with their figures."""
    own, destination = cpu["cpu_invocation"] / aws.PROCESSOR, Latency(0.05, 0.2)
    mean = destination.median * math.exp(destination.sigma**2 / 2)
    overhead = own + 2 * aws.DYNAMODB
    delivery, accepting = overhead + mean, own + aws.DYNAMODB + aws.SQS
    first = measured.first_delivery(cpu)
    # A batch of ten: the slowest takes so long on average, and each has its turn at the processor.
    batch = lambda slowest: (slowest + 0.01) / 10 + own
    of = lambda run, name: runs[run][name]
    answers = lambda run, status: of(run, "answers").get(status, 0)
    all_answers = lambda run: sum(of(run, "answers").values())
    load = [f"{rate}/s, delivered" for rate in ("100", "10,000", "1,000,000")]
    most = [of(run, "concurrency_most") for run in load]
    from_nothing, slow = "from nothing to 10,000/s", "from nothing to 10,000/s, destination of 1 s"
    burst, million = "100/s, for a minute 1,000/s", "1,000,000/s, accepted"
    hot, few = "DynamoDB", "DynamoDB, 100 at a time"
    up = 4_200.0
    storms = {name: runs[name] for name in runs if " at a time" in name and name != few}
    fast, calm, falling, steady = storms.values()
    after = lambda run: (run["last_delivery"] - up) / 60
    usd = cost(r"\*\*a million events\*\* \| \*\*\$([\d.]+)")
    provisioned = cost(r"million events cost \$([\d.]+) instead of")
    line = cost(r"a log line \| at most (\d+) bytes")
    # Of 100 deliveries per second, a tenth of which come again.
    events, log = 8.64e6, 8.64e6 * 1.1 * (line + aws.LINE)
    scale = [
        ("| log per day | {} GB | {} GB | {} TB |", digits(log / 1e9), digits(log / 1e7, 3), digits(log / 1e8)),
        ("| cost per day, `delivered` on demand | ${} | ${} | ${} |",
         *(digits(events * usd / 1e6 * rate) for rate in (1, 100, 10_000))),
        ("A delivery writes a line of at most {} bytes", whole(line)),
        ("A million events cost ${} with `delivered` on demand", f"{usd:.2f}"),
        ("it more than halves the store's part, and a million events cost ${}", f"{provisioned:.2f}"),
        ("((seconds of the destination + 0.01) / 10 + {})", f"{own:.3f}"),
        ("| largest number of invocations at once (destination of 50 ms) | {} | {} | {} |", *map(whole, most)),
        ("`InboxConcurrency`, at {} events/s in a stack", digits(1_000 / batch(0.13))),
        ("4 destinations, `InboxConcurrency` {}, warm throughput", digits(1e4 * batch(0.13))),
        ("250 destinations at least, in {} stacks", whole(math.ceil(1e3 * batch(0.13)))),
        ("{} ms of processor time, at a seventh of a processor: {} ms",
         digits(cpu["cpu_invocation"] * 1e3, 3), digits(own * 1e3)),
        ("together {} ms, so {} invocations at once for 100 deliveries/s. The simulation has {} at most",
         digits(delivery * 1e3), whole(100 * delivery), whole(most[0])),
        ("(average seconds of the destination + {})", digits(overhead, 2)),
        ("The default of 50 carries {} deliveries/s at 60 ms on average, and {} at one second",
         digits(25 / delivery), whole(25 / (1 + overhead))),
        ("so {} requests/s for {} invocations.", whole(10 * most[1]), whole(most[1])),
        ("longer by {} ms (measured: {} ms with its start, and {} ms more with `SECRETS_ARN`)",
         digits(first * 1e3), digits(cpu["first_delivery"] * 1e3, 3),
         digits((cpu["init_with_secret"] - cpu["init"]) * 1e3, 3)),
        ("At a seventh of a processor, that is {} s", digits(first / aws.PROCESSOR)),
        ("at a destination of 50 ms needs {} instances", digits(1e4 * delivery)),
        ("{}% of the deliveries of the first minute are answered 429",
         digits(100 * answers(from_nothing, "429") / of(from_nothing, "events"), 1)),
        ("with 200 reserved: {}% are answered 429", digits(100 * answers(burst, "429") / of(burst, "events"), 1)),
        ("at a destination of 1 s needs {}: within the first minute, {} of {} answers are 429",
         digits(1e4 * (1.05 + overhead), 3), whole(answers(slow, "429")), whole(all_answers(slow))),
        ("1,000,000/s need {}, which takes {} minutes", digits(1e6 * delivery), digits(1e4 * delivery / 60)),
        ("an invocation that answers a vendor takes {} ms, whatever the destination does. 10,000/s need {} of them",
         digits(accepting * 1e3), digits(1e4 * accepting)),
        ("3,500/s for a minute: {} of 210,000 answers are 503", whole(answers("3,500/s, accepted", "503"))),
        ("10,000/s for 20 s: {} answers are 503", whole(answers("10,000/s, accepted", "503"))),
        ("1,000,000/s for 15 s: {} million of {} million answers are 503",
         digits(answers(million, "503") / 1e6, 3), whole(all_answers(million) / 1e6)),
        ("10,000/s need {}. The largest `InboxConcurrency`, 1,000, carries {}/s in one stack",
         digits(1e4 * batch(0.13)), digits(1_000 / batch(0.13))),
        ("a delivery takes {} µs of a processor with Redis (with the default log), so 1,000,000/s take {} "
         "processors at full load, or some {} at half load. For the same rate, Lambda runs {} instances",
         whole(cpu["cpu_redis"] * 1e6), whole(cpu["cpu_redis"] * 1e6), digits(2e6 * cpu["cpu_redis"]),
         digits(1e6 * delivery)),
        ("The simulation answers {} of the 10,000 with 503 after two tries, 99% of them within {} ms",
         whole(answers(hot, "503")), whole(of(hot, "answer_p99") * 1e3)),
        ("Lambda answers {} of the 10,000 with 429 before they reach the table", whole(answers(few, "429"))),
        ("needs no setting. These 10,000 deliveries cost ${}", digits(of(hot, "cost") / 100, 1)),
        ("`ReservedConcurrency` 1000, warm throughput | {} | {} times | {} h after the outage |",
         digits(fast["attempts"] / fast["events"], 3), whole(fast["breaks"]), digits(after(fast) / 60)),
        ("`ReservedConcurrency` 300, warm throughput | {} | never | {} min after it |",
         digits(calm["attempts"] / calm["events"], 3), whole(after(calm))),
        ("`InboxConcurrency` 100, warm throughput | | {} times | not within 5 h ({}% of the events were delivered) |",
         whole(falling["breaks"]), whole(100 * falling["delivered"] / falling["events"])),
        ("`InboxConcurrency` 30, warm throughput | {} | never | {} min after it |",
         digits(steady["attempts"] / steady["events"], 3), whole(after(steady))),
        ("during the {} minutes after the outage, it breaks again each time it comes up",
         digits((fast["last_break"] - up) / 60, 1)),
        ("30 batches carry {}/s, of which 1,000 are new events", digits(steady["deliveries_most"], 3)),
    ]
    deploy = [
        ("Six processors carry some {} deliveries per second at half load ({} ms of processor time for each delivery",
         digits(3 / cpu["cpu_invocation"], 1), digits(cpu["cpu_invocation"] * 1e3, 3)),
    ]
    return {"scale.md": scale, "deploy.md": deploy}
