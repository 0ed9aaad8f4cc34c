"""The routers to compare: ours from a build, the Python router, and nginx as a plain proxy.

Each has its `destination`. `delivers_first` says that it answers an event after the delivery.
"""

import os
import sys

from .processes import Process, free_port
from .servers import CONFIGURATIONS, Nginx

SECRET = "plainly-a-benchmark-s-secret"
DEFAULT_LOG = "info"
PYTHON_THREADS = 8


class Router:
    """`serve` of a build, whose events all go to one destination over HTTP."""

    def __init__(self, folder, name, program, store, destination, log=False, **variables):
        self.name, self.destination = name, destination
        self.delivers_first = variables.get("ANSWER") != "accepted"
        variables = {
            "STORE_URL": store,
            "ROUTING_SECRET": SECRET,
            "ROUTE_THRESHOLD": "256",
            "GCP_TARGET_URL": destination.url,
            "METRICS_LISTEN": "off",
            "STORE_TIMEOUT_MS": "10000",
            "RUST_LOG": DEFAULT_LOG if log else "error",
        } | variables
        command = [program, "serve", "--listen", "127.0.0.1:0"]
        self.process = Process(command, folder, name, variables, says="listening on")
        self.url = self.process.said.rsplit(" ", 1)[1]


class PythonRouter:
    """The Python router under gunicorn: a worker for each core, with threads for the connections."""

    delivers_first = True

    def __init__(self, folder, name, redis, destination, threads=PYTHON_THREADS):
        self.name, self.destination, port = name, destination, free_port()
        self.url = f"http://127.0.0.1:{port}"
        variables = {
            "PYTHONPATH": CONFIGURATIONS,
            "REDIS_URL": redis.url,
            "ROUTING_SECRET": SECRET,
            "ROUTE_THRESHOLD": "256",
            "GCP_TARGET_URL": destination.url,
        }
        program = os.path.join(os.path.dirname(sys.executable), "gunicorn")
        command = [program, "--bind", f"127.0.0.1:{port}", "--workers", str(os.cpu_count())]
        command += ["--worker-class", "gthread", "--threads", str(threads), "--keep-alive", "60", "router:app"]
        self.process = Process(command, folder, name, variables).wait_for_port(port)


class Proxy(Nginx):
    """nginx as a plain proxy."""

    delivers_first = True

    def __init__(self, folder, name, destination):
        self.destination = destination
        target = destination.url.removeprefix("http://")
        super().__init__(folder, name, "proxy.conf", TARGET=target)
