"""What adapters over client objects have in common: getting hold of a client and judging it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import select
import socket
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, NoReturn, TypeVar

from . import _core, config

T = TypeVar("T")

#: Without it MySQL may cut a value that is too long for its column short, in silence.
MYSQL_STRICT = "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"

_SLOW_SECONDS = 10.0
_REMEMBERED_MAX = 10_000


def require(module: str, extra: str, kind: str | None = None, *, package: str | None = None) -> Any:
    """The imported module; SessionConfigError that names the extra when it is missing. kind: the
    SESSION_TYPE where that is not the extra's name. package: the distribution, where that is not
    called like the module."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module.partition(".")[0]
        raise _core.SessionConfigError(
            f'SESSION_TYPE = "{kind or extra}" needs the Python package {package}:'
            f" pip install 'cession[{extra}]'"
        ) from error


def given(client: Any) -> Any:
    """The client; a function without arguments, or a class, is called for it."""
    return client() if inspect.isroutine(client) or isinstance(client, type) else client


def check_methods(key: str, accepted: str, client: Any, *names: str) -> None:
    """Refuse a client that has not all these methods, or whose methods are coroutines."""
    asynchronous = "asyncio" in type(client).__module__.split(".") or any(
        inspect.iscoroutinefunction(getattr(client, name, None)) for name in names
    )
    if asynchronous:
        raise _core.SessionConfigError(f"{key} is an asyncio client, but it must be {accepted}")
    if not all(callable(getattr(client, name, None)) for name in names):
        config.refuse(key, accepted, client)


def warn_if_slow(key: str, timeout: float | None, tries: int | None, advice: str) -> None:
    """A client keeps its own timeouts; say so once if a dead server would hold requests up.

    timeout: seconds of one attempt, None for no limit. tries: attempts, None for endless.
    advice: what to set on the client.
    """
    if timeout is None:
        text = f"the client in {key} has no timeout: {advice}"
    elif tries is None or timeout * tries > _SLOW_SECONDS:
        text = (
            f"the client in {key} may wait {timeout:g} s in each of"
            f" {'endless' if tries is None else tries} attempts before a request fails: {advice}"
        )
    else:
        return
    warnings.warn(text, UserWarning, stacklevel=2)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


_EPOCH = datetime(1970, 1, 1)
_LAST_MS = (datetime.max - _EPOCH) // timedelta(seconds=1) * 1000


def to_utc(unix_ms: int) -> datetime:
    """Unix milliseconds as a naive datetime in UTC, at most the last second of the year 9999."""
    return _EPOCH + timedelta(milliseconds=min(unix_ms, _LAST_MS))


def from_utc(moment: datetime) -> int:
    """Unix milliseconds of a datetime, in UTC where it is naive."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def expiry(ttl_ms: int, fractions: bool) -> datetime:
    """When what is stored now expires, for a column of date and time: rounded up where that has no
    fractions of a second and would cut or round them by itself."""
    until = now_ms() + ttl_ms
    return to_utc(until if fractions else -(-until // 1000) * 1000)


def whole_seconds(ttl_ms: int) -> int:
    """The lifetime for a store that counts whole seconds, some from the start of the current
    one: never shorter than what was asked for."""
    now = now_ms()
    return -(-(now + ttl_ms) // 1000) - now // 1000


class Expiries:
    """When records that this process wrote expire, for a store that cannot tell. Bounded; of a
    key that is not known nothing is said, so a touch is due."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()

    def get(self, key: str) -> int | None:
        return self._known.get(key)

    def remember(self, key: str, ttl_ms: int) -> None:
        self._known.pop(key, None)
        self._known[key] = now_ms() + ttl_ms  # at the end
        while len(self._known) > _REMEMBERED_MAX:
            try:
                self._known.popitem(last=False)
            except KeyError:  # another thread was first
                break

    def forget(self, key: str) -> None:
        self._known.pop(key, None)


def key_fits(key: str, most: int) -> bool:
    """Whether a text column of so many characters can hold the key: no NUL, no lone surrogate."""
    return len(key) <= most and "\0" not in key and not any("\ud800" <= c <= "\udfff" for c in key)


def refuse_key(most: int, units: str = "characters") -> NoReturn:
    """Raise ValueError: a session cannot be stored under this key, which is not shown."""
    raise ValueError(
        f"the key of a session (prefix and id) must be at most {most} {units} without NUL"
    )


def fileno(connection: Any) -> int | None:
    """The socket of a connection, None where it has none that is known."""
    for holder in (connection, getattr(connection, "_sock", None)):  # psycopg, PyMySQL
        method: Any = getattr(holder, "fileno", None)
        if method is not None:
            with contextlib.suppress(Exception):  # closed
                return int(method())
    return None


