"""Redis and Valkey, through redis-py and valkey-py."""

from __future__ import annotations

import time
from typing import Any

from tests.services.redis import (
    RedisClusterService,
    RedisSentinelService,
    RedisService,
    RedisTlsService,
    ValkeyService,
)

from .base import Row, Settings, Where


def limits(timeout: float, library: str = "redis") -> dict[str, Any]:
    """One attempt of so many seconds."""
    import importlib

    retry = importlib.import_module(f"{library}.retry").Retry
    backoff = importlib.import_module(f"{library}.backoff").NoBackoff
    seconds = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return {**seconds, "retry": retry(backoff(), 0)}


def client(url: str, timeout: float = 2, **options: Any) -> Any:
    import redis

    return redis.Redis.from_url(url, **limits(timeout) | options)


class RedisClientRow(Row):
    """Redis by a client object; `connect` makes it."""

    tick_ms = 1

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where["REDIS_URL"], cls.timeout)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "redis",
            "SESSION_REDIS": cls.connect(where),
            "SESSION_NATIVE": False,
        }

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        left: int = cls.connect(where).pttl(key)
        return time.time() + left / 1000


class RedisRow(RedisClientRow):
    """The client object on TCP."""

    name = "redis"
    service = RedisService
    predecessors = ("fs08", "fs2")
    legacy = """
import redis
config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(where["REDIS_URL"]))
"""


class RedisResp3Row(RedisClientRow):
    name = "redis-resp3"
    service = RedisService

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where["REDIS_URL"], cls.timeout, protocol=3)


class RedisUnixRow(RedisClientRow):
    """A URL instead of a client, to a unix socket."""

    name = "redis-unix-url"
    service = RedisService
    one_port = False

    @classmethod
    def settings(cls, where: Where) -> Settings:
        url = where["REDIS_UNIX_URL"]
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": url, "SESSION_NATIVE": False}


class RedisAclRow(RedisClientRow):
    """A user who may do what sessions need and nothing else, with a password."""

    name = "redis-acl"
    service = RedisService

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where["REDIS_ACL_URL"], cls.timeout)


class RedisTlsRow(RedisClientRow):
    """TLS with a client's certificate and a password, by a URL."""

    name = "redis-tls-url"
    service = RedisTlsService

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where["REDIS_TLS_URL"], cls.timeout)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        url = where["REDIS_TLS_URL"]
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": url, "SESSION_NATIVE": False}


class RedisSentinelRow(RedisClientRow):
    """The client that Sentinel.master_for gives."""

    name = "redis-sentinel"
    service = RedisSentinelService
    one_port = False

    @classmethod
    def connect(cls, where: Where) -> Any:
        from redis.sentinel import Sentinel

        places = [tuple(place.split(":")) for place in where["REDIS_SENTINELS"].split(",")]
        sentinel = Sentinel(places, sentinel_kwargs=limits(cls.timeout), **limits(cls.timeout))
        return sentinel.master_for(where["REDIS_SENTINEL_MASTER"])

    @classmethod
    def patience(cls) -> float:
        return 3 * cls.timeout  # the sentinels are asked one after the other


class RedisClusterRow(RedisClientRow):
    """redis.RedisCluster."""

    name = "redis-cluster"
    service = RedisClusterService
    one_port = False

    @classmethod
    def connect(cls, where: Where) -> Any:
        import redis

        return redis.RedisCluster.from_url(where["REDIS_CLUSTER_URL"], **limits(cls.timeout))

    @classmethod
    def patience(cls) -> float:
        return (1 + 6) * cls.timeout  # the node that has the key, then all for the slots


class ValkeyRow(RedisClientRow):
    """Valkey and its own client."""

    name = "redis-valkey"
    service = ValkeyService

    @classmethod
    def connect(cls, where: Where) -> Any:
        import valkey

        return valkey.Valkey.from_url(where["VALKEY_URL"], **limits(cls.timeout, "valkey"))


class ValkeyRedisPyRow(RedisClientRow):
    """Valkey through redis-py."""

    name = "redis-valkey-redis-py"
    service = ValkeyService

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where["VALKEY_URL"], cls.timeout)


class NativeRow(RedisClientRow):
    """The library's own driver."""

    variable = "REDIS_URL"

    @classmethod
    def connect(cls, where: Where) -> Any:
        return client(where[cls.variable], cls.timeout)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": where[cls.variable]}


class NativeTcpRow(NativeRow):
    """Beside the adapter: what the one writes the other reads."""

    name = "redis-native"
    service = RedisService
    raced = True
    predecessors = ("fs08", "fs2")
    legacy = RedisRow.legacy


class NativeUnixRow(NativeRow):
    name = "redis-native-unix"
    service = RedisService
    variable = "REDIS_UNIX_URL"
    one_port = False


class NativeAclRow(NativeRow):
    """The rights that sessions need are the same as for the adapter."""

    name = "redis-native-acl"
    service = RedisService
    variable = "REDIS_ACL_URL"


class NativeTlsRow(NativeRow):
    name = "redis-native-tls"
    service = RedisTlsService
    variable = "REDIS_TLS_URL"


class NativeSentinelRow(NativeRow):
    name = "redis-native-sentinel"
    service = RedisSentinelService
    variable = "REDIS_SENTINEL_URL"
    one_port = False

    @classmethod
    def connect(cls, where: Where) -> Any:
        return RedisSentinelRow.connect(where)


class NativeClusterRow(NativeRow):
    name = "redis-native-cluster"
    service = RedisClusterService
    variable = "REDIS_CLUSTER_STORE"
    one_port = False

    @classmethod
    def connect(cls, where: Where) -> Any:
        return RedisClusterRow.connect(where)


class NativeValkeyRow(NativeRow):
    name = "redis-native-valkey"
    service = ValkeyService
    variable = "VALKEY_URL"


class NativePromotedRow(NativeRow):
    """In the place of a plain client object."""

    name = "redis-native-promoted"
    service = RedisService

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": cls.connect(where)}


NATIVE_ROWS = (
    *(NativeTcpRow, NativeUnixRow, NativeAclRow, NativeTlsRow),
    *(NativeSentinelRow, NativeClusterRow, NativeValkeyRow, NativePromotedRow),
)
REDIS_ROWS = (
    *(RedisRow, RedisResp3Row, RedisUnixRow, RedisAclRow, RedisTlsRow),
    *(RedisSentinelRow, RedisClusterRow, ValkeyRow, ValkeyRedisPyRow),
    *NATIVE_ROWS,
)
