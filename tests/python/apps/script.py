"""An application whose requests are told, step by step, what to do with their session.

POST /VARIANT/do with a JSON list of steps such as [["get", "a"], ["meet", "read"], ["set", "b", 1]]
answers with the list of what each step gave. A variant is one Flask application with settings of
its own on the store that all variants share; the one named "" is under /do.

Runs under any WSGI server as `script:site`, its settings in the environment variable CESSION_SCRIPT
(see `Site`), or in the process of a test.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import flask
import flask_session
from flask import session
from flask_session import _core


def meet(stage: int, name: str) -> None:
    """Wait at the test's Stage until the test says go."""
    with socket.create_connection(("127.0.0.1", stage), timeout=120) as connection:
        connection.sendall(name.encode() + b"\n")
        if connection.recv(16) != b"go\n":
            raise ConnectionError("the stage is gone")


def nest(key: str, *rest: Any) -> None:
    *path, last, value = rest
    inner = session[key]
    for part in path:
        inner = inner[part]
    inner[last] = value


STEPS: dict[str, Callable[..., Any]] = {
    "get": lambda key: session.get(key),
    "all": lambda: {key: value for key, value in session.items() if key != "_permanent"},
    "set": lambda key, value: session.__setitem__(key, value),
    "add": lambda key: session.__setitem__(key, session.get(key, 0) + 1),
    "delete": lambda key: session.pop(key, None),
    "append": lambda key, value: session[key].append(value),
    "nest": nest,
    "clear": lambda: session.clear(),
    "permanent": lambda value: setattr(session, "permanent", value),
    "regenerate": lambda: session.regenerate(),
    "save": lambda: session.save(),
    "destroy": lambda: session.destroy(),
    "reload": lambda: session.reload(),
    "sid": lambda: session.sid,
    "new": lambda: session.new,
    "pid": os.getpid,
}


def make_app(
    settings: dict[str, Any], stage: int, events: str, row: Sequence[Any] | None = None
) -> flask.Flask:
    """row: name, place and key prefix of a store of tests/rows, whose client objects are made
    here and in every process anew."""
    app = flask.Flask("script")
    keys = stored_expiry = None
    if row is not None:
        from tests.rows import ROWS, configuration, with_timeout

        name, where, prefix = row
        patient = with_timeout(ROWS[name], settings.get("SESSION_STORE_TIMEOUT", 2))
        app.config.update(configuration(patient, where, SESSION_KEY_PREFIX=prefix))
        keys = partial(patient.keys, where, prefix)
        stored_expiry = partial(patient.stored_expiry, where)
    app.config.update(settings)
    flask_session.Session(app)

    @app.post("/do")
    def do() -> Any:
        given = []
        for step, *arguments in flask.request.get_json():
            if step == "meet":
                given.append(meet(stage, *arguments))
            else:
                given.append(STEPS[step](*arguments))
        return flask.jsonify(given)

    @app.errorhandler(flask_session.SessionConflict)
    def conflict(error: Exception) -> Any:
        return "conflict", 409

    # ---- what the store holds, for the test to look at

    store = app.extensions["flask_session"].store

    def content(value: bytes) -> dict[str, Any] | None:
        """The data of a live session; None for a tombstone."""
        data = _core.decode(value) if len(value) > 1 else {}
        data.pop("_permanent", None)
        return data or None

    @app.get("/record/<sid>")
    def record(sid: str) -> Any:
        stored = store.load(sid)
        if stored is None:
            return flask.jsonify(None)
        expires = None if stored[2] is None else stored[2] / 1000
        if stored_expiry is not None and not store.capabilities & _core.CAP_GIVES_EXPIRY:
            expires = stored_expiry(app.config["SESSION_KEY_PREFIX"] + sid)
        left = None if expires is None else (expires - time.time()) * 1000
        return flask.jsonify({"data": content(stored[0]), "left_ms": left})

    @app.get("/records")
    def records() -> Any:
        found: list[dict[str, Any] | None] = []
        if keys is not None and not store.capabilities & _core.CAP_LISTABLE:
            stored = [store.load(key) for key in keys()]
            return flask.jsonify([content(one[0]) for one in stored if one is not None])
        cursor = b""
        while True:
            cursor, rows = store.scan(cursor)
            found += [content(value) for _, value, _ in rows]
            if not cursor:
                return flask.jsonify(found)

    @app.get("/capabilities")
    def capabilities() -> Any:
        return flask.jsonify(store.capabilities)

    # ---- events, one line each, of all variants and processes together

    def note(name: str) -> Callable[..., None]:
        def receive(sender: Any, **details: Any) -> None:
            if sender is app:
                shown = {key: str(value) for key, value in details.items() if key != "sid_hash"}
                with open(events, "a") as file:
                    file.write(json.dumps([name, shown]) + "\n")

        return receive

    for name in ("lost", "conflict", "rejected", "regenerated", "removed", "touched"):
        signal, receive = getattr(flask_session, f"session_{name}"), note(name)
        signal.connect(receive, weak=False)
        app.extensions.setdefault("receivers", []).append((signal, receive))
    return app


class Site:
    """A WSGI application: {"settings": {...}, "variants": {name: {...}}, "stage": port,
    "events": file, "row": see make_app}."""

    def __init__(self, given: dict[str, Any]) -> None:
        rest = (given["stage"], given["events"], given.get("row"))
        self.apps = {
            name: make_app({**given["settings"], **own}, *rest)
            for name, own in {"": {}, **given.get("variants", {})}.items()
        }

    def close(self) -> None:
        """Hear no more events: a signal that nobody hears costs other applications nothing."""
        for app in self.apps.values():
            for signal, receive in app.extensions["receivers"]:
                signal.disconnect(receive)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        first, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
        if first in self.apps and rest:
            environ["PATH_INFO"] = "/" + rest
            return self.apps[first](environ, start_response)
        return self.apps[""](environ, start_response)


if "CESSION_SCRIPT" in os.environ:
    site = Site(json.loads(os.environ["CESSION_SCRIPT"]))
