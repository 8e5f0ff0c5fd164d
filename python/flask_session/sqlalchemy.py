"""Sessions in a database, through SQLAlchemy or Flask-SQLAlchemy."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import flask

from . import _core, clients, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind
from .sqltable import SqlAlchemyStore, make_table

if TYPE_CHECKING:
    from flask import Flask

_ACCEPTED = (
    "a flask_sqlalchemy.SQLAlchemy, a synchronous sqlalchemy Engine, a database URL, or a function"
    " without arguments that returns one of these"
)
_IN_MEMORY = (
    "SQLite in memory is one database for each connection; give the engine"
    ' poolclass=StaticPool and connect_args={"check_same_thread": False}, use a file, or'
    ' SESSION_TYPE = "memory"'
)


def _engine_from_url(sa: Any, url: Any) -> Any:
    try:
        engine = sa.create_engine(url, hide_parameters=True)
    except sa.exc.ArgumentError:
        # The original error quotes the URL, and with it the password.
        raise _core.SessionConfigError(
            "the database URL is not one that SQLAlchemy knows: dialect+driver://user:password@"
            "host:port/database"
        ) from None
    except ImportError as error:
        raise _core.SessionConfigError(
            f"the driver that the database URL names is not installed: {error.name}"
        ) from error
    return engine


def _own_client(app: Flask | None) -> Any:
    """The application's Flask-SQLAlchemy, or one that is made from SQLALCHEMY_DATABASE_URI."""
    if app is None:
        raise _core.SessionConfigError("without an application, SESSION_SQLALCHEMY must be given")
    if "sqlalchemy" in app.extensions:
        return app.extensions["sqlalchemy"]
    module = clients.require("flask_sqlalchemy", "sqlalchemy")
    if not (app.config.get("SQLALCHEMY_DATABASE_URI") or app.config.get("SQLALCHEMY_BINDS")):
        raise _core.SessionConfigError(
            f"SESSION_SQLALCHEMY must be {_ACCEPTED}, or SQLALCHEMY_DATABASE_URI must be set"
        )
    return module.SQLAlchemy(app)


class _Query:
    """``Model.query`` as Flask-SQLAlchemy has it."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __get__(self, instance: object, model: type) -> Any:
        return self._db.session.query(model)


def _make_model(sa: Any, table: Any, db: Any) -> type:
    """A mapped class over the table, for the application's own queries."""

    class Session:
        def __init__(self, session_id: str, data: bytes, expiry: Any) -> None:
            self.session_id, self.data, self.expiry = session_id, data, expiry

    if db is not None:
        Session.query = _Query(db)  # type: ignore[attr-defined]
    clients.require("sqlalchemy.orm", "sqlalchemy").registry().map_imperatively(Session, table)
    return Session


class SqlAlchemySession(ServerSideSession):
    """A session of the SQLAlchemy store."""


class SqlAlchemySessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a table of a database.

    client: a ``flask_sqlalchemy.SQLAlchemy``, a ``sqlalchemy`` Engine, a database URL, or a
    function without arguments that returns one of these; None: the application's
    Flask-SQLAlchemy, made from SQLALCHEMY_DATABASE_URI if it has none.
    table, schema, sequence: their names; the sequence numbers the rows. bind_key: which of
    Flask-SQLAlchemy's databases. create: "auto" makes a missing table at first use, "never"
    leaves that to the application. Nothing is connected before the first session is needed, and
    the application's own transactions are left alone. Further arguments as in
    ServerSideSessionInterface, which raises SessionConfigError for what is not accepted.
    Flask-Session2's arguments (app, db, table, key_prefix, ...) are taken as well.
    """

    session_class = SqlAlchemySession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        client: Any = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        table: str = ...,
        sequence: str | None = ...,
        schema: str | None = ...,
        bind_key: str | None = ...,
        cleanup_n_requests: int | None = ...,
        *,
        create: str = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        app: Flask | None,
        db: Any,
        table: str,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
        sequence: str | None = ...,
        autodelete: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_flask_session2(args, kwargs):
            bind(
                type(self), ("app", "db", "table", *COMMON, "sequence", "autodelete"), args, kwargs
            )
            kwargs["client"] = kwargs.pop("db", None)
            self._autodelete = config.check("SESSION_AUTODELETE", kwargs.pop("autodelete", False))
        else:
            more = ("table", "sequence", "schema", "bind_key", "cleanup_n_requests")
            bind(type(self), (*ORDER, *more), args, kwargs)
        self._configure_table(kwargs)
        super().__init__(**kwargs)

    def _configure_table(self, kwargs: dict[str, Any]) -> None:
        sa: Any = clients.require("sqlalchemy", "sqlalchemy")
        app, client = kwargs.get("app"), clients.given(kwargs.pop("client", None))
        names = ("table", "sequence", "schema", "bind_key", "create")
        keys = {name: f"SESSION_SQLALCHEMY_{name.upper()}" for name in names}
        table, sequence, schema, bind_key, create = (
            config.check(key, kwargs.pop(name, getattr(Defaults, key)))
            for name, key in keys.items()
        )
        if isinstance(client, str | sa.URL):
            client = _engine_from_url(sa, client)
        self.client = _own_client(app) if client is None else client
        if isinstance(self.client, sa.Engine):
            if bind_key is not None:
                raise _core.SessionConfigError(
                    "SESSION_SQLALCHEMY_BIND_KEY names one of Flask-SQLAlchemy's databases, but"
                    " SESSION_SQLALCHEMY is an engine of its own"
                )
            db, engine = None, self.client
        elif not hasattr(type(self.client), "engines"):
            config.refuse("SESSION_SQLALCHEMY", _ACCEPTED, client)
        else:
            db, engine = self.client, None
            if app is not None and app.extensions.get("sqlalchemy") is db:
                engine = _find_engine(db, bind_key, app)
        if engine is not None:
            _check_engine(sa, engine)
        # The application owns the interface and its store; the other way round nobody would
        # free them.
        reference = (lambda: None) if app is None else weakref.ref(app)
        self._engine = lambda: engine or _find_engine(db, bind_key, reference())
        self._table = make_table(sa, table, sequence, schema, bind_key)
        self._create_table = create == "auto"
        self.sql_session_model = _make_model(sa, self._table, db)

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.wrap(
            SqlAlchemyStore(
                self._table,
                self._engine,
                prefix=key_prefix,
                create=self._create_table,
                timeout=config.read(self.app, "SESSION_STORE_TIMEOUT"),
            )
        )


def _find_engine(db: Any, bind_key: str | None, app: Flask | None) -> Any:
    """Flask-SQLAlchemy's engine for this application, or for the current one."""
    current = flask.current_app._get_current_object() if flask.current_app else None  # type: ignore[attr-defined]
    app = app or current
    if app is None:
        raise RuntimeError("SESSION_SQLALCHEMY needs an application context to find its engine")
    if app is current:
        engines = db.engines
    else:
        with app.app_context():
            engines = db.engines
    if bind_key not in engines:
        raise _core.SessionConfigError(
            "SESSION_SQLALCHEMY_BIND_KEY must be None or one of the keys of SQLALCHEMY_BINDS"
            if bind_key
            else "SQLALCHEMY_DATABASE_URI must be set, or SESSION_SQLALCHEMY_BIND_KEY"
        )
    return engines[bind_key]


def _check_engine(sa: Any, engine: Any) -> None:
    if isinstance(engine.pool, sa.pool.SingletonThreadPool):
        raise _core.SessionConfigError(_IN_MEMORY)
    if isinstance(engine.pool, sa.pool.StaticPool):
        warnings.warn(
            "the engine of SESSION_SQLALCHEMY has one connection for all (SQLite in memory), so"
            " saving a session also commits what the application has not committed yet",
            UserWarning,
            stacklevel=2,
        )


def _is_flask_session2(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether these are (app, db, table, key_prefix, ...) and not (app, client, key_prefix)."""
    return (
        "db" in kwargs
        or "autodelete" in kwargs
        or isinstance((args[3] if args[3:] else None), str)
        or (len(args) == 3 and "key_prefix" in kwargs)
    )
