"""Sessions in MongoDB: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class MongoDBSession(ServerSideSession):
    """A session in MongoDB."""


class MongoDBSessionInterface(UnavailableSessionInterface):
    kind = "mongodb"
    session_class = MongoDBSession
