"""The time of a delivery by `serve`, with few and with many records in the store.

Each store has one delivered event, and copies of its record under other keys. A round delivers further events, so
each round begins with a store that is filled anew. The largest stores are filled once, because these events are few
beside their records.
"""

import concurrent.futures
import contextlib
import os
import secrets
import sqlite3
import statistics

from .. import load
from ..lines import Line, most_times
from ..routers import Router
from ..servers import Destination, DynamoDb, Redis, create_table

FEW, MANY = 10, 10_000
EVENTS = 200
BATCH = 25
PREFIX = "webhook:dedup:"
COPY = """
for number = 1, tonumber(ARGV[2]) do
  local name = redis.sha1hex(number) .. string.sub(redis.sha1hex(-number), 1, 24)
  redis.call('COPY', KEYS[1], ARGV[1] .. name)
end
"""


def run(bench):
    destination = bench.start(Destination(bench.folder))
    lines = []
    for store in (OnRedis, OnSqlite, OnDynamoDb):
        lines += compare(bench, store(bench), destination)
    return lines


def compare(bench, store, destination):
    """Compares the time of a delivery with few records to that with many records."""
    counts = [FEW, MANY] + ([store.most] if bench.is_full else [])
    measures = {
        (name, count): Filled(bench, store, build, destination, count).measure
        for count in counts
        for name, build in bench.builds.items()
    }
    times = bench.rounds(measures, 5)
    return [
        Line(f"time of a delivery, {store.name}, {count:,} records", "time", times["router", count],
             times.get(("before", count)), f"with {FEW} records", times["router", FEW], most_times(1.3))
        for count in counts[1:]
    ]


class Filled:
    """A router over a place of its own in a store, with a number of records."""

    def __init__(self, bench, store, build, destination, count):
        self.store, self.destination, self.count, self.is_filled = store, destination, count, False
        self.place = store.create(f"records-{count}-{build.name}")
        label = f"{store.name}-{count}-{build.name}"
        self.server = bench.start(Router(bench.folder, label, build.program, self.place, destination,
                                         AWS_ENDPOINT_URL_DYNAMODB=store.url, AWS_REGION="us-east-1",
                                         AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test"))
        with contextlib.closing(load.Client(self.server)) as client:
            for _ in range(EVENTS):
                client.send()

    def measure(self):
        """Returns the median time of deliveries that begin with this number of records."""
        with contextlib.closing(load.Client(self.server)) as client:
            if not self.is_filled or self.count <= MANY:
                self.store.empty(self.place)
                client.send()
                self.store.fill(self.place, self.count - 1)
                self.is_filled = True
        before = self.destination.settled()
        with contextlib.closing(load.Client(self.server)) as client:
            times = [client.send() for _ in range(EVENTS)]
        self.destination.require(EVENTS, before)
        return statistics.median(times)


class OnRedis:
    name, most, url = "Redis", 1_000_000, ""

    def __init__(self, bench):
        self.server, self.count = bench.start(Redis(bench.folder, "records-redis")), 0

    def create(self, _):
        self.count += 1
        return f"{self.server.url}/{self.count}"

    def empty(self, place):
        self.cli(place, "FLUSHDB")

    def fill(self, place, count):
        self.cli(place, "EVAL", COPY, "1", self.cli(place, "RANDOMKEY"), PREFIX, str(count))

    def cli(self, place, *arguments):
        return self.server.cli("-n", place.rsplit("/", 1)[1], *arguments)


class OnSqlite:
    name, most, url = "SQLite", 1_000_000, ""

    def __init__(self, bench):
        self.folder = bench.folder

    def create(self, name):
        return f"sqlite:{os.path.join(self.folder, name)}.db"

    def empty(self, place):
        with self.transaction(place) as connection:
            connection.execute("DELETE FROM events")

    def fill(self, place, count):
        with self.transaction(place) as connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
            others = ", ".join(column for column in columns if column != "key")
            connection.execute(
                f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "
                f"INSERT INTO events (key, {others}) "
                f"SELECT '{PREFIX}' || lower(hex(randomblob(32))), {others} "
                f"FROM numbers, (SELECT {others} FROM events LIMIT 1)"
            )

    @contextlib.contextmanager
    def transaction(self, place):
        with contextlib.closing(sqlite3.connect(place.removeprefix("sqlite:"))) as connection, connection:
            yield connection


class OnDynamoDb:
    # DynamoDB Local takes minutes for a million records.
    name, most = "DynamoDB Local", 100_000

    def __init__(self, bench):
        self.server = bench.start(DynamoDb(bench.folder, "records-dynamodb"))
        self.url = self.server.url

    def create(self, name):
        create_table(self.url, name)
        return f"dynamodb://{name}"

    def empty(self, place):
        table = place.removeprefix("dynamodb://")
        self.server.ask("DeleteTable", {"TableName": table})
        create_table(self.url, table)

    def fill(self, place, count):
        table = place.removeprefix("dynamodb://")
        [first] = self.server.ask("Scan", {"TableName": table, "Limit": 1})["Items"]

        def write(number):
            names = [secrets.token_hex(32) for _ in range(min(BATCH, count - number))]
            items = [{**first, "key": {"S": PREFIX + name}} for name in names]
            batch = {table: [{"PutRequest": {"Item": item}} for item in items]}
            self.server.ask("BatchWriteItem", {"RequestItems": batch})

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for _ in pool.map(write, range(0, count, BATCH)):
                pass
