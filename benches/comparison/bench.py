"""The parts that every row needs: the builds, a folder, the servers that it starts, and how long it measures."""

import contextlib
import dataclasses
import datetime
import os
import shutil
import tempfile

from . import programs

FUNCTION = "target/lambda/webhook-function/bootstrap.zip"
BARE = "target/bare/lambda/bare/bootstrap.zip"
REQUESTS = "target/requests/lambda/requests/bootstrap.zip"


@dataclasses.dataclass(frozen=True)
class Build:
    """A build of the router: the program, the zip of the function, and the benchmarks in Rust."""

    name: str
    checkout: str
    program: str
    function: str
    built: str
    benchmarks: dict

    @classmethod
    def of(cls, checkout, name, folder):
        """Returns the build in a checkout, where `make build` has built the function. Copies what a later build replaces."""
        function = os.path.join(checkout, FUNCTION)
        if not os.path.exists(function):
            raise SystemExit(f"{function} is missing: run `make build` there")
        benchmarks = programs.benchmarks(checkout)
        paths, built = [], []
        for path in (programs.router(checkout), function):
            paths.append(shutil.copy(path, os.path.join(folder, f"{name}-{os.path.basename(path)}")))
            time = datetime.datetime.fromtimestamp(os.path.getmtime(path), datetime.timezone.utc)
            built.append(f"{os.path.basename(path)} {time:%Y-%m-%d %H:%M} UTC")
        return cls(name, checkout, *paths, ", ".join(built), benchmarks)


class Bench:
    """The servers of one row. They end with the row."""

    def __init__(self, is_full, builds, charts):
        self.is_full, self.builds, self.charts = is_full, builds, charts

    def __enter__(self):
        self.servers = contextlib.ExitStack()
        self.folder = self.servers.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        return self

    def __exit__(self, *error):
        return self.servers.__exit__(*error)

    def start(self, server):
        """Keeps a server until the row ends. Returns it."""
        self.servers.enter_context(server.process)
        return server

    def enter(self, context):
        """Keeps a context until the row ends. Returns its value."""
        return self.servers.enter_context(context)

    def of(self, quick, full):
        """Returns the one of two numbers that belongs to this run."""
        return full if self.is_full else quick

    def rounds(self, measures, count=None):
        """Takes each measure once per round, so that other load on the machine affects all of them.

        Each round begins with another measure, so that none always follows the same one. Returns the values of
        each measure, in the order of the rounds.
        """
        names = list(measures)
        values = {name: [] for name in names}
        for number in range(count or self.of(3, 5)):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                values[name].append(measures[name]())
        return values

    def chart(self, title, unit, bars):
        """Adds bars to a chart: the values of each label."""
        self.charts.setdefault((title, unit), {}).update(bars)
