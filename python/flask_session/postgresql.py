"""Sessions in PostgreSQL, over connections of the application's pool or ours."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, overload

from . import _core, clients, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import ORDER, bind

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_ACCEPTED = (
    "a pool of connections (psycopg2.pool.ThreadedConnectionPool, psycopg_pool.ConnectionPool), a"
    " postgresql:// URL or another connection string of libpq, or a function without arguments that"
    " returns such a pool"
)
_KEY_MAX = 255
_OWN_CONNECTIONS = 10
_SEARCH_SECONDS = 0.005
# SQLSTATE
_MISSING = ("42P01", "3F000")  # table, schema
_MADE_MEANWHILE = ("23505", "42P06", "42P07")
_TRY_AGAIN = ("40001", "40P01")  # serialization failure, deadlock: nothing was done


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Queries:
    """The statements; parameters are named. What can be wrong about a statement stands on a line
    of its own: an error of the server quotes that line, which must not hold a parameter."""

    def __init__(self, schema: str, table: str) -> None:
        self.schema, self.table = _quote(schema), f"{_quote(schema)}.{_quote(table)}"
        name = self.table.replace("%", "%%")
        # Not now(): after a wait for another transaction that is the time before it.
        now = "timezone('UTC', clock_timestamp())"
        expiry = f"{now} + %(ttl_ms)s::double precision * interval '1 millisecond'"
        left_ms = (
            f"CASE WHEN isfinite(expiry) THEN ceil(extract(epoch FROM expiry - {now}) * 1000)"
            "::bigint END"
        )
        expected = (
            f"WHERE session_id = %(session_id)s\nAND data = %(expected)s\nAND expiry >\n{now}"
        )
        self.retrieve_session_data = (
            f"SELECT data, {left_ms}\nFROM\n{name}\n"
            f"WHERE session_id = %(session_id)s\nAND expiry > {now}"
        )
        self.insert = (
            f"INSERT INTO\n{name} AS old\n(session_id, created, data, expiry)\n"
            f"VALUES (%(session_id)s,\n{now},\n%(data)s,\n{expiry})\n"
            "ON CONFLICT (session_id)\nDO UPDATE SET created = excluded.created,"
            " data = excluded.data, expiry = excluded.expiry\n"
            f"WHERE old.expiry IS NULL OR old.expiry <= {now}"
        )
        self.replace = f"UPDATE\n{name}\nSET data =\n%(data)s,\nexpiry =\n{expiry}\n{expected}"
        self.touch = f"UPDATE\n{name}\nSET expiry =\n{expiry}\n{expected}"
        self.remove = f"DELETE FROM\n{name}\nWHERE session_id = %(session_id)s"
        expired = "(expiry IS NULL OR expiry <= timezone('UTC', now()))"
        self.purge = (
            f"DELETE FROM\n{name}\nWHERE session_id IN (SELECT session_id FROM\n{name}\n"
            f"WHERE {expired} LIMIT %(limit)s FOR UPDATE SKIP LOCKED)\nAND {expired}"
        )
        self.scan = (
            f"SELECT session_id, data, {left_ms}\nFROM\n{name}\n"
            "WHERE session_id > %(after)s\nAND left(session_id, length(%(prefix)s)) = %(prefix)s\n"
            f"AND expiry > {now} ORDER BY session_id LIMIT %(batch)s"
        )
        self.has_schema = "SELECT to_regnamespace(%(schema)s) IS NOT NULL"
        self.create_schema = f"CREATE SCHEMA {self.schema};"
        # The lock: of those who find no table at once only one makes it.
        self.create_table = (
            "SELECT pg_advisory_xact_lock(7310868735321862516);"
            f"CREATE TABLE {self.table} (session_id varchar({_KEY_MAX}) PRIMARY KEY,"
            " created timestamp without time zone, data bytea,"
            f" expiry timestamp without time zone); CREATE INDEX ON {self.table} (expiry)"
        )
        self.drop_table = f"DROP TABLE IF EXISTS {self.table}"


def _stored(value: Any, left_ms: int | None) -> Stored:
    return bytes(value or b""), b"", -2 if left_ms is None else clients.now_ms() + left_ms


def _usable(connection: Any) -> bool:
    return not connection.closed and not clients.has_input(connection.fileno())


class GivenPool:
    """The application's pool, with the methods of clients.Pool."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._waits = type(pool).__module__.partition(".")[0] == "psycopg_pool"
        self._exhausted = getattr(sys.modules.get("psycopg2.pool"), "PoolError", ())

    def _get(self, deadline: float) -> Any:
        while True:
            left = deadline - time.monotonic()
            if self._waits:
                return self._pool.getconn(timeout=max(0.001, left))
            try:
                return self._pool.getconn()
            except self._exhausted:
                if left <= 0 or self._pool.closed:
                    raise
            time.sleep(_SEARCH_SECONDS)

    def take(self, deadline: float) -> Any:
        connection = self._get(deadline)
        while not _usable(connection):
            connection.close()
            self.give(connection)
            connection = self._get(deadline)
        return connection

    def give(self, connection: Any) -> None:
        self._pool.putconn(connection)


