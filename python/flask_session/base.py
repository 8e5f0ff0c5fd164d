"""The base classes of sessions and session interfaces.

The work of a request is done in C (``_core``): nothing here runs in a request
that reads a session of a native store. What stands here is set-up, and the
methods that an application may override or call.
"""

from __future__ import annotations

import functools
import os
import random
import time
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import flask
from flask.sessions import SessionInterface as FlaskSessionInterface
from flask.sessions import SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from . import _core, cli, config
from .defaults import Defaults
from .legacy import KeyedStore, LegacyStore
from .signals import Events

if TYPE_CHECKING:
    from flask import Flask, Response

    from .moving import CookieStore

    class _Session(_core.Session, SessionMixin):
        permanent: bool
        new: bool
else:
    _Session = _core.Session

_AUTODELETE_SECONDS = 60.0
# Where these are not overridden, the extension does not call them.
_OURS = (
    "_generate_sid",
    "should_set_storage",
    "should_set_cookie",
    "get_expiration_time",
    *(name for name in vars(FlaskSessionInterface) if name.startswith("get_cookie_")),
)
_events = Events()

os.register_at_fork(before=_core.fork_quiesce)


class ServerSideSession(_Session):
    """What ``flask.session`` is: a dict with attributes.

    ``sid``; ``permanent``; ``modified`` and ``accessed`` (set them to True to
    say so); ``new``: not in the store yet; ``available``: it can be used and
    saved. ``clear()`` keeps ``permanent``, and a session that holds nothing
    else is false. ``regenerate()`` gives a new id to the same data, ``save()``
    stores now, ``destroy()`` removes it, ``reload()`` reads it again.
    """


SessionMixin.register(_core.Session)


class Serializer(ABC):
    """Turns a session into bytes and back."""

    @abstractmethod
    def encode(self, session: Any) -> bytes:
        """The stored form of a session."""

    @abstractmethod
    def decode(self, serialized_data: bytes) -> dict[str, Any]:
        """The content of a stored form; ValueError when it is no session."""


class MsgSpecSerializer(Serializer):
    """The stored format as a serializer object; the name is the predecessor's."""

    def __init__(self, app: Flask | None = None, format: str = "msgpack") -> None:
        self.app = app
        self.format = config.check("SESSION_SERIALIZATION_FORMAT", format)

    def encode(self, session: Any) -> bytes:
        return _core.encode_json(session) if self.format == "json" else _core.encode(session)

    def decode(self, serialized_data: bytes) -> dict[str, Any]:
        return _core.decode(serialized_data)

    # for serializers around this one
    def dumps(self, session: Any) -> bytes:
        return self.encode(session)

    def loads(self, serialized_data: bytes) -> dict[str, Any]:
        return self.decode(serialized_data)


