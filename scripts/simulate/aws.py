"""Limits and prices that AWS publishes, each with its page, and times that this project assumes.

Prices are for us-east-1. docs/cost.md has the same prices and assumed times.
"""

# Lambda. https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
NEW_INSTANCES_PER_SECOND = 100
NEW_INSTANCES_AT_ONCE = 1_000
REQUESTS_PER_INSTANCE = 10
# Messages of SQS. https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
CONSUMERS_AT_FIRST = 5
MORE_CONSUMERS_PER_SECOND = 300 / 60
BATCH = 10

# DynamoDB. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/burst-adaptive-capacity.html
UNITS_PER_PARTITION = 1_000
# A new table on demand.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
UNITS_AT_FIRST = 4_000
# The partitions of each list in the index (docs/stores.md).
SHARDS = 16

# Prices in USD. https://aws.amazon.com/lambda/pricing/, https://aws.amazon.com/dynamodb/pricing/,
# https://aws.amazon.com/sqs/pricing/, https://aws.amazon.com/cloudwatch/pricing/
REQUEST = 0.20 / 1e6
GB_SECOND = 0.0000166667
WRITE_UNIT = 0.625 / 1e6
MESSAGE_REQUEST = 0.50 / 1e6
LOG_GB = 0.50

# Assumed, as in docs/cost.md: times of AWS's services from within Lambda.
DYNAMODB = 0.005
REDIS = 0.001
SQS = 0.010
# Assumed: the time in which AWS starts an instance, before its INIT, and the time for which it keeps an idle one.
# AWS publishes neither.
START = 0.100
IDLE = 600.0
MEMORY_GB = 0.25
# A function with 256 MB has a seventh of a processor.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
PROCESSOR = 256 / 1_769
# What CloudWatch adds to a line of the log, in bytes (docs/cost.md).
LINE = 26
