"""Sessions in Elasticsearch: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class ElasticsearchSession(ServerSideSession):
    """A session in Elasticsearch."""


class ElasticsearchSessionInterface(UnavailableSessionInterface):
    kind = "elasticsearch"
    session_class = ElasticsearchSession
