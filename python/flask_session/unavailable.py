"""The classes of stores that this version does not have: they import, and say so when made."""

from __future__ import annotations

from typing import Any

from . import _core
from .base import ServerSideSessionInterface
from .config import TYPES


class UnavailableSessionInterface(ServerSideSessionInterface):
    """Cannot be made: SessionConfigError."""

    #: The SESSION_TYPE.
    kind: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise _core.SessionConfigError(
            f"{type(self).__name__}: SESSION_TYPE {self.kind!r} is not available in this version"
            f" of cession, which has {TYPES}"
        )
