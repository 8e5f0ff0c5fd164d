"""Sessions as files in a directory, through the library's own driver."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import parse_qs, urlsplit

from . import _core, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind

if TYPE_CHECKING:
    from flask import Flask


class FileSystemSession(ServerSideSession):
    """A session of the file store."""


class FileSystemCache:
    """What ``interface.cache`` is: the stored sessions by their keys, as dicts.

    It looks at the store itself, also where the application overrides
    ``_retrieve_session_data`` and its like, so these may call it.
    """

    def __init__(self, interface: FileSystemSessionInterface) -> None:
        self._interface = interface

    def get(self, key: str) -> dict[str, Any] | None:
        """The data of the live session with this store id (key prefix and session id)."""
        return ServerSideSessionInterface._retrieve_session_data(self._interface, key)

    def has(self, key: str) -> bool:
        return self.get(key) is not None

    def set(self, key: str, value: dict[str, Any], timeout: float = 300) -> bool:
        """Store a session for so many seconds, whatever is there."""
        lifetime = timedelta(seconds=timeout)
        ServerSideSessionInterface._upsert_session(
            self._interface, lifetime, FileSystemSession(value), key
        )
        return True

    def delete(self, key: str) -> bool:
        ServerSideSessionInterface._delete_session(self._interface, key)
        return True


class FileSystemSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a directory, one file each, that many processes may share.

    cache_dir: the directory, or a ``filesystem:`` URL; a relative path starts in the
    working directory. threshold: the number of files above which expired ones
    are swept now and then; a live session is never dropped. mode: of the files.
    The other arguments are those of ServerSideSessionInterface, in its order.
    Flask-Session2's arguments (cache_dir, threshold, mode, key_prefix,
    use_signer, permanent) are taken as well. docs/backends/filesystem.md.
    """

    session_class = FileSystemSession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        cache_dir: str | os.PathLike[str] = ...,
        threshold: int = ...,
        mode: int = ...,
        *,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        threshold: int,
        mode: int,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        places = ("cache_dir", "threshold", "mode")
        if args and isinstance(args[0], str | os.PathLike):
            bind(type(self), (*places, *COMMON), args, kwargs)
        else:
            names = [name for name in ORDER if name != "client"]
            bind(type(self), [*names, *places], args, kwargs)
        place = kwargs.pop("cache_dir", None)
        options = {}
        for name, shown in (("threshold", "{}"), ("mode", "{:04o}")):
            key = "SESSION_FILE_" + name.upper()
            value = config.check(key, kwargs.pop(name, getattr(Defaults, key)))
            options[name] = shown.format(value)
        self._url = None
        if isinstance(place, str) and place.startswith("filesystem:"):
            given = parse_qs(urlsplit(place).query)
            rest = "&".join(f"{name}={options[name]}" for name in options if name not in given)
            self._url = place + ("&" if "?" in place else "?") + rest if rest else place
        else:
            place = Defaults.SESSION_FILE_DIR if place is None else place
            options["path"] = config.check("SESSION_FILE_DIR", place)
        self._options = options
        self.cache = FileSystemCache(self)
        super().__init__(**kwargs)

    def _open_store(self, key_prefix: str) -> _core.Store:
        if self._url is not None:
            return _core.Store.open_url(self._url)
        return _core.Store.open("filesystem", self._options)
