"""Adapters over methods of an interface that an application overrides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .base import ServerSideSessionInterface
    from .contract import Stored


class LegacyStore:
    """A store whose operations are ``_retrieve_session_data``, ``_upsert_session`` and
    ``_delete_session``. These cannot compare and set: replace and touch look first and
    write then, so another request's write in between is lost. Not CAP_ATOMIC."""

    name = "custom"
    capabilities = 0

    def __init__(self, interface: ServerSideSessionInterface) -> None:
        self._interface = interface

    def _read(self, sid: str) -> bytes | None:
        data = self._interface._retrieve_session_data(self._interface._get_store_id(sid))
        return None if data is None else _core.encode(data)

    def _write(self, sid: str, value: bytes, ttl_ms: int) -> None:
        interface, data = self._interface, _core.decode(value)
        store_id = interface._get_store_id(sid)
        if data:
            session = interface.session_class(data, sid=sid)
            interface._upsert_session(timedelta(milliseconds=ttl_ms), session, store_id)
        else:  # a tombstone: the three methods have no room for it
            interface._delete_session(store_id)

    def load(self, key: str, timeout: float) -> Stored | None:
        value = self._read(key)
        return None if value is None else (value, b"", None)

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        if self._read(key) is not None:
            return False
        self._write(key, value, ttl_ms)
        return True

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        current = self._read(key)
        if current is None:
            return _core.GONE
        if current != expected:
            return current, b"", None
        self._write(key, value, ttl_ms)
        return _core.OK

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        current = self._read(key)
        if current is None:
            return _core.GONE
        if current != expected:
            return _core.CHANGED
        self._write(key, current, ttl_ms)
        return _core.OK

    def remove(self, key: str, timeout: float) -> None:
        self._interface._delete_session(self._interface._get_store_id(key))


class KeyedStore:
    """A store under keys of the application's own making (an overridden
    ``_get_store_id``); what it can, it can as before, except list its records."""

    def __init__(self, store: _core.Store, key: Callable[[str], str]) -> None:
        self.name = store.name
        self.capabilities = store.capabilities & (
            _core.CAP_ATOMIC | _core.CAP_NATIVE_TTL | _core.CAP_GIVES_EXPIRY
        )
        self._store, self._key = store, key

    def load(self, key: str, timeout: float) -> Stored | None:
        return self._store.load(self._key(key), timeout=timeout)

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        return self._store.create(self._key(key), value, ttl_ms, timeout=timeout)

    def replace(self, key: str, *args: Any) -> int | Stored:
        expected, version, value, ttl_ms, timeout = args
        return self._store.replace(
            self._key(key), expected, version, value, ttl_ms, timeout=timeout
        )

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        return self._store.touch(self._key(key), expected, version, ttl_ms, timeout=timeout)

    def remove(self, key: str, timeout: float) -> None:
        self._store.remove(self._key(key), timeout=timeout)

    def purge(self, limit: int, timeout: float) -> int:
        return self._store.purge(limit, timeout=timeout)
