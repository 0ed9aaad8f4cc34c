"""A loop of simulated time, and what processes wait for.

A process is a generator. It yields a number to sleep for so many seconds, or a `Waiting` to sleep until another
process wakes it. `yield from` calls a part of a process.
"""

import heapq
from collections import deque
from itertools import count


class Waiting:
    """A process that sleeps until somebody wakes it, or its patience ends."""

    __slots__ = ("process", "patience", "is_over")

    def __init__(self, patience=None):
        self.process, self.patience, self.is_over = None, patience, False


class Loop:
    def __init__(self):
        self.now = 0.0
        self._heap, self._order = [], count()

    def start(self, process, delay=0.0):
        heapq.heappush(self._heap, (self.now + delay, next(self._order), process, None, None))

    def wake(self, waiting, value=True):
        """Continues a process that waits. Its `yield` returns the value."""
        waiting.is_over = True
        heapq.heappush(self._heap, (self.now, next(self._order), waiting.process, None, value))

    def together(self, processes):
        """Runs processes side by side, and ends with the slowest."""
        end, left = Waiting(), len(processes)

        def one(process):
            nonlocal left
            yield from process
            left -= 1
            if not left:
                self.wake(end)

        for process in processes:
            self.start(one(process))
        yield end

    def run(self, until=float("inf")):
        """Runs all processes, in the order of their times."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, process, waiting, value = heapq.heappop(heap)
            if waiting is not None:
                # The patience of a process that waits has ended, unless it was woken before.
                if waiting.is_over:
                    continue
                waiting.is_over = True
            try:
                wish = process.send(value)
            except StopIteration:
                continue
            if isinstance(wish, Waiting):
                wish.process = process
                if wish.patience is not None:
                    heapq.heappush(heap, (self.now + wish.patience, next(self._order), process, wish, False))
            else:
                heapq.heappush(heap, (self.now + wish, next(self._order), process, None, None))
        if until != float("inf"):
            self.now = max(self.now, until)


class Pool:
    """Places for a number of processes. `None` is any number."""

    def __init__(self, loop, size=None):
        self.loop, self.size, self.busy = loop, size, 0
        self.waiting = deque()

    def take(self, patience=None):
        """Waits for a place. Returns False if there is none in time."""
        if self.size is None or self.busy < self.size:
            self.busy += 1
            return True
        if patience is not None and patience <= 0:
            return False
        waiting = Waiting(patience)
        self.waiting.append(waiting)
        # The place goes from the process that gives it to this one.
        return (yield waiting)

    def give(self):
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.is_over:
                return self.loop.wake(waiting)
        self.busy -= 1


class Bucket:
    """A rate per second, of which a part can be saved up."""

    def __init__(self, loop, rate, saved):
        self.loop, self.rate, self.most = loop, rate, saved
        self.tokens, self.at = saved, loop.now

    def take(self, tokens=1.0):
        """Takes tokens if there are so many. A request may be larger than the bucket, once it is full."""
        self.tokens = min(self.most, self.tokens + (self.loop.now - self.at) * self.rate)
        self.at = self.loop.now
        if self.tokens < min(tokens, self.most):
            return False
        self.tokens -= tokens
        return True
