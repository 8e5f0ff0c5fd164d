"""Sessions in Redis or Valkey, through a client object of the application's or ours."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import quote

from . import _core, clients, config, redis_native
from .base import ServerSideSession, ServerSideSessionInterface
from .legacy import COMMON, ORDER, bind, in_flask_session2_order
from .redis_urls import make_client

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_ACCEPTED = (
    "a synchronous Redis or Valkey client object (redis.Redis, redis.RedisCluster,"
    " Sentinel.master_for(...), valkey.Valkey), a redis:// or unix:// URL, or a function without"
    " arguments that returns such a client"
)
_METHODS = ("eval", "evalsha", "set", "delete")
_SCHEMES = tuple(f"{name}:" for name, kind in config.SCHEMES.items() if kind == "redis")

# Each script reads first. A key that holds another data type than a string is no
# session: it is loaded as an empty value, which is none either, and never written to.
_READ = """
local v = redis.pcall('GET', KEYS[1])
local foreign = type(v) == 'table'
if foreign then
  if not string.find(v.err, 'WRONGTYPE', 1, true) then return v end
  v = false
end
"""
_LOAD = (
    _READ
    + """
if foreign then return {'', -1} end
if v then return {v, redis.call('PTTL', KEYS[1])} end
return false
"""
)
_REPLACE = (
    _READ
    + """
if not v then return 0 end
if v ~= ARGV[1] then return {v, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)
_TOUCH = (
    _READ
    + """
if not v then return 0 end
if v ~= ARGV[1] then return 2 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)
_TOUCHED = {0: _core.GONE, 1: _core.OK, 2: _core.CHANGED}


class _Script:
    """A Lua script, called by its hash: one round trip once the server knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, key: str, *args: bytes | int) -> Any:
        try:
            return client.evalsha(self.sha, 1, key, *args)
        except Exception as error:
            # redis-py and valkey-py have each a class of this name; others show the code
            if type(error).__name__ != "NoScriptError" and "NOSCRIPT" not in str(error):
                raise
        return client.eval(self.text, 1, key, *args)


_load, _replace, _touch = _Script(_LOAD), _Script(_REPLACE), _Script(_TOUCH)


def _stored(answer: Any) -> Stored:
    value, left_ms = answer
    # A live key without an expiry has PTTL -1.
    return value, b"", -2 if left_ms < 0 else clients.now_ms() + left_ms


class RedisStore:
    """The adapter (see contract.py): a value is a plain string key with an expiry in
    milliseconds, which the predecessors read as well. Reads and writes are one command
    each on the primary. The client's own timeouts apply."""

    name = "redis"

    def __init__(self, client: Any, key_prefix: str = "") -> None:
        self._client = client
        # Bytes that SCAN would take for a pattern are matched as they are.
        self._match = re.sub(r"([*?\[\]\\^-])", r"\\\1", key_prefix) + "*"
        self.capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_NATIVE_TTL
        if client is None or hasattr(client, "scan"):
            self.capabilities |= _core.CAP_LISTABLE

    def load(self, key: str, timeout: float) -> Stored | None:
        answer = _load(self._client, key)
        return None if answer is None else _stored(answer)

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        return bool(self._client.set(key, value, nx=True, px=ttl_ms))

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        answer = _replace(self._client, key, expected, value, ttl_ms)
        if isinstance(answer, int):
            return _core.OK if answer else _core.GONE
        return _stored(answer)

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        return _TOUCHED[_touch(self._client, key, expected, ttl_ms)]

    def remove(self, key: str, timeout: float) -> None:
        self._client.delete(key)

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int]]]:
        following, keys = self.names(cursor, batch)
        rows: list[tuple[str, bytes, int]] = []
        for key in keys:
            stored = self.load(key, timeout)
            if stored is not None and stored[0]:
                rows.append((key, stored[0], stored[2] or -1))
        return following, rows

    def names(self, cursor: bytes, batch: int) -> tuple[bytes, list[str]]:
        """Some keys that begin with the prefix, and the next cursor, as in scan."""
        following, found = self._raw_names(cursor.decode(), batch)
        keys = []
        for raw in found:
            with contextlib.suppress(UnicodeDecodeError):
                keys.append(raw.decode())
        return following.encode(), keys

    def _raw_names(self, cursor: str, batch: int) -> tuple[str, list[bytes]]:
        """Some keys and the next cursor. A cluster is asked one primary after the other, in the
        order of their names: the cursor is "NAME CURSOR" there."""
        options: dict[str, Any] = {"match": self._match, "count": batch}
        if not hasattr(self._client, "get_primaries"):
            following, keys = self._client.scan(int(cursor or 0), **options)
            return str(following or ""), keys
        primaries = {node.name: node for node in self._client.get_primaries()}
        name, _, at = cursor.partition(" ")
        name, keys = name or min(primaries), []
        if name in primaries:
            node = primaries[name]
            answer, keys = self._client.scan(int(at or 0), target_nodes=node, **options)
            if answer[name]:
                return f"{name} {answer[name]}", keys
        return min((other for other in primaries if other > name), default=""), keys


class _LateRedisStore(RedisStore):
    """The same over a client that is made when it is first needed, if ever: beside a native store
    for the same place. It holds no interface, which holds its store."""

    def __init__(self, make: Callable[[], Any], key_prefix: str) -> None:
        super().__init__(None, key_prefix)
        self._make = make
        del self._client

    def __getattr__(self, name: str) -> Any:
        if name != "_client":
            raise AttributeError(name)
        self._client = self._make()
        return self._client


