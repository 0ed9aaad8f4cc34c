"""Answers at once (the inbox), beside answers of a destination that takes 50 ms, by `serve` on Redis.

The inbox has as many workers as there are connections, so that both ways make as many attempts at a time. It
accepts a burst faster than it delivers it, so there are two figures: how many events are accepted a second in a
burst, and how many are delivered a second, from the start of the burst until none is left.
"""

import time

from .. import load
from ..lines import Line, least_times
from ..routers import Router
from ..servers import Redis, SlowDestination

CONNECTIONS = 64
LONGEST = 300


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(SlowDestination(bench.folder, "destination", 0.05))
    seconds = bench.of(3, 5)

    def measure(build, answer):
        redis.cli("FLUSHALL")
        label = f"{build.name}-{answer}"
        server = Router(bench.folder, label, build.program, redis.url, destination, ANSWER=answer,
                        INBOX_WORKERS=str(CONNECTIONS))
        with server.process:
            # The inbox may pause between two reads. So its count, and not a standstill, tells that none is left.
            before = destination.settled()
            first = load.send(server, 1, connections=4)
            delivered_after(destination, before + first.requests, time.monotonic())
            before, began = destination.settled(), time.monotonic()
            burst = load.send(server, seconds, CONNECTIONS)
            took = delivered_after(destination, before + burst.requests, began)
            destination.require(burst.requests, before, tolerance=CONNECTIONS)
            return burst.a_second, burst.requests / took

    measured = bench.rounds({
        (name, answer): lambda build=build, answer=answer: measure(build, answer)
        for name, build in bench.builds.items()
        for answer in ("delivered", "accepted")
    }, bench.of(2, 3))
    burst, sustained = ({name: [pair[at] for pair in all] for name, all in measured.items()} for at in (0, 1))
    where = f"destination of 50 ms, {CONNECTIONS} connections, {CONNECTIONS} INBOX_WORKERS"
    return [
        Line(f"burst of {seconds} s: events accepted, {where}", "rate",
             burst["router", "accepted"], burst.get(("before", "accepted")),
             "`ANSWER=delivered`", burst["router", "delivered"], least_times(3)),
        Line(f"accepted events delivered, from the start of the burst until none is left, {where}", "rate",
             sustained["router", "accepted"], sustained.get(("before", "accepted")),
             "`ANSWER=delivered`", sustained["router", "delivered"]),
    ]


def delivered_after(destination, count, began):
    """Waits until the destination has answered this many requests. Returns the seconds since the burst began."""
    while destination.count() < count:
        if time.monotonic() > began + LONGEST:
            raise RuntimeError(f"accepted events are not delivered after {LONGEST} s")
        time.sleep(0.05)
    return time.monotonic() - began
