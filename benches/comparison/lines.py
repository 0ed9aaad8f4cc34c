"""The lines of the table: a measured figure, its yardstick, and the limit for it."""

import dataclasses
import statistics

UNITS = {
    "time": [(1e-6, "µs"), (1e-3, "ms"), (1, "s")],
    "bytes": [(1, "B"), (1e3, "KB"), (1e6, "MB")],
    "rate": [(1, "/s")],
    "times": [(1, "x")],
    "USD": [(1, "USD")],
}


# The extremes of fewer values than this say more than the middle half of them.
FEW = 8


@dataclasses.dataclass(frozen=True)
class Limit:
    """The largest or least value that is allowed: of the ratio, or of the router's own figure."""

    value: float
    is_most: bool
    of_ratio: bool

    def is_met(self, value):
        return value <= self.value if self.is_most else value >= self.value

    def distance(self, value):
        """Returns how far a value is from the limit: 1 or less meets it."""
        return value / self.value if self.is_most else self.value / value


def most(value):
    return Limit(value, is_most=True, of_ratio=False)


def least(value):
    return Limit(value, is_most=False, of_ratio=False)


def most_times(value):
    return Limit(value, is_most=True, of_ratio=True)


def least_times(value):
    return Limit(value, is_most=False, of_ratio=True)


@dataclasses.dataclass(frozen=True)
class Line:
    """A measured figure. `router`, `before` and `yardstick` have a value of each round."""

    what: str
    unit: str
    router: list
    before: list | None = None
    yardstick_is: str = ""
    yardstick: list | None = None
    limit: Limit | None = None

    def ratios(self):
        """Returns the ratio to the yardstick in each round, whose values belong together."""
        if not self.yardstick:
            return []
        return [ours / theirs for ours, theirs in zip(self.router, self.yardstick, strict=True)]

    @property
    def is_ratio(self):
        """Returns whether the judged values are ratios."""
        return self.limit.of_ratio if self.limit else bool(self.yardstick)

    def judged(self):
        """Returns the values that the limit is about."""
        return self.ratios() if self.is_ratio else self.router

    def spread(self):
        """Returns the range of the judged values: all of a few, or the middle half of many."""
        values = self.judged()
        if len(values) < FEW:
            return min(values), max(values)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, high

    def verdict(self):
        """Returns whether the limit is met: unclear if it is within the spread."""
        low, high = map(self.limit.is_met, self.spread())
        return "unclear" if low != high else "yes" if low else "no"


def shown(value, unit):
    """Writes a value with three significant digits and its unit."""
    scales = UNITS[unit]
    factor, name = next((scale for scale in reversed(scales) if abs(value) >= scale[0]), scales[0])
    number = value / factor
    digits = 2 if unit == "USD" else max(0, 3 - len(str(int(abs(number)))))
    return f"{number:,.{digits}f} {name}".replace(" /s", "/s")


def shown_values(values, unit):
    return shown(statistics.median(values), unit) if values else ""


def shown_judged(line, value):
    return f"{value:.3g} x" if line.is_ratio else shown(value, line.unit)


def shown_limit(line):
    if not line.limit:
        return ""
    return f"{'at most' if line.limit.is_most else 'at least'} {shown_judged(line, line.limit.value)}"


def shown_spread(line):
    if len(line.router) < 2:
        return ""
    low, high = (shown_judged(line, value) for value in line.spread())
    return low if low == high else f"{low} to {high}"
