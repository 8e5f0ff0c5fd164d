"""Sessions in memcached, through a client object of the application's or ours."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from . import _core, clients, config
from . import memcached_clients as kinds
from .base import ServerSideSession, ServerSideSessionInterface

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_KEY_MAX = 250
_HASHED = "cession-sha256:"
_PLAIN = re.compile(rf"(?!{_HASHED})[!-~]+")
_RELATIVE_MAX = 30 * 86400  # seconds; above, memcached takes the number for a date
_DATE_MAX = 2**31 - 1
_TRIES = 100
_CONNECTIONS_MAX = 1000
_AT_ONCE = 0.25  # seconds


def _exptime(ttl_ms: int) -> int:
    # The server's clock ticks once a second at a moment that nobody knows: one second more, so
    # that a record never lives shorter than it should.
    seconds = -(-ttl_ms // 1000) + 1
    if seconds <= _RELATIVE_MAX:
        return seconds
    return min(-(-(clients.now_ms() + ttl_ms) // 1000), _DATE_MAX)


class _Connections:
    """The store's connections to memcached, as many as threads use at once."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._pool = clients.Pool(self._open, self._usable, _CONNECTIONS_MAX)
        self._failures = 0

    def _open(self) -> Any:
        before = self._failures
        connection = self._connect()
        connection.failures = before
        return connection

    def _usable(self, connection: Any) -> bool:
        # After a failure none that is older than it.
        return bool(connection.failures == self._failures)

    def run(self, command: Callable[[Any, bool], Any], timeout: float) -> Any:
        """command(connection, again). What fails at once, as a connection does that the server
        closed meanwhile, is done once more on a new connection with again=True: the first attempt
        may or may not have been carried out."""
        start = time.monotonic()
        try:
            return self._run(command, False, start + timeout)
        except _core.SessionStoreError:
            raise
        except Exception:
            if time.monotonic() - start > _AT_ONCE:
                raise
        return self._run(command, True, start + timeout)

    def _run(self, command: Callable[[Any, bool], Any], again: bool, deadline: float) -> Any:
        connection = self._pool.take(deadline)
        try:
            return command(connection, again)
        except _core.SessionStoreError:
            raise
        except BaseException:
            connection.failures = -1
            self._failures += 1
            raise
        finally:
            self._pool.give(connection)


class MemcachedStore:
    """The adapter (see contract.py): a value is a plain item. The version of a record is its cas
    value, so that a change is one command while nobody else wrote. memcached does not tell when
    an item expires, so the expiries that this process wrote are remembered.

    client: one that memcached_clients knows. timeout: seconds, where the client's cannot be read.
    """

    name = "memcached"
    capabilities = _core.CAP_ATOMIC | _core.CAP_NATIVE_TTL

    def __init__(self, client: Any, timeout: float = 2.0) -> None:
        self._connections = _Connections(kinds.opener(client, timeout))
        self._key_max = _KEY_MAX - kinds.prefix_length(client)
        self._expiries = clients.Expiries()

    def _name(self, key: str) -> str:
        if len(key) <= self._key_max and _PLAIN.fullmatch(key):
            return key
        return _HASHED + hashlib.sha256(key.encode()).hexdigest()

    def _write(self, value: bytes, command: Callable[[Any, bool], Any], timeout: float) -> Any:
        try:
            return self._connections.run(command, timeout)
        except kinds.TooLarge as error:
            raise _core.SessionStoreError(
                f"the session has {len(value):,} bytes, more than memcached stores: together with"
                " its key less than 1,048,576 bytes, unless the server's option -I says otherwise"
            ) from error

    def load(self, key: str, timeout: float) -> Stored | None:
        name = self._name(key)
        held = self._connections.run(lambda connection, again: connection.load(name), timeout)
        if held is None:
            self._expiries.forget(key)
            return None
        return held[0], b"%d" % held[1] if held[1] else b"", self._expiries.get(key)

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        name = self._name(key)

        def add(connection: Any, again: bool) -> bool:
            if connection.add(name, value, _exptime(ttl_ms)):
                return True
            # The first attempt may have succeeded before its connection was lost.
            held = connection.gets(name) if again else None
            return held is not None and held[0] == value

        done: bool = self._write(value, add, timeout)
        if done:
            self._expiries.remember(key, ttl_ms)
        return done

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        name = self._name(key)

        def attempt(connection: Any, again: bool) -> int | Stored:
            cas = int(version) if version else 0
            for _ in range(_TRIES):
                if cas and connection.cas(name, value, cas, _exptime(ttl_ms)):
                    return _core.OK
                held = connection.gets(name)
                if held is None:
                    return _core.GONE
                if again and held[0] == value:  # as in create
                    return _core.OK
                current, cas = held
                if current != expected:
                    return current, b"%d" % cas if cas else b"", None
            raise _core.SessionStoreError("the record was touched at every attempt to replace it")

        answer: int | Stored = self._write(value, attempt, timeout)
        if answer == _core.OK:
            self._expiries.remember(key, ttl_ms)
        return answer

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        # memcached's own touch acts on whatever value is there.
        answer = self.replace(key, expected, version, expected, ttl_ms, timeout)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        name = self._name(key)
        self._connections.run(lambda connection, again: connection.delete(name), timeout)
        self._expiries.forget(key)


