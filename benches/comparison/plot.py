"""Bars as SVG, without a library. The colours suit a light and a dark page."""

import html
import math
import sys

WIDTH, LABELS, VALUES, ROW, TOP = 940, 490, 90, 24, 44
BAR = WIDTH - LABELS - VALUES
# The least distance that is drawn.
LEAST = 1e-3

STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px }
  .ours { fill: #0969da } .other { fill: #8c959f } .far { fill: #bc4c00 } line { stroke: #24292f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ours { fill: #4493f8 } .other { fill: #7d8590 } .far { fill: #f0883e }
    line { stroke: #e6edf3 }
  }
</style>"""


def bars(title, values, shown):
    """Draws a bar for each value, from the least to the largest. A logarithmic scale shows values of any size."""
    least, largest = min(values.values()), max(values.values())
    # A difference of two times may be below 0.
    is_logarithmic = largest > 20 * least > 0
    rows = []
    for label, value in sorted(values.items(), key=lambda item: item[1]):
        if is_logarithmic:
            # A third of a power of ten is left of the least value, so that its bar can be seen.
            length = (math.log10(value / least) + 1 / 3) / (math.log10(largest / least) + 1 / 3)
        else:
            length = max(value, 0) / max(largest, sys.float_info.min)
        kind = "ours" if label.startswith("router") else "other"
        rows.append((label, kind, 0, length, shown(value)))
    return draw(title + (", logarithmic" if is_logarithmic else ""), rows)


def distances(values):
    """Draws how far each value is from its limit, on a logarithmic scale with a line at 1."""
    powers = {label: math.log10(max(value, LEAST)) for label, value in values.items()}
    widest = max([*map(abs, powers.values()), 1])
    rows = []
    for label, value in values.items():
        end = powers[label] / widest / 2 + 0.5
        kind = "ours" if value <= 1 else "far"
        rows.append((label, kind, min(0.5, end), abs(end - 0.5), f"{value:.3g}"))
    return draw("Distance from the limit, logarithmic: the line is the limit, left of it is better", rows, 0.5)


def draw(title, rows, line=None):
    """Draws a row for each label: a bar from a point to another, and a text. All are parts of the width."""
    height = TOP + ROW * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<title>{html.escape(title)}</title>",
        STYLE,
        f'<text class="title" x="8" y="24">{html.escape(title)}</text>',
    ]
    for number, (label, kind, start, length, text) in enumerate(rows):
        y = TOP + ROW * number
        parts.append(f'<text x="{LABELS - 8}" y="{y + 15}" text-anchor="end">{html.escape(shortened(label))}</text>')
        parts.append(
            f'<rect class="{kind}" x="{LABELS + start * BAR:.1f}" y="{y + 3}" '
            f'width="{max(length * BAR, 1):.1f}" height="{ROW - 8}"/>'
        )
        parts.append(f'<text x="{LABELS + BAR + 8}" y="{y + 15}">{html.escape(text)}</text>')
    if line is not None:
        x = LABELS + line * BAR
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{height - 6}"/>')
    return "\n".join([*parts, "</svg>", ""])


def shortened(label):
    return label if len(label) <= 70 else label[:69] + "…"
