"""The CPU of an invocation in AWS's Runtime Interface Emulator, over DynamoDB Local.

The yardsticks are Powertools, and a bare function that sends the same requests.
"""

import statistics

from .. import emulator
from ..bench import REQUESTS
from ..emulator import Emulator
from ..lines import Line, most, most_times
from ..servers import Destination, DynamoDb, create_table

POWERTOOLS = "Powertools"
BARE_REQUESTS = "bare function with the same requests"
WARM_UP = 50


def run(bench):
    destination = bench.start(Destination(bench.folder))
    dynamodb = bench.start(DynamoDb(bench.folder))
    functions = start_all(bench, destination, dynamodb)
    for function in functions.values():
        for _ in range(WARM_UP):
            function.deliver()
    count = bench.of(100, 300)
    values = bench.rounds({name: lambda one=one: measure(one, count, destination) for name, one in functions.items()})
    cpu = {name: [seconds for seconds, _ in all] for name, all in values.items()}
    took = {name: [seconds for _, seconds in all] for name, all in values.items()}
    lines = functions["router"].log_lines()
    before = functions["before"].log_lines() if "before" in functions else None
    bench.chart("CPU of an invocation over DynamoDB Local", "time", cpu)
    return [
        Line("CPU of an invocation, DynamoDB Local", "time", cpu["router"], cpu.get("before"),
             POWERTOOLS, cpu[POWERTOOLS], most_times(0.1)),
        Line("CPU of an invocation, DynamoDB Local", "time", cpu["router"], cpu.get("before"), limit=most(0.5e-3)),
        Line("CPU of an invocation, DynamoDB Local", "time", cpu["router"], cpu.get("before"),
             BARE_REQUESTS, cpu[BARE_REQUESTS]),
        Line("time of an invocation, DynamoDB Local", "time", took["router"], took.get("before"),
             POWERTOOLS, took[POWERTOOLS]),
        Line("log line of a delivery, with its metrics", "bytes", lines, before, limit=most(600)),
    ]


def start_all(bench, destination, dynamodb):
    """Starts an instance of each function."""
    functions = {}
    for name, build in bench.builds.items():
        command = emulator.unpack(build.function, f"{bench.folder}/{name}")
        variables = emulator.router_variables(destination, dynamodb)
        functions[name] = bench.enter(Emulator(bench.folder, f"{name}-function", command, variables))
    create_table(dynamodb.url, "powertools")
    command, variables = emulator.powertools(destination, dynamodb)
    functions[POWERTOOLS] = bench.enter(Emulator(bench.folder, "powertools", command, variables))
    create_table(dynamodb.url, "requests")
    command, variables = emulator.bare_requests(REQUESTS, f"{bench.folder}/requests", destination, dynamodb)
    functions[BARE_REQUESTS] = bench.enter(Emulator(bench.folder, "requests-function", command, variables))
    return functions


def measure(function, count, destination):
    """Returns the CPU of an invocation, and the median of the time that it takes."""
    arrived_before, before = destination.settled(), function.processor_seconds()
    times = [function.deliver() for _ in range(count)]
    processor = function.processor_seconds() - before
    destination.require(count, arrived_before)
    return processor / count, statistics.median(times)
