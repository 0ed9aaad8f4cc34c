"""A function in AWS's Runtime Interface Emulator, which SAM's package contains."""

import contextlib
import glob
import http.client
import itertools
import json
import os
import platform
import re
import signal
import sys
import time
import zipfile

from .processes import Process, free_port, processor_seconds, tree
from .routers import SECRET
from .servers import CONFIGURATIONS, TABLE

ARCHITECTURE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
EMULATOR = f"target/venv/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCHITECTURE}"
PATH = "/2015-03-31/functions/function/invocations"
EVENT = "events/stripe-payment.json"
INIT = re.compile(rb"INIT REPORT\(durationMs: ([0-9.]+)\)")
VARIABLES = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_LAMBDA_FUNCTION_NAME": "router",
    "AWS_LAMBDA_FUNCTION_TIMEOUT": "10",
}

events = itertools.count()


class Emulator:
    """An instance of a function. It starts with its first invocation."""

    def __init__(self, folder, name, command, variables):
        port = free_port()
        emulator = os.path.abspath(glob.glob(EMULATOR)[0])
        command = [
            emulator,
            *["--runtime-interface-emulator-address", f"127.0.0.1:{port}"],
            *["--runtime-api-address", f"127.0.0.1:{free_port()}"],
            *command,
        ]
        self.process = Process(command, folder, name, VARIABLES | variables, cwd=folder).wait_for_port(port)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        function = self.function()
        self.process.stop()
        # The emulator does not always end its function.
        for id in function:
            with contextlib.suppress(ProcessLookupError):
                os.kill(id, signal.SIGKILL)

    def function(self):
        """Returns the ids of the function's processes."""
        return tree(self.process.id)[1:]

    def request(self, event):
        """Returns the emulator's answer, and the seconds that it took."""
        body = json.dumps(event)
        began = time.perf_counter()
        self.connection.request("POST", PATH, body)
        return self.connection.getresponse().read(), time.perf_counter() - began

    def invoke(self, event):
        """Returns the function's answer, and the seconds that it took."""
        answer, seconds = self.request(event)
        try:
            return json.loads(answer), seconds
        except ValueError:
            raise RuntimeError(f"{self.process.name} answered {answer!r}: {self.process.tail()}") from None

    def deliver(self):
        """Invokes the function with a new event that is delivered. Returns the seconds that it took."""
        answer, seconds = self.invoke(new_event())
        if answer.get("statusCode") != 200 or answer.get("body") != "done":
            raise RuntimeError(f"{self.process.name} answered {answer}: {self.process.tail()}")
        return seconds

    def processor_seconds(self):
        return sum(map(processor_seconds, self.function()))

    def init_seconds(self):
        """Returns the time from the start of the process to its first request for an event."""
        with open(self.process.log, "rb") as log:
            return float(INIT.search(log.read())[1]) / 1e3

    def log_lines(self):
        """Returns the sizes of the router's log lines about deliveries, in bytes."""
        with open(self.process.log, "rb") as log:
            return [len(line.rstrip(b"\n")) for line in log if b'"message":"delivery"' in line]


def new_event():
    with open(EVENT) as file:
        event = json.load(file)
    body = {**json.loads(event["body"]), "id": f"{os.getpid()}-{next(events)}"}
    return {**event, "body": json.dumps(body, separators=(",", ":"))}


def refused_event():
    """Returns an event that a function refuses at once."""
    return {**new_event(), "body": "no JSON"}


def unpack(archive, folder):
    """Unpacks a function, and returns its command."""
    with zipfile.ZipFile(archive) as zip:
        zip.extractall(folder)
    program = os.path.join(folder, "bootstrap")
    os.chmod(program, 0o755)
    return [program]


def router_variables(destination=None, dynamodb=None):
    """Returns the variables of the router over DynamoDB. Without a server, nothing is asked there."""
    variables = {
        "ROUTING_SECRET": SECRET,
        "ALLOW_UNSIGNED": "true",
        "STORE_URL": f"dynamodb://{TABLE}",
        "STORE_TIMEOUT_MS": "5000",
    }
    if dynamodb:
        variables["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb.url
    if destination:
        return variables | {"ROUTE_THRESHOLD": "256", "GCP_TARGET_URL": destination.url}
    return variables | {"GCP_TARGET_URL": "https://127.0.0.1:1", "AWS_TARGET_FUNCTION": "webhook-processor"}


def powertools(destination, dynamodb):
    """Returns the command and the variables of the function in Python."""
    command = [sys.executable, "-m", "awslambdaric", "function.handler"]
    return command, {
        "PYTHONPATH": os.path.abspath(CONFIGURATIONS),
        "LAMBDA_TASK_ROOT": os.path.abspath(CONFIGURATIONS),
        "TABLE": "powertools",
        "GCP_TARGET_URL": destination.url,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url,
    }


def bare_requests(archive, folder, destination, dynamodb):
    """Returns the command and the variables of the bare function that sends the same requests."""
    return unpack(archive, folder), {
        "TABLE": "requests",
        "GCP_TARGET_URL": destination.url,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url,
    }
