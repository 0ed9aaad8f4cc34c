"""The facts about the machine, the programs and their settings, for the report."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import time

from .load import THREADS
from .routers import DEFAULT_LOG, PYTHON_THREADS

BUSY_SECONDS = 5


def busy():
    """Returns how many cores are busy, over some seconds. The average load would contain the build."""
    before = busy_ticks()
    time.sleep(BUSY_SECONDS)
    return (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / BUSY_SECONDS


def busy_ticks():
    with open("/proc/stat") as file:
        user, nice, system, _, _, interrupts, soft, stolen = map(int, file.readline().split()[1:9])
    return user + nice + system + interrupts + soft + stolen


def settings(folder):
    """Returns the settings that decide the figures. The stores are in the folder."""
    cores = os.cpu_count()
    return {
        "`serve`": f"{cores} worker threads; RUST_LOG=error, or by default {DEFAULT_LOG}; no listener for metrics",
        "SQLite": f"WAL and synchronous=FULL, on {output('df', '--output=fstype', folder).split()[-1]}",
        "Redis": "one server, without persistence",
        "DynamoDB Local": "in memory, a heap of at most 2 GB",
        "Python router":
            f"gunicorn, {cores} workers of {PYTHON_THREADS} threads (32 threads in the rows about memory), hiredis",
        "nginx": f"{cores} worker processes, no access log",
        "load": f"wrk, {THREADS} threads",
    }


def run(before):
    """Returns names and values for the run. `before` is the folder of the build before, if there is one."""
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit("."),
        **({"commit before": commit(before)} if before else {}),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "programs": ", ".join([
            first("rustc", "--version").split(" (")[0],
            f"Python {platform.python_version()}",
            "nginx " + find(r"nginx/(\S+)", "/usr/sbin/nginx", "-v"),
            "redis-server " + find(r"v=(\S+)", "redis-server", "--version"),
            "wrk " + find(r"wrk \D*([0-9.]+)", "wrk", "-v"),
            "Java " + find(r'"(.*?)"', "java", "-version"),
        ]),
        "Python packages": ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ["flask", "gunicorn", "redis", "hiredis", "requests", "python-dateutil", "boto3",
                         "aws-lambda-powertools", "awslambdaric"]
        ),
    }


def processor():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*: (.*)", file.read())
    return found[1] if found else platform.machine()


def commit(checkout):
    paths = ["src", "Cargo.toml", "Cargo.lock", "benches"]
    git = ["git", "-C", checkout]
    is_changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode != 0
    return first(*git, "rev-parse", "--short", "HEAD") + (" with changes" if is_changed else "")


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def first(*command):
    return output(*command).split("\n", 1)[0].strip()


def find(pattern, *command):
    found = re.search(pattern, output(*command))
    return found[1] if found else "unknown"
