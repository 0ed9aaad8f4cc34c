"""The memory of `serve`: at rest, and under 64 connections that send bodies of 64 KB."""

from .. import load
from ..lines import Line, most
from ..routers import Proxy, PythonRouter, Router
from ..servers import Destination, Redis

CONNECTIONS, SIZE = 64, 64 * 1024
PYTHON, PROXY = "Python router", "nginx proxy"


def run(bench):
    redis = bench.start(Redis(bench.folder))
    destination = bench.start(Destination(bench.folder))
    threads = CONNECTIONS // 2
    starts = {
        name: lambda name=name, build=build: Router(bench.folder, name, build.program, redis.url, destination)
        for name, build in bench.builds.items()
    }
    starts[PYTHON] = lambda: PythonRouter(bench.folder, "python", redis, destination, threads)
    starts[PROXY] = lambda: Proxy(bench.folder, "proxy", destination)
    measured = bench.rounds({name: lambda start=start: measure(bench, start) for name, start in starts.items()}, 2)
    rest = {name: [at_rest for at_rest, _ in all] for name, all in measured.items()}
    most_used = {name: [under_load for _, under_load in all] for name, all in measured.items()}
    bench.chart("Memory under 64 connections with bodies of 64 KB", "bytes", most_used)
    return [
        Line("memory at rest, after its first deliveries", "bytes", rest["router"], rest.get("before"),
             PYTHON, rest[PYTHON], most(20e6)),
        Line("memory under 64 connections with bodies of 64 KB", "bytes", most_used["router"], most_used.get("before"),
             PYTHON, most_used[PYTHON], most(60e6)),
        Line("memory under 64 connections with bodies of 64 KB", "bytes", most_used["router"], most_used.get("before"),
             PROXY, most_used[PROXY]),
    ]


def measure(bench, start):
    """Returns the memory of a new server after its first deliveries, and its largest memory under load."""
    server = start()
    with server.process:
        load.warm_up(server)
        at_rest = server.process.memory_bytes()
        load.send(server, bench.of(3, 6), CONNECTIONS, SIZE)
        return at_rest, server.process.most_memory_bytes()
