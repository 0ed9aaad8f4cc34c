"""A destination: how long it takes, how much it does at once, and when it is down."""

import math

from .loop import Pool

# Time in which a machine refuses a connection, or a service that is up for nothing else answers 503.
REFUSAL = 0.002


class Latency:
    """Times of a log-normal distribution with this median and 99th percentile. Equal ones are a fixed time."""

    def __init__(self, median, p99=None):
        self.median = median
        self.sigma = math.log((p99 or median) / median) / 2.326 if median else 0.0

    def draw(self, random):
        return self.median * math.exp(random.gauss(0.0, self.sigma)) if self.sigma else self.median


class Destination:
    """A service with places for `capacity` requests at once. Further ones wait in it, and it works on them even
    if their senders have given up."""

    def __init__(self, loop, random, latency, capacity=None, outages=(), breaks_at=None, restart=60.0):
        self.loop, self.random, self.latency = loop, random, latency
        self.pool = Pool(loop, capacity)
        # Each outage has a start, an end, and a kind: `refuses` or `hangs`.
        self.outages = outages
        # With more requests at once than this, it breaks: those under way fail, and it is up again after a restart.
        self.breaks_at, self.restart = breaks_at, restart
        self.broken_until, self.breaks, self.last_break = 0.0, 0, 0.0
        self.arrivals, self.delivered = [], []
        self.now, self.most_at_once = 0, 0

    def outage(self):
        if self.loop.now < self.broken_until:
            return "refuses"
        for start, end, kind in self.outages:
            if start <= self.loop.now < end:
                return kind
        return None

    def attempt(self, event, timeout):
        """Makes an attempt. Returns `delivered`, `down` or `unknown`."""
        outage = self.outage()
        self.arrivals.append(self.loop.now)
        if outage == "refuses":
            yield REFUSAL
            return "down"
        if outage == "hangs":
            yield timeout
            return "unknown"
        if self.breaks_at and self.now >= self.breaks_at:
            self.breaks += 1
            self.last_break = self.loop.now
            self.broken_until = self.loop.now + self.restart
            return "down"
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        ending = yield from self._work(event, timeout)
        self.now -= 1
        return ending

    def _work(self, event, timeout):
        work, began, breaks = self.latency.draw(self.random), self.loop.now, self.breaks
        if not (yield from self.pool.take(timeout)):
            return "unknown"
        left = timeout - (self.loop.now - began)
        if work > left:
            self.loop.start(self._finish(work))
            yield left
            return "unknown"
        yield work
        self.pool.give()
        if self.breaks != breaks:
            return "down"
        self.delivered.append(self.loop.now)
        event.delivered_at = event.delivered_at or self.loop.now
        return "delivered"

    def _finish(self, work):
        """Does the work of an attempt whose sender has given up."""
        yield work
        self.pool.give()
