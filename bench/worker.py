"""One application that answers requests in its own process and tells how long each took.

    python bench/worker.py KIND PLACE [--refresh-off] [--size BYTES]

Started by the other programs here, once per kind of session, with the Python of that kind's
virtualenv: it must run beside a predecessor as well, so it imports nothing of this project but what
is installed. PLACE is a folder for the kind's files; servers are found by BENCH_REDIS_URL and the
like; BENCH_FILE_THRESHOLD is SESSION_FILE_THRESHOLD.

Protocol: one JSON object a line on standard input, {"mode": "read", "count": 400}, and for each one
JSON list of nanoseconds a request on standard output. The first line out is {"ready": ...}.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MODES = ("untouched", "read", "write", "new", "nested", "flash", "login", "logout")
#: What the applications without a session are sent, too.
COOKIE = "session=" + "A" * 43


def content(size: int) -> dict[str, Any]:
    """A session of about so many bytes when it is stored."""
    count = max(1, (size - 40) // 29)
    return {f"field{number:04}": "x" * 18 for number in range(count)}


def nested(size: int) -> dict[str, Any]:
    """The same with lists and dicts in it."""
    row = {"id": 12345, "name": "x" * 20, "price": 9.99, "tags": ["a", "b", None, True]}
    return {"cart": [{**row, "id": number} for number in range(max(1, size // 62))]}


# ---- the application ----------------------------------------------------------------------------


def settings(kind: str, place: str) -> dict[str, Any]:
    if kind in {"none", "cookie"}:
        return {}
    given: dict[str, Any] = {"SESSION_TYPE": kind.partition("-")[0]}
    if kind == "sqlite":
        given["SESSION_SQLITE"] = os.path.join(place, "bench.sqlite3")
    elif kind == "filesystem":
        given["SESSION_FILE_DIR"] = os.path.join(place, "files")
        # The predecessor's default, 500, evicts.
        given["SESSION_FILE_THRESHOLD"] = int(os.environ.get("BENCH_FILE_THRESHOLD", 1_000_000))
    elif kind == "redis":
        from redis import Redis

        given["SESSION_REDIS"] = Redis.from_url(os.environ["BENCH_REDIS_URL"])
        given["SESSION_NATIVE"] = False
    elif kind == "redis-native":
        given["SESSION_URL"] = os.environ["BENCH_REDIS_URL"]
    elif kind == "postgresql":
        given["SESSION_POSTGRESQL"] = os.environ["BENCH_POSTGRES_URL"]
    elif kind == "sqlalchemy-postgresql":
        url = os.environ["BENCH_POSTGRES_URL"].replace("postgresql:", "postgresql+psycopg:")
        given["SQLALCHEMY_DATABASE_URI"] = url
        given["SESSION_SQLALCHEMY_TABLE"] = "sessions_of_sqlalchemy"
    elif kind.startswith("sqlalchemy"):
        given["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.path.join(place, "bench.db")
    return given


def make_app(kind: str, place: str, refresh: bool = True, size: int = 300) -> Any:
    """kind: none, cookie, memory, sqlite, filesystem, redis, redis-native, postgresql,
    sqlalchemy-postgresql, sqlalchemy, or sqlalchemy-wal (WAL and synchronous=NORMAL, which
    SQLAlchemy does not set by itself)."""
    import flask
    from flask import Flask, session

    app = Flask("bench")
    app.config["SESSION_REFRESH_EACH_REQUEST"] = refresh
    app.config.update(settings(kind, place))
    if kind != "none":
        app.config["SECRET_KEY"] = "bench"
    if kind == "sqlalchemy-wal":
        import sqlalchemy

        @sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
        def connected(connection: Any, record: object) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    if kind not in {"none", "cookie"}:
        from flask_session import Session

        Session(app)
    stored = content(size)
    numbers = iter(range(1, 1 << 62))

    @app.route("/untouched")
    def untouched() -> str:
        return "text"

    @app.route("/read")
    def read() -> str:
        return str(session.get("user", "nobody"))

    @app.route("/write")
    def write() -> str:
        session["number"] = next(numbers)
        return "text"

    @app.route("/nested")
    def change_nested() -> str:
        session["list"][0] = next(numbers)
        session.modified = True  # the predecessors need to be told
        return "text"

    @app.route("/flash")
    def flash() -> str:
        flask.get_flashed_messages()
        flask.flash("saved")
        return "text"

    @app.route("/new")
    def new() -> str:
        session["user"] = "visitor"
        session["list"] = [0, 1, 2]
        session.update(stored)
        return "text"

    @app.route("/login")
    def login() -> str:
        regenerate = getattr(app.session_interface, "regenerate", None)
        if regenerate is not None:
            regenerate(session)
        session["user"] = "visitor"
        return "text"

    @app.route("/logout")
    def logout() -> str:
        session.clear()
        return "text"

    return app


# ---- visitors -----------------------------------------------------------------------------------


class Visitor:
    """Calls a WSGI application and keeps its cookie."""

    def __init__(self, app: Any, cookie: str | None = None) -> None:
        self.app = app
        self.cookie = cookie
        self.environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }

    def visit(self, path: str) -> int:
        """Nanoseconds that the request took."""
        environ = dict(self.environ, PATH_INFO=path)
        environ["wsgi.input"] = io.BytesIO()
        if self.cookie:
            environ["HTTP_COOKIE"] = self.cookie
        answer: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> None:
            answer.append((status, headers))

        begin = time.perf_counter_ns()
        body = self.app(environ, start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()
        took = time.perf_counter_ns() - begin
        status, headers = answer[0]
        if not status.startswith("200"):
            raise SystemExit(f"{path} answered {status}")
        for name, value in headers:
            if name == "Set-Cookie":
                self.cookie = value.partition(";")[0]
        return took


def steps(app: Any, mode: str, has_session: bool) -> Callable[[], int]:
    """A function that makes one request of this mode and gives its nanoseconds. What the request
    needs before it (a session to read, to log out of) is made outside of that time."""
    if mode == "new":
        return lambda: Visitor(app).visit("/new")
    if mode == "logout":

        def logout() -> int:
            visitor = Visitor(app)
            visitor.visit("/new")
            return visitor.visit("/logout")

        return logout
    visitor = Visitor(app, None if has_session else COOKIE)
    if has_session:
        visitor.visit("/new")
    return lambda: visitor.visit("/" + mode)


def serve(app: Any, has_session: bool, ready: str) -> None:
    """The protocol, until standard input ends."""
    print(json.dumps({"ready": ready}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        step = steps(app, order["mode"], has_session)
        print(json.dumps([step() for _ in range(order["count"])]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("place")
    parser.add_argument("--refresh-off", action="store_true")
    parser.add_argument("--size", type=int, default=300)
    options = parser.parse_args()
    app = make_app(options.kind, options.place, not options.refresh_off, options.size)
    serve(app, options.kind != "none", options.kind)


if __name__ == "__main__":
    main()
