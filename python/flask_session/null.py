"""No sessions: reading finds an empty one, writing is an error that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from flask.sessions import NullSession as FlaskNullSession
from flask.sessions import SessionInterface

from .config import TYPES

if TYPE_CHECKING:
    from flask import Flask, Request, Response


class NullSession(FlaskNullSession):
    """An empty session that cannot be written to."""

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            'the session is unavailable because SESSION_TYPE is not set or "null";'
            f" set it to one of {TYPES}"
        )

    __setitem__ = __delitem__ = __ior__ = _fail
    clear = pop = popitem = update = setdefault = _fail


class NullSessionInterface(SessionInterface):
    """Gives every request a NullSession."""

    null_session_class = NullSession

    def open_session(self, app: Flask, request: Request) -> None:
        """No session, so that Flask makes a null session."""

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Nothing to save; Flask does not ask."""