class PostgreSqlStore:
    """The adapter (see contract.py): a record is a row, an operation one statement in autocommit
    mode. Expiries are UTC by the server's clock, whatever a connection's time zone."""

    name = "postgresql"
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE

    def __init__(
        self, connections: Callable[[], Any], queries: Queries, key_prefix: str = ""
    ) -> None:
        self._connections = clients.PerProcess(connections)
        self._watchdog = clients.Watchdog()
        self._prefix, self.queries = key_prefix, queries

    @contextlib.contextmanager
    def cursor(self, deadline: float) -> Iterator[Any]:
        """A cursor, on a connection that goes back as it came."""
        pool = self._connections.get()
        connection = pool.take(deadline)
        before = connection.autocommit
        try:
            with self._watchdog.limit(connection.fileno(), deadline):
                if not before:
                    connection.autocommit = True
                with _plain_cursor(connection) as cursor:
                    yield cursor
        finally:
            if not (before or connection.closed):
                try:
                    connection.autocommit = before
                except Exception:  # in a transaction, by a statement of the application's
                    connection.close()
            pool.give(connection)

    def _run(self, query: str, timeout: float, **values: Any) -> tuple[int, list[Any]]:
        """The number of rows, and the rows."""
        deadline = time.monotonic() + timeout
        made = repeated = False
        while True:
            cursor: Any = None
            try:
                with self.cursor(deadline) as cursor:
                    cursor.execute(query, values)
                    return cursor.rowcount, cursor.fetchall() if cursor.description else []
            except TimeoutError:
                raise
            except Exception as error:
                state = _state(error)
                lost = cursor is not None and cursor.connection.closed
                if state in _MISSING and not made:
                    self._make_table(deadline)
                    made = True
                elif lost and query == self.queries.retrieve_session_data and not repeated:
                    repeated = True
                elif state not in _TRY_AGAIN or time.monotonic() >= deadline:
                    raise

    def _make_table(self, deadline: float) -> None:
        queries = self.queries
        try:
            with self.cursor(deadline) as cursor:
                cursor.execute(queries.has_schema, {"schema": queries.schema})
                there = cursor.fetchone()[0]
                cursor.execute(("" if there else queries.create_schema) + queries.create_table)
        except Exception as error:
            if _state(error) in _MADE_MEANWHILE:
                return
            if _state(error) != "42501":  # insufficient privilege
                raise
            raise PermissionError(
                f"the table {queries.table} does not exist, and this role may not make it:"
                " docs/backends/postgresql.md has its definition"
            ) from error

    def load(self, key: str, timeout: float) -> Stored | None:
        if not clients.key_fits(key, _KEY_MAX):
            return None
        _, rows = self._run(self.queries.retrieve_session_data, timeout, session_id=key)
        return _stored(*rows[0]) if rows else None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        if not clients.key_fits(key, _KEY_MAX):
            clients.refuse_key(_KEY_MAX)
        values = {"session_id": key, "data": value, "ttl_ms": ttl_ms}
        return self._run(self.queries.insert, timeout, **values)[0] == 1

    def _write(self, query: str, key: str, timeout: float, **values: Any) -> int | Stored:
        """Where the record is not as expected: GONE, or what is there instead."""
        deadline = time.monotonic() + timeout
        while clients.key_fits(key, _KEY_MAX):
            left = max(0.0, deadline - time.monotonic())
            if self._run(query, left, session_id=key, **values)[0] == 1:
                return _core.OK
            there = self.load(key, max(0.0, deadline - time.monotonic()))
            if there is None:
                break
            # Else it has come back to what was expected.
            if there[0] != values["expected"] or time.monotonic() >= deadline:
                return there
        return _core.GONE

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        values = {"expected": expected, "data": value, "ttl_ms": ttl_ms}
        return self._write(self.queries.replace, key, timeout, **values)

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        answer = self._write(self.queries.touch, key, timeout, expected=expected, ttl_ms=ttl_ms)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        if clients.key_fits(key, _KEY_MAX):
            self._run(self.queries.remove, timeout, session_id=key)

    def purge(self, limit: int, timeout: float) -> int:
        return self._run(self.queries.purge, timeout, limit=limit)[0]

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        values = {"after": cursor.decode(), "prefix": self._prefix, "batch": batch}
        _, rows = self._run(self.queries.scan, timeout, **values)
        following = rows[-1][0].encode() if len(rows) == batch else b""
        stored = ((key, _stored(*rest)) for key, *rest in rows)
        return following, [(key, value, expiry) for key, (value, _, expiry) in stored]


