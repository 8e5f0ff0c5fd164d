"""MongoDB, through PyMongo."""

from __future__ import annotations

from datetime import timezone
from typing import Any

from tests.services.mongodb import MongoDBService

from .base import Row, Settings, Where


def client(url: str, timeout: float = 2, **options: Any) -> Any:
    from pymongo import MongoClient

    return MongoClient(url, connect=False, timeoutMS=int(timeout * 1000), **options)


class MongoDBRow(Row):
    """The client object, which is what the predecessors take."""

    name = "mongodb"
    service = MongoDBService
    tick_ms = 1
    raced = True
    predecessors = ("fs08", "fs2")
    legacy = """
import pymongo
config.update(SESSION_TYPE="mongodb", SESSION_MONGODB=pymongo.MongoClient(where["MONGODB_URL"]))
"""

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "mongodb",
            "SESSION_MONGODB": client(where["MONGODB_URL"], cls.timeout),
        }

    def through(self, port: int) -> Where:
        """The client asks a server how it is, every ten seconds; what is counted at a proxy are the
        operations."""
        where = super().through(port)
        url = where["MONGODB_URL"]
        mark = "&" if "?" in url else "/?"
        where["MONGODB_URL"] = f"{url.rstrip('/')}{mark}heartbeatFrequencyMS=3600000"
        return where

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        with client(where["MONGODB_URL"], tz_aware=True, tzinfo=timezone.utc) as own:
            expiration = own.flask_session.sessions.find_one({"id": key})["expiration"]
            seconds: float = expiration.timestamp()
            return seconds


class MongoDBUrlRow(MongoDBRow):
    """A URL; the client is made by the package."""

    name = "mongodb-url"

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "mongodb", "SESSION_MONGODB": where["MONGODB_URL"]}
