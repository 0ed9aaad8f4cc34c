#!/usr/bin/env python3
"""Runs `webhook-router demo` and writes its output as an SVG, for README.md.

    scripts/record_demo.py target/debug/webhook-router docs/demo.svg

The picture has everything that the program printed, except its last part about continuing by hand.
"""

import html
import re
import subprocess
import sys
from pathlib import Path

COMMAND = "$ make demo"
LEFT_OUT_FROM = "Go on by hand"
# Sizes in units of the picture, which a browser scales to the page.
CHARACTER, LINE, MARGIN = 8.4, 20, 20
COLOURS = [
    (re.compile(r"200 processed|200 \[accepted\](?!, a duplicate)"), "#7ee787"),
    (re.compile(r"200 duplicate ignored|200 \[accepted\], a duplicate"), "#79c0ff"),
    (re.compile(r"409 in progress"), "#e3b341"),
    (re.compile(r"40[01] [a-z_:]+( [a-z_:]+)*"), "#ff7b72"),
]
HEADINGS = re.compile(r"(\$|EVENT|VENDOR|What this shows)")


def main() -> None:
    program, picture = sys.argv[1:]
    # The demo fails if its claims do not hold. Then there is no picture.
    run = subprocess.run([program, "demo"], stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    shown = run.stdout.partition(LEFT_OUT_FROM)[0].rstrip()
    Path(picture).write_text(svg([COMMAND, *shown.splitlines()]), encoding="utf-8")


def svg(lines: list[str]) -> str:
    width = round(max(map(len, lines)) * CHARACTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    texts = "\n".join(text(line, number) for number, line in enumerate(lines, 1) if line)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>The output of webhook-router demo</title>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" \
fill="#c9d1d9" xml:space="preserve">
{texts}
</g>
</svg>
"""


def text(line: str, number: int) -> str:
    """Returns a line of the terminal. It has a fixed length, so that columns align in any font."""
    weight = ' font-weight="bold"' if HEADINGS.match(line) else ""
    length = f'textLength="{len(line) * CHARACTER:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{MARGIN}" y="{MARGIN + number * LINE - 6}" {length}{weight}>{coloured(line)}</text>'


def coloured(line: str) -> str:
    """Returns a line as XML, with its answers coloured."""
    found = sorted((match.span(), fill) for answer, fill in COLOURS for match in answer.finditer(line))
    pieces, end = [], 0
    for (start, stop), fill in found:
        pieces.append(html.escape(line[end:start], quote=False))
        pieces.append(f'<tspan fill="{fill}">{html.escape(line[start:stop], quote=False)}</tspan>')
        end = stop
    return "".join(pieces) + html.escape(line[end:], quote=False)


if __name__ == "__main__":
    main()
