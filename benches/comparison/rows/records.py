"""The time of a delivery by `serve`, with few and with many records in the store.

Each store has one delivered event, and copies of its record under other keys.
"""

import concurrent.futures
import os
import secrets
import sqlite3

from .. import load
from ..lines import Line, most_times
from ..routers import Router
from ..servers import DynamoDb, Nginx, Redis, create_table

FEW = 10
BATCH = 25
PREFIX = "webhook:dedup:"
COPY = """
for number = 1, tonumber(ARGV[2]) do
  local name = redis.sha1hex(number) .. string.sub(redis.sha1hex(-number), 1, 24)
  redis.call('COPY', KEYS[1], ARGV[1] .. name)
end
"""


def run(bench):
    destination = bench.start(Nginx(bench.folder, "destination", "destination.conf"))
    lines = []
    for store in (OnRedis, OnSqlite, OnDynamoDb):
        lines += compare(bench, store(bench), destination)
    return lines


def compare(bench, store, destination):
    """Compares the time of a delivery with few records to that with many records."""
    counts = [FEW, 10_000] + ([store.most] if bench.is_full and store.most > 10_000 else [])
    measures = {}
    for count in counts:
        place = store.create(count)
        for name, build in bench.builds.items():
            label = f"{store.name}-{count}-{name}"
            server = bench.start(Router(bench.folder, label, build.program, place, destination,
                                        AWS_ENDPOINT_URL_DYNAMODB=store.url, AWS_REGION="us-east-1",
                                        AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test"))
            load.warm_up(server)
            if name == "router":
                store.fill(place, count)
            measures[name, count] = lambda server=server: load.send(server, 1, connections=1).p50
    times = bench.rounds(measures, 5)
    return [
        Line(f"time of a delivery, {store.name}, {count:,} records", "time", times["router", count],
             times.get(("before", count)), f"with {FEW} records", times["router", FEW], most_times(1.3))
        for count in counts[1:]
    ]


class OnRedis:
    name, most, url = "Redis", 1_000_000, ""

    def __init__(self, bench):
        self.server, self.count = bench.start(Redis(bench.folder, "records-redis")), 0

    def create(self, _):
        self.count += 1
        return f"{self.server.url}/{self.count}"

    def fill(self, place, count):
        database = place.rsplit("/", 1)[1]
        first = self.server.cli("-n", database, "RANDOMKEY")
        self.server.cli("-n", database, "EVAL", COPY, "1", first, PREFIX, str(count))


class OnSqlite:
    name, most, url = "SQLite", 1_000_000, ""

    def __init__(self, bench):
        self.folder = bench.folder

    def create(self, count):
        return f"sqlite:{os.path.join(self.folder, f'records-{count}.db')}"

    def fill(self, place, count):
        connection = sqlite3.connect(place.removeprefix("sqlite:"))
        with connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
            others = ", ".join(column for column in columns if column != "key")
            connection.execute(
                f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "
                f"INSERT INTO events (key, {others}) "
                f"SELECT '{PREFIX}' || lower(hex(randomblob(32))), {others} "
                f"FROM numbers, (SELECT {others} FROM events LIMIT 1)"
            )
        connection.close()


class OnDynamoDb:
    # DynamoDB Local takes minutes for a million records.
    name, most = "DynamoDB Local", 100_000

    def __init__(self, bench):
        self.server = bench.start(DynamoDb(bench.folder, "records-dynamodb"))
        self.url = self.server.url

    def create(self, count):
        table = f"records-{count}"
        create_table(self.url, table)
        return f"dynamodb://{table}"

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
