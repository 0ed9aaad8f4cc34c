"""Deliveries by `serve` on Redis to an HTTP destination, beside the Python router and nginx."""

import statistics

from .. import load
from ..lines import Line, least_times, most_times
from ..routers import Proxy, PythonRouter, Router
from ..servers import Nginx, Redis

PYTHON, PROXY = "Python router", "nginx proxy"
HALF_CONNECTIONS = 64


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(Nginx(bench.folder, "destination", "destination.conf"))
    servers = {}
    for name, build in bench.builds.items():
        for log in (False, True):
            label = f"{name}, with log" if log else name
            at = f"{redis.url}/{len(servers)}"
            servers[label] = bench.start(Router(bench.folder, label, build.program, at, destination, log))
    servers[PYTHON] = bench.start(PythonRouter(bench.folder, "python", redis, destination))
    servers[PROXY] = bench.start(Proxy(bench.folder, "proxy", destination))
    for server in servers.values():
        load.warm_up(server)
    seconds = bench.of(3, 4)
    loads = bench.rounds({name: lambda server=server: load.send(server, seconds) for name, server in servers.items()})
    cpu, rate = of_loads(loads)
    p99 = at_half(bench, {name: server for name, server in servers.items() if not name.endswith("log")}, rate)
    bench.chart("CPU of a delivery", "time", cpu)
    bench.chart("Deliveries a second over 16 connections", "rate", rate)
    bench.chart("99th percentile at half load", "time", p99)
    return [
        Line("CPU of a delivery, Redis, without log", "time", cpu["router"], cpu.get("before"),
             PYTHON, cpu[PYTHON], most_times(1 / 25)),
        Line("CPU of a delivery, Redis, with log", "time", cpu["router, with log"], cpu.get("before, with log"),
             PYTHON, cpu[PYTHON], most_times(1 / 25)),
        Line("CPU of a delivery, Redis, without log", "time", cpu["router"], cpu.get("before"), PROXY, cpu[PROXY]),
        Line("throughput, Redis, 16 connections", "rate", rate["router"], rate.get("before"),
             PYTHON, rate[PYTHON], least_times(12)),
        Line("throughput, Redis, 16 connections", "rate", rate["router"], rate.get("before"),
             PROXY, rate[PROXY], least_times(0.25)),
        Line("p99 at half load, Redis", "time", p99["router"], p99.get("before"),
             PROXY, p99[PROXY], most_times(3)),
        Line("p99 at half load, Redis", "time", p99["router"], p99.get("before"),
             PYTHON, p99[PYTHON]),
    ]


def at_half(bench, servers, rate):
    """Returns the 99th percentiles of servers, each with half of the requests a second that it can answer."""
    measures = {}
    for name, server in servers.items():
        pause = load.pause_for(server, statistics.median(rate[name]) / 2, HALF_CONNECTIONS)
        measures[name] = lambda server=server, pause=pause: load.send(
            server, bench.of(2, 4), HALF_CONNECTIONS, pause=pause).p99
    return bench.rounds(measures)


def of_loads(loads):
    """Returns the time on the processor for each request, and the requests a second, of each server."""
    cpu = {name: [one.processor_each for one in all] for name, all in loads.items()}
    return cpu, {name: [one.a_second for one in all] for name, all in loads.items()}
