"""One session in several threads or greenlets of one request.

With gevent's monkey-patching the threads are greenlets. Runs as `shared:app` with its settings in
the environment variable CESSION_SHARED (JSON), or in the process of a test.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import flask
import flask_session
from flask import session


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """work(0), work(1), ... at once, each in a copy of the request's context."""
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = f"{type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=flask.copy_current_request_context(run), args=(number,))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def make_app(settings: dict[str, Any], stage: int = 0) -> flask.Flask:
    app = flask.Flask("shared")
    app.config.update(settings)
    flask_session.Session(app)
    store = app.extensions["flask_session"].store

    @app.get("/set/<key>/<value>")
    def put(key: str, value: str) -> Any:
        session[key] = value
        return "ok"

    @app.get("/all")
    def everything() -> Any:
        return {key: value for key, value in session.items() if key != "_permanent"}

    @app.get("/held/<name>/<key>/<value>")
    def held(name: str, key: str, value: str) -> Any:
        """Read, wait at the test's Stage, write."""
        before = session.get(key)
        with socket.create_connection(("127.0.0.1", stage), timeout=120) as connection:
            connection.sendall(name.encode() + b"\n")
            connection.recv(16)
        session[key] = value
        return flask.jsonify([before, os.getpid()])

    @app.get("/load/<int:count>")
    def load(count: int) -> Any:
        """Nobody has looked at the session yet."""
        before = store.counts()["load"]
        users = together(count, lambda number: session.get("user"))
        return flask.jsonify({"users": users, "loads": store.counts()["load"] - before})

    @app.get("/write/<int:count>")
    def write(count: int) -> Any:
        def work(number: int) -> Any:
            session[f"key{number}"] = number
            return session.get(f"key{number}")

        return flask.jsonify(together(count, work))

    @app.get("/save/<int:count>")
    def save(count: int) -> Any:
        def work(number: int) -> Any:
            session[f"saved{number}"] = number
            session.save()
            return number

        return flask.jsonify(together(count, work))

    @app.get("/many/<int:count>")
    def many(count: int) -> Any:
        """As many requests at once, each of its own: none has a session yet."""

        def visit(number: int) -> Any:
            with app.test_client() as client:
                client.set_cookie("session", f"{number:043}")
                return client.get("/all").status_code

        threads: list[threading.Thread] = []
        answers: list[Any] = []
        for number in range(count):
            threads.append(threading.Thread(target=lambda n=number: answers.append(visit(n))))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return flask.jsonify([answers, app.extensions["flask_session"].stats()["native"]])

    @app.get("/patched")
    def patched() -> Any:
        return flask.jsonify("gevent" in type(threading.Lock()).__module__)

    return app


if "CESSION_SHARED" in os.environ:
    given = json.loads(os.environ["CESSION_SHARED"])
    app = make_app(given["settings"], given["stage"])
