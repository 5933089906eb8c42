"""Times boto3's calls of several endpoints in turns, and prints the medians of each round in microseconds.

usage: python aws_bench.py NODE FUNCTION ROUNDS CALLS
"""

import json
import statistics
import sys
import time

import boto3
from botocore.config import Config

endpoints, rounds, calls = sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
config = Config(retries={"max_attempts": 0})
clients = [boto3.client("lambda", endpoint_url=url.rstrip("/"), region_name="us-east-1", config=config) for url in endpoints]


def once(client):
    begun = time.perf_counter()
    answer = client.invoke(FunctionName="bench", Payload=b'{"text": "hello"}')
    answer["Payload"].read()
    return (time.perf_counter() - begun) * 1e6


for client in clients:
    for _ in range(50):
        once(client)
told = []
for _ in range(rounds):
    times = [[], []]
    # One of each at a time, so that what else the machine does falls on both.
    for _ in range(calls):
        for client, taken in zip(clients, times):
            taken.append(once(client))
    told.append([statistics.median(taken) for taken in times])
print(json.dumps(told))
