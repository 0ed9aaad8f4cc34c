"""INIT of the function, beside that of a function that does nothing, and with a secret to fetch."""

import contextlib
import http.client
import json
import os
import time

from .. import emulator
from ..bench import BARE
from ..emulator import Emulator
from ..lines import Line, most, most_times
from ..routers import SECRET
from ..servers import Moto, signed

BARE_FUNCTION = "bare function"


def run(bench):
    moto = bench.start(Moto(bench.folder))
    moto.create_secret("router", {"ROUTING_SECRET": SECRET})
    variables = emulator.router_variables()
    with_secret = {name: value for name, value in variables.items() if name != "ROUTING_SECRET"}
    with_secret |= {"SECRETS_ARN": "router", "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto.url}
    # Each start with the status of its first answer.
    starts = {BARE_FUNCTION: (emulator.unpack(BARE, os.path.join(bench.folder, "bare")), {}, 200)}
    for name, build in bench.builds.items():
        command = emulator.unpack(build.function, os.path.join(bench.folder, name))
        starts[name] = (command, variables, 400)
        starts[f"{name}, with a secret"] = (command, with_secret, 400)
    measures = {name: lambda name=name, start=start: init(bench, name, *start) for name, start in starts.items()}
    measures["moto"] = MotoClient(bench, moto).seconds
    times = bench.rounds(measures, bench.of(10, 30))
    moto_takes = times.pop("moto")
    for name in bench.builds:
        label = f"{name}, with a secret"
        times[label] = [seconds - own for seconds, own in zip(times[label], moto_takes)]
    bench.chart("INIT", "time", times)
    return [
        Line("INIT, DynamoDB, both destinations", "time", times["router"], times.get("before"),
             BARE_FUNCTION, times[BARE_FUNCTION], most_times(1.5)),
        Line("INIT with SECRETS_ARN, without moto's own time", "time", times["router, with a secret"],
             times.get("before, with a secret"), BARE_FUNCTION, times[BARE_FUNCTION], most(5e-3)),
    ]


def init(bench, name, command, variables, status):
    """Returns the INIT of one start."""
    with Emulator(bench.folder, name.replace(" ", "-"), command, variables) as function:
        answer, _ = function.invoke(emulator.refused_event())
        if answer.get("statusCode") != status:
            raise RuntimeError(f"{name} answered {answer}, not {status}: {function.process.tail()}")
        return function.init_seconds()


class MotoClient:
    """A connection to moto that asks for the secret."""

    def __init__(self, bench, moto):
        self.connection = http.client.HTTPConnection(moto.url.removeprefix("http://"), timeout=60)
        bench.enter(contextlib.closing(self.connection))
        self.body = json.dumps({"SecretId": "router"}).encode()
        self.headers = signed("secretsmanager", "secretsmanager.GetSecretValue")
        # The first request opens the connection.
        self.seconds()

    def seconds(self):
        """Returns the time that moto takes for an answer."""
        began = time.perf_counter()
        self.connection.request("POST", "/", self.body, self.headers)
        answer = self.connection.getresponse()
        text, took = answer.read(), time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"moto answered {answer.status} {text!r}")
        return took
