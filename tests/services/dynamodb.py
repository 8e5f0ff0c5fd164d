"""Servers that speak DynamoDB: Amazon's DynamoDB Local, and moto, which checks signatures."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from . import venvs
from .base import HOST, Service
from .builds import JAVA_OPTIONS, built, fetch_jars, java_program

# 3.3.1, the newest, needs artifacts that are not published.
JARS = "software.amazon.dynamodb:DynamoDBLocal:3.1.0"


# What a client sends first is what the server has never done before, and takes seconds.
_KEY = {"id": {"S": "x"}}
_TABLE = {"TableName": "warm-up"}
_TABLE_OF_ONE_KEY = {
    **_TABLE,
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}
_EXPRESSIONS = {
    "UpdateExpression": "SET val = :new",
    "ConditionExpression": "attribute_not_exists(id) OR val = :old",
    "ExpressionAttributeValues": {":old": {"B": "eA=="}, ":new": {"B": "eQ=="}},
}
_WARM_UP: tuple[tuple[str, dict[str, Any]], ...] = (
    ("CreateTable", _TABLE_OF_ONE_KEY),
    ("PutItem", {**_TABLE, "Item": _KEY}),
    ("UpdateItem", {**_TABLE, "Key": _KEY, **_EXPRESSIONS}),
    ("GetItem", {**_TABLE, "Key": _KEY}),
    ("DeleteItem", {**_TABLE, "Key": _KEY}),
    ("ListTables", {}),
)
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/dynamodb/aws4_request,"
    " SignedHeaders=host, Signature=x",
}


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> int | None:
    """The status of an answer; None when there is none."""
    connection = HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


class DynamoDBService(Service):
    """DynamoDB Local, with its tables in files. One set of tables, whatever the region and the
    credentials, of which it checks nothing."""

    name = "dynamodb"
    seconds_to_start = 60

    def prepare(self) -> None:
        self.java = java_program("java")
        self.home = built("dynamodb", JARS, lambda folder: fetch_jars(folder, JARS))

    def launch(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        lib = self.home / "lib"
        self.spawn(
            *(self.java, "-Xmx256m", *JAVA_OPTIONS, f"-Dsqlite4java.library.path={lib}"),
            *(f"-Djava.library.path={lib}", "-cp", f"{lib}/*"),
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            *("-dbPath", str(data), "-sharedDb", "-disableTelemetry", "-port", str(self.port())),
        )

    def ready(self) -> bool:
        status = None
        for operation, parameters in _WARM_UP:
            headers = {**_HEADERS, "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
            status = ask(self.port(), "POST", "/", json.dumps(parameters).encode(), **headers)
            if status is None:
                return False
        return status == 200

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {"DYNAMODB_URL": self.url}


class MotoService(Service):
    """moto, in memory: a restarted one is empty. It checks nothing until `check_signatures`."""

    name = "moto"
    seconds_to_start = 60

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.key_id = self.secret = "x"

    def prepare(self) -> None:
        self.python = venvs.python("moto")

    def launch(self) -> None:
        self.spawn(self.python, "-m", "moto.server", "-H", HOST, "-p", str(self.port()))

    def ready(self) -> bool:
        return ask(self.port(), "GET", "/moto-api/data.json") == 200

    def check_signatures(self) -> None:
        """From now on only `key_id` and `secret` are accepted."""
        import boto3

        iam: Any = boto3.Session("x", "x", region_name="us-east-1").client(
            "iam", endpoint_url=self.url
        )
        iam.create_user(UserName="tester")
        allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="tester")["AccessKey"]
        self.key_id, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        assert ask(self.port(), "POST", "/moto-api/reset-auth", b"0") == 200

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {"MOTO_URL": self.url}
