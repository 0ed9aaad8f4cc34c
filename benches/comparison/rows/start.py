"""INIT of the function, beside that of a function that does nothing, and with a secret to fetch."""

import os
import statistics
import time

from .. import emulator
from ..bench import BARE
from ..emulator import Emulator
from ..lines import Line, most, most_times
from ..routers import SECRET
from ..servers import Moto, ask

BARE_FUNCTION = "bare function"


def run(bench):
    moto = bench.start(Moto(bench.folder))
    moto.create_secret("router", {"ROUTING_SECRET": SECRET})
    variables = emulator.router_variables()
    with_secret = {name: value for name, value in variables.items() if name != "ROUTING_SECRET"}
    with_secret |= {"SECRETS_ARN": "router", "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto.url}
    starts = {BARE_FUNCTION: (emulator.unpack(BARE, os.path.join(bench.folder, "bare")), {})}
    for name, build in bench.builds.items():
        command = emulator.unpack(build.function, os.path.join(bench.folder, name))
        starts[name] = (command, variables)
        starts[f"{name}, with a secret"] = (command, with_secret)
    measures = {name: lambda name=name, start=start: init(bench, name, *start) for name, start in starts.items()}
    measures["moto"] = lambda: moto_seconds(moto)
    times = bench.rounds(measures, bench.of(10, 30))
    moto_takes = statistics.median(times.pop("moto"))
    for name in bench.builds:
        label = f"{name}, with a secret"
        times[label] = [seconds - moto_takes for seconds in times[label]]
    bench.chart("INIT", "time", times)
    return [
        Line("INIT, DynamoDB, both destinations", "time", times["router"], times.get("before"),
             BARE_FUNCTION, times[BARE_FUNCTION], most_times(1.5)),
        Line("INIT with SECRETS_ARN, without moto's own time", "time", times["router, with a secret"],
             times.get("before, with a secret"), BARE_FUNCTION, times[BARE_FUNCTION], most(5e-3)),
    ]


def init(bench, name, command, variables):
    """Returns the INIT of one start."""
    with Emulator(bench.folder, name.replace(" ", "-"), command, variables) as function:
        # Only the start is measured, whatever the answer.
        function.request(emulator.refused_event())
        return function.init_seconds()


def moto_seconds(moto):
    """Returns the time that moto takes for the secret."""
    began = time.perf_counter()
    ask(moto.url, "secretsmanager", "secretsmanager.GetSecretValue", {"SecretId": "router"})
    return time.perf_counter() - began
