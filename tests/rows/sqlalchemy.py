"""Databases through SQLAlchemy: an SQLite file, PostgreSQL, MariaDB; every kind of client."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, ClassVar

from tests.services import MariadbService, PostgresService

from .base import FileRow, Row, Settings, Where

_LEGACY = (
    'config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=None, SQLALCHEMY_DATABASE_URI=URL)'
)


class SqlAlchemyRow(Row):
    """What these rows share."""

    durable = True
    max_key = 255
    predecessors = ("fs08", "fs2")
    URL: ClassVar[str]
    """Python code: the database's URL for SQLAlchemy, from `where`."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "URL" in vars(cls):
            cls.legacy = _LEGACY.replace("URL", cls.URL)

    @classmethod
    def url(cls, where: Where) -> str:
        return str(eval(cls.URL, {"where": where}))

    @classmethod
    def ask(cls, where: Where, statement: str, **values: Any) -> list[Any]:
        import sqlalchemy as sa

        engine = sa.create_engine(cls.url(where), poolclass=sa.NullPool)
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return list(result) if result.returns_rows else []

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        [[expiry]] = cls.ask(where, "SELECT expiry FROM sessions WHERE session_id = :key", key=key)
        if isinstance(expiry, str):
            expiry = datetime.fromisoformat(expiry)
        moment: datetime = expiry.replace(tzinfo=timezone.utc)
        return moment.timestamp()


class SqlAlchemySqliteRow(FileRow, SqlAlchemyRow):
    """An SQLite file; SQLALCHEMY_DATABASE_URI and nothing else."""

    name = "sqlalchemy-sqlite"
    raced = True
    tick_ms = 1
    URL = "'sqlite:///' + where['FOLDER'] + '/sessions.sqlite3'"

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "sqlalchemy", "SQLALCHEMY_DATABASE_URI": cls.url(where)}


class SqlAlchemyPostgresRow(SqlAlchemyRow):
    """PostgreSQL, an Engine over psycopg 3."""

    name = "sqlalchemy-postgresql"
    service = PostgresService
    raced = True
    tick_ms = 1
    URL = "where['POSTGRES_URL'].replace('postgresql:', 'postgresql+psycopg:')"

    @classmethod
    def patience(cls) -> float:
        return max(cls.timeout, 2)  # of less to connect, libpq makes two

    @classmethod
    def settings(cls, where: Where) -> Settings:
        import sqlalchemy as sa

        return {
            "SESSION_TYPE": "sqlalchemy",
            "SESSION_SQLALCHEMY": sa.create_engine(cls.url(where)),
        }


class SqlAlchemyPsycopg2Row(SqlAlchemyPostgresRow):
    """PostgreSQL, an Engine over psycopg2."""

    name = "sqlalchemy-psycopg2"
    URL = "where['POSTGRES_URL'].replace('postgresql:', 'postgresql+psycopg2:')"


class SqlAlchemyMariadbRow(SqlAlchemyRow):
    """MariaDB, a URL for PyMySQL."""

    name = "sqlalchemy-mariadb"
    service = MariadbService
    raced = True
    # No statement is one round trip: PyMySQL sends COMMIT and ROLLBACK in any case.
    round_trips: ClassVar[Mapping[str, int]] = {
        "load": 2, "create": 3, "replace": 3, "touch": 3, "remove": 3,
    }  # fmt: skip
    URL = "where['MARIADB_URL'].replace('mysql:', 'mysql+pymysql:')"

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "sqlalchemy", "SESSION_SQLALCHEMY": cls.url(where)}
