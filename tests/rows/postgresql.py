"""PostgreSQL: pools of psycopg2 and psycopg 3, and a URL."""

from __future__ import annotations

import atexit
import functools
import math
from typing import Any

from tests.services.postgres import PostgresService

from .base import Row, Settings, Where

# One pool for all applications of a process, as applications have it.


@functools.cache
def psycopg2_pool(url: str, seconds: int) -> Any:
    from psycopg2.pool import ThreadedConnectionPool

    return ThreadedConnectionPool(1, 10, url, connect_timeout=seconds)


@functools.cache
def psycopg3_pool(url: str, timeout: float, seconds: int) -> Any:
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(
        url,
        min_size=1,
        max_size=10,
        open=True,
        timeout=timeout,
        reconnect_timeout=1,
        # By default a statement is prepared when it was used five times, which costs a round trip
        # more, once.
        kwargs={"connect_timeout": seconds, "prepare_threshold": None},
    )
    atexit.register(pool.close)
    return pool


class PostgresqlRow(Row):
    """A URL: connections of our own, by psycopg 3."""

    name = "postgresql-url"
    service = PostgresService
    tick_ms = 1
    max_key = 255
    durable = True
    raced = True
    table = "rows_url"

    @classmethod
    def client(cls, where: Where) -> Any:
        return where["POSTGRES_URL"]

    @classmethod
    def seconds(cls) -> int:
        """libpq knows whole seconds."""
        return math.ceil(cls.timeout)

    @classmethod
    def patience(cls) -> float:
        # Of less than two seconds to connect libpq makes two.
        return max(cls.timeout, 2)

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "postgresql",
            "SESSION_POSTGRESQL": cls.client(where),
            "SESSION_POSTGRESQL_TABLE": cls.table,
        }

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        import psycopg

        query = f"SELECT extract(epoch FROM expiry)::float8 FROM {cls.table} WHERE session_id = %s"
        with psycopg.connect(where["POSTGRES_URL"]) as connection:
            found = connection.execute(query, [key]).fetchone()
        return None if found is None else float(found[0])

    @classmethod
    def keys(cls, where: Where, prefix: str) -> list[str]:
        import psycopg

        query = f"SELECT substr(session_id, %s) FROM {cls.table} WHERE starts_with(session_id, %s)"
        with psycopg.connect(where["POSTGRES_URL"]) as connection:
            return [row[0] for row in connection.execute(query, [len(prefix) + 1, prefix])]


class PostgresqlPsycopg2Row(PostgresqlRow):
    """psycopg2's ThreadedConnectionPool."""

    name = "postgresql-psycopg2"
    table = "rows_psycopg2"

    @classmethod
    def client(cls, where: Where) -> Any:
        return psycopg2_pool(where["POSTGRES_URL"], cls.seconds())


class PostgresqlPsycopg3Row(PostgresqlRow):
    """psycopg 3's ConnectionPool."""

    name = "postgresql-psycopg3"
    table = "rows_psycopg3"

    @classmethod
    def client(cls, where: Where) -> Any:
        return psycopg3_pool(where["POSTGRES_URL"], cls.timeout, cls.seconds())
