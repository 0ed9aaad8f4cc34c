"""A scenario: builds its parts, runs it, and returns what it shows."""

import random as randoms

from . import arrivals, aws, cost, measured
from .destination import Destination, Latency
from .function import Function, Process
from .inbox import Inbox
from .loop import Loop
from .record import Record, per_step, percentile, so_many
from .store import Store
from .synchronous import Synchronous
from .vendor import STRIPE, Event, Vendor

DEFAULTS = {
    "seed": 1,
    # The number of real events that a simulated one stands for. Rates and limits are divided by it.
    "weight": 1.0,
    # Seconds in which events come to be, and at which the run ends.
    "arriving": 60.0, "until": 60.0, "step": 1.0,
    "arrivals": {"kind": "steady", "rate": 100.0},
    "vendor": {"pauses": STRIPE, "jitter": 0.1, "patience": 30.0},
    "answer": "delivered",
    "place": "lambda",
    # The reserved concurrency, and the instances that are there at the start.
    "concurrency": 50, "warm": 0,
    "inbox_concurrency": 5,
    "workers": 16,
    "max_concurrent": None,
    "attempts": 4, "backoff": 1.0, "timeout": 10.0, "budget": 28.5, "settling": 1.3,
    "schedule": [0, 5, 300, 1800, 7200, 18000, 36000, 36000],
    "store": "dynamodb", "units": aws.UNITS_AT_FIRST,
    # Every delivery is of this many events, at random. None is one event each.
    "keys": None,
    "destination": {"median": 0.05, "p99": 0.2, "capacity": None, "outages": [], "breaks_at": None, "restart": 60.0},
    # The times of all probes, as those of a real run. None draws them.
    "probes": None,
    # The part of a processor that an instance has, and the time in which Lambda starts it.
    "processor": aws.PROCESSOR, "start": aws.START,
    # Own time per delivery. None is the measured time, in Lambda at its part of a processor.
    "own_time": None,
}


