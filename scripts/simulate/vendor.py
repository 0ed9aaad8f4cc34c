"""A vendor: sends an event, waits for the answer, and sends it again until an answer is 2xx."""

DAY = 86_400.0


def doubling(first, until):
    """Returns pauses that double, as long as the last retry is within a time."""
    pauses, pause, now = [], first, first
    while now <= until:
        pauses.append(pause)
        pause *= 2
        now += pause
    return pauses


# Stripe sends an event again for up to three days, with pauses that grow exponentially
# (https://docs.stripe.com/webhooks#automatic-retries). It does not publish the pauses. This assumes that they
# double from a minute on.
STRIPE = doubling(60.0, 3 * DAY)


class Event:
    """An event, and what has become of it. One stands for as many real ones as the weight says."""

    __slots__ = ("key", "created_at", "state", "held_until", "tries", "tried_at", "is_kept", "delivered_at",
                 "answered_at", "over_at")

    def __init__(self, key, created_at):
        self.key, self.created_at = key, created_at
        # The record: `absent`, `in flight`, `accepted`, `delivered` or `dead`.
        self.state, self.held_until, self.tries, self.tried_at = "absent", 0.0, 0, None
        # Whether it has a dead letter.
        self.is_kept = False
        self.delivered_at = None
        # The time of an answer with 200, and the time from which on its vendor comes no more.
        self.answered_at = self.over_at = None

    def is_lost(self):
        """Returns whether nobody has the event any more, and its destination never got it."""
        return self.over_at is not None and self.delivered_at is None and self.state != "accepted" and not self.is_kept


class Vendor:
    def __init__(self, loop, random, router, record, pauses=STRIPE, jitter=0.1, patience=30.0):
        self.loop, self.random, self.router, self.record = loop, random, router, record
        self.pauses, self.jitter, self.patience = pauses, jitter, patience

    def send(self, event):
        """Sends an event until an answer is 2xx, or the retries have ended."""
        for pause in [*self.pauses, None]:
            began = self.loop.now
            status = yield from self.router.handle(event)
            took = self.loop.now - began
            # A vendor that has hung up takes any answer for a failure.
            is_success = status == 200 and took <= self.patience
            self.record.answer(status, took)
            if is_success:
                event.answered_at = event.answered_at or self.loop.now
            if is_success or pause is None:
                event.over_at = self.loop.now
                return
            yield max(0.0, pause * (1 + self.jitter * (2 * self.random.random() - 1)))
