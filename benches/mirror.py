"""Compares the time of answers with mirrors that hang, refuse or fail to that without a mirror.

Five routers run at the same time: two without a mirror, and one with each kind of mirror, which gets a
copy of every event. Each round sends one event to each of them, in random order. So other load on the
machine affects all of them, and the second one without a mirror shows how much. They share a redis-server,
and the sample destination.

    make bench-mirror                     # ROUNDS=2000 and THREADS=4 unless set
"""

import http.client, http.server, os, random, socket, statistics, subprocess, sys, tempfile, threading, time

ROUNDS = int(os.environ.get("ROUNDS", "2000"))
THREADS = int(os.environ.get("THREADS", "4"))
BUILD = os.environ.get("BUILD", "target/release")
WARM_UP = 50


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Failing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def start_mirrors():
    """Returns the URL of each mirror. The one that hangs accepts connections, and never answers."""
    hanging = socket.create_server(("127.0.0.1", 0), backlog=1024)
    connections = []

    def accept():
        while True:
            connections.append(hanging.accept())

    threading.Thread(target=accept, daemon=True).start()
    failing = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=failing.serve_forever, daemon=True).start()
    ports = {"none": None, "none (2)": None, "hangs": hanging.getsockname()[1]}
    ports |= {"refuses": free_port(), "500": failing.server_port}
    return {name: f"http://127.0.0.1:{port}" if port else "" for name, port in ports.items()}


def start(processes, command, variables, folder, name):
    """Starts a server, and returns the port that it prints."""
    log = open(os.path.join(folder, f"{name}.log"), "w")
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
    processes.append(process)
    line = process.stdout.readline()
    assert "listening on" in line, f"{command} said {line!r}"
    return int(line.strip().rsplit(":", 1)[1])


def post(connection, body):
    began = time.perf_counter()
    connection.request("POST", "/webhook", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    return time.perf_counter() - began


def send(ports, times, thread):
    connections = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in ports.items()}
    names = list(connections)
    for number in range(WARM_UP + ROUNDS // THREADS):
        random.shuffle(names)
        for name in names:
            body = (
                '{"vendor":"v","event_type":"t","created_at":"2026-05-06T12:00:00Z",'
                f'"thread":{thread},"number":{number}}}'
            )
            took = post(connections[name], body)
            if number >= WARM_UP:
                times[name].append(took)


def main():
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            redis = free_port()
            command = ["redis-server", "--port", str(redis), "--save", "", "--dir", folder]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            while True:
                try:
                    socket.create_connection(("127.0.0.1", redis)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            processor = start(processes, [f"{BUILD}/webhook-processor"], {"PORT": "0"}, folder, "processor")
            ports = {}
            for database, (name, url) in enumerate(start_mirrors().items()):
                variables = {
                    "ROUTE_THRESHOLD": "256",
                    "GCP_TARGET_URL": f"http://127.0.0.1:{processor}",
                    "STORE_URL": f"redis://127.0.0.1:{redis}/{database}",
                    "METRICS_LISTEN": "off",
                    "MIRROR_URL": url,
                }
                command = [f"{BUILD}/webhook-router", "serve", "--listen", "127.0.0.1:0"]
                ports[name] = start(processes, command, variables, folder, name)
            times = {name: [] for name in ports}
            threads = [threading.Thread(target=send, args=(ports, times, one)) for one in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    percentiles = {name: statistics.quantiles(all, n=100) for name, all in times.items()}
    print(f"{'mirror':8} {'p50 ms':>8} {'p99 ms':>8} {'p99 / p99 without':>18}")
    for name, values in percentiles.items():
        ratio = values[98] / percentiles["none"][98]
        print(f"{name:8} {values[49] * 1000:8.2f} {values[98] * 1000:8.2f} {ratio:18.2f}")
    assert all(len(all) == len(times["none"]) for all in times.values())


if __name__ == "__main__":
    sys.exit(main())
