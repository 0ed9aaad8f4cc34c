"""What a run costs on AWS, in USD, with the prices of `aws`."""

from . import aws


def so_far(run):
    """Returns the parts of the cost of a run in Lambda with DynamoDB, for its simulated events."""
    way = run.way
    requests = run.place.invocations
    seconds, messages = run.place.seconds, 0
    lines = run.place.invocations
    if run.is_inbox:
        # The events of a batch wait together, in one invocation.
        requests += way.batches
        seconds += way.batch_seconds
        messages = way.messages + 2 * way.batches
        lines += way.attempts
    units = run.store.units + (run.index.units if run.index else 0)
    log = lines * (run.measured["log_line"] + aws.LINE)
    return {
        "requests": requests * aws.REQUEST,
        "duration": seconds * aws.MEMORY_GB * aws.GB_SECOND,
        "store": units * aws.WRITE_UNIT,
        "messages": messages * aws.MESSAGE_REQUEST,
        "log": log / 1e9 * aws.LOG_GB,
    }


def per_million(run):
    """Returns the parts of the cost of a million events."""
    return {name: 1e6 * value / max(len(run.events), 1) for name, value in so_far(run).items()}
