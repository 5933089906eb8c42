"""boto3 with another address: calls, changes and errors of AWS Lambda's API, each call to another node.

The functions `worker` and `second` (aws_function.py) are registered, and `raw` (aws_lambda_function.py), of Lambda's own contract. Credentials are those of the environment, as boto3 reads them.

usage: python aws_api.py '[{"name": …, "functions": URL, …}, …]'
"""

import base64
import itertools
import json
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

nodes = json.loads(sys.argv[1])
config = Config(retries={"max_attempts": 0}, read_timeout=60)
clients = itertools.cycle(
    boto3.client("lambda", endpoint_url=node["functions"].rstrip("/"), region_name="eu-central-1", config=config)
    for node in nodes
)
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:worker"


def check(what, found, expected):
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"
    print(f"ok: {what}")


def call(operation, **members):
    """Of another node with each call."""
    return getattr(next(clients), operation)(**members)


def invoke(payload, name="worker", **members):
    if payload is not None:
        members["Payload"] = json.dumps(payload)
    answer = call("invoke", FunctionName=name, **members)
    body = answer["Payload"].read()
    return answer, json.loads(body) if body else None


def refused(what, kind, status, says, operation, **members):
    try:
        call(operation, **members)
    except ClientError as error:
        told = error.response
        found = (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"])
        check(what, found, (kind, status))
        message = told["Error"]["Message"]
        assert says in message, f"{what}: {message!r}, expected {says!r} in it"
        return told
    raise AssertionError(f"{what}: it was not refused")


def until(what, ask):
    end = time.monotonic() + 20
    while not (found := ask()):
        assert time.monotonic() < end, f"{what}: not within 20 s"
        time.sleep(0.05)
    return found


def calls():
    answer, told = invoke({"n": 1})
    check("a call is answered", (answer["StatusCode"], told["got"]), (200, {"n": 1}))
    check("it says which version ran", answer["ExecutedVersion"], "$LATEST")
    assert answer["ResponseMetadata"]["RequestId"], answer
    for name in [ARN, f"{ARN}:$LATEST", "123456789012:function:worker", "worker:$LATEST"]:
        _, told = invoke({"n": 2}, name)
        check(f"{name} is the function", told["got"], {"n": 2})
    _, told = invoke({"n": 3}, Qualifier="$LATEST")
    check("with a qualifier too", told["got"], {"n": 3})
    _, told = invoke(None)
    check("without a payload it gets an empty object", told["got"], {})
    answer, told = invoke({"fail": True})
    check("a function that fails is a call that succeeds", answer["StatusCode"], 200)
    check("and says that it failed", answer["FunctionError"], "Unhandled")
    assert told["errorType"] == "Function.Failed" and "500" in told["errorMessage"], told
    answer, _ = invoke(None, InvocationType="DryRun")
    check("a call can be tried without being made", answer["StatusCode"], 204)
    answer, _ = invoke({"say": "hello\nlog"}, LogType="Tail")
    log = base64.b64decode(answer["LogResult"]).decode()
    check("the end of the log comes along", log, "hello\nlog\n")


def queued():
    answer, _ = invoke({"say": "queued"}, InvocationType="Event")
    check("a call need not be waited for", answer["StatusCode"], 202)
    path = f"v1/spaces/default/executions/{answer['ResponseMetadata']['RequestId']}"

    def ended():
        with urllib.request.urlopen(f"{nodes[0]['functions']}/{path}") as told:
            return json.load(told)["status"] == "succeeded"

    until("it is run from the queue", ended)
    print("ok: it is an execution that any node tells of")


def streams():
    answer = call("invoke_with_response_stream", FunctionName="worker", Payload=json.dumps({"stream": ["one, ", "two"]}))
    check("a stream has the function's type", answer["ResponseStreamContentType"], "application/vnd.amazon.eventstream")
    events = list(answer["EventStream"])
    pieces = [event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event]
    check("an answer comes in pieces", b"".join(pieces), b"one, two")
    check("and has an end", list(events[-1]), ["InvokeComplete"])
    assert "ErrorCode" not in events[-1]["InvokeComplete"], events[-1]
    answer = call("invoke_with_response_stream", FunctionName="worker", Payload=json.dumps({"fail": True}))
    end = list(answer["EventStream"])[-1]["InvokeComplete"]
    check("one that fails says so at its end", end["ErrorCode"], "Function.Failed")


def changes():
    before = call("get_function_configuration", FunctionName="worker")
    check("a function has a configuration", before["FunctionArn"].split(":")[-2:], ["function", "worker"])
    check("in the region of who asks", before["FunctionArn"].split(":")[3], "eu-central-1")
    after = call(
        "update_function_configuration",
        FunctionName=ARN,
        Description="of a test",
        Timeout=1,
        MemorySize=256,
        Environment={"Variables": {"MODE": "changed"}},
        RevisionId=before["RevisionId"],
    )
    check("it can be changed", (after["Timeout"], after["MemorySize"], after["Description"]), (1, 256, "of a test"))
    for waiter in ["function_updated_v2", "function_active_v2"]:
        next(clients).get_waiter(waiter).wait(FunctionName="worker")
    print("ok: the waiters are content")
    until("the change is effective on every node", lambda: all_say("changed"))
    print("ok: the change is effective on every node")
    answer, told = invoke({"sleep": 3})
    check("the new timeout holds", (answer["FunctionError"], told["errorType"]), ("Unhandled", "Sandbox.Timedout"))
    refused(
        "an old revision is refused", "PreconditionFailedException", 412, "Revision Id", "update_function_configuration",
        FunctionName="worker", Timeout=5, RevisionId=before["RevisionId"],
    )
    call("update_function_configuration", FunctionName="worker", Timeout=30)
    call("tag_resource", Resource=ARN, Tags={"team": "a", "stage": "test"})
    call("untag_resource", Resource=ARN, TagKeys=["stage"])
    check("tags are kept", call("list_tags", Resource=ARN)["Tags"], {"team": "a"})
    got = call("get_function", FunctionName="worker")
    check("and told with the function", got["Tags"], {"team": "a"})


def all_say(mode):
    return all(invoke({})[1]["mode"] == mode for _ in nodes)


def limits():
    call("put_function_concurrency", FunctionName="worker", ReservedConcurrentExecutions=7)
    check("a limit is set", call("get_function_concurrency", FunctionName="worker")["ReservedConcurrentExecutions"], 7)
    check("and told", call("get_function", FunctionName="worker")["Concurrency"], {"ReservedConcurrentExecutions": 7})
    call("delete_function_concurrency", FunctionName="worker")
    check("and taken away", "ReservedConcurrentExecutions" in call("get_function_concurrency", FunctionName="worker"), False)
    call("put_function_event_invoke_config", FunctionName="worker", MaximumRetryAttempts=1, MaximumEventAgeInSeconds=60)
    call("update_function_event_invoke_config", FunctionName="worker", DestinationConfig={"OnFailure": {"Destination": ARN}})
    got = call("get_function_event_invoke_config", FunctionName="worker")
    check("deliveries are set", (got["MaximumRetryAttempts"], got["MaximumEventAgeInSeconds"]), (1, 60))
    target = got["DestinationConfig"]["OnFailure"]["Destination"]
    check("with where their ends are told", target.split(":")[-1], "worker")
    listed = call("list_function_event_invoke_configs", FunctionName="worker")["FunctionEventInvokeConfigs"]
    check("they are listed", len(listed), 1)
    call("delete_function_event_invoke_config", FunctionName="worker")
    refused(
        "and taken away", "ResourceNotFoundException", 404, "EventInvokeConfig", "get_function_event_invoke_config",
        FunctionName="worker",
    )


def versions():
    name = {"FunctionName": "worker"}
    first = call("publish_version", **name, Description="the first")
    check("a version is published", (first["Version"], first["Description"]), ("1", "the first"))
    check("nothing has changed since", call("publish_version", **name)["Version"], "1")
    call("update_function_configuration", **name, Environment={"Variables": {"MODE": "newer"}})
    check("the next one is published", call("publish_version", **name)["Version"], "2")
    for version, mode in [("1", "changed"), ("2", "newer")]:
        answer, told = invoke({}, Qualifier=version)
        check(f"version {version} is what it was", (told["mode"], answer["ExecutedVersion"]), (mode, version))
    answer, told = invoke({}, f"{ARN}:1")
    check("an ARN names it too", told["mode"], "changed")
    listed = call("list_versions_by_function", **name)["Versions"]
    check("versions are listed", [version["Version"] for version in listed], ["$LATEST", "1", "2"])
    got = call("get_function_configuration", **name, Qualifier="1")
    check("and read", (got["Environment"]["Variables"]["MODE"], got["FunctionArn"].split(":")[-1]), ("changed", "1"))
    made = call("create_alias", **name, Name="live", FunctionVersion="1")
    check("an alias is made", made["AliasArn"].split(":")[-1], "live")
    check("once", refused("an alias of that name is there", "ResourceConflictException", 409, "live", "create_alias", **name, Name="live", FunctionVersion="2")["Type"], "User")
    until("it is known on every node", lambda: all(executed("live") == "1" for _ in nodes))
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    changed = call("update_alias", **name, Name="live", RoutingConfig=routing, RevisionId=made["RevisionId"])
    check("it shares its calls out", changed["RoutingConfig"], routing)
    until("to both versions", lambda: {executed("live") for _ in range(10)} == {"1", "2"})
    refused("an old revision is refused", "PreconditionFailedException", 412, "Revision Id", "update_alias", **name, Name="live", FunctionVersion="2", RevisionId=made["RevisionId"])
    call("update_alias", **name, Name="live", FunctionVersion="2", RoutingConfig={})
    until("until it is changed on every node", lambda: all(executed("live") == "2" for _ in range(9)))
    print("ok: an alias is where its calls go, on every node")
    check("it is read", call("get_alias", **name, Name="live")["FunctionVersion"], "2")
    check("and listed", [alias["Name"] for alias in call("list_aliases", **name, FunctionVersion="2")["Aliases"]], ["live"])
    answer, _ = invoke({}, Qualifier="live", InvocationType="Event")
    check("a call of it need not be waited for", answer["StatusCode"], 202)
    refused("a version that an alias needs stays", "ResourceConflictException", 409, "live", "delete_function", **name, Qualifier="2")
    call("delete_alias", **name, Name="live")
    refused("the alias is removed", "ResourceNotFoundException", 404, ":live", "get_alias", **name, Name="live")
    call("delete_function", **name, Qualifier="1")
    refused("the version is removed", "ResourceNotFoundException", 404, ":1", "get_function", **name, Qualifier="1")


def executed(qualifier):
    return invoke({}, Qualifier=qualifier)[0]["ExecutedVersion"]


def lambdas():
    context = base64.b64encode(json.dumps({"custom": {"a": "b"}}).encode()).decode()
    answer, told = invoke({"n": 5}, "raw", ClientContext=context)
    check("a function of Lambda's contract gets its event", told["got"], {"n": 5})
    check("and what its client says of itself", told["client"], {"a": "b"})
    check("and the id of the request", told["request"], answer["ResponseMetadata"]["RequestId"])
    check("and its ARN", told["arn"].split(":")[-2:], ["function", "raw"])
    answer, told = invoke({"fail": True}, "raw")
    check("its error is what it raised", (answer["FunctionError"], told["errorType"], told["errorMessage"]), ("Unhandled", "ValueError", "asked to fail"))
    stream = call("invoke_with_response_stream", FunctionName="raw", Payload=b'{"n": 6}')["EventStream"]
    pieces = b"".join(event["PayloadChunk"]["Payload"] for event in stream if "PayloadChunk" in event)
    check("its answer may be asked for in pieces", json.loads(pieces)["got"], {"n": 6})
    stream = call("invoke_with_response_stream", FunctionName="raw", Payload=b'{"fail": true}')["EventStream"]
    end = list(stream)[-1]["InvokeComplete"]
    check("as may its error", (end["ErrorCode"], json.loads(end["ErrorDetails"])["errorMessage"]), ("ValueError", "asked to fail"))
    refused("what a client says of itself is JSON in base64", "InvalidRequestContentException", 400, "Base64", "invoke", FunctionName="raw", ClientContext="{}")


def errors():
    name = {"FunctionName": "worker"}
    unknown = refused("a function that is not there", "ResourceNotFoundException", 404, "Function not found: arn:aws:lambda:eu-central-1:", "invoke", FunctionName="nothing")
    check("has the type of the model", unknown["Type"], "User")
    refused("a version that is not there", "ResourceNotFoundException", 404, ":77", "invoke", **name, Qualifier="77")
    refused("a payload that is no JSON", "InvalidRequestContentException", 400, "Could not parse request body into json", "invoke", **name, Payload=b"{")
    refused("a payload that is too large", "RequestTooLargeException", 413, "6291456", "invoke", **name, Payload=b'"' + b"x" * 6291456 + b'"')
    refused("one for the queue is smaller", "RequestTooLargeException", 413, "1048576", "invoke", **name, InvocationType="Event", Payload=b'"' + b"x" * 1048576 + b'"')
    refused("a name that is none", "ValidationException", 400, "functionName", "get_function", FunctionName="a:b:c")
    made = {"FunctionName": "made", "Role": "arn:aws:iam::123456789012:role/r"}
    refused("code that is an archive", "InvalidParameterValueException", 400, "Code.ZipFile", "create_function", **made, Code={"ZipFile": b"x"}, Runtime="python3.12", Handler="a.b")
    refused("what would be a lie", "InvalidParameterValueException", 400, "Layers", "update_function_configuration", **name, Layers=["arn:aws:lambda:eu-central-1:1:layer:x:1"])
    refused("an image of a function that has none", "InvalidParameterValueException", 400, "ImageUri", "update_function_code", **name, ImageUri="x:1")
    refused("a memory that is too large", "ValidationException", 400, "memorySize", "update_function_configuration", **name, MemorySize=20000)
    refused("an operation that is not here", "UnknownOperationException", 404, "no operation", "list_layers")


def lists():
    client = next(clients)
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 1})
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    check("pages have every function once", names, ["raw", "second", "worker"])
    call("delete_function", FunctionName="second")
    refused("it is removed", "ResourceNotFoundException", 404, "second", "get_function", FunctionName="second")


for part in [calls, queued, streams, lambdas, changes, limits, versions, errors, lists]:
    part()
