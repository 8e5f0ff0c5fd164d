"""memcached, through each client library."""

from __future__ import annotations

import re
import ssl
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.services.memcached import MemcachedService, MemcachedTlsService, ask

from .base import Row, Settings, Where


class MemcachedRow(Row):
    """What the rows have in common: a subclass makes the client in `client`."""

    service = MemcachedService
    tick_ms = 1000
    max_value = 1024 * 1024
    predecessors = ("fs08", "fs2")
    library = ""
    """Python code that makes the client from `where` and `address`, HOST:PORT."""

    def __init_subclass__(cls) -> None:
        cls.legacy = (
            'address = where["MEMCACHED_URL"].partition("//")[2]\n'
            f"{cls.library}\n"
            'config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client)\n'
        )

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "memcached", "SESSION_MEMCACHED": cls.client(where)}

    @classmethod
    def client(cls, where: Where) -> Any:
        raise NotImplementedError

    @classmethod
    def address(cls, where: Where) -> tuple[str, int]:
        parts = urlsplit(where["MEMCACHED_URL"])
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    @classmethod
    def spec(cls, where: Where) -> str:
        return "{}:{}".format(*cls.address(where))

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        # Ticks of the server's clock until the end: between t - 1 and t seconds.
        found = re.match(r"HD t(\d+)", ask(cls.address(where)[1], f"mg {key} t"))
        return time.time() + int(found.group(1)) - 1 if found else None

    @classmethod
    def dump(cls, where: Where) -> str:
        return ask(cls.address(where)[1], "lru_crawler metadump all", b"END\r\n")

    @classmethod
    def keys(cls, where: Where, prefix: str) -> list[str]:
        names = [unquote(name) for name in re.findall(r"^key=(\S+)", cls.dump(where), re.MULTILINE)]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


class PymemcacheRow(MemcachedRow):
    """pymemcache's Client."""

    name = "memcached-pymemcache"
    raced = True
    library = "import pymemcache\nclient = pymemcache.Client(address)"

    @classmethod
    def client(cls, where: Where) -> Any:
        import pymemcache

        limits: dict[str, Any] = {"timeout": cls.timeout, "connect_timeout": cls.timeout}
        return pymemcache.Client(cls.address(where), **limits)


class PymemcachePooledRow(MemcachedRow):
    name = "memcached-pymemcache-pooled"
    library = "import pymemcache\nclient = pymemcache.PooledClient(address)"

    @classmethod
    def client(cls, where: Where) -> Any:
        import pymemcache

        limits: dict[str, Any] = {"timeout": cls.timeout, "connect_timeout": cls.timeout}
        return pymemcache.PooledClient(cls.address(where), **limits)


class PymemcacheHashRow(MemcachedRow):
    name = "memcached-pymemcache-hash"
    library = "import pymemcache\nclient = pymemcache.HashClient([address])"

    @classmethod
    def client(cls, where: Where) -> Any:
        import pymemcache

        limits: dict[str, Any] = {"timeout": cls.timeout, "connect_timeout": cls.timeout}
        return pymemcache.HashClient([cls.address(where)], **limits)


class PylibmcRow(MemcachedRow):
    name = "memcached-pylibmc"
    round_trips = {"not_found": 1}  # noqa: RUF012
    library = "import pylibmc\nclient = pylibmc.Client([address])"

    @classmethod
    def client(cls, where: Where) -> Any:
        import pylibmc

        ms = round(cls.timeout * 1000)
        limits = {"_poll_timeout": ms, "connect_timeout": ms}
        return pylibmc.Client([cls.spec(where)], behaviors=limits)


class PythonMemcachedRow(MemcachedRow):
    name = "memcached-python-memcached"
    library = "import memcache\nclient = memcache.Client([address])"

    @classmethod
    def client(cls, where: Where) -> Any:
        import memcache

        return memcache.Client([cls.spec(where)], socket_timeout=cls.timeout)


class LibmcRow(MemcachedRow):
    """libmc; its timeouts cannot be read from the client, so they are SESSION_STORE_TIMEOUT."""

    name = "memcached-libmc"
    round_trips = {"replace": 3, "touch": 3}  # noqa: RUF012
    library = "import libmc\nclient = libmc.Client([address])"

    @classmethod
    def client(cls, where: Where) -> Any:
        import libmc

        return libmc.Client([cls.spec(where)])


class MemcachedUnixRow(MemcachedRow):
    """A URL instead of a client, to a unix socket."""

    name = "memcached-unix-url"
    one_port = False
    raced = None
    predecessors = ()

    @classmethod
    def client(cls, where: Where) -> Any:
        return where["MEMCACHED_UNIX_URL"]

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        return None


class MemcachedTlsRow(MemcachedRow):
    """pymemcache, which is the only library with TLS."""

    name = "memcached-tls"
    service = MemcachedTlsService
    one_port = False
    raced = None
    predecessors = ()

    @classmethod
    def client(cls, where: Where) -> Any:
        import pymemcache

        context = ssl.create_default_context(cafile=where["MEMCACHED_TLS_CA"])
        address = urlsplit(where["MEMCACHED_TLS_URL"])
        return pymemcache.PooledClient(
            (address.hostname, address.port),
            tls_context=context, timeout=cls.timeout, connect_timeout=cls.timeout,
        )  # fmt: skip

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        return None


MEMCACHED_ROWS: tuple[type[Row], ...] = (
    *(PymemcacheRow, PymemcachePooledRow, PymemcacheHashRow),
    *(PylibmcRow, PythonMemcachedRow, LibmcRow, MemcachedUnixRow, MemcachedTlsRow),
)
