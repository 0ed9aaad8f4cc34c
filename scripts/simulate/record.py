"""What a run shows: answers, arrivals and ages, by steps of time."""

from collections import Counter
from itertools import accumulate


class Record:
    """Counts by steps. Every number is of simulated events, which stand for `weight` real ones each."""

    def __init__(self, step):
        self.step = step
        self.answers, self.times = Counter(), []
        self.by_step = {}
        self.counted = 0

    def answer(self, status, took):
        self.answers[status] += 1
        self.times.append(took)

    def latest(self):
        """Returns the mean time of the answers since the last step."""
        times, self.counted = self.times[self.counted:], len(self.times)
        return sum(times) / max(len(times), 1)

    def sample(self, loop, until, values):
        """Writes the values down at each step."""
        while loop.now < until:
            for name, value in values().items():
                self.by_step.setdefault(name, []).append(value)
            yield self.step


def percentile(values, part):
    """Returns the value that this part of the values does not exceed."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def per_step(times, step, until):
    """Counts times by steps."""
    counts = [0] * max(1, round(until / step))
    for time in times:
        if time < until:
            counts[min(len(counts) - 1, int(time / step))] += 1
    return counts


def so_many(times, step, until):
    """Returns how many of the times have passed at each step."""
    return [0, *accumulate(per_step(times, step, until)[:-1])]
