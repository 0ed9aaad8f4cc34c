"""Lines over time as SVG, without a library. The colours suit a light and a dark page."""

import html
import math

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 940, 300, 80, 64, 34
# The width of a letter of the legend, on average.
LETTER = 6.6
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - 24, HEIGHT - TOP - BOTTOM

STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px }
  path { fill: none; stroke-width: 1.6 } .axis { stroke: #8c959f; stroke-width: 1 } rect { fill: #8c959f; opacity: .2 }
  .line0 { stroke: #0969da } .line1 { stroke: #bc4c00 } .line2 { stroke: #1a7f37 } .line3 { stroke: #8250df }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .line0 { stroke: #4493f8 } .line1 { stroke: #f0883e } .line2 { stroke: #3fb950 }
    .line3 { stroke: #ab7df8 }
  }
</style>"""


def lines(title, series, step, shades=()):
    """Draws a line for each series of values, which are `step` seconds apart. Shades are spans of seconds."""
    longest = max(len(values) for values in series.values())
    span = max(longest * step, 1e-9)
    top = rounded(max(max(values, default=0) for values in series.values()))
    x = lambda seconds: LEFT + seconds / span * PLOT_WIDTH
    y = lambda value: TOP + PLOT_HEIGHT * (1 - value / top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f"<title>{html.escape(title)}</title>", STYLE,
        f'<text class="title" x="8" y="22">{html.escape(title)}</text>',
    ]
    for start, end in shades:
        parts.append(f'<rect x="{x(start):.1f}" y="{TOP}" width="{x(end) - x(start):.1f}" height="{PLOT_HEIGHT}"/>')
    for part in (0, 0.5, 1):
        parts.append(f'<text x="{LEFT - 8}" y="{y(part * top) + 4:.1f}" text-anchor="end">{shown_number(part * top)}</text>')
        parts.append(f'<text x="{x(part * span):.1f}" y="{HEIGHT - 12}" text-anchor="middle">'
                     f"{shown_time(part * span)}</text>")
    parts.append(f'<path class="axis" d="M{LEFT},{TOP} V{TOP + PLOT_HEIGHT} H{LEFT + PLOT_WIDTH}"/>')
    legend = LEFT
    for number, (name, values) in enumerate(series.items()):
        points = " L".join(f"{x(index * step):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<path class="line{number}" d="M{points}"/>')
        parts.append(f'<path class="line{number}" d="M{legend},44 h18"/>')
        parts.append(f'<text x="{legend + 24}" y="48">{html.escape(name)}</text>')
        legend += 44 + LETTER * len(name)
    return "\n".join([*parts, "</svg>", ""])


def rounded(value):
    """Returns the next number with one digit, so that the axis ends at it."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return math.ceil(value / power) * power


def shown_number(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def shown_time(seconds):
    if seconds >= 3_600:
        return f"{seconds / 3_600:.3g} h"
    return f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:.3g} s"
