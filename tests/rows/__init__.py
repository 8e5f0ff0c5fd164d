"""The stores that the same tests run over: one row for each backend, kind of client and server.

To add one: a class in a module of its backend (see redis.py) and its name in ROWS. The tests are in
tests/python: test_row_contract.py (the store contract), test_row_applications.py (whole
applications).
"""

from __future__ import annotations

from .base import Row, Settings, Where, configuration, new_prefix
from .redis import RedisResp3Row, RedisRow, RedisUnixRow

ROWS: dict[str, type[Row]] = {row.name: row for row in (RedisRow, RedisResp3Row, RedisUnixRow)}

__all__ = ["ROWS", "Row", "Settings", "Where", "configuration", "new_prefix"]
