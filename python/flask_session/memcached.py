"""Sessions in Memcached: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class MemcachedSession(ServerSideSession):
    """A session in Memcached."""


class MemcachedSessionInterface(UnavailableSessionInterface):
    kind = "memcached"
    session_class = MemcachedSession
