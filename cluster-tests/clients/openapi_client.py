"""A client that openapi-python-client generated of docs/openapi.json, each call to another node.

The package `hearth_client` is found on PYTHONPATH.

usage: python openapi_client.py '[{"name": …, "functions": URL, "config": URL}, …]' URL
"""

import itertools
import json
import os
import sys
import time

from hearth_client import AuthenticatedClient, Client
from hearth_client.api.config import (
    create_function,
    delete_function,
    list_functions,
    read_function,
    show_cluster,
)
from hearth_client.api.executions import list_executions
from hearth_client.api.functions import invoke
from hearth_client.models import (
    Errors,
    Function,
    FunctionType,
    HttpProvider,
    InvokeError,
    InvokeRequest,
)

nodes = json.loads(sys.argv[1])
turns = itertools.cycle(nodes)
bearer = os.environ.get("HEARTH_TEST_TOKEN")


def client(api):
    """Of another node with each call."""
    base_url = next(turns)[api].rstrip("/")
    if bearer is None:
        return Client(base_url=base_url)
    return AuthenticatedClient(base_url=base_url, token=bearer)


def check(what, found, expected):
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"
    print(f"ok: {what}")


def until(what, ask):
    end = time.monotonic() + 10
    while not (found := ask()):
        assert time.monotonic() < end, f"{what}: not within 10 s"
        time.sleep(0.05)
    return found


def succeeded(answer):
    return answer if answer.status_code < 300 else None


record = Function(
    function_id="generated",
    type_=FunctionType.HTTP,
    provider=HttpProvider(url=sys.argv[2]),
)
created = create_function.sync_detailed("default", client=client("config"), body=record)
check("a function is registered", (created.status_code, created.parsed.function_id), (201, "generated"))
again = create_function.sync_detailed("default", client=client("config"), body=record)
check("an error has its type", (again.status_code, type(again.parsed)), (400, Errors))

read = until(
    "another node has it",
    lambda: succeeded(read_function.sync_detailed("default", "generated", client=client("config"))),
)
check("it is read", (read.parsed.type_, read.parsed.provider.url), (FunctionType.HTTP, sys.argv[2]))
names = [function.function_id for function in list_functions.sync("default", client=client("config")).functions]
check("it is listed", "generated" in names, True)

request = InvokeRequest(function_name="generated", payload={"n": 1})
invoked = until(
    "a node calls it",
    lambda: succeeded(invoke.sync_detailed(client=client("functions"), body=request)),
)
check("it is called", invoked.parsed.to_dict()["result"], '{"answered":true}')
unknown = invoke.sync_detailed(client=client("functions"), body=InvokeRequest(function_name="no-such"))
check("an unknown one is told", (unknown.status_code, type(unknown.parsed)), (404, InvokeError))
check("executions are listed", list_executions.sync("default", client=client("functions")).executions is not None, True)

cluster = show_cluster.sync(client=client("config"))
check("the cluster has its nodes", [node.name for node in cluster.nodes], [node["name"] for node in nodes])
deleted = delete_function.sync_detailed("default", "generated", client=client("config"))
check("it is removed", deleted.status_code, 204)
