"""One application that answers requests in its own process and tells how long each took.

Started by request.py, once per kind of session, with the Python of that kind's virtualenv: it must
run beside a predecessor as well, so it imports nothing of this project but what is installed.

Protocol: one JSON object a line on standard input, {"mode": "read", "count": 400}, and for each one
JSON list of nanoseconds a request on standard output. The first line out is {"ready": ...}.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time

from flask import Flask, session

#: About 300 bytes when stored.
CONTENT = {f"field{i}": "x" * 18 for i in range(10)}
MODES = ("untouched", "read", "write", "new", "nested", "login", "logout")


def make_app(kind: str, place: str, refresh: bool) -> Flask:
    app = Flask("bench")
    app.config["SESSION_REFRESH_EACH_REQUEST"] = refresh
    if kind != "none":
        app.config["SECRET_KEY"] = "bench"
    if kind not in {"none", "cookie"}:
        from flask_session import Session

        app.config["SESSION_TYPE"] = kind
        if kind == "sqlite":
            app.config["SESSION_SQLITE"] = os.path.join(place, "bench.sqlite3")
        elif kind == "filesystem":
            app.config["SESSION_FILE_DIR"] = os.path.join(place, "files")
        elif kind == "redis":
            from redis import Redis

            app.config["SESSION_REDIS"] = Redis.from_url(os.environ["BENCH_REDIS_URL"])
        Session(app)
    numbers = iter(range(1, 1 << 62))

    @app.route("/untouched")
    def untouched() -> str:
        return "text"

    @app.route("/read")
    def read() -> str:
        return session.get("user", "nobody")

    @app.route("/write")
    def write() -> str:
        session["number"] = next(numbers)
        return "text"

    @app.route("/nested")
    def nested() -> str:
        session["list"][0] = next(numbers)
        session.modified = True  # the predecessors need to be told
        return "text"

    @app.route("/new")
    def new() -> str:
        session["user"] = "visitor"
        session["list"] = [0, 1, 2]
        session.update(CONTENT)
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


class Visitor:
    """Calls the application through WSGI and keeps its cookie."""

    def __init__(self, app: Flask, cookie: str | None) -> None:
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

        def start_response(status, headers, exc_info=None):
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


def run(app: Flask, mode: str, count: int, cookie: str) -> list[int]:
    times = []
    visitor = Visitor(app, cookie)
    if mode in {"new", "logout"}:
        for _ in range(count):
            fresh = Visitor(app, None)
            took = fresh.visit("/new")
            if mode == "logout":
                took = fresh.visit("/logout")
            times.append(took)
        return times
    if mode in {"nested", "login"} or app.secret_key:
        visitor = Visitor(app, None)
        visitor.visit("/new")
    for _ in range(count):
        times.append(visitor.visit("/" + mode))
    return times


def main() -> None:
    kind, place, refresh, cookie = sys.argv[1:5]
    app = make_app(kind, place, refresh == "refresh")
    print(json.dumps({"ready": kind}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(run(app, order["mode"], order["count"], cookie)), flush=True)


if __name__ == "__main__":
    main()
