"""DynamoDB, through boto3: each kind of client object and both tables."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from tests.services.dynamodb import DynamoDBService

from .base import Row, Settings, Where

REGION = "us-east-1"
# Not "sessions", its default: DynamoDB Local cannot tell that from "Sessions".
THEIR_TABLE = "web-sessions"


@functools.cache
def session() -> Any:
    """One for all: each new one reads the descriptions of the services anew."""
    import boto3

    return boto3.Session("x", "y", region_name=REGION)


def connect(url: str, timeout: float = 2, kind: str = "client", **options: Any) -> Any:
    """A client or a resource that does not repeat."""
    from botocore.config import Config

    limits = {"connect_timeout": timeout, "read_timeout": timeout}
    config = Config(retries={"total_max_attempts": 1}, **limits, **options)
    return getattr(session(), kind)("dynamodb", endpoint_url=url, config=config)


def make_table(client: Any, name: str, key: str) -> None:
    """A table as an administrator makes it, without an expiry."""
    with contextlib.suppress(client.exceptions.ResourceInUseException):
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


def expiration(where: Where, **item: Any) -> float:
    found = connect(where["DYNAMODB_URL"]).get_item(ConsistentRead=True, **item)
    return float(found["Item"]["expiration"]["N"])


class DynamoDBRow(Row):
    """A resource, which is what Flask-Session takes, and its table."""

    name = "dynamodb"
    service = DynamoDBService
    durable = True
    max_value = 400 * 1024
    changes = 10
    raced = True
    slow_server = True
    predecessors = ("fs08",)
    legacy = """
import boto3
config.update(
    SESSION_TYPE="dynamodb",
    SESSION_DYNAMODB=boto3.resource(
        "dynamodb", endpoint_url=where["DYNAMODB_URL"], region_name="us-east-1",
        aws_access_key_id="x", aws_secret_access_key="y",
    ),
)
"""

    @classmethod
    def settings(cls, where: Where) -> Settings:
        made = connect(where["DYNAMODB_URL"], cls.timeout, "resource")
        return {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": made}

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        return expiration(where, TableName="Sessions", Key={"id": {"S": key}})


class DynamoDBClientRow(DynamoDBRow):
    name = "dynamodb-client"

    @classmethod
    def settings(cls, where: Where) -> Settings:
        made = connect(where["DYNAMODB_URL"], cls.timeout)
        return {"SESSION_TYPE": "dynamodb", "SESSION_DYNAMODB": made}


class DynamoDBKeysRow(DynamoDBRow):
    """Flask-Session2's keys instead of a client object, and its layout."""

    name = "dynamodb-keys"
    predecessors = ("fs2",)
    returns = ("fs2",)
    plain = endless = True
    legacy = f"""
config.update(
    SESSION_TYPE="dynamodb", SESSION_DYNAMODB_ENDPOINT=where["DYNAMODB_URL"],
    SESSION_DYNAMODB_REGION="{REGION}", SESSION_DYNAMODB_TABLE="{THEIR_TABLE}",
    SESSION_DYNAMODB_KEY_ID="x", SESSION_DYNAMODB_SECRET="y",
)
"""

    def reach(self) -> Where:
        where = super().reach()
        client = connect(where["DYNAMODB_URL"], 20)
        make_table(client, THEIR_TABLE, "SessionId")
        client.close()
        return where

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "dynamodb",
            "SESSION_DYNAMODB_ENDPOINT": where["DYNAMODB_URL"],
            "SESSION_DYNAMODB_TABLE": THEIR_TABLE,
            "SESSION_DYNAMODB_REGION": REGION,
            "SESSION_DYNAMODB_KEY_ID": "x",
            "SESSION_DYNAMODB_SECRET": "y",
        }

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        return expiration(where, TableName=THEIR_TABLE, Key={"SessionId": {"S": key}})


DYNAMODB_ROWS: tuple[type[Row], ...] = (DynamoDBRow, DynamoDBClientRow, DynamoDBKeysRow)
