"""Sessions in a database that the application reaches through peewee."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

import flask

from . import _core, clients, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_ACCEPTED = (
    "a peewee database (SqliteDatabase, PostgresqlDatabase, MySQLDatabase, pooled or not), a"
    " DatabaseProxy, a URL of playhouse.db_url, or a function without arguments that returns a"
    " database; or SESSION_DB_CLASS and SESSION_PEEWEE_CONFIG, its class and arguments"
)
_KEY_MAX = 256
_CONNECTIONS = 10
# SQLSTATE of PostgreSQL, error numbers of MySQL
_MISSING = ("42P01", 1146)
_MADE_MEANWHILE = ("23505", "42P07", 1050)
_NOT_ALLOWED = ("42501", 1142)
_TRY_AGAIN = ("40001", "40P01", 1213, 1020)  # nothing was done
_FOUND_ROWS = 2  # a flag of MySQL: an update counts also the rows that it leaves as they were
_TYPES = {"sqlite": ("BLOB", "DATETIME"), "postgresql": ("BYTEA", "TIMESTAMP")}


def _code(error: BaseException) -> Any:
    """The number of a driver's error, or its SQLSTATE."""
    if error.args and isinstance(error.args[0], int):  # of MySQL
        return error.args[0]
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _usable(connection: Any) -> bool:
    # One of SQLite has no socket, and is closed: a file must not stay open across a fork.
    fileno = clients.fileno(connection)
    return fileno is not None and not clients.has_input(fileno)


