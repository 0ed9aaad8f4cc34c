"""Answers at once (the inbox), beside answers of a destination that takes 50 ms, by `serve` on Redis."""

from .. import load
from ..lines import Line, least_times
from ..routers import Router
from ..servers import Redis, SlowDestination

CONNECTIONS = 64


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(SlowDestination(bench.folder, "destination", 0.05))

    def measure(build, answer):
        # What is waiting in the inbox would be delivered during the next round.
        redis.cli("FLUSHALL")
        label = f"{build.name}-{answer}"
        server = Router(bench.folder, label, build.program, redis.url, destination, ANSWER=answer)
        with server.process:
            return load.send(server, bench.of(3, 5), CONNECTIONS).a_second

    rate = bench.rounds({
        (name, answer): lambda build=build, answer=answer: measure(build, answer)
        for name, build in bench.builds.items()
        for answer in ("delivered", "accepted")
    }, bench.of(2, 3))
    return [
        Line(f"events accepted, destination of 50 ms, {CONNECTIONS} connections", "rate",
             rate["router", "accepted"], rate.get(("before", "accepted")),
             "answers when delivered", rate["router", "delivered"], least_times(3)),
    ]
