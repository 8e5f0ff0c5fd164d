"""Sessions in DynamoDB: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class DynamoDBSession(ServerSideSession):
    """A session in DynamoDB."""


class DynamoDBSessionInterface(UnavailableSessionInterface):
    kind = "dynamodb"
    session_class = DynamoDBSession