def _state(error: BaseException) -> str | None:
    """The SQLSTATE of an error of psycopg 3 or psycopg2."""
    state: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state


def _plain_cursor(connection: Any) -> Any:
    """A cursor whose rows are tuples, whatever the connection makes by default."""
    if hasattr(connection, "row_factory"):
        return connection.cursor(row_factory=sys.modules["psycopg"].rows.tuple_row)
    return connection.cursor(cursor_factory=sys.modules["psycopg2"].extensions.cursor)


def _own_pool(conninfo: str, timeout: float) -> clients.Pool:
    psycopg = clients.require("psycopg", "postgresql")
    try:
        limited = "connect_timeout" in psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error:
        # The original error may quote the URL, and with it the password.
        raise _core.SessionConfigError(
            "the connection string of PostgreSQL must be a postgresql:// URL or key=value pairs, as"
            " libpq reads them"
        ) from None
    # With prepared statements a connection pooler between us and the server could not share
    # its connections.
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}
    if not limited:
        options["connect_timeout"] = math.ceil(timeout)
    return clients.Pool(lambda: psycopg.connect(conninfo, **options), _usable, _OWN_CONNECTIONS)


def _copied_pool(pool: Any) -> clients.Pool:
    """In a child process: a pool of our own with the connections that the given one makes. The
    given one has its parent's, and threads that have not come along."""
    if hasattr(pool, "connection_class"):
        size, configure = pool.max_size, getattr(pool, "_configure", None)

        def connect() -> Any:
            conninfo, kwargs = (
                value() if callable(value) else value for value in (pool.conninfo, pool.kwargs)
            )
            connection = pool.connection_class.connect(conninfo, **(kwargs or {}))
            if configure:
                configure(connection)
            return connection
    else:
        size = pool.maxconn

        def connect() -> Any:
            return sys.modules["psycopg2"].connect(*pool._args, **pool._kwargs)

    return clients.Pool(connect, _usable, size)


