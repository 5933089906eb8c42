"""A function of Lambda's own contract, as AWS runs it: it says what it got, and waits or fails where it is asked to."""

import time


def handler(event, context):
    time.sleep(event.get("sleep", 0))
    if event.get("fail"):
        raise ValueError("asked to fail")
    client = context.client_context
    return {
        "got": event,
        "arn": context.invoked_function_arn,
        "request": context.aws_request_id,
        "client": client.custom if client else None,
    }
