"""Claims a second on one connection, beside what the server's own tool or SDK does on one connection.

benches/claims.rs claims through the router's store. For Redis, the yardstick is redis-benchmark with the
very command that a claim sends, as MONITOR shows it.
"""

import re
import subprocess
from functools import partial

from ..lines import Line, least_times
from ..servers import TABLE, DynamoDb, Redis

WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
KEY = re.compile(r"(webhook:dedup:\w{52})\w{12}")


def run(bench):
    program = bench.builds["router"].benchmarks["claims"]
    redis = bench.start(Redis(bench.folder))
    dynamodb = bench.start(DynamoDb(bench.folder))
    command = claim_command(redis, program)
    count = bench.of(5_000, 20_000)
    few = count // 5
    # DynamoDB Local is slow at first.
    for what in ("claim", "put-item"):
        claims(program, what, dynamodb.url, 2_000)
    measures = {
        "redis-benchmark": partial(redis_benchmark, redis, command, count),
        "put-item": partial(claims, program, "put-item", dynamodb.url, few),
        "put-if-absent": partial(claims, program, "put-if-absent", dynamodb.url, few),
        "put-as-claimed": partial(claims, program, "put-as-claimed", dynamodb.url, few),
    }
    for name, build in bench.builds.items():
        measures["Redis", name] = partial(claims, build.benchmarks["claims"], "claim", redis.url, count)
        measures["DynamoDB Local", name] = partial(claims, build.benchmarks["claims"], "claim", dynamodb.url, few)
    rates = bench.rounds(measures)

    def line(store, yardstick_is, yardstick, limit=None):
        return Line(f"claims on one connection, {store}", "rate", rates[store, "router"], rates.get((store, "before")),
                    yardstick_is, rates[yardstick], limit)

    return [
        line("Redis", "redis-benchmark's EVALSHA", "redis-benchmark", least_times(0.7)),
        line("DynamoDB Local", "the SDK's bare PutItem", "put-item", least_times(0.9)),
        line("DynamoDB Local", "the SDK's PutItem if absent", "put-if-absent"),
        line("DynamoDB Local", "the SDK's PutItem of a claim's item, if absent", "put-as-claimed"),
    ]


def claims(program, what, url, count):
    """Returns how many claims, or bare writes, are made a second."""
    command = [program, what, url, TABLE, str(count)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    return count / float(output)


def claim_command(redis, program):
    """Returns the command that a claim sends, with a key of which a part is random."""
    monitor = subprocess.Popen(["redis-cli", "-p", str(redis.port), "MONITOR"], stdout=subprocess.PIPE, text=True)
    try:
        assert monitor.stdout.readline().strip() == "OK"
        # The first claim of a connection may load the script.
        claims(program, "claim", redis.url, 2)
        redis.cli("PING")
        seen = []
        for line in monitor.stdout:
            words = WORD.findall(line)
            if words and words[0].upper() == "EVALSHA":
                seen.append(words)
            if words == ["PING"] or words == ["ping"]:
                break
    finally:
        monitor.terminate()
        monitor.wait()
        monitor.stdout.close()
    # MONITOR writes other bytes than ASCII as escapes.
    words = [word.encode("latin-1").decode("unicode_escape") for word in seen[-1]]
    return [KEY.sub(r"\1__rand_int__", word).encode("latin-1") for word in words]


def redis_benchmark(redis, command, count):
    """Returns how many of the commands redis-benchmark makes a second on one connection."""
    redis.cli("FLUSHDB")
    program = ["redis-benchmark", "-p", str(redis.port), "-c", "1", "-n", str(count), "-r", "1000000000", "--csv"]
    output = subprocess.run(program + command, capture_output=True, text=True, check=True, timeout=300).stdout
    # A claim writes the key of its event and a second one. Two random keys of a billion are seldom the same.
    claimed = int(redis.cli("DBSIZE")) / 2
    if abs(claimed - count) > count / 1000:
        raise RuntimeError(f"redis-benchmark claimed {claimed:.0f} events, not {count}")
    return float(output.strip().rsplit("\n", 1)[-1].split(",")[-7].strip('"'))