def has_input(fileno: int) -> bool:
    """Whether something can be read from a connection. On one that waits to be used that is its
    end: the server has gone away since."""
    if hasattr(select, "poll"):  # gevent takes it away
        poll = select.poll()
        poll.register(fileno, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fileno], [], [], 0)[0])


class PerProcess(Generic[T]):
    """A value that each process makes once for itself: a child has no use for its parent's, which
    is kept as it is, since to take it down would act on what the parent still uses.

    here: that of this process, if there is one already.
    """

    def __init__(self, make: Callable[[], T], here: T | None = None) -> None:
        self._make = make
        self._values: dict[int, T] = {} if here is None else {os.getpid(): here}
        self._locks: dict[int, threading.Lock] = {}

    def get(self) -> T:
        pid = os.getpid()
        value = self._values.get(pid)
        if value is None:
            # Not the parent's lock, which a thread of it may have held at the fork.
            with self._locks.setdefault(pid, threading.Lock()):
                value = self._values.get(pid)
                if value is None:
                    value = self._values[pid] = self._make()
        return value

    def made(self) -> T | None:
        """The value, if this process has made it."""
        return self._values.get(os.getpid())


class _Calls:
    """What a Watchdog watches in one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: A duplicate of the socket: [deadline, whether the call was ended]
        self.running: dict[int, list[Any]] = {}
        self.awake = threading.Event()
        self.thread: threading.Thread | None = None


class Watchdog:
    """Bounds calls of clients that wait for their server for ever: shuts the connection down when
    the time is over, so that the client fails as if the server had gone. One thread a process,
    which wakes only while there are calls."""

    _TICK = 0.1

    def __init__(self) -> None:
        self._calls = PerProcess(_Calls)

    @contextlib.contextmanager
    def limit(self, fileno: int, deadline: float) -> Iterator[None]:
        """TimeoutError when the body has not ended at the deadline (time.monotonic())."""
        calls = self._calls.get()
        # A number of our own: the client may close its own meanwhile, and another get it.
        own, call = os.dup(fileno), [deadline, False]
        with calls.lock:
            calls.running[own] = call
            if calls.thread is None:
                calls.thread = threading.Thread(
                    target=self._watch, args=(calls,), name="flask_session watchdog", daemon=True
                )
                calls.thread.start()
        if not calls.awake.is_set():
            calls.awake.set()
        try:
            yield
        except Exception as error:
            if call[1]:
                raise TimeoutError("the server did not answer in time") from error
            raise
        finally:
            with calls.lock:
                del calls.running[own]
            os.close(own)

    @classmethod
    def _watch(cls, calls: _Calls) -> None:
        while True:
            calls.awake.wait()
            time.sleep(cls._TICK)
            now = time.monotonic()
            with calls.lock:
                for own, call in calls.running.items():
                    if now >= call[0] and not call[1]:
                        call[1] = True
                        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(own)) as end:
                            end.shutdown(socket.SHUT_RDWR)
                if not calls.running:
                    calls.awake.clear()


class _Connections:
    """Those of a Pool in one process."""

    def __init__(self, size: int) -> None:
        self.idle: list[Any] = []
        self.free = threading.Semaphore(size)


class Pool:
    """Connections of our own: made when they are needed, at most `size`, each used by one thread
    at a time. A child process makes its own.

    usable: whether a connection that was put away can be used again; it must not wait.
    """

    def __init__(
        self, connect: Callable[[], Any], usable: Callable[[Any], bool], size: int
    ) -> None:
        self._connect, self._usable, self._size = connect, usable, size
        self._connections = PerProcess(lambda: _Connections(size))
        # Not __del__: of a cycle that is collected the connections may be the first to go.
        weakref.finalize(self, self._close, self._connections)

    def take(self, deadline: float) -> Any:
        """A connection; TimeoutError when all are in use until the deadline."""
        mine = self._connections.get()
        if not mine.free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"all {self._size} connections are in use")
        try:
            with contextlib.suppress(IndexError):
                while True:
                    connection = mine.idle.pop()
                    if self._usable(connection):
                        return connection
                    self._discard(connection)
            return self._connect()
        except BaseException:
            mine.free.release()
            raise

    def give(self, connection: Any) -> None:
        """Put back what take gave in this process."""
        mine = self._connections.get()
        if self._usable(connection):
            mine.idle.append(connection)
        else:
            self._discard(connection)
        mine.free.release()

    @classmethod
    def _close(cls, connections: PerProcess[_Connections]) -> None:
        idle = connections.get().idle
        while idle:
            cls._discard(idle.pop())

    @staticmethod
    def _discard(connection: Any) -> None:
        with contextlib.suppress(Exception):  # it is broken already
            connection.close()
