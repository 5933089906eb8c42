"""Emits CloudEvents with PyPI's cloudevents in each mode that it has, each through another node.

Writes a line `emitted JSON` for each: the event as its receiver should see it.

usage: python cloudevents_emit.py '[{"name": …, "events": URL, "config": URL}, …]'
"""

import base64
import itertools
import json
import sys
from http.client import HTTPConnection

from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent

nodes = itertools.cycle(json.loads(sys.argv[1]))

# Content type and data: of JSON, of text, of bytes, and none at all.
DATA = [
    ("application/json", {"name": "Ada", "at": [1, 2.5, None]}),
    ("text/plain", "Grüße"),
    ("application/octet-stream", b"\x00\xff\xfe"),
    (None, None),
]


def emit(event, encode):
    headers, body = encode(event)
    address = next(nodes)["events"].removeprefix("http://")
    connection = HTTPConnection(address, timeout=10)
    connection.request("POST", "/", body=body, headers=headers)
    response = connection.getresponse()
    assert response.status == 202, (response.status, response.read())
    connection.close()


def seen(event):
    """What the receiver writes of it: text and bytes are told as bytes."""
    attributes, data = event.get_attributes(), event.get_data()
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    return {**attributes, "data": data}


for encode in (to_binary, to_structured):
    for content_type, data in DATA:
        attributes = {"type": "com.example.python", "source": "/python", "subject": "orders/7", "region": "eu"}
        if content_type:
            attributes["datacontenttype"] = content_type
        event = CloudEvent(attributes, data)
        emit(event, encode)
        print("emitted", json.dumps(seen(event)))