def _own_client(url: str | None, timeout: float) -> Any:
    if url is None:
        return kinds.make(("127.0.0.1", 11211), timeout)
    parts = urlsplit(url)
    try:
        port = 11211 if parts.port is None else parts.port
    except ValueError:
        port = 0
    rest = (parts.username, parts.password, parts.query, parts.fragment)
    if parts.scheme == "memcached" and port and not any(rest):
        if parts.hostname and parts.path in ("", "/"):
            return kinds.make((parts.hostname, port), timeout)
        if not parts.netloc and len(parts.path) > 1:
            return kinds.make(unquote(parts.path), timeout)
    raise _core.SessionConfigError(
        "the memcached URL must be memcached://host:port, or memcached:///path of a unix socket"
    )


def _check_client(client: Any) -> Any:
    """The client, if it is one that can be used; no connection is made."""
    clients.check_methods("SESSION_MEMCACHED", kinds.ACCEPTED, client, "gets", "cas", "add")
    kind = kinds.kind_of(client)
    if kind is None:
        config.refuse("SESSION_MEMCACHED", kinds.ACCEPTED, client)
    clients.warn_if_slow(
        "SESSION_MEMCACHED", kind.seconds(client), 1, "set its timeout and connect_timeout"
    )
    return client


class MemcachedSession(ServerSideSession):
    """A session of the memcached store."""


class MemcachedSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in memcached.

    client: a client object of pylibmc, python-memcached, pymemcache or libmc, a
    ``memcached://`` URL, or a function without arguments that returns a client;
    None: 127.0.0.1:11211 with the first of these libraries that is installed. The
    store opens connections of its own with the settings of the client, whose timeouts it keeps
    (UserWarning when these are long). A client that is made here gets SESSION_STORE_TIMEOUT
    (2 seconds). No connection is made before the first session is needed.
    docs/backends/memcached.md. Further arguments as in ServerSideSessionInterface, which raises
    SessionConfigError for what is not accepted.
    """

    session_class = MemcachedSession

    def __init__(
        self, app: Flask | None = None, client: Any = None, *positional: Any, **common: Any
    ) -> None:
        timeout = config.read(app, "SESSION_STORE_TIMEOUT")
        if client is None or isinstance(client, str):
            self.client = _own_client(client, timeout)
        else:
            self.client = _check_client(clients.given(client))
        self._timeout = timeout
        super().__init__(app, *positional, **common)

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.wrap(MemcachedStore(self.client, self._timeout))
