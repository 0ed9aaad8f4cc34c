"""Deliveries by `serve` on SQLite to an HTTP destination."""

import os

from .. import load
from ..lines import Line, least, most
from ..routers import Router
from ..servers import Destination
from .serve import at_half, of_loads


def run(bench):
    destination = bench.start(Destination(bench.folder))
    servers = {}
    for name, build in bench.builds.items():
        store = f"sqlite:{os.path.join(bench.folder, name)}.db"
        servers[name] = bench.start(Router(bench.folder, name, build.program, store, destination))
        load.warm_up(servers[name])
    seconds = bench.of(3, 4)
    loads = bench.rounds({name: lambda server=server: load.send(server, seconds) for name, server in servers.items()})
    cpu, rate, p99 = of_loads(loads)
    _, half_rate, half_p99 = of_loads(at_half(bench, servers, rate))
    for title, unit, values in [
        ("CPU of a delivery", "time", cpu),
        ("Deliveries a second over 16 connections", "rate", rate),
        ("99th percentile at half load", "time", half_p99),
    ]:
        bench.chart(title, unit, {f"{name}, SQLite": all for name, all in values.items()})
    return [
        Line("CPU of a delivery, SQLite", "time", cpu["router"], cpu.get("before"), limit=most(200e-6)),
        Line("throughput, 16 connections, SQLite", "rate", rate["router"], rate.get("before"), limit=least(5000)),
        Line("p99 at this throughput, 16 connections, SQLite", "time", p99["router"], p99.get("before")),
        Line("p99 at half load, SQLite", "time", half_p99["router"], half_p99.get("before")),
        Line("rate at half load, SQLite", "rate", half_rate["router"], half_rate.get("before")),
    ]
