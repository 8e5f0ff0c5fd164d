"""``Session``: sets an application up for server-side sessions."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from . import _core, cli, config, stores
from .base import ServerSideSessionInterface
from .null import NullSessionInterface

if TYPE_CHECKING:
    from flask import Flask
    from flask.sessions import SessionInterface

_PREDECESSORS = ("Flask-Session", "Flask-Session2")


class Extension:
    """What ``app.extensions["flask_session"]`` is: the sessions of one application.

    interface: the session interface. store: its store, None where the sessions
    are not ours (types "null" and "custom").
    """

    def __init__(self, interface: SessionInterface | None) -> None:
        self.interface = interface
        self.store: _core.Store | None = None
        if isinstance(interface, ServerSideSessionInterface):
            self.store = interface._store

    def stats(self) -> dict[str, Any]:
        """Since the start of this process: how often the ``store`` (its name) was asked for
        each operation and gave each answer (``load``, ..., ``conflict``, ``gone``, ...), and
        the ``events`` of the session layer by name. ``native``: a driver of the C library
        serves now, not a Python client. With SESSION_MIGRATE_FROM or _TO
        ``moves``: the other ``store``, the sessions ``moved``, those that it did not have either
        (``missed``), those not moved because they were logged out meanwhile (``refused``), the
        changes made there during a move (``carried``), and the other store's ``operations``."""
        interface = self.interface
        if not isinstance(interface, ServerSideSessionInterface):
            return {}
        store = interface._store
        moves = store.moves()
        return {
            "store": store.name,
            "native": store.native,
            **store.counts(),
            **({} if moves is None else {"moves": moves}),
            "events": interface._counts(),
        }

    def purge(self, limit: int | None = None) -> int:
        """Delete expired sessions, at most limit (None: all), in batches of 1,000; returns
        how many. A store that expires by itself has none. SessionStoreError when it fails.

        Where the application overrides ``_delete_expired_sessions`` that is called instead,
        and the answer is 0.
        """
        interface, total = self.interface, 0
        if not isinstance(interface, ServerSideSessionInterface) or self.store is None:
            return 0
        if interface._overrides("_delete_expired_sessions"):
            interface._delete_expired_sessions()
            return 0
        while not interface.ttl and (limit is None or total < limit):
            batch = 1000 if limit is None else min(1000, limit - total)
            count = self.store.purge(batch)
            total += count
            if count < batch:
                break
        return total


class Session:
    """Server-side sessions for one or more Flask applications::

        app = Flask(__name__)
        app.config["SESSION_TYPE"] = "sqlite"
        Session(app)

    or, with an application factory, ``sess = Session()`` and ``sess.init_app(app)``.
    ``flask.session`` is used as ever.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration, which is fixed from then on, and set the application's
        session interface. SessionConfigError (a ValueError) says what is wrong with a
        key; RuntimeError when a predecessor is installed beside this package."""
        _refuse_predecessors()
        kind = config.session_type(app)
        config.check_lifetime(app)
        interface = app.session_interface if kind == "custom" else self._get_interface(app)
        if not isinstance(interface, NullSessionInterface):
            config.check_cookie(app, interface)
        app.session_interface = interface
        app.extensions["flask_session"] = Extension(interface)
        cli.register(app, cli.session_group)
        if not getattr(interface, "ttl", True):
            cli.register(app, cli.session_cleanup)

    def _get_interface(self, app: Flask) -> SessionInterface:
        """The interface that the configuration asks for."""
        kind = config.session_type(app)
        if kind == "null":
            return NullSessionInterface()
        url = config.read(app, "SESSION_URL")
        place = next(iter(config.ARGUMENTS[kind].values()))
        if url is not None and app.config.get(place) is not None:
            raise _core.SessionConfigError(f"SESSION_URL and {place} are both set; keep one")
        return stores.make_interface(app, kind, app.config, url)


def _refuse_predecessors() -> None:
    """Raise RuntimeError when a distribution that owns ``flask_session``, too, is installed."""
    found = []
    for name in _PREDECESSORS:
        try:
            files = importlib.metadata.distribution(name).files
        except importlib.metadata.PackageNotFoundError:
            continue
        if files is None or any(path.parts[0] == "flask_session" for path in files):
            found.append(name)
    if found:
        raise RuntimeError(
            f"{' and '.join(found)} and cession are installed side by side, and each brings the"
            " package flask_session, so files of one may have replaced the other's. Cure:"
            f" pip uninstall -y {' '.join(found)} cession; pip install --force-reinstall cession"
        )
