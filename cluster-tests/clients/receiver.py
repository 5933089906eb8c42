"""A function for functions-framework: it writes each CloudEvent that it gets as one line of JSON."""

import base64
import json

import functions_framework


@functions_framework.cloud_event
def receive(event):
    data = event.get_data() or None
    # Whether it is text or bytes, the library guesses from the bytes.
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    print(json.dumps({**event.get_attributes(), "data": data}), flush=True)