class Run:
    """A scenario that has run to its end."""

    def __init__(self, given, page=measured.PAGE):
        settings = {**DEFAULTS, **given}
        for name in ("vendor", "destination"):
            settings[name] = {**DEFAULTS[name], **given.get(name, {})}
        self.settings, self.measured = settings, measured.read(page)
        self.weight, self.random = settings["weight"], randoms.Random(settings["seed"])
        self.loop, self.record = Loop(), Record(settings["step"])
        self.is_inbox = settings["answer"] == "accepted"
        self.is_lambda = settings["place"] == "lambda"
        self._build()
        self._run()

    def _build(self):
        settings, loop, random = self.settings, self.loop, self.random
        to = settings["destination"]
        capacity = to["capacity"] and max(1, round(to["capacity"] / self.weight))
        latency = Latency(to["median"], to["p99"])
        breaks_at = to["breaks_at"] and max(1, round(to["breaks_at"] / self.weight))
        self.destination = Destination(loop, random, latency, capacity, to["outages"], breaks_at, to["restart"])
        self.store, self.index = self._stores()
        own_time = settings["own_time"]
        if self.is_lambda:
            concurrency = settings["concurrency"] - (settings["inbox_concurrency"] if self.is_inbox else 0)
            self.place = Function(loop, self._cold_start(), concurrency, self.weight, settings["warm"])
            own_time = own_time or self.measured["cpu_invocation"] / settings["processor"]
            # A batch is of ten simulated events, so there are fewer batches.
            workers = max(1, round(settings["inbox_concurrency"] / self.weight))
        else:
            self.place = Process(loop)
            own_time = own_time or self.measured["cpu_redis"]
            workers = max(1, round(settings["workers"] / self.weight))
        limit = settings["max_concurrent"]
        inner = {**settings, "max_concurrent": limit and max(1, round(limit / self.weight))}
        parts = (loop, random, self.place, self.store)
        if self.is_inbox:
            self.way = Inbox(*parts, self.index, self.destination, inner, own_time, workers, self.is_lambda)
            if self.is_lambda:
                loop.start(self.way.grow(self.weight))
        else:
            self.way = Synchronous(*parts, self.destination, inner, own_time)

    def _cold_start(self):
        """Returns the time that a first invocation takes longer than the others."""
        own = measured.first_delivery(self.measured)
        return self.settings["start"] + own / self.settings["processor"]

    def _stores(self):
        settings, parts = self.settings, (self.loop, self.random)
        if settings["store"] != "dynamodb":
            time = aws.REDIS if self.is_lambda else 0.0002
            return Store(*parts, time), Store(*parts, 0.0)
        # The index is written behind the table, and takes no time of its own.
        return (Store(*parts, aws.DYNAMODB, *self._partitions(settings["units"])),
                Store(*parts, 0.0, *self._partitions(aws.SHARDS * aws.UNITS_PER_PARTITION)))

    def _partitions(self, units):
        """Returns a number of partitions, and the rate of each. A partition is not smaller than some simulated
        events, because a few events with a large weight would not spread evenly."""
        rate = units / self.weight
        count = max(1, min(round(units / aws.UNITS_PER_PARTITION), int(rate / 50)))
        return count, rate / count

    def _run(self):
        settings, loop, random = self.settings, self.loop, self.random
        of = dict(settings["arrivals"])
        kind = of.pop("kind")
        if kind != "given":
            of |= {"rate": of["rate"] / self.weight, "until": settings["arriving"]}
        vendor = Vendor(loop, random, self.way, self.record, **settings["vendor"])
        self.events, shared = [], {}

        def arrive():
            for time in arrivals.KINDS[kind](random, **of):
                yield max(0.0, time - loop.now)
                key = random.getrandbits(32)
                if settings["keys"]:
                    key %= settings["keys"]
                    event = shared.setdefault(key, Event(key, loop.now))
                else:
                    event = Event(key, loop.now)
                self.events.append(event)
                loop.start(vendor.send(event))

        def values():
            return {
                "concurrency": self.place.busy * self.weight,
                "at_destination": self.destination.now * self.weight,
                "answer": self.record.latest(),
                "oldest": self.way.oldest() if self.is_inbox else 0.0,
                "cost": sum(cost.so_far(self).values()) * self.weight,
            }

        loop.start(arrive())
        loop.start(self.record.sample(loop, settings["until"], values))
        loop.run(settings["until"])

    def summary(self):
        """Returns the figures of the run, in numbers of real events."""
        weight, until, events = self.weight, self.settings["until"], self.events
        times, by_step = self.record.times, self.record.by_step
        delays = [event.delivered_at - event.created_at for event in events if event.delivered_at is not None]
        answers = {str(status): count * weight for status, count in sorted(self.record.answers.items())}
        rates = lambda times: [count * weight / self.record.step for count in per_step(times, self.record.step, until)]
        passed = lambda times: [
            count * weight
            for count in so_many((time for time in times if time is not None), self.record.step, until)]
        by_step |= {
            "events": passed(event.created_at for event in events),
            "answered": passed(event.answered_at for event in events),
            "delivered": passed(event.delivered_at for event in events),
            "lost": passed(event.over_at for event in events if event.is_lost()),
        }
        return {
            "events": len(events) * weight,
            "delivered": sum(event.delivered_at is not None for event in events) * weight,
            "attempts": len(self.destination.arrivals) * weight,
            "lost": sum(event.is_lost() for event in events) * weight,
            "dead": self.way.dead * weight,
            "answers": answers,
            "answer_mean": sum(times) / max(len(times), 1),
            "answer_p50": percentile(times, 0.5),
            "answer_p99": percentile(times, 0.99),
            "delay_mean": sum(delays) / max(len(delays), 1),
            "delay_p99": percentile(delays, 0.99),
            "delay_max": max(delays, default=0.0),
            "last_delivery": max((event.delivered_at or 0.0 for event in events), default=0.0),
            "concurrency_mean": sum(by_step["concurrency"]) / len(by_step["concurrency"]),
            "concurrency_most": self.place.most_busy * weight,
            "at_destination_most": self.destination.most_at_once * weight,
            "breaks": self.destination.breaks,
            "last_break": self.destination.last_break,
            "oldest_most": max(by_step["oldest"]),
            "starts": self.place.starts * weight,
            "throttled": self.place.throttled * weight,
            "store_throttled": (self.store.throttled + self.index.throttled) * weight,
            "busy_seconds": self.place.seconds * weight,
            "batches": self.way.batches * weight if self.is_inbox else 0,
            "batch_seconds": self.way.batch_seconds * weight if self.is_inbox else 0.0,
            "cost": cost.per_million(self),
            "arrivals": rates(self.destination.arrivals),
            "deliveries": rates(self.destination.delivered),
            "series": by_step,
        }
