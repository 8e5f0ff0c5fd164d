"""Redis and Valkey, through redis-py."""

from __future__ import annotations

import time
from typing import Any

from tests.services.redis import RedisService

from .base import Row, Settings, Where


def client(url: str, timeout: float = 2, **options: Any) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    limits: dict[str, Any] = {"socket_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_url(url, **limits | options)


class RedisRow(Row):
    """The client object on TCP."""

    name = "redis"
    service = RedisService
    tick_ms = 1
    predecessors = ("fs08", "fs2")
    legacy = """
import redis
config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(where["REDIS_URL"]))
"""

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": client(where["REDIS_URL"], cls.timeout)}

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        left: int = client(where["REDIS_URL"]).pttl(key)
        return time.time() + left / 1000


class RedisResp3Row(RedisRow):
    name = "redis-resp3"

    @classmethod
    def settings(cls, where: Where) -> Settings:
        made = client(where["REDIS_URL"], cls.timeout, protocol=3)
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": made}


class RedisUnixRow(RedisRow):
    """A URL instead of a client, to a unix socket."""

    name = "redis-unix-url"
    one_port = False

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": where["REDIS_UNIX_URL"]}
