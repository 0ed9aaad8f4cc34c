"""Compares the router's cold start with that of a bare function.

The router starts once with its secrets in variables, and once with a secret on moto's server. That
server is on loopback and has no TLS, so the real Secrets Manager takes longer.

Both are release builds in AWS's Runtime Interface Emulator. They start alternately, so that other
load on the machine affects both. INIT is the time from the start of the process to its first request
for an event, as the emulator reports it. The first answer includes it.
"""

import glob, json, os, re, socket, statistics, subprocess, sys, tempfile, time, urllib.request, zipfile

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


def start_moto():
    """Starts moto's server, and returns it with the variables that name a secret on it."""
    port = free_port()
    log = subprocess.DEVNULL
    command = ["target/venv/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)]
    moto = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "secretsmanager.CreateSecret",
        "authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/secretsmanager/aws4_request",
    }
    secret = {"ROUTING_SECRET": ENVIRONMENT["ROUTING_SECRET"]}
    body = json.dumps({"Name": "router", "SecretString": json.dumps(secret)}).encode()
    for _ in range(600):
        try:
            urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).read()
            return moto, {"SECRETS_ARN": "router", "AWS_ENDPOINT_URL_SECRETS_MANAGER": url}
        except urllib.error.HTTPError:
            break
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.05)
    moto.kill()
    sys.exit("moto did not accept the secret")


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
    moto, secret = start_moto()
    try:
        with tempfile.TemporaryDirectory() as router, tempfile.TemporaryDirectory() as bare:
            router = unpack("target/lambda/webhook-router/bootstrap.zip", router)
            bare = unpack("target/bare/lambda/bare/bootstrap.zip", bare)
            starts = {"bare": (bare, {}), "router": (router, {}), "with secret": (router, secret)}
            times = {name: [] for name in starts}
            for _ in range(ROUNDS):
                for name, start in starts.items():
                    times[name].append(init(*start))
    finally:
        moto.kill()
        moto.wait()
    yardstick = statistics.median(times["bare"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:12} INIT median {median:.2f} ms, least {min(values):.2f} ms, of {ROUNDS} starts: {median / yardstick:.2f} x bare")


sys.exit(main())