class PeeweeStore:
    """The adapter (see contract.py): a record is a row. The statements are peewee's, the
    connections our own, made with the parameters of the application's database, so that its
    transactions and its pool are left alone. Expiries are UTC by this machine's clock."""

    name = "peewee"
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE

    def __init__(self, database: Any, model: Any, key_prefix: str, timeout: float) -> None:
        self._given, self._model, self._prefix = database, model, key_prefix
        self._seconds = timeout
        self._watchdog = clients.Watchdog()
        self._pool = clients.Pool(self._connect, _usable, _CONNECTIONS)

    # -- connections ----------------------------------------------------------

    def _database(self) -> Any:
        database = getattr(self._given, "obj", self._given)  # of a DatabaseProxy
        if database is None or database.deferred:
            raise RuntimeError("the database in SESSION_DB has not been initialized")
        return database

    def _kind(self) -> str:
        return _kind(self._database())

    def _connect(self) -> Any:
        database, peewee = self._database(), sys.modules["peewee"]
        # The parameters of that object, the behaviour of its class without a pool or a queue.
        plain: Any = next(
            cls
            for cls in type(database).__mro__
            if issubclass(cls, peewee.Database)
            and cls.__module__ not in ("playhouse.pool", "playhouse.sqliteq")
            and not any(base.__name__ == "PooledDatabase" for base in cls.__mro__)
        )
        own = plain.__new__(plain)
        own.__dict__.update(database.__dict__)
        own.connect_params = dict(database.connect_params)
        if self._kind() == "sqlite":
            own._timeout = self._seconds
        else:
            own.connect_params.setdefault("connect_timeout", math.ceil(self._seconds))
        if type(own) is peewee.MySQLDatabase:  # PyMySQL or mysqlclient
            flags = own.connect_params.get("client_flag", 0)
            own.connect_params["client_flag"] = flags | _FOUND_ROWS
            # The first bytes of a connection are not under its connect_timeout.
            for name in ("read_timeout", "write_timeout"):
                own.connect_params.setdefault(name, math.ceil(self._seconds))
        connection = own._connect()
        if self._kind() == "mysql":
            self._execute(connection, clients.MYSQL_STRICT, (), time.monotonic() + self._seconds)
        return connection

    def _execute(self, connection: Any, sql: str, params: Any, deadline: float) -> Any:
        fileno = clients.fileno(connection)
        limit = (
            contextlib.nullcontext() if fileno is None else self._watchdog.limit(fileno, deadline)
        )
        # Not through peewee, which would log the parameters.
        with limit, contextlib.closing(connection.cursor()) as cursor:
            if params:
                cursor.execute(sql, params)
            else:
                cursor.execute(sql)
            return cursor.rowcount, cursor.fetchall() if cursor.description else []

    def _run(self, query: Any, timeout: float, repeat: bool = False) -> tuple[int, list[Any]]:
        """The number of rows, and the rows. repeat: once more when the connection breaks."""
        deadline = time.monotonic() + timeout
        database, made = self._database(), False
        sql, params = database.get_sql_context().sql(query).query()
        while True:
            shared = _in_memory(database)
            connection = database.connection() if shared else self._pool.take(deadline)
            try:
                rowcount, rows = self._execute(connection, sql, params, deadline)
                return rowcount, list(rows)
            except TimeoutError:
                raise
            except Exception as error:
                lost = clients.fileno(connection) is not None and not _usable(connection)
                if "locked" in str(error) and self._kind() == "sqlite":
                    raise TimeoutError(
                        "the SQLite file of the sessions stayed locked. If the application has"
                        " rows in the same file that are not committed: commit before the"
                        " response, or keep the sessions in another file"
                    ) from error
                if (_code(error) in _MISSING or "no such table" in str(error)) and not made:
                    self._make_table(connection, deadline)
                    made = True
                elif lost and repeat:
                    repeat = False
                elif _code(error) not in _TRY_AGAIN or time.monotonic() >= deadline:
                    raise
            finally:
                if not shared:
                    self._pool.give(connection)

    def _make_table(self, connection: Any, deadline: float) -> None:
        kind, table = self._kind(), self._model._meta.table_name
        quote = "`" if kind == "mysql" else '"'
        name, index = (
            quote + text.replace(quote, quote * 2) + quote for text in (table, f"{table}_expiry")
        )
        if kind == "mysql":
            key = "VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            statements = [
                f"CREATE TABLE {name} (session_id {key} NOT NULL PRIMARY KEY, data LONGBLOB NOT"
                " NULL, expiry DATETIME NULL, ip VARCHAR(25) NULL, INDEX (expiry))"
            ]
        else:
            data, moment = _TYPES[kind]
            statements = [
                f"CREATE TABLE IF NOT EXISTS {name} (session_id VARCHAR(256) NOT NULL PRIMARY KEY,"
                f" data {data} NOT NULL, expiry {moment}, ip VARCHAR(25))",
                f"CREATE INDEX IF NOT EXISTS {index} ON {name} (expiry)",
            ]
        try:
            for statement in statements:
                self._execute(connection, statement, (), deadline)
        except Exception as error:
            if _code(error) in _MADE_MEANWHILE:
                return
            if _code(error) not in _NOT_ALLOWED and "readonly" not in str(error):
                raise
            raise PermissionError(
                f"the table {name} does not exist, and this user may not make it:"
                " docs/backends/peewee.md has its definition"
            ) from error

    # -- rows -----------------------------------------------------------------

    def _is(self, key: str) -> Any:
        """The condition: this very key. MySQL takes others for equal: capitals, spaces at the
        end."""
        column = self._model.session_id
        found = column == key
        return found & (column.cast("BINARY") == key) if self._kind() == "mysql" else found

    def _is_live(self) -> Any:
        return self._model.expiry.is_null() | (self._model.expiry > _now())

    def _expiry(self, ttl_ms: int) -> datetime:
        return clients.expiry(ttl_ms, fractions=self._kind() != "mysql")

    def _stored(self, data: Any, expiry: Any) -> Stored:
        expiry = self._model.expiry.python_value(expiry)
        if isinstance(expiry, datetime):
            moment: int | None = clients.from_utc(expiry)
        else:
            moment = -2 if expiry is None else None
        return bytes(data), b"", moment

    # -- the contract -----------------------------------------------------------

    def load(self, key: str, timeout: float) -> Stored | None:
        if not clients.key_fits(key, _KEY_MAX):
            return None
        model = self._model
        query = model.select(model.data, model.expiry).where(self._is(key) & self._is_live())
        _, rows = self._run(query.tuples(), timeout, repeat=True)
        return self._stored(*rows[0]) if rows else None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        if not clients.key_fits(key, _KEY_MAX):
            clients.refuse_key(_KEY_MAX)
        model, expiry = self._model, self._expiry(ttl_ms)
        row = {model.data: value, model.expiry: expiry}
        try:
            self._run(model.insert({model.session_id: key, **row}), timeout)
            return True
        except Exception as error:
            if all(cls.__name__ != "IntegrityError" for cls in type(error).__mro__):
                raise
        # There is a row: it may have expired.
        expired = self._is(key) & (model.expiry <= _now())
        return self._run(model.update(row).where(expired), timeout)[0] == 1

    def _write(self, key: str, expected: bytes, values: dict[Any, Any], timeout: float) -> Any:
        """Where the record is not as expected: GONE, or what is there instead."""
        model, deadline = self._model, time.monotonic() + timeout
        while clients.key_fits(key, _KEY_MAX):
            condition = self._is(key) & (model.data == expected) & self._is_live()
            left = max(0.0, deadline - time.monotonic())
            if self._run(model.update(values).where(condition), left)[0] == 1:
                return _core.OK
            there = self.load(key, max(0.0, deadline - time.monotonic()))
            if there is None:
                break
            if there[0] != expected:
                return there
            # It was as wanted already, and there are drivers that count only rows that change.
            unchanged = values.get(model.data, expected) == expected
            if unchanged and there[2] == self._stored(expected, values[model.expiry])[2]:
                return _core.OK
            # Else it has come back to what was expected.
            if time.monotonic() >= deadline:
                return there
        return _core.GONE

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        values = {self._model.data: value, self._model.expiry: self._expiry(ttl_ms)}
        answer: int | Stored = self._write(key, expected, values, timeout)
        return answer

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        values = {self._model.expiry: self._expiry(ttl_ms)}
        answer = self._write(key, expected, values, timeout)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        if clients.key_fits(key, _KEY_MAX):
            self._run(self._model.delete().where(self._is(key)), timeout)

    def purge(self, limit: int, timeout: float) -> int:
        deadline, model, total = time.monotonic() + timeout, self._model, 0
        expired = model.expiry <= _now()
        while total < limit:
            batch = min(500, limit - total)
            query = model.select(model.session_id).where(expired).limit(batch).tuples()
            _, rows = self._run(query, max(0.0, deadline - time.monotonic()))
            if not rows:
                break
            keys = [row[0] for row in rows]
            delete = model.delete().where(model.session_id.in_(keys) & expired)
            total += self._run(delete, max(0.0, deadline - time.monotonic()))[0]
            if len(rows) < batch:
                break
        return total

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, Sequence[tuple[str, bytes, int | None]]]:
        model, fn = self._model, sys.modules["peewee"].fn
        query = (
            model.select(model.session_id, model.data, model.expiry)
            .where(model.session_id > cursor.decode())
            .where(fn.SUBSTR(model.session_id, 1, len(self._prefix)) == self._prefix)
            .where(self._is_live())
            .order_by(model.session_id)
            .limit(batch)
            .tuples()
        )
        _, rows = self._run(query, timeout)
        following = rows[-1][0].encode() if len(rows) == batch else b""
        stored = ((key, self._stored(*rest)) for key, *rest in rows)
        return following, [(key, value, expiry) for key, (value, _, expiry) in stored]


