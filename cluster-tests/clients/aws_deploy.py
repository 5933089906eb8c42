"""boto3 with another address: a function that is deployed as an image, changed, called and removed, each call to another node.

usage: python aws_deploy.py '[{"name": …, "functions": URL, …}, …]' IMAGE
"""

import itertools
import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

nodes = json.loads(sys.argv[1])
image = sys.argv[2]
config = Config(retries={"max_attempts": 0}, read_timeout=60)
clients = itertools.cycle(
    boto3.client("lambda", endpoint_url=node["functions"].rstrip("/"), region_name="eu-central-1", config=config)
    for node in nodes
)

# A runtime of its own, in the image's shell: it asks for an invocation, and answers it.
RUNTIME = """
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while true; do
  event=$(/busybox wget -q -S -O - $api/next 2>/tmp/head) || exit 1
  id=$(/busybox sed -n 's/.*[Rr]equest-[Ii]d: *//p' /tmp/head | /busybox tr -d '\\r')
  /busybox wget -q -O /dev/null --post-data "{\\"got\\": $event, \\"mode\\": \\"$MODE\\", \\"in\\": \\"$PWD\\", \\"mb\\": $AWS_LAMBDA_FUNCTION_MEMORY_SIZE}" $api/$id/response
done
"""


def call(operation, **members):
    """Of another node with each call."""
    return getattr(next(clients), operation)(**members)


def check(what, found, expected):
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"
    print(f"ok: {what}")


def invoke(payload):
    answer = call("invoke", FunctionName="deployed", Payload=json.dumps(payload))
    told = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, told
    return told


made = call(
    "create_function",
    FunctionName="deployed",
    Role="arn:aws:iam::123456789012:role/lambda",
    PackageType="Image",
    Code={"ImageUri": image},
    ImageConfig={"EntryPoint": ["/busybox", "sh", "-c", RUNTIME], "WorkingDirectory": "/tmp"},
    Environment={"Variables": {"MODE": "first"}},
    MemorySize=256,
    Timeout=20,
    Description="made by a test",
    Tags={"team": "a"},
)
check("a function is made of an image", (made["PackageType"], made["Role"]), ("Image", "arn:aws:iam::123456789012:role/lambda"))
check("with a hash of its code", len(made["CodeSha256"]), 64)
next(clients).get_waiter("function_active_v2").wait(FunctionName="deployed")
for _ in nodes:
    told = invoke({"n": 1})
    check("it runs by Lambda's contract", told["got"], {"n": 1})
check("in the directory that was said", told["in"], "/tmp")
check("with the variables that were said", (told["mode"], told["mb"]), ("first", 256))
got = call("get_function", FunctionName="deployed")
check("its code is the image", got["Code"]["ImageUri"], image)
check("its tags are kept", got["Tags"], {"team": "a"})
try:
    call("create_function", FunctionName="deployed", Role="r" * 30, PackageType="Image", Code={"ImageUri": image})
    raise AssertionError("it was made twice")
except ClientError as error:
    check("it is made once", error.response["Error"]["Code"], "ResourceConflictException")
try:
    call("update_function_code", FunctionName="deployed", ImageUri="hearth-test-nothing:1")
    raise AssertionError("an image that is nowhere was taken")
except ClientError as error:
    check("an image that is nowhere is refused", error.response["Error"]["Code"] in ("InvalidParameterValueException", "ServiceException"), True)
version = call("publish_version", FunctionName="deployed", CodeSha256=made["CodeSha256"])["Version"]
call("update_function_configuration", FunctionName="deployed", Environment={"Variables": {"MODE": "second"}})
end = time.monotonic() + 20
while not all(invoke({})["mode"] == "second" for _ in nodes):
    assert time.monotonic() < end, "the change is not effective within 20 s"
print("ok: a change is effective on every node")
answer = call("invoke", FunctionName=f"deployed:{version}", Payload=b"{}")
check("the version is what it was", json.loads(answer["Payload"].read())["mode"], "first")
updated = call("update_function_code", FunctionName="deployed", ImageUri=image, Publish=True)
check("code is changed and published", updated["Version"], "2")
call("delete_function", FunctionName="deployed")
try:
    call("get_function", FunctionName="deployed")
    raise AssertionError("it was not removed")
except ClientError as error:
    check("it is removed", error.response["Error"]["Code"], "ResourceNotFoundException")
