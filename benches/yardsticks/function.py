"""A Lambda function in Python, as a yardstick: Powertools' idempotency over DynamoDB, and one attempt.

The idempotency key is the hash of the body. Powertools writes to the table once before the attempt and
once after it, as the router does.
"""

import os

import requests
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
)

TARGET = os.environ["GCP_TARGET_URL"]
TIMEOUT = 10

table = DynamoDBPersistenceLayer(table_name=os.environ["TABLE"], key_attr="key")
config = IdempotencyConfig(event_key_jmespath="body")
session = requests.Session()
# Without this, every request reads the environment's proxies and ~/.netrc anew.
session.trust_env = False


@idempotent(persistence_store=table, config=config)
def handler(event, context):
    headers = {"Content-Type": event["headers"].get("content-type", "application/json")}
    answer = session.post(TARGET, event["body"].encode(), headers=headers, timeout=TIMEOUT)
    answer.raise_for_status()
    return {"statusCode": answer.status_code, "body": answer.text}
