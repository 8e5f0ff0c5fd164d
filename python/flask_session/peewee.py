"""Sessions in a database, by peewee: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class PeeweeSession(ServerSideSession):
    """A session in a database, by peewee."""


class PeeweeSessionInterface(UnavailableSessionInterface):
    kind = "peewee"
    session_class = PeeweeSession
