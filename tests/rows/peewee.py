"""peewee on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import datetime
from typing import Any, ClassVar

from tests.services.mariadb import MariadbService
from tests.services.postgres import PostgresService

from .base import FileRow, Row, Settings, Where


class PeeweeRow(Row):
    """A database object on a server."""

    tick_ms = 1
    max_key = 256
    durable = True
    predecessors = ("fs2",)
    variable: ClassVar[str]
    """Of `where`: the URL."""
    table: ClassVar[str] = "rows_peewee"

    @classmethod
    def database(cls, where: Where) -> Any:
        from playhouse.db_url import connect

        return connect(where[cls.variable])

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "peewee",
            "SESSION_DB": cls.database(where),
            "SESSION_PEEWEE_TABLE": cls.table,
        }

    @classmethod
    def query(cls, where: Where, sql: str, *params: object) -> list[Any]:
        database = cls.database(where)
        with database.connection_context():
            return list(database.execute_sql(sql.replace("?", database.param), params).fetchall())

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        sql = f"SELECT expiry FROM {cls.table} WHERE session_id = ?"
        for (expiry,) in cls.query(where, sql, key):
            if isinstance(expiry, str):  # SQLite
                expiry = datetime.datetime.fromisoformat(expiry)
            moment: float = expiry.replace(tzinfo=datetime.timezone.utc).timestamp()
            return moment
        return None

    @classmethod
    def keys(cls, where: Where, prefix: str) -> list[str]:
        sql = f"SELECT session_id FROM {cls.table} WHERE SUBSTR(session_id, 1, ?) = ?"
        found = cls.query(where, sql, len(prefix), prefix)
        return [key[len(prefix) :] for (key,) in found]


def legacy(variable: str) -> str:
    return f"""
from playhouse.db_url import connect
config.update(SESSION_TYPE="peewee", SESSION_DB=connect(where["{variable}"]),
              SESSION_DB_CLASS=None, SESSION_PEEWEE_CONFIG=None,
              SESSION_PEEWEE_TABLE="{PeeweeRow.table}")
"""


class PeeweePostgresqlRow(PeeweeRow):
    name = "peewee-postgresql"
    service = PostgresService
    raced = True
    variable = "POSTGRES_URL"
    legacy = legacy(variable)


class PeeweeMariadbRow(PeeweeRow):
    """Through PyMySQL."""

    name = "peewee-mariadb"
    service = MariadbService
    tick_ms = 1000
    raced = True
    variable = "MARIADB_URL"
    legacy = legacy(variable)


class PeeweeSqliteRow(FileRow, PeeweeRow):
    """A file, which every process opens for itself."""

    name = "peewee-sqlite"
    raced = True
    legacy = """
import peewee
config.update(SESSION_TYPE="peewee", SESSION_DB=None, SESSION_DB_CLASS=peewee.SqliteDatabase,
              SESSION_PEEWEE_CONFIG={"database": where["FOLDER"] + "/peewee.db"},
              SESSION_PEEWEE_TABLE="rows_peewee")
"""

    @classmethod
    def database(cls, where: Where) -> Any:
        import peewee

        path = where["FOLDER"] + "/peewee.db"
        return peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal"})
