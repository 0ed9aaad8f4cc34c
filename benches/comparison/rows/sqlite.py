"""Deliveries by `serve` on SQLite to an HTTP destination."""

import os

from .. import load
from ..lines import Line, least, most
from ..routers import Router
from ..servers import Nginx
from .serve import at_half, of_loads


def run(bench):
    destination = bench.start(Nginx(bench.folder, "destination", "destination.conf"))
    servers = {}
    for name, build in bench.builds.items():
        store = f"sqlite:{os.path.join(bench.folder, name)}.db"
        servers[name] = bench.start(Router(bench.folder, name, build.program, store, destination))
        load.warm_up(servers[name])
    seconds = bench.of(3, 4)
    loads = bench.rounds({name: lambda server=server: load.send(server, seconds) for name, server in servers.items()})
    cpu, rate = of_loads(loads)
    p99 = at_half(bench, servers, rate)
    for title, unit, values in [
        ("CPU of a delivery", "time", cpu),
        ("Deliveries a second over 16 connections", "rate", rate),
        ("99th percentile at half load", "time", p99),
    ]:
        bench.chart(title, unit, {f"{name}, SQLite": all for name, all in values.items()})
    return [
        Line("CPU of a delivery, SQLite", "time", cpu["router"], cpu.get("before"), reach=most(200e-6)),
        Line("throughput, SQLite, 16 connections", "rate", rate["router"], rate.get("before"), reach=least(5000)),
        Line("p99 at half load, SQLite", "time", p99["router"], p99.get("before")),
    ]
