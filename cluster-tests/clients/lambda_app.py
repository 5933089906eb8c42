# A function of AWS Lambda in Python: PyPI's awslambdaric runs it, as on Lambda.
import os
import time

ENVIRONMENT = (
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
    "TZ",
    "_X_AMZN_TRACE_ID",
)


class NoSuchThing(Exception):
    pass


def handler(event, context):
    if "ms" in event:
        time.sleep(event["ms"] / 1000)
    if "fail" in event:
        raise NoSuchThing(event["fail"])
    if "exit" in event:
        os._exit(event["exit"])
    print(f"{context.aws_request_id} runs")
    return {
        "payload": event,
        "pid": os.getpid(),
        "request": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "left_ms": context.get_remaining_time_in_millis(),
        "env": {name: os.environ.get(name) for name in ENVIRONMENT},
    }
