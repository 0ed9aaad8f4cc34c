"""The CPU of a duplicate, beside that of a first delivery, by `serve` on Redis."""

from .. import load
from ..lines import Line, most_times
from ..routers import Router
from ..servers import Destination, Redis
from .serve import of_loads


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(Destination(bench.folder))
    measures, seconds = {}, bench.of(2, 4)
    for name, build in bench.builds.items():
        at = f"{redis.url}/{len(measures)}"
        server = bench.start(Router(bench.folder, name, build.program, at, destination))
        for kind in ("first", "duplicate"):
            same = kind == "duplicate"
            load.warm_up(server, same)
            measures[name, kind] = lambda server=server, same=same: load.send(server, seconds, same=same)
    cpu, _, _ = of_loads(bench.rounds(measures))
    bench.chart("CPU of a delivery", "time", {f"{name}, a duplicate": cpu[name, "duplicate"] for name in bench.builds})
    return [
        Line("CPU of a duplicate, Redis", "time", cpu["router", "duplicate"], cpu.get(("before", "duplicate")),
             "its first delivery", cpu["router", "first"], most_times(0.5)),
    ]
