"""A destination that answers every POST after some seconds, in one thread. GET says how many it has answered.

    python3 slow_destination.py SECONDS
"""

import asyncio
import re
import sys

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class Connection(asyncio.Protocol):
    answered = 0

    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        is_question = head.startswith(b"GET")
        if is_question or len(body) >= int(LENGTH.search(head + b"\r\n")[1]):
            # A client sends its next request after the answer.
            self.received = b""
            if is_question:
                self.write(b"%d" % Connection.answered)
            else:
                asyncio.get_running_loop().call_later(float(sys.argv[1]), self.answer)

    def answer(self):
        Connection.answered += 1
        self.write(b"done")

    def write(self, text):
        self.transport.write(HEAD % (len(text), text))


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


asyncio.run(main())
