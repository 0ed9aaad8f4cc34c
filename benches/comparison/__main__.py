"""Measures the router beside its yardsticks, and writes docs/benchmarks.md (`make bench`).

A quick run does not overwrite the page of a full one: it writes target/benchmarks.md then.

    FULL=1          more and longer rounds, and larger stores
    ONLY="a b"      only these rows, printed instead of written
    BEFORE=FOLDER   also measures the build in another checkout
"""

import os
import sys
import tempfile
import time
import traceback

from . import machine, report
from .bench import Bench, Build
from .rows import ROWS


def main():
    is_full = os.environ.get("FULL", "") not in ("", "0")
    before = os.environ.get("BEFORE", "")
    chosen = os.environ.get("ONLY", "").split() or list(ROWS)
    if unknown := set(chosen) - set(ROWS):
        sys.exit(f"ONLY: there is no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    run, busy, charts, sections, failed = machine.run(before), machine.busy(), {}, {}, []
    run["other load before the run"] = f"{busy:.1f} of {os.cpu_count()} cores"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = machine.settings(folder)
        builds = {"router": Build.of(".", "router", folder)}
        if before:
            builds["before"] = Build.of(before, "before", folder)
        run |= {f"build of {name}": build.built for name, build in builds.items()}
        for name in chosen:
            row_began = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            try:
                with Bench(is_full, builds, charts) as bench:
                    sections[name] = ROWS[name](bench)
                print(f"{time.monotonic() - row_began:.0f} s", file=sys.stderr)
            except Exception:
                # The other rows are worth having.
                traceback.print_exc()
                failed.append(name)
    run[report.KIND] = f"{'full' if is_full else 'quick'}, {(time.monotonic() - began) / 60:.0f} minutes"
    if chosen == list(ROWS):
        facts = {"The run": run, "Settings": settings}
        path = report.write(is_full, facts, report.notes(is_full, busy, os.cpu_count()), sections, charts, failed)
        print(f"{path} is written")
    else:
        print("\n".join(report.table([line for lines in sections.values() for line in lines])))
    return 1 if failed else 0


sys.exit(main())
