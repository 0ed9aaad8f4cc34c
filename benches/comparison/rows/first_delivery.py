"""The first delivery of an instance, beside a later one, in AWS's Runtime Interface Emulator."""

import os
import statistics

from .. import emulator
from ..emulator import Emulator
from ..lines import Line, most
from ..servers import Destination, DynamoDb, create_table
from .invocation import POWERTOOLS

LATER = 5


def run(bench):
    destination = bench.start(Destination(bench.folder))
    dynamodb = bench.start(DynamoDb(bench.folder))
    create_table(dynamodb.url, "powertools")
    variables = emulator.router_variables(destination, dynamodb)
    starts = {
        name: (emulator.unpack(build.function, os.path.join(bench.folder, name)), variables)
        for name, build in bench.builds.items()
    }
    starts[POWERTOOLS] = emulator.powertools(destination, dynamodb)
    measures = {
        name: lambda name=name, start=start: extra(bench, destination, name, *start)
        for name, start in starts.items()
    }
    for measure in measures.values():
        # DynamoDB Local is slow at first.
        measure()
    seconds = bench.rounds(measures, bench.of(5, 10))
    bench.chart("Extra time of the first delivery of an instance", "time", seconds)
    return [
        Line("extra time of the first delivery of an instance", "time", seconds["router"],
             seconds.get("before"), POWERTOOLS, seconds[POWERTOOLS], most(40e-3)),
    ]


def extra(bench, destination, name, command, variables):
    """Returns how much longer the first delivery of a new instance takes than later ones."""
    before = destination.settled()
    with Emulator(bench.folder, name.replace(" ", "-").replace("'", ""), command, variables) as function:
        first = function.deliver()
        later = [function.deliver() for _ in range(LATER)]
    destination.require(1 + LATER, before)
    return first - statistics.median(later)
