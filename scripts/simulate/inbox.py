"""The inbox: events are answered once they are stored, and delivered behind the answer (`inbox.rs`).

In `serve`, workers deliver. In Lambda, messages of SQS wake the function, and each minute a schedule finds what
is due. Both stop while the destination is down, but for a probe now and then (`inbox/outage.rs`). An event whose
attempt finds the destination down waits for the next entry of its schedule. A probe does not count.

The events of a batch share an instance, as in `inbox/instance.rs`: they wait side by side, but take turns at its
processor. The batch ends with the slowest of them.
"""

from collections import deque

from . import aws
from .loop import Pool

FIRST_PROBE, LAST_PROBE = 1.0, 30.0
# The schedule in Lambda runs each minute, and each run probes each destination once.
MINUTE = 60.0
# Time after which an event is tried again that the store had no room for.
STORE_PAUSE = 1.0


class Inbox:
    """Accepts events and delivers them, with a number of workers at once. In Lambda, a worker is a batch."""

    def __init__(self, loop, random, place, store, index, destination, settings, own_time, workers, is_lambda):
        self.loop, self.random, self.place = loop, random, place
        self.store, self.index, self.destination = store, index, destination
        self.settings, self.own_time, self.is_lambda = settings, own_time, is_lambda
        self.workers, self.most_workers = Pool(loop, workers), workers
        self.batch = aws.BATCH if is_lambda else 1
        self.room = Pool(loop, settings["max_concurrent"])
        # Accepted events that no attempt is under way for, the oldest first.
        self.due = deque()
        self.is_closed, self.outages, self.up_at = False, 0, None
        self.dead, self.messages = 0, 0
        self.attempts, self.batches, self.batch_seconds = 0, 0, 0.0

    def grow(self, weight):
        """Lets Lambda read the queue with more consumers each second, up to the limit, while events wait."""
        size = aws.CONSUMERS_AT_FIRST / weight
        more = aws.MORE_CONSUMERS_PER_SECOND / weight
        while True:
            size = min(self.most_workers, size + more) if self.due and not self.is_closed else size
            self.workers.size = min(self.most_workers, max(1, round(size)))
            self._go_on()
            yield 1.0

    def handle(self, event):
        began = yield from self.place.enter()
        if began is None:
            return 429
        try:
            yield self.own_time
            if not (yield from self.store.write(event)):
                return 503
            if event.state in ("accepted", "delivered"):
                return 200
            # One write stores the event and its entry in the index. Either throttles both.
            before, event.state, event.tries = event.state, "accepted", 0
            if not (yield from self.index.write(event)):
                event.state = before
                return 503
            if self.is_lambda:
                self.messages += 1
                yield aws.SQS
            self._wake(event)
            return 200
        finally:
            self.place.leave(began)

    def _wake(self, event):
        self.due.append(event)
        self._go_on()

    def _go_on(self):
        """Begins batches while there are due events and workers for them."""
        while self.due and not self.is_closed and self.workers.busy < self.workers.size:
            self.workers.busy += 1
            events = [self.due.popleft() for _ in range(min(self.batch, len(self.due)))]
            self.loop.start(self._work(events))

    def _work(self, events):
        """Makes an attempt for each event of a batch, side by side."""
        began, processor = self.loop.now, Pool(self.loop, 1)
        yield from self.loop.together([self._attempt(event, processor) for event in events])
        self.batches += 1
        self.batch_seconds += self.loop.now - began
        self.workers.busy -= 1
        self._go_on()

    def _attempt(self, event, processor, is_probe=False):
        """Takes an event, makes an attempt, and stores its result."""
        self.attempts += 1
        yield from processor.take()
        yield self.own_time
        processor.give()
        if not ((yield from self.store.write(event)) and (yield from self.index.write(event, 2))):
            self.loop.start(self._later(event, STORE_PAUSE))
            return
        yield from self.room.take()
        tried_before, event.tried_at = event.tried_at, self.loop.now
        ending = yield from self.destination.attempt(event, self.settings["timeout"])
        self.room.give()
        yield from self.store.write(event)
        yield from self.index.write(event, 1 if ending == "delivered" else 2)
        if ending == "delivered":
            event.state, self.up_at = "delivered", self.loop.now
            self._open()
            return
        # A destination that was up since the event's attempt before is not down for all events.
        is_spared = is_probe and (None in (self.up_at, tried_before) or self.up_at <= tried_before)
        if ending == "down" and is_spared:
            self.due.append(event)
        else:
            self._postpone(event)
        if ending == "down":
            self._close()

    def _postpone(self, event):
        """Lets an event wait for the next entry of the schedule."""
        schedule = self.settings["schedule"]
        event.tries += 1
        if event.tries >= len(schedule):
            event.state, event.is_kept = "dead", True
            self.dead += 1
            return
        self.loop.start(self._later(event, schedule[event.tries] * (1 + self.random.random() / 10)))

    def _later(self, event, pause):
        yield pause
        self._wake(event)

    def _open(self):
        """Lets attempts begin again. Any event that is delivered shows that the destination is up."""
        self.is_closed = False
        self._go_on()

    def _close(self):
        if not self.is_closed:
            self.is_closed = True
            self.outages += 1
            self.loop.start(self._probe(self.outages))

    def _probe(self, outage):
        """Tries one event now and then, until the destination is up."""
        pause = FIRST_PROBE
        while self.is_closed and self.outages == outage:
            if (given := self.settings["probes"]) is not None:
                at = next((at for at in given if at > self.loop.now), None)
                if at is None:
                    return
                yield at - self.loop.now
            elif self.is_lambda:
                yield MINUTE - self.loop.now % MINUTE
            else:
                yield pause * (0.5 + self.random.random())
                pause = min(LAST_PROBE, 2 * pause)
            if self.is_closed and self.outages == outage and self.due:
                yield from self._attempt(self.due.popleft(), Pool(self.loop, 1), is_probe=True)

    def oldest(self):
        """Returns the age of the oldest event that waits for an attempt."""
        return self.loop.now - self.due[0].created_at if self.due else 0.0