def _own_client(url: str | None, timeout: float) -> Any:
    redis = clients.require("redis", "redis")
    retry = clients.require("redis.retry", "redis").Retry
    backoff = clients.require("redis.backoff", "redis").NoBackoff
    limits = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry(backoff(), 0),
        # redis-py 8 gives up at 100 connections, which as many greenlets need.
        "max_connections": 2**31,
    }
    if url is None:
        return redis.Redis(host="127.0.0.1", port=6379, **limits)
    try:
        return make_client(redis, url, limits)
    except ValueError:
        # The original error may quote the URL, and with it the password.
        raise _core.SessionConfigError(
            "the Redis URL must be redis://, rediss://, unix://, redis+sentinel:// or"
            " redis+cluster://, then what redis-py accepts"
        ) from None


def _client_settings(client: Any) -> dict[str, Any]:
    """The connection parameters of a redis-py or valkey-py client; empty if it has others."""
    if hasattr(client, "get_connection_kwargs"):
        settings = client.get_connection_kwargs()
    else:
        settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    return settings if isinstance(settings, dict) else {}


def _check_client(client: Any, warn: bool) -> Any:
    """The client, if it is one that can be used; no connection is made. warn: say so once where it
    may hold requests up."""
    clients.check_methods("SESSION_REDIS", _ACCEPTED, client, *_METHODS)
    settings = _client_settings(client)
    if settings.get("decode_responses"):
        raise _core.SessionConfigError(
            "SESSION_REDIS has decode_responses=True, but sessions are bytes: give it a client"
            " of its own without decode_responses"
        )
    if settings and warn:
        retries = getattr(settings.get("retry"), "_retries", 0)
        retries = retries if isinstance(retries, int) else 0
        clients.warn_if_slow(
            "SESSION_REDIS",
            settings.get("socket_timeout"),
            None if retries < 0 else retries + 1,
            "set socket_timeout, socket_connect_timeout and retry on it",
        )
    return client


class RedisSession(ServerSideSession):
    """A session of the Redis store."""


class RedisSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in Redis or Valkey.

    client: a synchronous client object, a ``redis://`` or ``unix://`` URL, or a function
    without arguments that returns a client; None: 127.0.0.1:6379. A URL or None is served
    by the library's own driver, and so is a plain client object, with its parameters,
    unless the application's SESSION_NATIVE is False. Any other client is used as it is, with
    its own timeouts (UserWarning when these are long). No connection is made before the
    first session is needed.
    Further arguments as in ServerSideSessionInterface, which raises
    SessionConfigError for what is not accepted. Flask-Session2's arguments
    (redis, key_prefix, use_signer, permanent) are taken as well.
    """

    session_class = RedisSession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        client: Any = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self, redis: Any, key_prefix: str, use_signer: bool = ..., permanent: bool = ...
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "redis" in kwargs or in_flask_session2_order(args, _SCHEMES):
            bind(type(self), ("redis", *COMMON), args, kwargs)
            kwargs["client"] = kwargs.pop("redis")
        else:
            bind(type(self), (*ORDER, "cleanup_n_requests"), args, kwargs)
        app, client = kwargs.get("app"), kwargs.pop("client", None)
        self._native = redis_native.wanted(app)
        self._promoted: redis_native.Promoted | None = None
        self._late: _LateRedisStore | None = None
        self._timeout = config.read(app, "SESSION_STORE_TIMEOUT")
        if client is None or isinstance(client, str):
            self._url: str | None = client
            self._client = None if self._native else _own_client(client, self._timeout)
        else:
            client = clients.given(client)
            self._promoted = redis_native.promoted(client) if self._native else None
            self._client = _check_client(client, warn=self._promoted is None)
        super().__init__(**kwargs)

    @property
    def client(self) -> Any:
        """The client object; for a URL or nothing, one that is made when it is asked for and that
        only serves where the native driver does not."""
        if self._client is None:
            self._client = (
                _own_client(self._url, self._timeout) if self._late is None else self._late._client
            )
        return self._client

    def _open_store(self, key_prefix: str) -> _core.Store:
        if self._promoted is not None:
            options, holds = self._promoted
            adapter = RedisStore(self._client, key_prefix)
            options = {**options, "scan_prefix": key_prefix}
            return _core.Store.open_either("redis", options, adapter, holds)
        if self._client is None:
            try:
                return self._open_url(key_prefix)
            except ValueError as error:
                if importlib.util.find_spec("redis") is None:
                    raise _core.SessionConfigError(str(error)) from None
                # What the driver does not understand redis-py may.
                self._client = _own_client(self._url, self._timeout)
        return _core.Store.wrap(RedisStore(self._client, key_prefix))

    def _open_url(self, key_prefix: str) -> _core.Store:
        url = self._url or "redis://127.0.0.1:6379"
        url += f"{'&' if '?' in url else '?'}scan_prefix={quote(key_prefix, safe='')}"
        if importlib.util.find_spec("redis") is None:
            return _core.Store.open_url(url)
        make = functools.partial(_own_client, self._url, self._timeout)
        late = _LateRedisStore(make, key_prefix)
        store = _core.Store.open_either(url, None, late, redis_native.plain_sockets)
        self._late = late
        return store
