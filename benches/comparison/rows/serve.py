"""Deliveries by `serve` on Redis to an HTTP destination, beside the Python router and nginx."""

import math
import statistics

from .. import load
from ..lines import Line, least_times, most_times
from ..routers import Proxy, PythonRouter, Router
from ..servers import Destination, Redis

PYTHON, PROXY = "Python router", "nginx proxy"
LOG = ", default log"
HALF_CONNECTIONS, HALF_ANSWERS, HALF_TOLERANCE = 64, 10_000, 0.1


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(Destination(bench.folder))
    servers = {}
    for name, build in bench.builds.items():
        for log in (False, True):
            label = f"{name}{LOG}" if log else name
            at = f"{redis.url}/{len(servers)}"
            servers[label] = bench.start(Router(bench.folder, label, build.program, at, destination, log))
    servers[PYTHON] = bench.start(PythonRouter(bench.folder, "python", redis, destination))
    servers[PROXY] = bench.start(Proxy(bench.folder, "proxy", destination))
    for server in servers.values():
        load.warm_up(server)
    seconds = bench.of(3, 4)
    loads = bench.rounds({name: lambda server=server: load.send(server, seconds) for name, server in servers.items()})
    cpu, rate, p99 = of_loads(loads)
    half = at_half(bench, {name: server for name, server in servers.items() if not name.endswith("log")}, rate)
    _, half_rate, half_p99 = of_loads(half)
    bench.chart("CPU of a delivery", "time", cpu)
    bench.chart("Deliveries a second over 16 connections", "rate", rate)
    bench.chart("99th percentile at half load", "time", half_p99)

    def line(what, unit, values, yardstick, limit=None, log=""):
        return Line(f"{what}, Redis{log}", unit, values[f"router{log}"], values.get(f"before{log}"),
                    yardstick, values[yardstick], limit)

    return [
        line("CPU of a delivery", "time", cpu, PYTHON, most_times(1 / 25)),
        line("CPU of a delivery", "time", cpu, PYTHON, most_times(1 / 25), LOG),
        line("CPU of a delivery", "time", cpu, PROXY),
        line("throughput, 16 connections", "rate", rate, PYTHON, least_times(12)),
        line("throughput, 16 connections", "rate", rate, PYTHON, least_times(12), LOG),
        line("throughput, 16 connections", "rate", rate, PROXY, least_times(0.25)),
        line("throughput, 16 connections", "rate", rate, PROXY, least_times(0.25), LOG),
        line("p99 at this throughput, 16 connections", "time", p99, PROXY),
        line("p99 at this throughput, 16 connections", "time", p99, PYTHON),
        line("p99 at half load", "time", half_p99, PROXY, most_times(3)),
        line("p99 at half load", "time", half_p99, PYTHON),
        line("rate at half load", "rate", half_rate, PROXY),
        line("rate at half load", "rate", half_rate, PYTHON),
    ]


def at_half(bench, servers, rate):
    """Sends to each server half of the requests a second that it can answer. Returns the loads of each.

    A load has at least 10,000 answers if it can have them within its longest time.
    """
    measures, halves = {}, {}
    for name, server in servers.items():
        halves[name] = statistics.median(rate[name]) / 2
        seconds = min(max(2, math.ceil(HALF_ANSWERS / halves[name])), bench.of(4, 20))
        pause = load.pause_for(server, halves[name], HALF_CONNECTIONS, min(seconds, 4))
        measures[name] = lambda server=server, pause=pause, seconds=seconds: load.send(
            server, seconds, HALF_CONNECTIONS, pause=pause)
    loads = bench.rounds(measures)
    for name, all in loads.items():
        achieved = statistics.median(one.a_second for one in all)
        if abs(achieved / halves[name] - 1) > HALF_TOLERANCE:
            raise RuntimeError(f"{name} got {achieved:.0f} requests a second, not half of its load, {halves[name]:.0f}")
    return loads


def of_loads(loads):
    """Returns the time on the processor for each request, the requests a second and the 99th percentiles."""
    return (
        {name: [one.processor_each for one in all] for name, all in loads.items()},
        {name: [one.a_second for one in all] for name, all in loads.items()},
        {name: [one.p99 for one in all] for name, all in loads.items()},
    )
