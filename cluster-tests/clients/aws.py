"""What a test needs of AWS: makes streams, queues and keys, and reads what came, with boto3.

usage: aws.py ENDPOINT make|read
"""

import json
import sys
import urllib.request

import boto3

ENDPOINT, STEP = sys.argv[1:3]
REGION = "eu-west-1"


def client(service):
    return boto3.client(
        service,
        endpoint_url=ENDPOINT,
        region_name=REGION,
        aws_access_key_id="root",
        aws_secret_access_key="root",
    )


def moto(path, body):
    """Sets what the server of moto has besides AWS's APIs."""
    headers = {"content-type": "text/plain"}
    request = urllib.request.Request(f"{ENDPOINT}/moto-api/{path}", body.encode(), headers)
    urllib.request.urlopen(request).close()


def user(name, policy):
    iam = client("iam")
    iam.create_user(UserName=name)
    if policy:
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"awsAccessKeyId": key["AccessKeyId"], "awsSecretAccessKey": key["SecretAccessKey"]}


def make():
    client("kinesis").create_stream(StreamName="stream", ShardCount=1)
    sqs = client("sqs")
    queue = sqs.create_queue(QueueName="queue")["QueueUrl"]
    fifo = sqs.create_queue(QueueName="queue.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    where = {"LocationConstraint": REGION}
    client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
    iam = client("iam")
    role = iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    target = {"RoleARN": role, "BucketARN": "arn:aws:s3:::bucket"}
    client("firehose").create_delivery_stream(
        DeliveryStreamName="delivery", S3DestinationConfiguration=target
    )
    # Functions answer what they are sent, since code would need containers.
    moto("config", json.dumps({"lambda": {"use_docker": False}}))
    # Called by its name: of an ARN, moto checks another signature than AWS, as its server has decoded the path.
    client("lambda").create_function(
        FunctionName="function",
        Runtime="python3.12",
        Role=role,
        Handler="f.f",
        Code={"ZipFile": b"not run"},
    )
    # moto names the last one after its request, AWS after what it does.
    calls = ["lambda:Invoke", "lambda:InvokeFunction"]
    actions = ["kinesis:PutRecord", "firehose:PutRecord", "sqs:SendMessage", *calls]
    allow = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [allow]}
    made = {
        "queue": queue,
        "fifo": fifo,
        "key": user("writer", policy),
        "powerless": user("powerless", None),
    }
    # From here on, signatures and permissions are checked.
    moto("reset-auth", "0")
    return made


def messages(url):
    sqs, found = client("sqs"), []
    while True:
        got = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        ).get("Messages", [])
        if not got:
            return found
        for message in got:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            group = message["Attributes"].get("MessageGroupId")
            found.append({"id": message["MessageId"], "text": message["Body"], "group": group})


def records():
    kinesis, found = client("kinesis"), []
    shard = kinesis.list_shards(StreamName="stream")["Shards"][0]["ShardId"]
    at = kinesis.get_shard_iterator(
        StreamName="stream", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    while True:
        got = kinesis.get_records(ShardIterator=at)
        if not got["Records"]:
            return found
        at = got["NextShardIterator"]
        for record in got["Records"]:
            text = record["Data"].decode()
            found.append({"id": record["SequenceNumber"], "text": text, "key": record["PartitionKey"]})


def delivered():
    s3 = client("s3")
    listed = s3.list_objects_v2(Bucket="bucket").get("Contents", [])
    return [s3.get_object(Bucket="bucket", Key=one["Key"])["Body"].read().decode() for one in listed]


def read():
    moto("reset-auth", "inf")
    sqs = client("sqs")
    urls = {name: sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in ["queue", "queue.fifo"]}
    came = {
        "kinesis": records(),
        "firehose": delivered(),
        "queue": messages(urls["queue"]),
        "fifo": messages(urls["queue.fifo"]),
    }
    moto("reset-auth", "0")
    return came


print(json.dumps({"make": make, "read": read}[STEP]()))
