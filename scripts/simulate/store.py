"""A store: its time for a request, and the write units that each of its partitions takes per second."""

from .loop import Bucket

# The router's tries of a request, and the longest pause between them (`src/store/dynamodb/connections.rs`).
TRIES = 2
PAUSE = 0.025


class Store:
    """Partitions without a rate take everything."""

    def __init__(self, loop, random, time, partitions=1, rate=None, timeout=1.0):
        self.loop, self.random, self.time, self.timeout = loop, random, time, timeout
        self.partitions = [Bucket(loop, rate, rate) for _ in range(partitions)] if rate else None
        self.units, self.throttled = 0, 0

    def write(self, event, units=1.0):
        """Writes an item. Returns False if its partition has no room for so long that the router gives up."""
        until = self.loop.now + self.timeout
        for attempt in range(TRIES):
            yield self.time
            if self.partitions is None or self._partition(event).take(units):
                self.units += units
                return True
            self.throttled += 1
            pause = self.random.random() * PAUSE * 2**attempt
            if attempt + 1 == TRIES or self.loop.now + pause + self.time > until:
                return False
            yield pause
        return False

    def _partition(self, event):
        return self.partitions[event.key % len(self.partitions)]
