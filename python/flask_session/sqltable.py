"""The table of sessions in a database that SQLAlchemy speaks to, and the adapter over it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from . import _core, clients
from .sqlengine import LOCKING, MYSQL, Connections

if TYPE_CHECKING:
    from .contract import Stored

_KEY_MAX = 255  # characters of session_id
_ATTEMPTS = 8
_FRACTIONS = ("sqlite", "postgresql")  # whose timestamps have them
# Deadlock; record changed since it was read: the database says "do it again".
_AGAIN = (1213, 1020)
_LOCKED = (
    "the SQLite file was locked for longer than SESSION_STORE_TIMEOUT: most likely by rows that"
    " the application has flushed and not yet committed. Commit or roll back before the session"
    " is saved, or keep the sessions in another file (SESSION_SQLALCHEMY_BIND_KEY, or an engine"
    " of their own)"
)


def make_table(
    sa: Any, name: str, sequence: str | None, schema: str | None, bind: str | None
) -> Any:
    """The table as the predecessors know it, in a MetaData of its own."""
    mysql = __import__("sqlalchemy.dialects.mysql", fromlist=["VARCHAR"])
    # Ids differ in case, and a BLOB ends at 65,535 bytes.
    key = sa.String(_KEY_MAX).with_variant(
        mysql.VARCHAR(_KEY_MAX, charset="utf8mb4", collation="utf8mb4_bin"), *MYSQL
    )
    return sa.Table(
        name,
        sa.MetaData(info={"bind_key": bind}),
        sa.Column(
            "id",
            sa.Integer().with_variant(sa.BigInteger(), "postgresql", *MYSQL),
            *([sa.Sequence(sequence)] if sequence else []),
            primary_key=True,
        ),
        sa.Column("session_id", key, unique=True),
        sa.Column("data", sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)),
        sa.Column("expiry", sa.DateTime(), index=True),
        schema=schema,
    )


class _Statements:
    """What is sent to one kind of database."""

    def __init__(self, sa: Any, table: Any, dialect: str) -> None:
        column, parameter = table.c, sa.bindparam
        key, now = parameter("key"), parameter("now", type_=sa.DateTime())
        value, until = parameter("value"), parameter("until", type_=sa.DateTime())
        same = column.session_id == key
        if dialect in MYSQL:  # a table of the predecessors' may compare without case
            exact = "CAST(CONVERT(session_id USING utf8mb4) AS BINARY) = :raw"
            same = sa.and_(same, sa.text(exact).bindparams(parameter("raw", type_=sa.LargeBinary)))
        dead = sa.or_(column.expiry.is_(None), column.expiry <= now)
        record = sa.update(table).where(same, column.expiry > now)
        # Oracle cannot compare BLOBs: there the row is locked and compared here.
        self.locks = dialect in LOCKING
        guarded = record if self.locks else record.where(column.data == parameter("expected"))
        self.load = sa.select(column.data, column.expiry).where(same, column.expiry > now)
        self.lock = self.load.with_for_update()
        self.replace = guarded.values(data=value, expiry=until)
        self.touch = guarded.values(expiry=until)
        self.remove = sa.delete(table).where(same)
        self.dead = sa.select(column.id).where(dead).order_by(column.id)
        self.purge = sa.delete(table).where(column.id.in_(parameter("ids", expanding=True)), dead)
        self.scan = (
            sa.select(column.id, column.session_id, column.data, column.expiry)
            .where(column.id > parameter("after", type_=sa.BigInteger()), column.expiry > now)
            .order_by(column.id)
        )
        row = {"session_id": key, "data": value, "expiry": until}
        #: Over an expired record; in one statement where the dialect has one for it.
        self.revive = None
        if dialect in ("sqlite", "postgresql"):
            package = __import__(f"sqlalchemy.dialects.{dialect}", fromlist=["insert"])
            insert = package.insert(table).values(row)
            new = {name: insert.excluded[name] for name in ("data", "expiry")}
            self.create = insert.on_conflict_do_update(
                index_elements=[column.session_id], set_=new, where=dead
            ).inline()
        else:
            self.create = sa.insert(table).values(row).inline()
            self.revive = sa.update(table).where(same, dead).values(data=value, expiry=until)


def _close(connections: clients.PerProcess[Connections]) -> None:
    made = connections.made()
    if made is not None:
        made.close()


class SqlAlchemyStore:
    """The adapter (see contract.py): a record is a row, compared by value.

    It works on connections of its own, made as the given engine makes them, and never in a
    transaction of the application's; except where all share one connection (SQLite in memory).

    find_engine: called at first use in each process. create: whether to create a missing table.
    timeout: seconds, for connections that are made here.
    """

    name = "sqlalchemy"
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE
    _dialect: Any = None
    _statements: Any = None

    def __init__(
        self, table: Any, find_engine: Callable[[], Any], *, prefix: str, create: bool,
        timeout: float,
    ) -> None:  # fmt: skip
        self._sa: Any = clients.require("sqlalchemy", "sqlalchemy")
        self._table, self._prefix, self._create_table = table, prefix, create
        self._connections = clients.PerProcess(lambda: Connections(find_engine(), timeout))
        weakref.finalize(self, _close, self._connections)

    def _run(self, work: Callable[[Any, bool], Any], timeout: float, write: bool = True) -> Any:
        """work(connection, again) in a transaction. again: an attempt before this one may have
        been carried out, but its answer was lost."""
        deadline, again, made = time.monotonic() + timeout, False, False
        connections = self._connections.get()
        self._dialect = connections.dialect
        if self._statements is None:
            self._statements = _Statements(self._sa, self._table, self._dialect.name)
        while True:
            connected = False
            try:
                with connections.use(deadline, write) as connection:
                    connected = True
                    return work(connection, again)
            except self._sa.exc.DBAPIError as error:
                in_time = time.monotonic() < deadline
                if error.connection_invalidated and in_time and not again:
                    again = True  # a connection that had died in the pool
                elif self._code(error) in _AGAIN and in_time:
                    pass
                elif connected and not made and self._makes_table(error):
                    # Once, and also late: else a slow start would never get its table.
                    made = True
                else:
                    self._fail(error)

    def _code(self, error: Any) -> Any:
        arguments = getattr(error.orig, "args", ())
        return arguments[0] if arguments and self._dialect.name in MYSQL else None

    def _fail(self, error: Any) -> None:
        kinds = self._sa.exc
        if isinstance(error, kinds.IntegrityError | kinds.DataError):
            # The database's own text may quote the row.
            raise ValueError(
                f"the database refused the record ({type(error.orig).__name__}); the table must"
                " be laid out as docs/backends/sqlalchemy.md says"
            ) from None
        if self._is_locked(error):
            raise TimeoutError(_LOCKED) from error
        raise error

    def _is_locked(self, error: Any) -> bool:
        return self._dialect.name == "sqlite" and "locked" in str(error.orig)

    # -- the table ----------------------------------------------------------------

    def _has_table(self) -> bool:
        with self._connections.get().use(None, True) as connection:
            inspector = self._sa.inspect(connection)
            return bool(inspector.has_table(self._table.name, schema=self._table.schema))

    def _makes_table(self, error: Any) -> bool:
        """Whether the operation may be tried again, since there is a table now."""
        kinds = self._sa.exc
        refused = isinstance(error, kinds.IntegrityError | kinds.DataError)
        if refused or error.connection_invalidated or self._is_locked(error):
            return False
        if self._has_table():  # made by another process meanwhile, perhaps
            return True
        if not self._create_table:
            raise LookupError(
                f"the table {self._table.name!r} does not exist, and SESSION_SQLALCHEMY_CREATE is"
                ' "never"; docs/backends/sqlalchemy.md has its definition'
            ) from error
        try:
            with self._connections.get().use(None, True) as connection:
                self._table.metadata.create_all(connection)
        except self._sa.exc.DBAPIError:
            if not self._has_table():  # another process was not first
                raise
        return True

    # -- the contract ---------------------------------------------------------------

    def _parameters(self, key: str, **more: Any) -> dict[str, Any]:
        now = clients.to_utc(clients.now_ms())
        return {"key": key, "now": now, "raw": key.encode(), **more}

    def _until(self, ttl_ms: int) -> Any:
        return clients.expiry(ttl_ms, self._dialect.name in _FRACTIONS)

    def _current(self, connection: Any, parameters: dict[str, Any]) -> Stored | None:
        row = connection.execute(self._statements.load, parameters).first()
        return None if row is None else (bytes(row.data or b""), b"", clients.from_utc(row.expiry))

    def _change(self, connection: Any, statement: Any, parameters: dict[str, Any]) -> bool:
        if self._statements.locks:
            row = connection.execute(self._statements.lock, parameters).first()
            if row is None or row.data != parameters["expected"]:
                return False
        return bool(connection.execute(statement, parameters).rowcount)

    def load(self, key: str, timeout: float) -> Stored | None:
        if not clients.key_fits(key, _KEY_MAX):
            return None

        def work(connection: Any, again: bool) -> Stored | None:
            return self._current(connection, self._parameters(key))

        stored: Stored | None = self._run(work, timeout, write=False)
        return stored

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        if not clients.key_fits(key, _KEY_MAX):
            clients.refuse_key(_KEY_MAX)

        def work(connection: Any, again: bool) -> bool:
            parameters = self._parameters(key, value=value, until=self._until(ttl_ms))
            done = self._insert(connection, parameters)
            if not done and again:
                current = self._current(connection, parameters)
                done = current is not None and current[0] == value
            return done

        return bool(self._run(work, timeout))

    def _insert(self, connection: Any, parameters: dict[str, Any]) -> bool:
        statements = self._statements
        if statements.revive is None:
            return bool(connection.execute(statements.create, parameters).rowcount)
        try:
            with connection.begin_nested() if statements.locks else nullcontext():
                connection.execute(statements.create, parameters)
            return True
        except self._sa.exc.IntegrityError:
            if connection.execute(statements.revive, parameters).rowcount:
                return True
            if self._current(connection, parameters) is None:
                raise
            return False

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        if not clients.key_fits(key, _KEY_MAX):
            return _core.GONE

        def work(connection: Any, again: bool) -> int | Stored | None:
            parameters = self._parameters(
                key, value=value, until=self._until(ttl_ms), expected=expected
            )
            if self._change(connection, self._statements.replace, parameters):
                return _core.OK
            current = self._current(connection, parameters)
            if current is None:
                return _core.GONE
            # Some count changed rows, not found ones: what is there may be what was to be written.
            there = current[2] == clients.from_utc(parameters["until"])
            if current[0] == value and (again or (value == expected and there)):
                return _core.OK
            return current

        answer: int | Stored = _core.GONE
        for _ in range(_ATTEMPTS):
            answer = self._run(work, timeout)
            if isinstance(answer, int) or answer[0] != expected:
                break
        return answer

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        if not clients.key_fits(key, _KEY_MAX):
            return _core.GONE

        def work(connection: Any, again: bool) -> int | None:
            parameters = self._parameters(key, until=self._until(ttl_ms), expected=expected)
            if self._change(connection, self._statements.touch, parameters):
                return _core.OK
            current = self._current(connection, parameters)
            if current is None:
                return _core.GONE
            if current[0] != expected:
                return _core.CHANGED
            return _core.OK if current[2] == clients.from_utc(parameters["until"]) else None

        for _ in range(_ATTEMPTS):
            answer: int | None = self._run(work, timeout)
            if answer is not None:
                return answer
        return _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        def work(connection: Any, again: bool) -> None:
            connection.execute(self._statements.remove, self._parameters(key))

        if clients.key_fits(key, _KEY_MAX):
            self._run(work, timeout)

    def purge(self, limit: int, timeout: float) -> int:
        def work(connection: Any, again: bool) -> tuple[int, int]:
            batch = self._statements.dead.limit(min(limit - count, 500))
            now = {"now": clients.to_utc(clients.now_ms())}
            ids = list(connection.execute(batch, now).scalars())
            if not ids:
                return 0, 0
            return len(ids), connection.execute(
                self._statements.purge, {**now, "ids": ids}
            ).rowcount

        count = 0
        while count < limit:
            found, deleted = self._run(work, timeout)
            if not found:
                break
            count += deleted
        return count

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, Sequence[tuple[str, bytes, int]]]:
        def work(connection: Any, again: bool) -> Any:
            moment = {"now": clients.to_utc(clients.now_ms()), "after": int(cursor or b"0")}
            return connection.execute(self._statements.scan.limit(batch), moment).all()

        rows = self._run(work, timeout, write=False)
        following = str(rows[-1].id).encode() if len(rows) == batch else b""
        return following, [
            (row.session_id, bytes(row.data), clients.from_utc(row.expiry))
            for row in rows
            if row.data and row.session_id.startswith(self._prefix)
        ]

    def close(self) -> None:
        if "_connections" in vars(self):  # a cycle is taken apart in any order
            _close(self._connections)
