"""The CPU of a new instance until its first answer: one that accepts an event, and one that delivers it.

DynamoDB and SQS are moto's server, without TLS.
"""

import os

from .. import emulator
from ..emulator import Emulator
from ..lines import Line
from ..servers import TABLE, Destination, Moto, create_table


def run(bench):
    destination = bench.start(Destination(bench.folder))
    moto = bench.start(Moto(bench.folder))
    create_table(moto.url, TABLE)
    variables = emulator.router_variables(destination, moto) | {
        "AWS_ENDPOINT_URL_SQS": moto.url,
        "QUEUE_URL": moto.create_queue("inbox"),
        "ANSWER": "accepted",
    }
    values = bench.rounds({
        name: lambda one=one: measure(bench, destination, one, variables) for name, one in bench.builds.items()
    }, bench.of(5, 20))
    accepts, delivers = ({name: [pair[at] for pair in all] for name, all in values.items()} for at in (0, 1))
    return [
        Line("CPU of a new instance until it has delivered its first event, which was accepted before", "time",
             delivers["router"], delivers.get("before"), "the same, if it accepts one", accepts["router"]),
    ]


def measure(bench, destination, build, variables):
    """Returns the CPU of an instance that accepts an event, and of one that a message of SQS wakes for it."""
    before = destination.settled()
    command = emulator.unpack(build.function, os.path.join(bench.folder, build.name))
    accepted, accepts = first_answer(bench, command, variables, emulator.new_event())
    assert accepted["body"] == "accepted", accepted
    destination.require(0, before)
    message = {
        "messageId": "1",
        "eventSource": "aws:sqs",
        "body": accepted["headers"]["x-webhook-key"],
        "messageAttributes": {"destination": {"stringValue": "gcp", "dataType": "String"}},
    }
    delivered, delivers = first_answer(bench, command, variables, {"Records": [message]})
    assert delivered == {"batchItemFailures": []}, delivered
    destination.require(1, before)
    return accepts, delivers


def first_answer(bench, command, variables, event):
    """Returns the first answer of a new instance, and its CPU until then."""
    with Emulator(bench.folder, "inbox", command, variables) as function:
        answer, _ = function.invoke(event)
        return answer, function.processor_seconds()
