"""The rows, in the order of the table. Each measures its lines with servers of its own."""

from . import (acceptance, claims, cost, duplicate, first_delivery, functions, inbox_start, invocation, memory,
               records, serve, size, sqlite, start)

ROWS = {
    "functions": functions.run,
    "serve": serve.run,
    "sqlite": sqlite.run,
    "duplicate": duplicate.run,
    "acceptance": acceptance.run,
    "records": records.run,
    "claims": claims.run,
    "memory": memory.run,
    "invocation": invocation.run,
    "start": start.run,
    "first-delivery": first_delivery.run,
    "inbox-start": inbox_start.run,
    "size": size.run,
    "cost": cost.run,
}
