"""Sessions in an SQLite file, through the library's own driver."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import _core, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults

if TYPE_CHECKING:
    from flask import Flask


class SqliteSession(ServerSideSession):
    """A session of the SQLite store."""


class SqliteSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in an SQLite file that many processes and threads may share.

    path: the file, or a ``sqlite:`` URL. A relative path starts in the
    application's instance folder (without an application: in the working
    directory). The default is ``flask_session.sqlite3`` in the instance folder,
    which is created with mode 0700; the file gets 0600.
    synchronous: "normal" or "full", see ``Defaults``.
    Further keyword arguments as in ServerSideSessionInterface.
    """

    session_class = SqliteSession

    def __init__(
        self,
        app: Flask | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        synchronous: str = Defaults.SESSION_SQLITE_SYNCHRONOUS,
        **common: Any,
    ) -> None:
        self._synchronous = config.check("SESSION_SQLITE_SYNCHRONOUS", synchronous)
        self._url = path if isinstance(path, str) and path.startswith("sqlite:") else None
        if self._url is None:
            self._path = self._find(app, path)
        super().__init__(app, **common)

    @staticmethod
    def _find(app: Flask | None, path: str | os.PathLike[str] | None) -> str:
        if path is None and app is None:
            raise _core.SessionConfigError("without an application, SESSION_SQLITE must be given")
        name: str = config.check(
            "SESSION_SQLITE", Defaults.SESSION_SQLITE if path is None else path
        )
        if app is None or os.path.isabs(name):
            return os.path.abspath(name)
        try:
            os.makedirs(app.instance_path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _core.SessionConfigError(
                "the instance folder, where the sessions are to be kept, cannot be created"
                f" ({error}); SESSION_SQLITE names another place"
            ) from error
        return os.path.join(app.instance_path, name)

    def _open_store(self, key_prefix: str) -> _core.Store:
        if self._url is not None:
            return _core.Store.open_url(self._url)
        return _core.Store.open("sqlite", {"path": self._path, "synchronous": self._synchronous})

    def _open_hashed_store(self) -> _core.Store:
        if self._url is not None:
            return _core.Store.open_url(
                self._url + ("&" if "?" in self._url else "?") + "keys=hashed"
            )
        options = {"path": self._path, "synchronous": self._synchronous, "keys": "hashed"}
        return _core.Store.open("sqlite", options)
