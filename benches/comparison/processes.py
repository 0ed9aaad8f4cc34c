"""Processes on loopback: their start and end, and the time on the processor and memory that they use."""

import contextlib
import glob
import os
import socket
import subprocess
import time

# Linux makes the number of a clock from the id of a process and this kind (CPUCLOCK_SCHED in the kernel): the
# time on the processor that the scheduler counts, of all threads of the process, also of those that have ended.
PROCESSOR_CLOCK = 2


class Process:
    """A process with its children. Its errors go to a file in the folder of the run."""

    def __init__(self, command, folder, name, variables=None, cwd=None, says=None):
        self.name, self.log = name, os.path.join(folder, f"{name}.log")
        # A process gets only the variables that it is given, so that the caller's change nothing.
        variables = {"PATH": os.environ["PATH"], "HOME": folder} | (variables or {})
        with open(self.log, "wb") as log:
            stdout = subprocess.PIPE if says else log
            self.child = subprocess.Popen(command, env=variables, cwd=cwd, stdout=stdout, stderr=log, text=True)
        if says:
            line = self.child.stdout.readline()
            if says not in line:
                self.stop()
                raise RuntimeError(f"{name} said {line!r} and {self.tail()}")
            self.said = line.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def id(self):
        return self.child.pid

    def tail(self):
        with open(self.log, "rb") as log:
            return log.read()[-2000:].decode(errors="replace")

    def wait_for_port(self, port):
        """Waits until the process listens, for at most a minute."""
        for _ in range(1200):
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.tail()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return self
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.name} does not listen: {self.tail()}")

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()

    def processor_seconds(self):
        """Returns the time on the processor of the process and its children, so far."""
        return sum(processor_seconds(id) for id in tree(self.id))

    def memory_bytes(self):
        """Returns the memory of the process and its children. Shared pages count once."""
        return sum(memory_bytes(id) for id in tree(self.id))

    def most_memory_bytes(self):
        """Returns the largest memory of the process and its children since they started."""
        return sum(most_memory_bytes(id) for id in tree(self.id))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tree(id):
    """Returns the ids of a process and of all processes below it."""
    ids = [id]
    for id in ids:
        for path in glob.glob(f"/proc/{id}/task/*/children"):
            with contextlib.suppress(OSError), open(path) as children:
                ids += map(int, children.read().split())
    return ids


def processor_seconds(id):
    with contextlib.suppress(OSError):
        return time.clock_gettime((~id << 3) | PROCESSOR_CLOCK)
    return 0


def memory_bytes(id):
    return kilobytes(id, "smaps_rollup", "Pss") * 1024


def most_memory_bytes(id):
    # The kernel keeps the largest resident set. It contains pages that other processes have as well.
    shared = kilobytes(id, "smaps_rollup", "Rss") - kilobytes(id, "smaps_rollup", "Pss")
    return (kilobytes(id, "status", "VmHWM") - shared) * 1024


def kilobytes(id, file, name):
    """Returns a figure of a file about a process in /proc."""
    with contextlib.suppress(OSError), open(f"/proc/{id}/{file}") as lines:
        for line in lines:
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
