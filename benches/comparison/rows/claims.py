"""Claims a second on one connection, beside what the server's own tool or SDK does on one connection.

benches/claims.rs claims through the router's store. For Redis, the yardstick is redis-benchmark with the
very command that a claim sends, as MONITOR shows it.
"""

import re
import subprocess

from .. import programs
from ..lines import Line, least_times
from ..servers import TABLE, DynamoDb, Redis

WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
KEY = re.compile(r"(webhook:dedup:\w{52})\w{12}")


def run(bench):
    program = programs.benchmark("claims")
    redis = bench.start(Redis(bench.folder))
    dynamodb = bench.start(DynamoDb(bench.folder))
    command = claim_command(redis, program)
    count = bench.of(5_000, 20_000)
    # DynamoDB Local is slow at first.
    for what in ("claim", "put-item"):
        claims(program, what, dynamodb.url, 2_000)
    rates = bench.rounds({
        "redis": lambda: claims(program, "claim", redis.url, count),
        "redis-benchmark": lambda: redis_benchmark(redis, command, count),
        "dynamodb": lambda: claims(program, "claim", dynamodb.url, count // 5),
        "put-item": lambda: claims(program, "put-item", dynamodb.url, count // 5),
        "put-if-absent": lambda: claims(program, "put-if-absent", dynamodb.url, count // 5),
        "put-as-claimed": lambda: claims(program, "put-as-claimed", dynamodb.url, count // 5),
    })
    return [
        Line("claims on one connection, Redis", "rate", rates["redis"], None,
             "redis-benchmark's EVALSHA", rates["redis-benchmark"], least_times(0.7)),
        Line("claims on one connection, DynamoDB Local", "rate", rates["dynamodb"], None,
             "the SDK's bare PutItem", rates["put-item"], least_times(0.9)),
        Line("claims on one connection, DynamoDB Local", "rate", rates["dynamodb"], None,
             "the SDK's PutItem if absent", rates["put-if-absent"]),
        Line("claims on one connection, DynamoDB Local", "rate", rates["dynamodb"], None,
             "the SDK's PutItem of a claim's item, if absent", rates["put-as-claimed"]),
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
