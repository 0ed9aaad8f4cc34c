"""Times at which new events come to be."""

import math


def steady(random, rate, until):
    """Yields times of a constant average rate per second."""
    now = 0.0
    while True:
        now += random.expovariate(rate)
        if now >= until:
            return
        yield now


def daily(random, rate, until, day=86_400.0, swing=0.8):
    """Yields times of a rate that rises and falls by a part of its average within a day."""
    for now in steady(random, rate * (1 + swing), until):
        if random.random() * (1 + swing) < 1 - swing * math.cos(2 * math.pi * now / day):
            yield now


def burst(random, rate, until, start, length, factor):
    """Yields times of a rate that is a multiple of itself for a while."""
    for now in steady(random, rate * factor, until):
        if start <= now < start + length or random.random() * factor < 1:
            yield now


def given(_random, times):
    """Yields given times, as those of a real run."""
    yield from times


KINDS = {"steady": steady, "daily": daily, "burst": burst, "given": given}