def _now() -> datetime:
    return clients.to_utc(clients.now_ms())


def _kind(database: Any) -> str:
    peewee = sys.modules["peewee"]
    for kind, cls in (
        ("sqlite", peewee.SqliteDatabase),
        ("postgresql", peewee.PostgresqlDatabase),
        ("mysql", peewee.MySQLDatabase),
    ):
        if isinstance(database, cls):
            return kind
    return ""


def _in_memory(database: Any) -> bool:
    place = str(database.database)
    return _kind(database) == "sqlite" and (
        place in (":memory:", "") or place.startswith("file::memory:") or "mode=memory" in place
    )


def _own_database(db_type: Any, db_config: Any) -> Any:
    if db_type is None or not isinstance(db_config, dict):
        raise _core.SessionConfigError(f"SESSION_DB must be {_ACCEPTED}")
    try:
        return db_type(**db_config)
    except Exception as error:
        # The original text may quote the password.
        raise _core.SessionConfigError(
            "SESSION_DB_CLASS could not be called with SESSION_PEEWEE_CONFIG as its arguments:"
            f" {type(error).__name__}"
        ) from None


def _from_url(url: str) -> Any:
    connect = clients.require("playhouse.db_url", "peewee").connect
    try:
        return connect(url, unquote_password=True, unquote_user=True)
    except Exception:
        raise _core.SessionConfigError(
            "SESSION_DB must be a URL that playhouse.db_url.connect accepts, such as"
            " sqlite:///path, postgresql://user:password@host/name or mysql://..."
        ) from None


