"""The places where invocations run: a Lambda function, or the process of `serve`."""

from collections import deque

from . import aws
from .loop import Bucket


class Function:
    """A Lambda function: one invocation at a time in each instance, and a limited rate of new instances.

    All numbers are divided by the weight of a simulated event.
    """

    def __init__(self, loop, cold_start, concurrency, weight, warm):
        self.loop, self.concurrency = loop, max(1, round(concurrency / weight))
        new = aws.NEW_INSTANCES_PER_SECOND / weight
        self.new = Bucket(loop, new, max(1.0, aws.NEW_INSTANCES_AT_ONCE / weight))
        rate = aws.REQUESTS_PER_INSTANCE * concurrency / weight
        self.requests = Bucket(loop, rate, max(1.0, rate))
        self.cold_start = cold_start
        # The times since when instances are idle. The latest is used first.
        self.idle = deque([0.0] * round(warm / weight))
        self.busy, self.most_busy = 0, 0
        self.starts, self.throttled, self.invocations, self.seconds = 0, 0, 0, 0.0

    def enter(self):
        """Begins an invocation. Returns its start, or None if Lambda throttles it."""
        while self.idle and self.loop.now - self.idle[0] > aws.IDLE:
            self.idle.popleft()
        is_full = self.busy >= self.concurrency or not self.requests.take()
        is_cold = not self.idle
        if is_full or is_cold and not self.new.take():
            self.throttled += 1
            return None
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        self.invocations += 1
        began = self.loop.now
        if is_cold:
            self.starts += 1
            yield self.cold_start
        else:
            self.idle.pop()
        return began

    def leave(self, began):
        self.busy -= 1
        self.seconds += self.loop.now - began
        self.idle.append(self.loop.now)


class Process:
    """`serve`: any number of deliveries at once."""

    def __init__(self, loop):
        self.loop = loop
        self.busy, self.most_busy = 0, 0
        self.starts, self.throttled, self.invocations, self.seconds = 0, 0, 0, 0.0

    def enter(self):
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        self.invocations += 1
        yield 0.0
        return self.loop.now

    def leave(self, began):
        self.busy -= 1
        self.seconds += self.loop.now - began
