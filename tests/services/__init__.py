"""Servers and virtualenvs that the tests need, booted on this machine and nowhere else.

    python -m tests.services start redis      start what is not up; prints the URLs as shell exports
    python -m tests.services status
    python -m tests.services stop [NAME...]
    python -m tests.services run NAME,... COMMAND ...      servers for one command
    python -m tests.services venv NAME                     the Python of a pinned virtualenv

Everything listens on 127.0.0.1 or a unix socket, on ports that were free. A server that cannot be
had here raises `Unavailable` with the reason, which the tests report as NOT RUN.

To add a server: a module with one `Service` subclass (see redis.py), and its line in SERVICES.
"""

from __future__ import annotations

from .base import Service, Services, Unavailable
from .chromium import ChromiumService
from .dynamodb import DynamoDBService, MotoService
from .elasticsearch import Elasticsearch8Service, ElasticsearchService, OpenSearchService
from .google import DatastoreService, FirestoreInDatastoreModeService, FirestoreService
from .mariadb import MariadbService
from .memcached import MemcachedService, MemcachedTlsService
from .mongodb import FerretDBService, MongoDBService
from .postgres import PostgresService
from .redis import (
    RedisClusterService,
    RedisSentinelService,
    RedisService,
    RedisTlsService,
    ValkeyService,
)

SERVICES: dict[str, type[Service]] = {
    service.name: service
    for service in (
        RedisService,
        RedisTlsService,
        RedisSentinelService,
        RedisClusterService,
        ValkeyService,
        PostgresService,
        MariadbService,
        MongoDBService,
        FerretDBService,
        ElasticsearchService,
        Elasticsearch8Service,
        OpenSearchService,
        DatastoreService,
        FirestoreInDatastoreModeService,
        FirestoreService,
        DynamoDBService,
        MotoService,
        ChromiumService,
        MemcachedService,
        MemcachedTlsService,
    )
}

__all__ = [
    "SERVICES",
    "ChromiumService",
    "DatastoreService",
    "DynamoDBService",
    "Elasticsearch8Service",
    "ElasticsearchService",
    "FerretDBService",
    "FirestoreInDatastoreModeService",
    "FirestoreService",
    "MariadbService",
    "MemcachedService",
    "MemcachedTlsService",
    "MongoDBService",
    "MotoService",
    "OpenSearchService",
    "PostgresService",
    "RedisClusterService",
    "RedisSentinelService",
    "RedisService",
    "RedisTlsService",
    "Service",
    "Services",
    "Unavailable",
    "ValkeyService",
]
