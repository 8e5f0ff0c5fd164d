"""An application that looks at its session in many ways, for when the store fails.

`app.hook` is called in the middle of /read-late and /write-late, after the session was loaded.
Runs under a WSGI server as `failing:app`, with its settings in the environment variable
CESSION_FAILING (JSON), or in the process of a test.
"""

from __future__ import annotations

import json
import os
from typing import Any

import flask
import flask_session
from flask import session
from flask_session import SessionStoreError


class App(flask.Flask):
    @staticmethod
    def hook() -> None:
        pass


def make_app(settings: dict[str, Any], handlers: str = "none") -> App:
    app = App("failing")
    app.config.update(settings)
    flask_session.Session(app)

    @app.get("/untouched")
    def untouched() -> Any:
        return flask.render_template_string("no session in sight")

    @app.get("/read")
    def read() -> Any:
        return str(session.get("user"))

    @app.get("/write/<value>")
    def write(value: str) -> Any:
        session["user"] = value
        return "written"

    @app.get("/read-late")
    def read_late() -> Any:
        user = str(session.get("user"))
        app.hook()
        return user

    @app.get("/write-late/<value>")
    def write_late(value: str) -> Any:
        user = str(session.get("user"))
        app.hook()
        session["late"] = value
        return user

    @app.get("/clear-late")
    def clear_late() -> Any:
        session.get("user")
        app.hook()
        session.clear()
        return "cleared"

    @app.get("/regenerate-late")
    def regenerate_late() -> Any:
        session.get("user")
        app.hook()
        session.regenerate()
        return "regenerated"

    @app.get("/save/<value>")
    def save(value: str) -> Any:
        session.get("user")
        app.hook()
        session["late"] = value
        session.save()
        return "saved"

    @app.get("/save-caught/<value>")
    def save_caught(value: str) -> Any:
        session.get("user")
        app.hook()
        session["late"] = value
        try:
            session.save()
        except SessionStoreError:
            return "not saved"
        return "saved"

    @app.get("/caught")
    def caught() -> Any:
        answers = []
        for _ in range(3):
            try:
                answers.append(str(session.get("user")))
            except SessionStoreError:
                answers.append("down")
        return ",".join(answers)

    @app.get("/truth")
    def truth() -> Any:
        return "logged in" if session else "logged out"

    @app.get("/hasattr")
    def has() -> Any:
        return str(hasattr(session, "keys"))

    @app.get("/available")
    def available() -> Any:
        try:
            return str(session.available)
        except SessionStoreError:
            return "down"

    @app.get("/template")
    def template() -> Any:
        return flask.render_template_string("hello {{ session.user }}")

    if handlers in ("store", "both"):

        @app.errorhandler(SessionStoreError)
        def store_error(error: SessionStoreError) -> Any:
            return "the store is down", 418, {"X-Handled": "store"}

    if handlers in ("exception", "both"):

        @app.errorhandler(Exception)
        def any_error(error: Exception) -> Any:
            return f"anything: {type(error).__name__}", 419, {"X-Handled": "any"}

    if handlers == "500":

        @app.errorhandler(500)
        def server_error(error: Any) -> Any:
            return f"own page: {type(error.original_exception).__name__}", 500

    return app


if "CESSION_FAILING" in os.environ:
    app = make_app(json.loads(os.environ["CESSION_FAILING"]))
