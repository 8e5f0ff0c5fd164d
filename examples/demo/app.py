"""Log in, be remembered, log out: sessions kept on the server, in an SQLite file.

    make run        (or: cd examples/demo && flask run)

Two headers of every answer tell its story: `X-Worker` is the process that answered, and
`X-Store-Operations` what it asked of the store for this one request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, redirect, render_template, request, session, url_for
from flask_session import Session

app = Flask(__name__, instance_path=os.environ.get("DEMO_INSTANCE"))
app.config["SESSION_TYPE"] = "sqlite"
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
Session(app)


@app.get("/")
def index() -> str:
    notes = sorted(key.removeprefix("note:") for key in session if key.startswith("note:"))
    return render_template("page.html", name=session.get("username"), notes=notes)


@app.post("/login")
def login() -> Any:
    name = request.form.get("username", "").strip()[:40]
    if name:
        session["username"] = name
        # A new id at every change of privilege: an id that somebody knew before is worth nothing.
        session.regenerate()
    return redirect(url_for("index"))


@app.post("/note")
def note() -> Any:
    session["note:" + request.form["text"][:40]] = True
    return redirect(url_for("index"))


@app.post("/logout")
def logout() -> Any:
    session.clear()
    return redirect(url_for("index"))


@app.get("/about")
def about() -> Response:
    """Never looks at the session, so it costs the store nothing."""
    return Response("A Flask application with sessions on the server.\n", mimetype="text/plain")


# ---- what the demonstration shows ---------------------------------------------------------------

OPERATIONS = ("load", "create", "replace", "touch", "remove", "purge", "scan")

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CountOperations:
    """Adds the headers. Counts belong to the process; a worker that answers one request at a time
    (gunicorn's default) has exactly this request between the two looks at them."""

    def __init__(self, application: WSGI) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        stats = app.extensions["flask_session"].stats
        before = stats()

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            after = stats()
            done = [(name, after[name] - before[name]) for name in OPERATIONS]
            text = " ".join(f"{name}={count}" for name, count in done if count)
            extra = [("X-Worker", str(os.getpid())), ("X-Store-Operations", text or "none")]
            return start_response(status, [*headers, *extra], *rest)

        return self.application(environ, start)


app.wsgi_app = CountOperations(app.wsgi_app)  # type: ignore[method-assign]
