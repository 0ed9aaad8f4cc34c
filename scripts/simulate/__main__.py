"""Simulates the router at scale.

    python3 -m simulate                 every scenario: prints figures, and writes docs/scale/
    python3 -m simulate --run           one scenario in JSON from the standard input, to JSON
"""

import json
import sys

from . import report
from .scenario import Run


def main():
    match sys.argv[1:]:
        case []:
            report.write()
        case ["--run"]:
            json.dump(Run(json.load(sys.stdin)).summary(), sys.stdout)
        case _:
            sys.exit(__doc__)


main()
