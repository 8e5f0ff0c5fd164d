"""The views that most tests ask for."""

from __future__ import annotations

from flask import Flask, session


def add_views(app: Flask) -> Flask:
    """One value: /set/<value>, /get ("None" without one), /clear, /regenerate and /untouched."""

    @app.get("/set/<value>")
    def put(value: str) -> str:
        session["value"] = value
        return "set"

    @app.get("/get")
    def get() -> str:
        return str(session.get("value"))

    @app.get("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    @app.get("/regenerate")
    def regenerate() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return "new"

    @app.get("/untouched")
    def untouched() -> str:
        return "hello"

    return app


def add_keyed_views(app: Flask) -> Flask:
    """A value for each key: /set/<key>/<value>, /get/<key> ("None" without one) and /untouched."""

    @app.get("/set/<key>/<value>")
    def put(key: str, value: str) -> str:
        session[key] = value
        return "set"

    @app.get("/get/<key>")
    def get(key: str) -> str:
        return str(session.get(key))

    @app.get("/untouched")
    def untouched() -> str:
        return "hello"

    return app
