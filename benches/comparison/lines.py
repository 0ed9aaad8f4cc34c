"""The lines of the table: what was measured, beside what, and what it must reach."""

import dataclasses
import statistics

UNITS = {
    "time": [(1e-6, "µs"), (1e-3, "ms"), (1, "s")],
    "bytes": [(1, "B"), (1e3, "KB"), (1e6, "MB")],
    "rate": [(1, "/s")],
    "times": [(1, "x")],
    "USD": [(1, "USD")],
}


@dataclasses.dataclass(frozen=True)
class Reach:
    """The largest or least value that the router must reach: of the ratio, or of its own figure."""

    limit: float
    is_most: bool
    of_ratio: bool

    def is_met(self, value):
        return value <= self.limit if self.is_most else value >= self.limit

    def distance(self, value):
        """Returns how far a value is from the limit: 1 or less is reached."""
        return value / self.limit if self.is_most else self.limit / value


def most(limit):
    return Reach(limit, is_most=True, of_ratio=False)


def least(limit):
    return Reach(limit, is_most=False, of_ratio=False)


def most_times(limit):
    return Reach(limit, is_most=True, of_ratio=True)


def least_times(limit):
    return Reach(limit, is_most=False, of_ratio=True)


@dataclasses.dataclass(frozen=True)
class Line:
    """A measured figure. `router`, `before` and `yardstick` have a value of each round."""

    what: str
    unit: str
    router: list
    before: list | None = None
    yardstick_is: str = ""
    yardstick: list | None = None
    reach: Reach | None = None

    def ratio(self):
        """Returns the ratio to the yardstick: the median of the rounds, whose values belong together."""
        if not self.yardstick:
            return None
        if len(self.router) != len(self.yardstick):
            return statistics.median(self.router) / statistics.median(self.yardstick)
        return statistics.median(ours / theirs for ours, theirs in zip(self.router, self.yardstick))

    def reached(self):
        """Returns the value that the reach is about."""
        return self.ratio() if self.reach.of_ratio else statistics.median(self.router)

    def spread(self):
        """Returns the range of the middle half of the values, as a part of their median."""
        if len(self.router) < 2:
            return None
        quarters = statistics.quantiles(self.router, n=4, method="inclusive")
        return (quarters[2] - quarters[0]) / quarters[1]


def shown(value, unit):
    """Writes a value with three significant digits and its unit."""
    scales = UNITS[unit]
    factor, name = next((scale for scale in reversed(scales) if abs(value) >= scale[0]), scales[0])
    number = value / factor
    digits = 2 if unit == "USD" else max(0, 3 - len(str(int(abs(number)))))
    return f"{number:,.{digits}f} {name}".replace(" /s", "/s")


def shown_values(values, unit):
    return shown(statistics.median(values), unit) if values else ""


def shown_reach(line):
    if not line.reach:
        return ""
    limit = f"{line.reach.limit:.3g} x" if line.reach.of_ratio else shown(line.reach.limit, line.unit)
    return f"{'at most' if line.reach.is_most else 'at least'} {limit}"