def _check_pool(pool: Any) -> Any:
    """The pool, if it is one that can be used; no connection is made."""
    clients.check_methods("SESSION_POSTGRESQL", _ACCEPTED, pool, "getconn", "putconn")
    psycopg2_pool = sys.modules.get("psycopg2.pool")
    if psycopg2_pool and isinstance(pool, psycopg2_pool.AbstractConnectionPool):
        if isinstance(pool, psycopg2_pool.SimpleConnectionPool):
            raise _core.SessionConfigError(
                "SESSION_POSTGRESQL is a SimpleConnectionPool, which threads cannot share: use a"
                " ThreadedConnectionPool"
            )
        extensions = sys.modules["psycopg2"].extensions
        dsn = pool._args[0] if pool._args else pool._kwargs.get("dsn")
        dsn = extensions.make_dsn(dsn, **_libpq_options(pool._kwargs))
        settings = extensions.parse_dsn(dsn)
        seconds = settings.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or "0"
        clients.warn_if_slow(
            "SESSION_POSTGRESQL",
            float(seconds) if float(seconds) > 0 else None,
            1,
            "give it connect_timeout",
        )
    return pool


def _libpq_options(options: dict[str, Any]) -> dict[str, Any]:
    own = ("connection_factory", "cursor_factory", "dsn", "async_", "async")
    return {name: value for name, value in options.items() if name not in own}


class PostgreSqlSession(ServerSideSession):
    """A session in PostgreSQL."""


class PostgreSqlSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a table of PostgreSQL.

    pool (or client): a psycopg2.pool.ThreadedConnectionPool, a
    psycopg_pool.ConnectionPool, a connection string of libpq, or a function
    without arguments that returns a pool. A pool that is given is used as it is;
    its connections go back as they came. For a string at most 10 connections are
    made, by psycopg 3, each within SESSION_STORE_TIMEOUT (2 seconds). table and
    schema: names, made when the first session is stored and they are not there.
    No connection is made before the first session is needed. Further arguments
    as in ServerSideSessionInterface, which raises SessionConfigError for what is
    not accepted.
    """

    session_class = PostgreSqlSession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        pool: Any = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        table: str = ...,
        schema: str = ...,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(self, app: Flask | None = None, *, client: Any, **common: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = ["pool" if name == "client" else name for name in ORDER]
        bind(type(self), [*names, "table", "schema", "cleanup_n_requests"], args, kwargs)
        app = kwargs.get("app")
        pool = kwargs.pop("pool", None)
        client = kwargs.pop("client", None)
        pool = client if pool is None else pool
        self._queries = Queries(
            *(
                config.check(f"SESSION_POSTGRESQL_{name}", kwargs.pop(name.lower(), default))
                for name, default in (
                    ("SCHEMA", Defaults.SESSION_POSTGRESQL_SCHEMA),
                    ("TABLE", Defaults.SESSION_POSTGRESQL_TABLE),
                )
            )
        )
        self._timeout: float = config.read(app, "SESSION_STORE_TIMEOUT")
        if pool is None:
            raise _core.SessionConfigError(f"SESSION_POSTGRESQL must be {_ACCEPTED}")
        if isinstance(pool, str):
            self.client: Any = _own_pool(pool, self._timeout)
        else:
            self.client = _check_pool(clients.given(pool))
        self.pool = self.client
        super().__init__(**kwargs)

    def _open_store(self, key_prefix: str) -> _core.Store:
        client, made_in = self.client, os.getpid()

        def connections() -> Any:
            if isinstance(client, clients.Pool):
                return client
            return GivenPool(client) if os.getpid() == made_in else _copied_pool(client)

        self._records = PostgreSqlStore(connections, self._queries, key_prefix)
        return _core.Store.wrap(self._records)

    @contextlib.contextmanager
    def _get_cursor(self) -> Iterator[Any]:
        """A cursor of psycopg on one of the pool's connections, in autocommit mode."""
        with self._records.cursor(time.monotonic() + self._timeout) as cursor:
            yield cursor

    def _drop_table(self) -> None:
        """Drop the table with all sessions."""
        with self._get_cursor() as cursor:
            cursor.execute(self._queries.drop_table)
