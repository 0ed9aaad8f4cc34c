"""The facts about the machine and the programs, for the report."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess


def facts():
    """Returns names and values."""
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": first("git", "rev-parse", "--short", "HEAD") + (" with changes" if is_changed() else ""),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load before the run": f"{os.getloadavg()[0]:.2f} (average of a minute)",
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
            for name in ["flask", "gunicorn", "redis", "requests", "python-dateutil", "boto3",
                         "aws-lambda-powertools", "awslambdaric"]
        ),
    }


def processor():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*: (.*)", file.read())
    return found[1] if found else platform.machine()


def is_changed():
    paths = ["src", "Cargo.toml", "Cargo.lock", "benches"]
    return subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode != 0


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def first(*command):
    return output(*command).split("\n", 1)[0].strip()


def find(pattern, *command):
    found = re.search(pattern, output(*command))
    return found[1] if found else "unknown"
