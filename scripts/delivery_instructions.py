"""Counts the instructions of a delivery under valgrind, and compares them with the recorded count.

Usage: python3 scripts/delivery_instructions.py [--record] [ZIP]

The counted program is the built function (`make build`), or that of another ZIP: the deployed artefact, which runs on
one thread. It gets its invocations from this script, claims its events in a Redis server, and delivers them over HTTP.
Redis and the destination are other processes, so their instructions do not count. The first deliveries, which open
connections, do not count either.

valgrind has no SHA instructions, so SHA-256 takes a larger part of the count than on a processor.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from instruction_counts import ROOT, compare, record

sys.path.insert(0, str(ROOT / "benches"))
from comparison import emulator  # noqa: E402
from comparison.processes import Process  # noqa: E402
from comparison.servers import Redis, SlowDestination  # noqa: E402

FUNCTION = ROOT / "target/lambda/webhook-function/bootstrap.zip"
WARM_UP, COUNTED = 50, 200
HEAD = "HTTP/1.1 {} OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n"


class RuntimeApi:
    """Lambda's Runtime API for one function. AWS's emulator does not tell when the function waits again, and the
    counts begin and end then."""

    def __init__(self):
        self.events, self.answers, self.numbers = asyncio.Queue(), asyncio.Queue(), itertools.count()
        # Set while the function waits for an invocation.
        self.is_idle = asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        # Ends the connection on which the function waited.
        await self.events.put(None)

    async def serve(self, reader, writer):
        # At the end, a connection that still waits is cancelled.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"\r\ncontent-length: *([0-9]+)\r\n", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                if "/invocation/next " in head:
                    self.is_idle.set()
                    event = await self.events.get()
                    if event is None:
                        return
                    event = json.dumps(event)
                    deadline = int((time.time() + 600) * 1000)
                    fields = f"lambda-runtime-aws-request-id: {next(self.numbers):08d}\r\n"
                    fields += f"lambda-runtime-deadline-ms: {deadline}\r\n"
                    fields += "lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:1:function:router\r\n"
                    writer.write((HEAD.format(200, len(event), fields) + event).encode())
                else:
                    writer.write(HEAD.format(202, 0, "").encode())
                    await self.answers.put(body)

    async def deliver(self):
        self.is_idle.clear()
        await self.events.put(emulator.new_event())
        answer = json.loads(await self.answers.get())
        if answer.get("statusCode") != 200 or answer.get("body") != "done":
            raise RuntimeError(f"the function answered {answer}")
        await self.is_idle.wait()


async def count(function):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = Redis(folder)
        stack.callback(redis.process.stop)
        destination = SlowDestination(folder, "destination", 0)
        stack.callback(destination.process.stop)
        async with RuntimeApi() as api:
            variables = emulator.VARIABLES | emulator.router_variables(destination) | {
                "AWS_LAMBDA_RUNTIME_API": api.address,
                "AWS_LAMBDA_FUNCTION_VERSION": "1",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
                "STORE_URL": redis.url,
                "STORE_TIMEOUT_MS": "60000",
                "FORWARD_TIMEOUT_MS": "60000",
            }
            out = os.path.join(folder, "counts")
            program = emulator.unpack(function, os.path.join(folder, "unpacked"))
            command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", *program]
            with Process(command, folder, "function", variables) as process:
                await deliver(api, process, WARM_UP)
                control(process, "--zero")
                await deliver(api, process, COUNTED)
                control(process, "--dump")
        return total(Path(f"{out}.1")) // COUNTED


async def deliver(api, process, times):
    """Delivers events one after the other."""
    for _ in range(times):
        try:
            await asyncio.wait_for(api.deliver(), 120)
        except (RuntimeError, TimeoutError) as error:
            raise SystemExit(f"{error!r}: {process.tail()}") from error


def control(process, command):
    """Lets callgrind begin its counts anew, or write them. It does so between two basic blocks."""
    subprocess.run(["callgrind_control", command, str(process.id)], check=True, capture_output=True)


def total(path):
    for _ in range(600):
        with contextlib.suppress(OSError):
            found = re.search(r"^(?:totals|summary): ([0-9]+)", path.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
        time.sleep(0.1)
    raise RuntimeError("callgrind wrote no counts")


def main():
    arguments = sys.argv[1:]
    is_record = "--record" in arguments
    functions = [argument for argument in arguments if argument != "--record"]
    counts = {"delivery": asyncio.run(count(functions[0] if functions else FUNCTION))}
    if is_record:
        record(counts)
    compare(counts)


if __name__ == "__main__":
    main()
