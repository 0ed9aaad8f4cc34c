"""Simulates the router at scale.

    python3 -m simulate                 every scenario: prints figures, and writes docs/scale/ and the figures of
                                        other pages
    python3 -m simulate --run           one scenario in JSON from the standard input, to JSON
    python3 -m simulate --check         fails if a page does not have the figures of docs/scale/
"""

import json
import sys

from . import claims, report
from .scenario import Run


def main():
    match sys.argv[1:]:
        case []:
            report.write()
        case ["--run"]:
            json.dump(Run(json.load(sys.stdin)).summary(), sys.stdout)
        case ["--check"]:
            if changes := claims.check():
                sys.exit("\n".join([*changes, "run `make simulate`"]))
        case _:
            sys.exit(__doc__)


main()
