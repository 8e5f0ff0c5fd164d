"""Where Flask-Session2 keeps its sessions and session interfaces. A backend is imported when it is
first asked for: an application needs one of them, and all together cost its start."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .base import ServerSideSession
from .base import ServerSideSessionInterface as SessionInterface

if TYPE_CHECKING:
    from .datastore import GoogleCloudDataStoreSession, GoogleCloudDatastoreSessionInterface
    from .dynamodb import DynamoDBSession, DynamoDBSessionInterface
    from .elasticsearch import ElasticsearchSession, ElasticsearchSessionInterface
    from .filesystem import FileSystemSession, FileSystemSessionInterface
    from .firestore import GoogleFireStoreSession, GoogleFireStoreSessionInterface
    from .memcached import MemcachedSession, MemcachedSessionInterface
    from .mongodb import MongoDBSession, MongoDBSessionInterface
    from .null import NullSessionInterface
    from .peewee import PeeweeSession, PeeweeSessionInterface
    from .redis import RedisSession, RedisSessionInterface
    from .sqlalchemy import SqlAlchemySession, SqlAlchemySessionInterface

_MODULES = {
    "DynamoDBSession": "dynamodb",
    "DynamoDBSessionInterface": "dynamodb",
    "ElasticsearchSession": "elasticsearch",
    "ElasticsearchSessionInterface": "elasticsearch",
    "FileSystemSession": "filesystem",
    "FileSystemSessionInterface": "filesystem",
    "GoogleCloudDataStoreSession": "datastore",
    "GoogleCloudDatastoreSessionInterface": "datastore",
    "GoogleFireStoreSession": "firestore",
    "GoogleFireStoreSessionInterface": "firestore",
    "MemcachedSession": "memcached",
    "MemcachedSessionInterface": "memcached",
    "MongoDBSession": "mongodb",
    "MongoDBSessionInterface": "mongodb",
    "NullSessionInterface": "null",
    "PeeweeSession": "peewee",
    "PeeweeSessionInterface": "peewee",
    "RedisSession": "redis",
    "RedisSessionInterface": "redis",
    "SqlAlchemySession": "sqlalchemy",
    "SqlAlchemySessionInterface": "sqlalchemy",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __package__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "DynamoDBSession",
    "DynamoDBSessionInterface",
    "ElasticsearchSession",
    "ElasticsearchSessionInterface",
    "FileSystemSession",
    "FileSystemSessionInterface",
    "GoogleCloudDataStoreSession",
    "GoogleCloudDatastoreSessionInterface",
    "GoogleFireStoreSession",
    "GoogleFireStoreSessionInterface",
    "MemcachedSession",
    "MemcachedSessionInterface",
    "MongoDBSession",
    "MongoDBSessionInterface",
    "NullSessionInterface",
    "PeeweeSession",
    "PeeweeSessionInterface",
    "RedisSession",
    "RedisSessionInterface",
    "ServerSideSession",
    "SessionInterface",
    "SqlAlchemySession",
    "SqlAlchemySessionInterface",
]
