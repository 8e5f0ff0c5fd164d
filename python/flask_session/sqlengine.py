"""Connections of our own to the database of an SQLAlchemy engine that was given."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from . import clients

#: Dialects on which a row is locked and compared here, in a transaction of several statements.
LOCKING = ("oracle",)
MYSQL = ("mysql", "mariadb")
_FORK_SECONDS = 5.0

_watchdog = clients.Watchdog()
_making = threading.local()


def _limits(driver: str, timeout: float) -> dict[str, Any]:
    """Arguments of a driver's connect; libpq and some others take whole seconds."""
    whole = math.ceil(timeout)
    if driver in ("psycopg", "psycopg2"):
        return {"connect_timeout": whole}  # they have no other; see Connections.use
    if driver == "pymysql":
        return {"connect_timeout": timeout, "read_timeout": timeout, "write_timeout": timeout}
    if driver == "mysqldb":
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    return {}


def _do_connect(dialect: Any, record: Any, cargs: Any, cparams: Any) -> Any:
    """In place of the engine's own connect, where the connection is to be ours: with our
    timeout, unless the application has set one."""
    timeout = getattr(_making, "timeout", None)
    if timeout is None:
        return None
    return dialect.connect(*cargs, **{**_limits(dialect.driver, timeout), **cparams})


def _connected(dialect: Any, timeout: float, connection: Any, _: object) -> None:
    """A new connection of ours. Where every statement is a transaction of its own, BEGIN and
    ROLLBACK need not be sent."""
    if dialect.name == "sqlite":
        connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
    if dialect.name in MYSQL:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(clients.MYSQL_STRICT)
    levels = dialect.get_isolation_level_values(connection)
    if "AUTOCOMMIT" in levels and dialect.name not in LOCKING:
        dialect.set_isolation_level(connection, "AUTOCOMMIT")


class _Gate:
    """Lets anybody in except while the process forks. SQLite keeps its locks in the memory of the
    process, so a child that is made while one is held would believe to hold it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._shut = 0, False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut, _FORK_SECONDS)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, _FORK_SECONDS)

    def open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


_sqlite: weakref.WeakSet[Connections] = weakref.WeakSet()


def _before_fork() -> None:
    for connections in list(_sqlite):
        connections.gate.shut()
        connections.engine.dispose()


def _after_fork() -> None:
    for connections in list(_sqlite):
        connections.gate.open()


# A child has connections of its own; what its parent's locks were is nothing to it.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_sqlite.clear)


class Connections:
    """Of one process: an engine with the dialect and the arguments of the given one, and a pool
    of the same kind and size.

    timeout: seconds that connecting, a free connection or SQLite's lock is waited for.
    shared: all use one connection (SQLite in memory), the application, too; one at a time here.
    """

    def __init__(self, given: Any, timeout: float) -> None:
        sa: Any = clients.require("sqlalchemy", "sqlalchemy")
        self.dialect = given.dialect
        self.shared = isinstance(given.pool, sa.pool.StaticPool)
        self._timeout, self._lock, self.gate = timeout, threading.Lock(), _Gate()
        pool = given.pool if self.shared else given.pool.recreate()
        # Without parameters, so that errors and logs show neither ids nor data.
        self.engine = sa.Engine(
            pool,
            given.dialect,
            given.url,
            hide_parameters=True,
            execution_options={
                "preserve_rowcount": True,
                "schema_translate_map": given.get_execution_options().get("schema_translate_map"),
            },
        )
        if self.shared:
            return
        if isinstance(pool, sa.pool.QueuePool):
            pool._timeout = min(pool.timeout(), timeout)
        if not sa.event.contains(given, "do_connect", _do_connect):
            sa.event.listen(given, "do_connect", _do_connect)
        sa.event.listen(pool, "connect", functools.partial(_connected, given.dialect, timeout))
        if given.dialect.name == "sqlite":
            _sqlite.add(self)

    @contextlib.contextmanager
    def use(self, deadline: float | None, write: bool) -> Iterator[Any]:
        """A connection, in a transaction that is committed at the end. deadline:
        time.monotonic(), None for the timeout; TimeoutError when the server does not answer
        until then."""
        with self._lock if self.shared else self.gate, self._connect() as connection:
            fileno = clients.fileno(connection.connection.driver_connection)
            end = time.monotonic() + self._timeout if deadline is None else deadline
            with contextlib.nullcontext() if fileno is None else _watchdog.limit(fileno, end):
                yield connection
                if write or self.shared:
                    connection.commit()

    def _connect(self) -> Any:
        _making.timeout = None if self.shared else self._timeout
        try:
            return self.engine.connect()
        finally:
            _making.timeout = None

    def close(self) -> None:
        if not self.shared:
            self.engine.dispose()