def _check_database(database: Any) -> Any:
    """The database, if it is one that can be used; no connection is made."""
    peewee = clients.require("peewee", "peewee")
    proxied = isinstance(database, peewee.Proxy)
    real = database.obj if proxied else database
    if proxied and real is None:  # checked when it is used
        return database
    if not (isinstance(real, peewee.Database) and _kind(real)):
        config.refuse("SESSION_DB", _ACCEPTED, database)
    if type(real).__module__ in ("playhouse.apsw_ext", "playhouse.pwasyncio"):
        config.refuse("SESSION_DB", _ACCEPTED, database)
    if _in_memory(real):
        warnings.warn(
            "SESSION_DB is SQLite in memory: sessions share the application's connection and its"
            " transactions, and each thread has a database of its own",
            UserWarning,
            stacklevel=2,
        )
    return database


def _make_model(database: Any, table: str) -> Any:
    peewee = sys.modules["peewee"]
    meta = type("Meta", (), {"database": database, "table_name": table})
    fields = {
        "session_id": peewee.CharField(max_length=_KEY_MAX, primary_key=True),
        "data": peewee.BlobField(),
        "expiry": peewee.DateTimeField(null=True, index=True),
        "ip": peewee.CharField(max_length=25, null=True),
    }
    return type("Session", (peewee.Model,), {"Meta": meta, "__module__": __name__, **fields})


def _is_flask_session2(args: Sequence[Any]) -> bool:
    """Whether these are (db, db_config, db_type, table, ...) and not (app, client, ...)."""
    if args and args[0] is not None:
        return not isinstance(args[0], flask.Flask)
    return len(args) > 3 and isinstance(args[3], str)


class PeeweeSession(ServerSideSession):
    """A session in a database, by peewee."""


class PeeweeSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a table of SQLite, PostgreSQL, MySQL or MariaDB.

    client (or db): a peewee database or a proxy of one, a URL of playhouse.db_url,
    or a function without arguments that returns a database; or db_type and
    db_config: its class and arguments. Its parameters are used for at most 10
    connections of our own, with SESSION_STORE_TIMEOUT (2 seconds) where they name
    no limit; its own connections and transactions are left alone. table: its
    name; made when the first session is needed and it is not there. Further
    arguments as in ServerSideSessionInterface, which raises SessionConfigError
    for what is not accepted. Flask-Session2's order (db, db_config, db_type,
    table, key_prefix, use_signer, permanent) is taken as well.
    """

    session_class = PeeweeSession

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
        table: str = ...,
        cleanup_n_requests: int | None = ...,
        *,
        db_type: Any = ...,
        db_config: dict[str, Any] | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        db: Any,
        db_config: dict[str, Any] | None = None,
        db_type: Any = None,
        table: str = ...,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_flask_session2(args):
            bind(type(self), ("db", "db_config", "db_type", "table", *COMMON), args, kwargs)
        else:
            bind(type(self), (*ORDER, "table", "cleanup_n_requests"), args, kwargs)
        app = kwargs.get("app")
        second = kwargs.pop("db", None)
        client = kwargs.pop("client", None)
        client = second if client is None else client
        db_type, db_config = kwargs.pop("db_type", None), kwargs.pop("db_config", None)
        table = kwargs.pop("table", Defaults.SESSION_PEEWEE_TABLE)
        table = config.check("SESSION_PEEWEE_TABLE", table)
        clients.require("peewee", "peewee")
        if client is None:
            client = _own_database(db_type, db_config)
        elif isinstance(client, str):
            client = _from_url(client)
        self.client: Any = _check_database(clients.given(client))
        self.db = self.client
        #: The model of the table: session_id, data, expiry, ip.
        self.sql_session_model: Any = _make_model(self.client, table)
        self._timeout: float = config.read(app, "SESSION_STORE_TIMEOUT")
        super().__init__(**kwargs)

    def _open_store(self, key_prefix: str) -> _core.Store:
        store = PeeweeStore(self.client, self.sql_session_model, key_prefix, self._timeout)
        return _core.Store.wrap(store)
