"""Sessions in a cache of cachelib."""

from __future__ import annotations

import pickle
import struct
import warnings
from typing import TYPE_CHECKING, Any

from . import _core, clients
from .base import ServerSideSession, ServerSideSessionInterface
from .legacy import DictStore
from .redis import RedisStore

if TYPE_CHECKING:
    from flask import Flask

_ACCEPTED = (
    "a cachelib cache (FileSystemCache, RedisCache, ...) or a function without arguments that"
    " returns one"
)
_METHODS = ("get", "set", "add", "delete")
#: What loading a damaged pickle may raise, whatever the cache.
_DAMAGE = (
    *(pickle.PickleError, struct.error, EOFError, LookupError, ArithmeticError),
    *(AttributeError, ImportError, TypeError, ValueError),
)


class CacheLibStore(DictStore):
    """The adapter (see contract.py): a value is the session's dict, which the cache pickles.

    A cache has no compare-and-set, so this store is not CAP_ATOMIC; it cannot tell
    when an entry expires either, so the expiries that this process wrote are remembered.
    Of the caches only those in Redis can be listed: the others do not keep the keys, or are
    gone with their process.
    """

    name = "cachelib"

    def __init__(self, interface: CacheLibSessionInterface, key_prefix: str = "") -> None:
        super().__init__(interface)
        self._cache = interface.cache
        self._expiries = clients.Expiries()
        self.capabilities = _core.CAP_NATIVE_TTL
        self._redis: Any = getattr(self._cache, "_read_client", None)
        if hasattr(self._redis, "pttl") and hasattr(self._cache, "_get_prefix"):
            self._cache_prefix: str = self._cache._get_prefix()
            self._names = RedisStore(self._redis, self._cache_prefix + key_prefix).names
            self.capabilities |= _core.CAP_LISTABLE

    def _get(self, key: str) -> Any:
        try:
            return self._cache.get(key)
        except _DAMAGE:
            return False

    def _expiry(self, key: str) -> int | None:
        return self._expiries.get(key)

    def _remember(self, key: str, done: object, ttl_ms: int) -> None:
        if done is False:
            raise OSError("the cache did not store the session")
        self._expiries.remember(key, ttl_ms)

    def _set(self, key: str, data: dict[str, Any], ttl_ms: int) -> None:
        self._remember(
            key, self._cache.set(key, data, timeout=clients.whole_seconds(ttl_ms)), ttl_ms
        )

    def _add(self, key: str, data: dict[str, Any], ttl_ms: int) -> bool:
        if self._cache.add(key, data, timeout=clients.whole_seconds(ttl_ms)) is not False:
            self._remember(key, True, ttl_ms)
            return True
        # False is also said of an entry that has expired, or when nothing could be written.
        return super()._add(key, data, ttl_ms)

    def _delete(self, key: str) -> None:
        self._expiries.forget(key)
        if self._cache.delete(key) is False and self._get(key) is not None:
            raise OSError("the cache did not delete the session")

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        following, names = self._names(cursor, batch)
        rows: list[tuple[str, bytes, int | None]] = []
        for name in names:
            key = name[len(self._cache_prefix) :]
            value, left_ms = self._read(key), self._redis.pttl(name)
            if value and left_ms != -2:  # which has gone meanwhile
                rows.append((key, value, -2 if left_ms < 0 else clients.now_ms() + left_ms))
        return following, rows


def _own_cache() -> Any:
    file_system_cache = clients.require("cachelib.file", "cachelib").FileSystemCache
    return file_system_cache("flask_session")


def _check_cache(cache: Any) -> Any:
    if isinstance(cache, tuple | list) and len(cache) == 1:
        warnings.warn(
            "SESSION_CACHELIB is a tuple of one cache (a comma at the end of its line?);"
            " that cache is used",
            UserWarning,
            stacklevel=2,
        )
        [cache] = cache
    cache = clients.given(cache)
    clients.check_methods("SESSION_CACHELIB", _ACCEPTED, cache, *_METHODS)
    warnings.warn(
        "cachelib loads what it stored with pickle, which runs code: whoever can write to the"
        ' cache owns this process. SESSION_TYPE = "filesystem" keeps sessions in files without'
        " that risk",
        UserWarning,
        stacklevel=2,
    )
    return cache


class CacheLibSession(ServerSideSession):
    """A session of a cachelib cache."""


class CacheLibSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in any cachelib cache, as dicts.

    client: the cache, or a function that returns one; None: ``FileSystemCache("flask_session")``.
    Two requests that change one session at the same moment: the later one may win
    with all its keys. docs/backends/cachelib.md. Further arguments as in
    ServerSideSessionInterface.
    """

    session_class = CacheLibSession

    def __init__(
        self, app: Flask | None = None, client: Any = None, *positional: Any, **common: Any
    ) -> None:
        self.client = self.cache = _check_cache(_own_cache() if client is None else client)
        super().__init__(app, *positional, **common)

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.wrap(CacheLibStore(self, key_prefix))
