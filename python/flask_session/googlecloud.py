"""What the stores of Google Cloud share: a client for each process, and compare-and-set by the
version that the server gives every record."""

from __future__ import annotations

import os
import re
import struct
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from . import _core, clients, config

if TYPE_CHECKING:
    from .contract import Stored

# A record has 1 MiB, in which its name, and the names of its fields, have a part.
_VALUE_MAX = 1024 * 1024 - 8192
_BATCH = 400  # deletions in one request
_VERSION = struct.Struct(">qq")  # the server's version, when the record expires


class Library(ABC):
    """A client library of Google Cloud, as far as its clients are made and taken apart here."""

    def __init__(self, extra: str) -> None:
        self.extra = extra

    def require(self, module: str) -> Any:
        return clients.require(module, self.extra, package=f"google-cloud-{self.extra}")

    @property
    @abstractmethod
    def client_class(self) -> type[Any]:
        """Of the client objects that are accepted."""

    @abstractmethod
    def connect(self, client: Any, timeout: float) -> None:
        """Let a client speak over a channel of its own. timeout: see channel."""

    @abstractmethod
    def connected(self, client: Any) -> bool:
        """Whether it has used gRPC already. client: None for none."""

    def expects_forks(self) -> bool:
        """As GRPC_ENABLE_FORK_SUPPORT was when gRPC was imported."""
        core = self.require("grpc._cython.cygrpc")
        return bool(getattr(core, "_GRPC_ENABLE_FORK_SUPPORT", False))

    def channel(self, transport: Any, target: str, credentials: Any, timeout: float) -> Any:
        """A transport of the library over a new channel. credentials: None for a server without
        TLS. timeout: seconds that a connection may take."""
        options = [
            # By default gRPC waits for up to two minutes when a server was away for long.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.min_reconnect_backoff_ms", max(1, int(timeout * 1000))),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        if credentials is None:
            channel = self.require("grpc").insecure_channel(target, options=options)
        else:
            channel = transport.create_channel(target, credentials=credentials, options=options)
        return transport(host=target, channel=channel)

    def check(self, key: str, client: Any) -> Any:
        """The client that was given, None for none; no connection is made."""
        if client is not None:
            client = clients.given(client)
            if not isinstance(client, self.client_class):
                name = f"google.cloud.{self.extra}.Client"
                accepted = f"a synchronous {name} or a function without arguments that returns one"
                config.refuse(key, accepted, client)
        return client


class Clients:
    """A client for each process: a copy of what was given, or else of what `make` gives, with the
    same settings and credentials and a channel of its own.

    gRPC does not survive a fork. A child whose parent has not used it starts afresh; one whose
    parent has would hang at its first call, so it gets an error, unless gRPC was told to expect
    forks.
    """

    _all: ClassVar[weakref.WeakSet[Clients]] = weakref.WeakSet()

    def __init__(
        self, library: Library, given: Any, make: Callable[[], Any], timeout: float
    ) -> None:
        self.given = given
        self._library, self._make, self._timeout = library, make, timeout
        self._own = clients.PerProcess(self._connect)
        self._forked: int | None = None
        self._all.add(self)

    def get(self) -> Any:
        if self._forked not in (None, os.getpid()) and not self._library.expects_forks():
            raise _core.SessionStoreError(
                "this process was forked from one that had used a client of Google Cloud, whose"
                " gRPC does not survive that: set GRPC_ENABLE_FORK_SUPPORT=1 in the environment,"
                " or do not use the client before the fork (gunicorn --preload)"
            )
        return self._own.get()

    @property
    def shown(self) -> Any:
        """The application's own, or that of this process."""
        return self.get() if self.given is None else self.given

    def _connect(self) -> Any:
        original = self._make() if self.given is None else self.given
        copy = object.__new__(type(original))
        vars(copy).update(vars(original))
        self._library.connect(copy, self._timeout)
        return copy

    @classmethod
    def before_fork(cls) -> None:
        for one in list(cls._all):
            if one._own.made() is not None or one._library.connected(one.given):
                one._forked = os.getpid()


os.register_at_fork(before=Clients.before_fork)


class Record(NamedTuple):
    """As the server holds it."""

    version: int
    #: Empty: no session.
    value: bytes
    #: Unix milliseconds; -2: never.
    expires: int

    def live(self) -> bool:
        return self.expires < 0 or self.expires > clients.now_ms()

    def stored(self) -> Stored:
        if not self.value:
            return b"", b"", None
        return self.value, _VERSION.pack(self.version, self.expires), self.expires


def record(version: int, value: Any, expires: Any) -> Record:
    """Of what a value and an expiry field hold, the latter None when the record never expires."""
    if type(value) is not bytes or not isinstance(expires, datetime | None):
        return Record(version, b"", -2)
    return Record(version, value, -2 if expires is None else max(0, clients.from_utc(expires)))


def moment(unix_ms: int) -> datetime:
    """A date with UTC as its time zone."""
    return clients.to_utc(unix_ms).replace(tzinfo=timezone.utc)


class VersionedStore(ABC):
    """An adapter (see contract.py) whose records have versions. What another request does in
    between is met by reading again, until the deadline.

    client: gives the client of this process.
    """

    name: str
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE
    _title: ClassVar[str]
    #: Keys that the server does not take, and how an error says so.
    _refused: ClassVar[re.Pattern[str]]
    _refusal: ClassVar[str]

    def __init__(self, client: Callable[[], Any], key_prefix: str = "") -> None:
        self._client, self._prefix = client, key_prefix
        self._errors = clients.require("google.api_core.exceptions", self.name)
        retry = clients.require("google.api_core.retry", self.name).Retry
        # None would let the libraries repeat as they like, or fail where they expect one.
        self._once = {"retry": retry(predicate=lambda error: False)}

    @abstractmethod
    def _read(self, key: str, timeout: float) -> Record | None:
        """What the server holds, expired or not; strongly consistent."""

    @abstractmethod
    def _insert(self, key: str, value: bytes, expires: int, timeout: float) -> bool:
        """False when there is a record, or another request was in the way."""

    @abstractmethod
    def _write(self, key: str, version: int, value: bytes, expires: int, timeout: float) -> bool:
        """Where the record has this version; False when not, or another request was in the way."""

    @abstractmethod
    def _remove(self, key: str, timeout: float) -> bool:
        """Whatever the record is; False when another request was in the way."""

    @abstractmethod
    def _expired(self, limit: int, timeout: float) -> list[tuple[str, int]]:
        """Keys and versions of expired records."""

    @abstractmethod
    def _delete(self, records: list[tuple[str, int]], timeout: float) -> bool:
        """Those that have these versions; False when one has not."""

    def _fits(self, key: str) -> bool:
        # Bytes are limited by the contract: 1,024 of the 1,500 that the servers take.
        return bool(key) and not self._refused.search(key)

    def _check(self, key: str, value: bytes) -> None:
        if not self._fits(key):
            raise ValueError(f"the key of a session (prefix and id) {self._refusal}")
        if len(value) > _VALUE_MAX:
            raise _core.SessionStoreError(
                f"a session in {self._title} can have {_VALUE_MAX} bytes, as a record has 1 MiB;"
                f" this one has {len(value)}"
            )

    def load(self, key: str, timeout: float) -> Stored | None:
        held = self._read(key, timeout) if self._fits(key) else None
        return held.stored() if held is not None and held.live() else None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        self._check(key, value)
        end, expires = time.monotonic() + timeout, clients.now_ms() + ttl_ms
        while not self._insert(key, value, expires, end - time.monotonic()):
            held = self._read(key, end - time.monotonic())
            if held is None:
                continue
            if held.live():
                return False
            if self._write(key, held.version, value, expires, end - time.monotonic()):
                break
        return True

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        if not self._fits(key):
            return _core.GONE
        if value != expected:  # what a predecessor could store can be touched
            self._check(key, value)
        end, expires = time.monotonic() + timeout, clients.now_ms() + ttl_ms
        held: Record | None = None
        if len(version) == _VERSION.size:
            number, until = _VERSION.unpack(version)
            held = Record(number, expected, until)
        while True:
            # One that was known and has expired may have been renewed meanwhile.
            if held is None or not held.live():
                held = self._read(key, end - time.monotonic())
                if held is None or not held.live() or not held.value:
                    return _core.GONE
                if held.value != expected:
                    return held.stored()
            if self._write(key, held.version, value, expires, end - time.monotonic()):
                return _core.OK
            held = None

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        answer = self.replace(key, expected, version, expected, ttl_ms, timeout)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self._fits(key) and not self._remove(key, end - time.monotonic()):
            pass

    def purge(self, limit: int, timeout: float) -> int:
        found = self._expired(limit, timeout)
        batches = (found[start : start + _BATCH] for start in range(0, len(found), _BATCH))
        return sum(self._delete_expired(batch, timeout) for batch in batches)

    def _delete_expired(self, records: list[tuple[str, int]], timeout: float) -> int:
        """How many were deleted. One that was renewed meanwhile fails its whole batch."""
        if self._delete(records, timeout):
            return len(records)
        if len(records) == 1:
            return 0
        half = len(records) // 2
        parts = (records[:half], records[half:])
        return sum(self._delete_expired(part, timeout) for part in parts)
