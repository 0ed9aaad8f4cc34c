"""The synchronous way: the answer is the destination's (docs/architecture.md, `router/mod.rs`)."""

from .loop import Pool

MARGIN = 1.0


class Synchronous:
    """Handles a delivery from claim to finish or fail, with attempts while there is time."""

    def __init__(self, loop, random, place, store, destination, settings, own_time):
        self.loop, self.random, self.place = loop, random, place
        self.store, self.destination, self.settings = store, destination, settings
        self.own_time = own_time
        self.room = Pool(loop, settings["max_concurrent"])
        self.dead = 0

    def handle(self, event):
        began = yield from self.place.enter()
        if began is None:
            return 429
        try:
            return (yield from self._deliver(event))
        finally:
            self.place.leave(began)

    def _deliver(self, event):
        settings = self.settings
        yield self.own_time
        until = self.loop.now + settings["budget"]
        if not (yield from self.store.write(event)):
            return 503
        if event.state in ("delivered", "accepted"):
            return 200
        if event.state == "in flight" and event.held_until > self.loop.now:
            return 409
        event.state, event.held_until = "in flight", until + settings["settling"] + MARGIN
        ending = yield from self._attempts(event, until)
        stored = yield from self.store.write(event)
        if ending == "delivered":
            event.state = "delivered"
            return 200
        if not stored:
            # The lease runs out, and the vendor comes again.
            return 503
        self.dead += not event.is_kept
        event.is_kept = True
        event.state = "dead" if ending != "unknown" else "in flight"
        return {"down": 502, "unknown": 504, "limited": 503}[ending]

    def _attempts(self, event, until):
        settings, backoff, ending = self.settings, self.settings["backoff"], "limited"
        for attempt in range(settings["attempts"]):
            left = until - self.loop.now
            if attempt and left < settings["timeout"]:
                break
            if not (yield from self.room.take(max(0.0, left - settings["timeout"]))):
                break
            timeout = min(settings["timeout"], until - self.loop.now)
            ending = yield from self.destination.attempt(event, timeout)
            self.room.give()
            if ending == "delivered":
                break
            pause = self.random.random() * backoff
            backoff = min(60.0, 2 * backoff)
            is_last = attempt + 1 == settings["attempts"]
            if is_last or self.loop.now + pause + settings["timeout"] > until:
                break
            yield pause
        return ending
