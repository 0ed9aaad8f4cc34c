"""The scenarios of docs/scale.md, each with the parameters that it needs on AWS."""

HOUR = 3_600.0
DOWN = [(600.0, 600.0 + HOUR, "refuses")]

# An hour's outage at 1,000 events per second. The destination breaks when it gets more than 400 requests at once,
# and needs a minute to be up again.
STORM = {
    "weight": 25, "arrivals": {"kind": "steady", "rate": 1_000}, "arriving": 1.5 * HOUR, "until": 5 * HOUR,
    "step": 60.0, "units": 20_000, "warm": 300, "concurrency": 1_000,
    "destination": {"outages": DOWN, "breaks_at": 400},
}


def steady(rate, weight, seconds, **more):
    arrivals = {"kind": "steady", "rate": rate}
    return {"weight": weight, "arrivals": arrivals, "arriving": seconds, "until": seconds, **more}


LOAD = {
    "100/s, delivered": steady(100, 1, 60, concurrency=50, warm=30),
    "100/s, accepted": steady(100, 1, 60, concurrency=50, warm=30, answer="accepted"),
    "10,000/s, delivered": steady(1e4, 10, 20, concurrency=1_500, warm=1_000, units=30_000),
    "3,500/s, accepted": steady(
        3_500, 5, 60, answer="accepted", concurrency=1_000, warm=300, units=40_000, inbox_concurrency=120),
    "10,000/s, accepted": steady(
        1e4, 10, 20, answer="accepted", concurrency=1_500, warm=600, units=40_000, inbox_concurrency=400),
    "1,000,000/s, delivered": steady(1e6, 500, 15, concurrency=120_000, warm=110_000, units=2_600_000),
    "1,000,000/s, accepted": steady(
        1e6, 500, 15, answer="accepted", concurrency=120_000, warm=60_000, units=4_000_000,
        inbox_concurrency=1_000),
}

SHAPES = {
    "a day around 1,000/s": {
        "weight": 100, "arrivals": {"kind": "daily", "rate": 1_000}, "arriving": 24 * HOUR, "until": 24 * HOUR,
        "step": 600.0, "concurrency": 1_000, "units": 10_000,
    },
    "100/s, for a minute 1,000/s": {
        "weight": 1, "arrivals": {"kind": "burst", "rate": 100, "start": 30.0, "length": 60.0, "factor": 10},
        "arriving": 120.0, "until": 240.0, "concurrency": 200, "warm": 20,
    },
    "from nothing to 10,000/s": steady(1e4, 20, 60, concurrency=1_500, units=30_000),
    "from nothing to 10,000/s, destination of 1 s": steady(
        1e4, 20, 60, concurrency=15_000, units=30_000, destination={"median": 1.0, "p99": 2.0}),
}

# Ten thousand deliveries of one event within a second. The vendor comes again.
HOT = {"arrivals": {"kind": "steady", "rate": 1e4}, "arriving": 1.0, "until": 900.0, "keys": 1,
       "concurrency": 10_000, "warm": 10_000}
HOT_KEY = {
    "DynamoDB": HOT,
    "Redis": {**HOT, "store": "redis"},
    "DynamoDB, 100 at a time": {**HOT, "concurrency": 100, "warm": 100},
}

# A batch of accepted events is ten attempts at a time. The weight divides the number of batches without a rest.
ACCEPTED = {**STORM, "answer": "accepted", "weight": 10}
STORMS = {
    "delivered, 1,000 at a time": STORM,
    "delivered, 300 at a time": {**STORM, "concurrency": 300},
    "accepted, 1,000 at a time": {**ACCEPTED, "inbox_concurrency": 100},
    "accepted, 300 at a time": {**ACCEPTED, "inbox_concurrency": 30},
}
