"""Compares the router's cold start with that of a bare function.

The router starts once with its secrets in variables, and once with a secret on moto's server. That
server is on loopback and has no TLS, so the real Secrets Manager takes longer.

Both are release builds in AWS's Runtime Interface Emulator. They start alternately, so that other
load on the machine affects both. INIT is the time from the start of the process to its first request
for an event, as the emulator reports it. The first answer includes it.

Then it compares the first invocation of an instance that accepts an event with that of an instance
that a message of SQS wakes: the time on the processor from the start of the process to the answer.
DynamoDB and SQS are moto's server, which both wait for, so the total time says little.
"""

import glob, http.server, json, os, re, socket, statistics, subprocess, sys, tempfile, threading, time
import urllib.request, zipfile

ROUNDS = int(os.environ.get("ROUNDS", "30"))
EMULATOR = glob.glob("target/venv/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64")[0]
EVENT = open("events/stripe-payment.json", "rb").read()
ENVIRONMENT = {
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_LAMBDA_FUNCTION_NAME": "router",
    "AWS_LAMBDA_FUNCTION_TIMEOUT": "10",
    "ROUTING_SECRET": "plainly-a-benchmark-s-secret",
    "ALLOW_UNSIGNED": "true",
    "STORE_URL": "dynamodb://webhook-router",
    "GCP_TARGET_URL": "https://127.0.0.1:1",
    "AWS_TARGET_FUNCTION": "webhook-processor",
}


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as zip:
        zip.extractall(folder)
    program = os.path.join(folder, "bootstrap")
    os.chmod(program, 0o755)
    return program


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask_moto(url, service, target, request):
    """Makes a request to a service of moto's server, and returns its answer."""
    headers = {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": target,
        "authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request",
    }
    request = urllib.request.Request(url, json.dumps(request).encode(), headers)
    return json.load(urllib.request.urlopen(request, timeout=10))


def start_moto():
    """Starts moto's server, and returns it with its address."""
    port = free_port()
    log = subprocess.DEVNULL
    command = ["target/venv/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
    moto = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            ask_moto(url, "sqs", "AmazonSQS.ListQueues", {})
            return moto, url
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.05)
    moto.kill()
    sys.exit("moto does not answer")


def secret_on(url):
    """Creates a secret, and returns the variables that name it."""
    secret = json.dumps({"ROUTING_SECRET": ENVIRONMENT["ROUTING_SECRET"]})
    request = {"Name": "router", "SecretString": secret}
    ask_moto(url, "secretsmanager", "secretsmanager.CreateSecret", request)
    return {"SECRETS_ARN": "router", "AWS_ENDPOINT_URL_SECRETS_MANAGER": url}


def inbox_on(url):
    """Creates a table and a queue, and returns the variables of a router that answers at once."""
    names = ["key", "dead", "dead_letter"]
    index = {
        "IndexName": "dead_letters",
        "KeySchema": [{"AttributeName": "dead", "KeyType": "HASH"}, {"AttributeName": "dead_letter", "KeyType": "RANGE"}],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    table = {
        "TableName": "webhook-router",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [index],
    }
    ask_moto(url, "dynamodb", "DynamoDB_20120810.CreateTable", table)
    queue = ask_moto(url, "sqs", "AmazonSQS.CreateQueue", {"QueueName": "inbox"})
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": url,
        "AWS_ENDPOINT_URL_SQS": url,
        "QUEUE_URL": queue["QueueUrl"],
        "ANSWER": "accepted",
        "ROUTE_THRESHOLD": "256",
        "GCP_TARGET_URL": start_destination(),
    }


def start_destination():
    """Starts a destination that answers everything with 200, and returns its address."""

    class Destination(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Destination)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def processor_time(emulator):
    """Returns the time on the processor of the function in an emulator, in milliseconds."""
    process = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(emulator.pid)], text=True).strip()
    threads = glob.glob(f"/proc/{process}/task/*/schedstat")
    return sum(int(open(thread).read().split()[0]) for thread in threads) / 1e6


def first_invocation(program, variables, event):
    """Returns the time on the processor of an instance until its first answer, and this answer."""
    port = free_port()
    addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    addresses += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    quiet = subprocess.DEVNULL
    emulator = subprocess.Popen(
        [EMULATOR, *addresses, program], env=ENVIRONMENT | variables, stdout=quiet, stderr=quiet
    )
    try:
        url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        for _ in range(200):
            try:
                answer = json.load(urllib.request.urlopen(url, json.dumps(event).encode(), timeout=10))
                return processor_time(emulator), answer
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.01)
        sys.exit("the function does not answer")
    finally:
        emulator.terminate()
        emulator.wait()


def compare_inbox(program, variables):
    """Compares the first invocations of instances that accept an event and that deliver one."""
    times = {"accepts": [], "delivers": []}
    for number in range(ROUNDS):
        event = json.loads(EVENT)
        event["body"] = json.dumps({**json.loads(event["body"]), "number": number})
        time, answer = first_invocation(program, variables, event)
        assert answer["body"] == "accepted", answer
        times["accepts"].append(time)
        destination = {"destination": {"stringValue": "gcp", "dataType": "String"}}
        key = answer["headers"]["x-webhook-key"]
        message = {"messageId": "1", "eventSource": "aws:sqs", "body": key, "messageAttributes": destination}
        time, answer = first_invocation(program, variables, {"Records": [message]})
        assert answer == {"batchItemFailures": []}, answer
        times["delivers"].append(time)
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:12} first answer after {median:.2f} ms on the processor, least {min(values):.2f} ms, of {ROUNDS} starts")


def init(program, variables):
    """Returns the INIT of one start, in milliseconds."""
    port = free_port()
    addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    addresses += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    with tempfile.TemporaryFile() as log:
        emulator = subprocess.Popen(
            [EMULATOR, *addresses, program], env=ENVIRONMENT | variables, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
            # The request is refused at once, because only the start is measured.
            event = json.dumps({**json.loads(EVENT), "body": "no JSON"}).encode()
            for _ in range(200):
                try:
                    urllib.request.urlopen(url, event, timeout=10).read()
                    break
                except (ConnectionError, urllib.error.URLError):
                    time.sleep(0.01)
        finally:
            emulator.terminate()
            emulator.wait()
        log.seek(0)
        report = re.search(rb"INIT REPORT\(durationMs: ([0-9.]+)\)", log.read())
        return float(report[1])


def main():
    moto, url = start_moto()
    try:
        secret = secret_on(url)
        with tempfile.TemporaryDirectory() as router, tempfile.TemporaryDirectory() as bare:
            router = unpack("target/lambda/webhook-router/bootstrap.zip", router)
            bare = unpack("target/bare/lambda/bare/bootstrap.zip", bare)
            starts = {"bare": (bare, {}), "router": (router, {}), "with secret": (router, secret)}
            times = {name: [] for name in starts}
            for _ in range(ROUNDS):
                for name, start in starts.items():
                    times[name].append(init(*start))
            compare_inbox(router, inbox_on(url))
    finally:
        moto.kill()
        moto.wait()
    yardstick = statistics.median(times["bare"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:12} INIT median {median:.2f} ms, least {min(values):.2f} ms, of {ROUNDS} starts: {median / yardstick:.2f} x bare")


sys.exit(main())
