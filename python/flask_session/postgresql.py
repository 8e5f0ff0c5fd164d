"""Sessions in PostgreSQL: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class PostgreSqlSession(ServerSideSession):
    """A session in PostgreSQL."""


class PostgreSqlSessionInterface(UnavailableSessionInterface):
    kind = "postgresql"
    session_class = PostgreSqlSession
