"""One call by boto3, with its own retries or none, and what came of it: `{"result", "node", "retries"}` or `{"error", "status", "message", "retries"}`.

Credentials are those of the environment.

usage: python aws_invoke.py ENDPOINT FUNCTION PAYLOAD defaults|once
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, function, payload, retries = sys.argv[1:]
config = Config(read_timeout=60, **({"retries": {"max_attempts": 0}} if retries == "once" else {}))
client = boto3.client("lambda", endpoint_url=endpoint.rstrip("/"), region_name="eu-west-1", config=config)
try:
    answer = client.invoke(FunctionName=function, Payload=payload)
    told = {"result": json.loads(answer["Payload"].read()), "node": answer["ResponseMetadata"]["HTTPHeaders"]["x-hearth-node"]}
except ClientError as error:
    answer = error.response
    told = {"error": answer["Error"]["Code"], "message": answer["Error"]["Message"], "status": answer["ResponseMetadata"]["HTTPStatusCode"]}
print(json.dumps(told | {"retries": answer["ResponseMetadata"]["RetryAttempts"]}))