class ServerSideSessionInterface(_core.Interface, FlaskSessionInterface):
    """Opens and saves the sessions of an application.

    A concrete class opens its store in ``_open_store``. A class of an
    application's own may instead define ``_retrieve_session_data``,
    ``_upsert_session`` and ``_delete_session``; so may a subclass of a concrete
    class. Such a store cannot compare and set: of two requests that change one
    session at the same moment, the later one may win with all its keys.

    The keyword arguments are those of the configuration keys of the same name
    (see ``Defaults``); SessionConfigError says what is accepted. What is no
    argument is read from the application's configuration, if one is given.
    """

    session_class: type[ServerSideSession] = ServerSideSession
    #: Turns sessions into bytes: assign an object with ``dumps`` and ``loads`` (orjson, json, ...)
    #: or ``encode`` and ``decode`` (see Serializer) to replace the stored format.
    serializer: Any = None
    #: The store expires records by itself.
    ttl: bool = True
    _autodelete: bool = False
    #: It is there for its store only, beside the application's own interface.
    _beside: bool = False
    #: What moving.py keeps here: the interface of the other store; the cookies that were offered.
    _other: ServerSideSessionInterface | None = None
    _cookies: CookieStore | None = None

    def __init__(
        self,
        app: Flask | None = None,
        key_prefix: str = Defaults.SESSION_KEY_PREFIX,
        use_signer: bool = Defaults.SESSION_USE_SIGNER,
        permanent: bool = Defaults.SESSION_PERMANENT,
        sid_length: int = Defaults.SESSION_ID_LENGTH,
        serialization_format: str = Defaults.SESSION_SERIALIZATION_FORMAT,
        cleanup_n_requests: int | None = Defaults.SESSION_CLEANUP_N_REQUESTS,
    ) -> None:
        if app is not None and not isinstance(app, flask.Flask):
            raise TypeError(
                f"the first argument of {type(self).__name__} is the Flask application or None,"
                f" not {type(app).__name__}"
            )
        self.app = app
        key_prefix = config.check("SESSION_KEY_PREFIX", key_prefix)
        self.has_same_site_capability = True
        replaced = self.serializer
        self.serializer = MsgSpecSerializer(app, serialization_format)
        self.cleanup_n_requests: int | None = config.check(
            "SESSION_CLEANUP_N_REQUESTS", cleanup_n_requests
        )
        self._on_store_error: str = config.read(app, "SESSION_ON_STORE_ERROR")
        base = ServerSideSessionInterface
        store = self._make_store(key_prefix)
        if app is not None and not self._beside and config.moves(app):
            from . import moving

            store = moving.over_both(app, self, store)
        self._configure(
            store=store,
            session_class=self.session_class,
            key_prefix=key_prefix,
            permanent=config.check("SESSION_PERMANENT", permanent),
            use_signer=config.check("SESSION_USE_SIGNER", use_signer),
            sid_length=config.check("SESSION_ID_LENGTH", sid_length),
            serialization_format=self.serializer.format,
            touch_interval=config.read(app, "SESSION_TOUCH_INTERVAL"),
            conflict=config.read(app, "SESSION_CONFLICT"),
            on_store_error=self._on_store_error,
            strict_types=config.read(app, "SESSION_STRICT_TYPES"),
            timeout=config.read(app, "SESSION_STORE_TIMEOUT"),
            lazy=accessed_comes_first(),
            events=_events,
            defaults={name: getattr(base, name) for name in _OURS},
            serializer_class=MsgSpecSerializer,
            imports_cookies=self._cookies is not None,
        )
        if replaced is not None:  # by the class, or before this constructor ran
            self.serializer = replaced
        autodelete = self._autodelete or config.read(app, "SESSION_AUTODELETE")
        self._autodelete_due = time.monotonic() if autodelete else float("inf")
        config.read(app, "SESSION_NATIVE")
        self.ttl = bool(self._store.capabilities & _core.CAP_NATIVE_TTL)
        if app is not None and not self.ttl:
            cli.register(app, cli.session_cleanup)
            if self.cleanup_n_requests or autodelete:
                app.before_request(self._cleanup_n_requests)

    # -- the store ------------------------------------------------------------

    def _open_store(self, key_prefix: str) -> _core.Store | None:
        """The store, without the prefix; None where the three methods are the store."""
        return None

    def _open_hashed_store(self) -> _core.Store | None:
        """The store under the hashes that it keeps in the place of keys and prefix; None where
        it keeps the keys."""
        return None

    def _overrides(self, *names: str) -> list[str]:
        base = ServerSideSessionInterface
        return [name for name in names if getattr(type(self), name) is not getattr(base, name)]

    def _make_store(self, key_prefix: str) -> _core.Store:
        store = self._open_store(key_prefix)
        methods = ("_retrieve_session_data", "_upsert_session", "_delete_session")
        own = self._overrides(*methods)
        if store is None and len(own) < len(methods):
            raise TypeError(f"{type(self).__name__} must define {', '.join(methods)}")
        self._unprefixed = store
        if own:
            return _core.Store.wrap(LegacyStore(self))
        assert store is not None
        if self._overrides("_get_store_id"):
            return _core.Store.wrap(KeyedStore(store, self._get_store_id))
        self._unprefixed = None
        return store.prefixed(key_prefix)

    def _record(self, store_id: str) -> tuple[_core.Store, str]:
        if self._unprefixed is not None:
            return self._unprefixed, store_id
        if type(self)._open_store is ServerSideSessionInterface._open_store:
            raise NotImplementedError(f"{type(self).__name__} has no store of its own")
        return self._store, store_id.removeprefix(self.key_prefix)

    # -- what may be overridden or called -------------------------------------------

    def _generate_sid(self, session_id_length: int) -> str:
        """A new id from so many random bytes."""
        return _core.generate_sid(session_id_length)

    def _get_store_id(self, sid: str) -> str:
        """The key in the store."""
        return self.key_prefix + sid

    def should_set_storage(self, app: Flask, session: Any) -> bool:
        """Whether the session is to be stored. Asked only where it is overridden: True
        stores also an unchanged session, False never stores."""
        return bool(session.modified or app.config["SESSION_REFRESH_EACH_REQUEST"])

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        """The data of a stored session; None when there is none."""
        store, key = self._record(store_id)
        stored = store.load(key)
        if stored is None:
            return None
        try:
            data = self._decode(stored[0])
        except ValueError:
            return None
        return data or None  # what regenerate() leaves behind holds nothing

    def _delete_session(self, store_id: str) -> None:
        """Remove a session from the store."""
        store, key = self._record(store_id)
        store.remove(key)

    def _upsert_session(
        self, session_lifetime: timedelta, session: ServerSideSession, store_id: str
    ) -> None:
        """Store a session, whatever the store holds."""
        store, key = self._record(store_id)
        value = self._encode(session)
        ttl_ms = -(-session_lifetime // timedelta(milliseconds=1))
        for _ in range(8):
            if store.create(key, value, ttl_ms):
                return
            current = store.load(key)
            if current is not None:
                answer = store.replace(key, current[0], current[1], value, ttl_ms)
                if answer == _core.OK:
                    return
        raise _core.SessionStoreError("the record changed at every attempt to replace it")

    def _delete_expired_sessions(self) -> None:
        """Purge one batch of expired sessions."""
        if not self.ttl:
            self._store.purge()

    def _cleanup_n_requests(self) -> None:
        """Before a request: purge when chance (SESSION_CLEANUP_N_REQUESTS) or the clock
        (SESSION_AUTODELETE) says so. A store that fails does not fail the request."""
        now = time.monotonic()
        if now >= self._autodelete_due:
            self._autodelete_due = now + _AUTODELETE_SECONDS
        elif not self.cleanup_n_requests or random.randrange(self.cleanup_n_requests):
            return
        try:
            self._delete_expired_sessions()
        except _core.SessionStoreError:
            flask.current_app.logger.warning("expired sessions could not be purged", exc_info=True)

    def _import_cookie(self, app: Flask, text: str) -> str | None:
        """The id under which the store finds a session that came in a signed cookie; called by
        the extension with SESSION_MIGRATE_FROM = "cookie"."""
        from . import moving

        return moving.import_cookie(self, app, text)

    # -- when the store fails; called by the extension ----------------------------------

    def _unavailable(self, error: Exception) -> Exception:
        """What the error becomes with SESSION_ON_STORE_ERROR = "503"."""
        unavailable = ServiceUnavailable(retry_after=1)
        unavailable.__cause__ = error
        return unavailable

    def store_failed(self, app: Flask, error: Exception, response: Response) -> None:
        """Saving failed, and Flask does not ask the application's error handlers about
        errors of save_session: ask them. Their answer replaces status and content of the
        response, whose other headers stay. Without a handler the error is raised."""
        if self._on_store_error == "503" and not isinstance(error, _core.SessionConflict):
            error = self._unavailable(error)
        try:
            raise error  # the handler of last resort is a bare raise
        except Exception as raised:
            answer = app.make_response(app.ensure_sync(app.handle_user_exception)(raised))
        if hasattr(response.response, "close"):
            response.response.close()
        response.response = answer.response
        response.direct_passthrough = answer.direct_passthrough
        response.status = answer.status
        for name in ("Content-Length", "Content-Encoding", "ETag", "Last-Modified"):
            response.headers.pop(name, None)
        response.headers.update(answer.headers)


@functools.cache
def accessed_comes_first() -> bool:
    """Whether this Flask sets ``session.accessed`` before it hands the session out.

    Tried on a throw-away application, not concluded from a version: only then
    may a session be loaded as late as that.
    """

    log: list[str] = []

    class Probe(dict[str, Any]):
        @property
        def accessed(self) -> bool:
            return bool(log)

        @accessed.setter
        def accessed(self, value: bool) -> None:
            log.append("accessed")

        def get(self, *args: Any) -> Any:
            log.append("used")

    class ProbeInterface(FlaskSessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return Probe()

    app = flask.Flask("flask_session", static_folder=None, root_path=os.sep, instance_path=os.sep)
    app.session_interface = ProbeInterface()
    # By hand: app.test_request_context() would import Flask's testing module into every worker.
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    with app.request_context({**environ, "wsgi.url_scheme": "http"}) as context:
        log.append("opened")
        _ = context.session
        log.append("handed out")
        flask.session.get("")
    return log == ["opened", "accessed", "handed out", "accessed", "used"]
