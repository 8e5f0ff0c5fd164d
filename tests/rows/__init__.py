"""The stores that the same tests run over: one row for each backend, kind of client and server.

To add one: a class in a module of its backend (see redis.py) and its name in ROWS. The tests are in
tests/python: test_row_contract.py (the store contract), test_row_applications.py (whole
applications), test_races.py (processes, for rows that are `raced`), test_predecessor_stores.py,
test_row_time_zones.py, test_row_outages.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import long_run_wanted

from .base import FileRow, Row, Settings, Where, configuration, new_prefix, with_timeout
from .datastore import DatastoreRow, FirestoreInDatastoreModeRow
from .dynamodb import DYNAMODB_ROWS
from .elasticsearch import Elasticsearch8Row, ElasticsearchRow, OpenSearchRow
from .firestore import FirestoreRow
from .memcached import MEMCACHED_ROWS
from .mongodb import MongoDBRow, MongoDBUrlRow
from .peewee import PeeweeMariadbRow, PeeweePostgresqlRow, PeeweeSqliteRow
from .postgresql import PostgresqlPsycopg2Row, PostgresqlPsycopg3Row, PostgresqlRow
from .redis import REDIS_ROWS
from .sqlalchemy import (
    SqlAlchemyMariadbRow,
    SqlAlchemyPostgresRow,
    SqlAlchemyPsycopg2Row,
    SqlAlchemySqliteRow,
)

ROWS: dict[str, type[Row]] = {
    row.name: row
    for row in (
        *REDIS_ROWS,
        *MEMCACHED_ROWS,
        *(PostgresqlRow, PostgresqlPsycopg2Row, PostgresqlPsycopg3Row),
        *(PeeweeSqliteRow, PeeweePostgresqlRow, PeeweeMariadbRow),
        *(MongoDBRow, MongoDBUrlRow),
        *(ElasticsearchRow, Elasticsearch8Row, OpenSearchRow),
        *(DatastoreRow, FirestoreInDatastoreModeRow, FirestoreRow),
        *DYNAMODB_ROWS,
        *(SqlAlchemySqliteRow, SqlAlchemyPostgresRow, SqlAlchemyPsycopg2Row, SqlAlchemyMariadbRow),
    )
}


def leading(row: type[Row]) -> bool:
    """One row for each backend and database whose server starts fast; in a long run every row."""
    first = row.name == next(iter(ROWS)) or bool(vars(row).get("raced"))
    return long_run_wanted() or (first and not row.slow_server)


def marks(name: str) -> list[pytest.MarkDecorator]:
    """The marks of a test of this row. To the C code one client is as good as another: all but the
    first row are marked `client`."""
    first = next(iter(ROWS))
    return [*ROWS[name].marks, *([] if name == first else [pytest.mark.client])]


def parameters(chosen: Callable[[type[Row]], bool] = lambda row: True) -> list[Any]:
    """The names of rows, as parameters of a test."""
    return [
        pytest.param(name, id=name, marks=marks(name)) for name, row in ROWS.items() if chosen(row)
    ]


__all__ = [
    "ROWS",
    "FileRow",
    "Row",
    "Settings",
    "Where",
    "configuration",
    "leading",
    "marks",
    "new_prefix",
    "parameters",
    "with_timeout",
]
