"""Load by wrk, which sends distinct events over a fixed number of connections.

wrk is Debian's package. Its threads are cheap enough to load nginx, and a script makes every event another
one. It corrects its percentiles for requests that a slow answer holds up. The destination counts what arrives, so
that no answer counts without its delivery.
"""

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import subprocess
import time

SCRIPT = os.path.join(os.path.dirname(__file__), "load.lua")
THREADS = 2
SMALL = 256
EVENT = '{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z","id":"%s"}'

runs = itertools.count()


@dataclasses.dataclass(frozen=True)
class Load:
    """The answers to one run, and the time on the processor that the server took."""

    requests: int
    seconds: float
    p50: float
    p99: float
    processor: float

    @property
    def a_second(self):
        return self.requests / self.seconds

    @property
    def processor_each(self):
        return self.processor / self.requests


def send(server, seconds, connections=16, size=SMALL, same=False, pause=0):
    """Sends events to a server for some seconds. A connection sends its next event after an answer and a pause.

    All runs of the `same` event send one event, so that all but its first delivery are duplicates.
    """
    run = "same" if same else f"{os.getpid()}-{next(runs)}-"
    threads = min(THREADS, connections)
    command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s"]
    command += ["-s", SCRIPT, server.url, "--", run, str(size), "same" if same else "distinct"]
    command += [f"{pause * 1000:.3f}"]
    arrived_before = server.destination.settled()
    before = server.process.processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    processor = server.process.processor_seconds() - before
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    if result["refused"] or result["broken"] or not result["requests"]:
        raise RuntimeError(f"{server.name} did not answer all requests: {result}; {server.process.tail()}")
    if same:
        server.destination.require(0, arrived_before, tolerance=1)
    elif server.delivers_first:
        # Answers that wrk no longer waits for are not in its count.
        server.destination.require(result["requests"], arrived_before, tolerance=connections)
    return Load(result["requests"], result["seconds"], result["p50"], result["p99"], processor)


class Client:
    """A connection that sends new events one after the other."""

    def __init__(self, server):
        self.server = server
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)

    def send(self):
        """Sends an event, and returns the seconds until the answer."""
        body = (EVENT % f"{os.getpid()}-{next(runs)}").encode()
        began = time.perf_counter()
        self.connection.request("POST", "/webhook", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text, took = answer.read(), time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{self.server.name} answered {answer.status} {text!r}; {self.server.process.tail()}")
        return took

    def close(self):
        self.connection.close()


def warm_up(server, same=False):
    """Waits for a server's first answer, and sends it some events."""
    with contextlib.closing(Client(server)) as client:
        client.send()
    send(server, 1, connections=1, same=same)
    if not same:
        send(server, 1)


def pause_for(server, a_second, connections, seconds):
    """Returns the pause with which a server gets this many requests a second, over some connections."""
    each = pause = connections / a_second
    tried = {}
    # A run shows how much time the answers and wrk's clock take.
    for _ in range(4):
        achieved = send(server, seconds, connections, pause=pause).a_second
        tried[pause] = abs(achieved / a_second - 1)
        if tried[pause] < 0.03:
            break
        pause = max(0.0, pause + each - connections / achieved)
    return min(tried, key=tried.get)
