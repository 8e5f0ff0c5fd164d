"""Sessions in a database, by Flask-SQLAlchemy: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class SqlAlchemySession(ServerSideSession):
    """A session in a database, by Flask-SQLAlchemy."""


class SqlAlchemySessionInterface(UnavailableSessionInterface):
    kind = "sqlalchemy"
    session_class = SqlAlchemySession
