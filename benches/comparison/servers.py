"""The servers that routers need: a destination, Redis, DynamoDB Local. All are on loopback."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from .processes import Process, free_port

CONFIGURATIONS = os.path.join(os.path.dirname(__file__), "..", "yardsticks")
DYNAMODB = os.path.abspath("target/dynamodb-local")
TABLE = "webhook-router"


class Nginx:
    """nginx with one of the configurations."""

    def __init__(self, folder, name, configuration, **addresses):
        self.name, port = name, free_port()
        self.url = f"http://127.0.0.1:{port}"
        place = os.path.join(folder, name)
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(CONFIGURATIONS, configuration)) as file:
            text = file.read()
        for word, address in {"LISTEN": f"127.0.0.1:{port}", **addresses}.items():
            text = text.replace(f" {word}", f" {address}")
        path = os.path.join(place, "nginx.conf")
        with open(path, "w") as file:
            file.write(text)
        # Debian has it in a folder that is not in every user's PATH.
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        command = [program, "-p", place, "-c", path, "-e", "stderr"]
        self.process = Process(command, folder, name).wait_for_port(port)


class Counting:
    """A destination that counts the requests that arrive: `count()` returns how many so far."""

    def ask(self):
        """Returns the destination's answer about itself."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            return connection.getresponse().read()

    def settled(self):
        """Returns the count once it no longer grows: after a load, some requests may be on the way."""
        last = self.count()
        for _ in range(600):
            time.sleep(0.1)
            if (now := self.count()) == last:
                return now
            last = now
        raise RuntimeError(f"{self.name} still gets requests a minute after the load")

    def require(self, wanted, before, tolerance=0):
        """Requires that as many requests have arrived since a count before."""
        arrived = self.settled() - before
        if abs(arrived - wanted) > tolerance:
            raise RuntimeError(f"{arrived} requests arrived at {self.name}, not {wanted}")


class Destination(Nginx, Counting):
    """nginx, which answers every request at once."""

    def __init__(self, folder):
        super().__init__(folder, "destination", "destination.conf")
        self.asked = 0

    def count(self):
        self.asked += 1
        # The third line has the numbers of connections accepted, of those handled, and of requests. nginx counts
        # this request as well.
        return int(self.ask().split(b"\n")[2].split()[2]) - self.asked


class SlowDestination(Counting):
    """A destination that answers after some time. It counts its answers."""

    def __init__(self, folder, name, seconds):
        program = os.path.join(os.path.dirname(__file__), "slow_destination.py")
        command = ["python3", program, str(seconds)]
        self.name = name
        self.process = Process(command, folder, name, says="listening on")
        self.url = self.process.said.rsplit(" ", 1)[1]

    def count(self):
        return int(self.ask())


class Redis:
    def __init__(self, folder, name="redis"):
        self.port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--save", "", "--appendonly", "no", "--dir", folder]
        self.process = Process(command, folder, name).wait_for_port(self.port)
        self.url = f"redis://127.0.0.1:{self.port}"

    def cli(self, *arguments):
        command = ["redis-cli", "-p", str(self.port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout.strip()


class DynamoDb:
    """AWS's DynamoDB Local, in memory, with the router's table."""

    def __init__(self, folder, name="dynamodb"):
        port = free_port()
        command = ["java", "-Xmx2g", "-XX:+UseSerialGC", "-Djava.library.path=./DynamoDBLocal_lib"]
        command += ["-jar", "DynamoDBLocal.jar", "-inMemory", "-port", str(port)]
        self.url = f"http://127.0.0.1:{port}"
        self.process = Process(command, folder, name, cwd=DYNAMODB).wait_for_port(port)
        # For a moment after it listens, the server refuses every request, or answers without JSON.
        for _ in range(600):
            with contextlib.suppress(OSError, ValueError):
                ask(self.url, "dynamodb", "DynamoDB_20120810.ListTables", {})
                break
            time.sleep(0.05)
        create_table(self.url, TABLE)

    def ask(self, operation, request):
        return ask(self.url, "dynamodb", f"DynamoDB_20120810.{operation}", request)


class Moto:
    """moto's server, which emulates services of AWS."""

    def __init__(self, folder):
        port = free_port()
        command = ["target/venv/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = Process(command, folder, "moto").wait_for_port(port)
        self.url = f"http://127.0.0.1:{port}"

    def create_secret(self, name, variables):
        request = {"Name": name, "SecretString": json.dumps(variables)}
        ask(self.url, "secretsmanager", "secretsmanager.CreateSecret", request)

    def create_queue(self, name):
        return ask(self.url, "sqs", "AmazonSQS.CreateQueue", {"QueueName": name})["QueueUrl"]


def create_table(url, name):
    """Creates a table in DynamoDB as the router needs it. Powertools needs only its key."""
    names = ["key", "dead", "dead_letter"]
    hash, range = ({"AttributeName": name, "KeyType": kind} for name, kind in zip(names[1:], ["HASH", "RANGE"]))
    index = {"IndexName": "dead_letters", "KeySchema": [hash, range], "Projection": {"ProjectionType": "KEYS_ONLY"}}
    ask(url, "dynamodb", "DynamoDB_20120810.CreateTable", {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [index],
    })


def signed(service, target):
    """Returns the headers of a request to an emulated service of AWS, which does not check the signature."""
    credential = f"Credential=test/20260101/us-east-1/{service}/aws4_request"
    return {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": target,
        "authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=none",
    }


def ask(url, service, target, request):
    """Makes a request to an emulated service of AWS, and returns its answer."""
    request = urllib.request.Request(url, json.dumps(request).encode(), signed(service, target))
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
