"""Functions of the router beside SHA-256 alone, which `cargo bench --bench functions` measures.

That benchmark prints a line of JSON for each figure. Other lines are for people:

    {"what": "key of a body of 64 KB", "router": [0.0001, ...], "yardstick_is": "SHA-256 of its canonical bytes",
     "yardstick": [0.00005, ...], "at_most": 3.0}

`router` and `yardstick` are the seconds of a call in each round, and `at_most` is the ratio to reach, if there
is one.
"""

import json
import subprocess

from .. import programs
from ..lines import Line, most_times


def run(bench):
    command = [programs.benchmark("functions"), "--bench", *(["--full"] if bench.is_full else [])]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    figures = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [
        Line(figure["what"], "time", figure["router"], None, figure["yardstick_is"], figure["yardstick"],
             most_times(figure["at_most"]) if "at_most" in figure else None)
        for figure in figures
    ]
