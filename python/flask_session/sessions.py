"""Where Flask-Session2 keeps its sessions and session interfaces."""

from __future__ import annotations

from .base import ServerSideSession
from .base import ServerSideSessionInterface as SessionInterface
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
