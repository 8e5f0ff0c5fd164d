"""The five views that most tests ask for: a value in the session, and what ends it."""

from __future__ import annotations

from flask import Flask, session


def add_views(app: Flask) -> Flask:
    """/set/<value>, /get (the value, "None" without one), /clear, /regenerate and /untouched."""

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
