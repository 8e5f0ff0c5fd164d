"""What applications wrote for the predecessors: methods of an interface that they override,
and positional arguments in another order."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import flask

from . import _core

if TYPE_CHECKING:
    from .base import ServerSideSessionInterface
    from .contract import Stored


#: Arguments that every interface has, and the order of Flask-Session's positional ones, which a
#: backend's own follow.
COMMON = ("key_prefix", "use_signer", "permanent")
ORDER = ("app", "client", *COMMON, "sid_length", "serialization_format")


def bind(cls: type, names: Sequence[str], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Put positional arguments into kwargs under these names."""
    if len(args) > len(names):
        raise TypeError(f"{cls.__name__}() takes at most {len(names)} positional arguments")
    for name, value in zip(names, args):  # noqa: B905
        if name in kwargs:
            raise TypeError(f"{cls.__name__}() got two values for {name}")
        kwargs[name] = value


def in_flask_session2_order(args: Sequence[Any], schemes: tuple[str, ...]) -> bool:
    """Whether these positional arguments are (client, text, ...) and not (app, client, ...). A
    text in second place that begins with one of the schemes is the URL of a client."""
    if args and args[0] is not None:
        return not isinstance(args[0], flask.Flask)
    second = args[1] if args[1:] else None
    return isinstance(second, str) and not second.startswith(schemes)


class DictStore(ABC):
    """A store of dicts that cannot compare and set: replace and touch look first and write
    then, so another request's write in between is lost. Never CAP_ATOMIC."""

    name = "custom"
    capabilities = 0

    def __init__(self, interface: ServerSideSessionInterface) -> None:
        # The interface owns the store; the other way round nobody would free them.
        self._interface: ServerSideSessionInterface = weakref.proxy(interface)

    @abstractmethod
    def _get(self, key: str) -> Any:
        """The dict at this key; None when there is none. Anything else is no session."""

    @abstractmethod
    def _set(self, key: str, data: dict[str, Any], ttl_ms: int) -> None:
        """Store the dict."""

    @abstractmethod
    def _delete(self, key: str) -> None:
        """Delete what is there, if anything is."""

    def _add(self, key: str, data: dict[str, Any], ttl_ms: int) -> bool:
        """Store the dict, if nothing is there."""
        if self._get(key) is not None:
            return False
        self._set(key, data, ttl_ms)
        return True

    def _expiry(self, key: str) -> int | None:
        return None

    def _read(self, key: str) -> bytes | None:
        data = self._get(key)
        if data is None:
            return None
        try:
            return self._interface._encode(data)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return b""  # no session

    def load(self, key: str, timeout: float) -> Stored | None:
        value = self._read(key)
        return None if value is None else (value, b"", self._expiry(key))

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        return self._add(key, self._interface._decode(value), ttl_ms)

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        current = self._read(key)
        if current is None:
            return _core.GONE
        if current != expected:
            return current, b"", self._expiry(key)
        data = self._interface._decode(value)
        if data:
            self._set(key, data, ttl_ms)
        else:  # a tombstone: a dict has no room for it
            self._delete(key)
        return _core.OK

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        answer = self.replace(key, expected, version, expected, ttl_ms, timeout)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        self._delete(key)


class LegacyStore(DictStore):
    """A store whose operations are ``_retrieve_session_data``, ``_upsert_session`` and
    ``_delete_session``."""

    def _get(self, key: str) -> Any:
        return self._interface._retrieve_session_data(self._interface._get_store_id(key))

    def _set(self, key: str, data: dict[str, Any], ttl_ms: int) -> None:
        interface = self._interface
        session = interface.session_class(data, sid=key)
        lifetime = timedelta(milliseconds=ttl_ms)
        interface._upsert_session(lifetime, session, interface._get_store_id(key))

    def _delete(self, key: str) -> None:
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
