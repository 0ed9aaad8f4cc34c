"""The size of the function's zip."""

import os

from ..bench import BARE
from ..lines import Line, most


def run(bench):
    sizes = {name: [os.path.getsize(build.function)] for name, build in bench.builds.items()}
    return [
        Line("zip of the function", "bytes", sizes["router"], sizes.get("before"),
             "bare function", [os.path.getsize(BARE)], most(5e6)),
    ]
