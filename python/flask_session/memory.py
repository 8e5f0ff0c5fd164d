"""Sessions in the memory of one process: for tests and development."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core
from .base import ServerSideSession, ServerSideSessionInterface

if TYPE_CHECKING:
    from flask import Flask


class MemorySession(ServerSideSession):
    """A session of the store in memory."""


class MemorySessionInterface(ServerSideSessionInterface):
    """Keeps sessions in this process; they end with it and other workers do not see them.

    client: None or a ``memory:`` URL. Further keyword arguments as in
    ServerSideSessionInterface.
    """

    session_class = MemorySession

    def __init__(self, app: Flask | None = None, client: str | None = None, **common: Any) -> None:
        self.client = client
        super().__init__(app, **common)

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.open_url(self.client or "memory:")
