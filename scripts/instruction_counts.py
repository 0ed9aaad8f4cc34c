"""Counts the instructions of key derivation under valgrind, and compares them with the recorded counts.

Usage: python3 scripts/instruction_counts.py [--record] [PROGRAM]

Without PROGRAM, the script builds benches/instructions, which takes a minute. The counts are those of one run
without SHA-256: valgrind has no SHA instructions, so there the hash takes ten times the instructions that it
takes on a processor. They depend on the compiler and the architecture. Record them again after a change of
either, and after a change that makes the work cheaper.
"""

import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "benches/instructions"
RECORD = PACKAGE / "counts.toml"
WORKS = ["key-1k", "key-64k", "key-1m", "plan-1k"]
RUNS = 10
SPARE = 1.05
HASH = "sha2::"


def build():
    target = ROOT / "target/instructions"
    manifest = PACKAGE / "Cargo.toml"
    command = ["cargo", "build", "--quiet", "--locked", "--release"]
    subprocess.run([*command, "--manifest-path", manifest, "--target-dir", target], check=True)
    return target / "release/instructions"


def count(program, work):
    with tempfile.NamedTemporaryFile() as out:
        options = ["--tool=callgrind", "--toggle-collect=*measured*", "--compress-strings=no", "--compress-pos=no"]
        command = ["valgrind", "--quiet", *options, f"--callgrind-out-file={out.name}", program, work]
        # Variables of the environment lie on the stack, and change how it is aligned.
        subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin"})
        return own_instructions(Path(out.name).read_text()) // RUNS


def own_instructions(text):
    """Adds up what each function executes itself. The line after `calls=` is what the called one executes."""
    total, function, is_call = 0, "", False
    for line in text.splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit():
            if not is_call and HASH not in function:
                total += int(line.split()[1])
            is_call = False
    return total


def record(counts):
    """Records counts beside those of other work."""
    counts = tomllib.loads(RECORD.read_text()) | counts
    head = f"# Instructions of one run on {platform.machine()}, by `make instructions` and `make delivery-instructions`.\n"
    RECORD.write_text(head + "".join(f"{work} = {number}\n" for work, number in counts.items()))


def compare(counts):
    """Prints counts, and fails if one is too far above the record."""
    recorded = tomllib.loads(RECORD.read_text())
    worse = []
    for work, number in counts.items():
        limit = recorded[work] * SPARE
        print(f"{work:<8} {number:>12,} instructions, {number / recorded[work] - 1:+.2%} against the record")
        if number > limit:
            worse.append(work)
    if worse:
        sys.exit(
            f"{', '.join(worse)}: more than {SPARE - 1:.0%} above {RECORD.relative_to(ROOT)}. Make the work cheaper "
            "again. If the change is worth it, record the new counts with RECORD=1."
        )


def main():
    arguments = sys.argv[1:]
    is_record = "--record" in arguments
    programs = [argument for argument in arguments if argument != "--record"]
    program = programs[0] if programs else build()
    counts = {work: count(program, work) for work in WORKS}
    if is_record:
        record(counts)
    compare(counts)


if __name__ == "__main__":
    main()
