"""Many requests in one process, and what they leave behind in memory.

endurance.py SETTINGS REQUESTS: prints, as JSON, what is in use after a third of the requests and
after all of them. Requests go straight into the WSGI application, so that nothing else allocates.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import flask
import flask_session
from flask import session
from flask_session import _core
from flask_session.base import ServerSideSessionInterface


class Broken:
    """A store that fails, answers nonsense or what is no session, as `trouble` says."""

    name = "broken"
    capabilities = _core.CAP_ATOMIC | _core.CAP_NATIVE_TTL
    trouble = "none"
    stored = (_core.encode({"user": "me", "list": [1, 2, {"a": b"x" * 100}]}), b"v1", None)
    changed = (_core.encode({"user": "you", "other": ["x" * 50]}), b"v2", 1 << 50)

    def load(self, key: str, timeout: float) -> Any:
        if self.trouble == "load":
            raise ConnectionError("down")
        if self.trouble == "shape":
            return (1, 2)
        if self.trouble == "corrupt":
            return (self.stored[0][:-3], b"", None)
        if self.trouble == "missing":
            return None
        return self.stored

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> Any:
        if self.trouble == "exists":
            return False
        return self._save(True)

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> Any:
        if self.trouble == "conflict" and expected != self.changed[0]:
            return self.changed
        if self.trouble == "gone":
            return _core.GONE
        return self._save(_core.OK)

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> Any:
        return self._save(_core.OK)

    def remove(self, key: str, timeout: float) -> None:
        self._save(None)

    def _save(self, answer: Any) -> Any:
        if self.trouble == "save":
            raise ConnectionError("down")
        return answer


TROUBLES = ("none", "load", "shape", "corrupt", "missing", "exists", "conflict", "gone", "save")


class Unencodable:
    pass


def make_app(settings: dict[str, Any]) -> flask.Flask:
    app = flask.Flask("endurance")
    app.config.update(settings)
    if settings["SESSION_TYPE"] == "broken":
        adapter = Broken()

        class Interface(ServerSideSessionInterface):
            def _open_store(self, key_prefix: str) -> Any:
                return _core.Store.wrap(adapter)

        app.session_interface = Interface(app)
        app.adapter = adapter  # type: ignore[attr-defined]
    else:
        flask_session.Session(app)

    @app.get("/untouched")
    def untouched() -> str:
        return "fine"

    @app.get("/read")
    def read() -> str:
        return str(session.get("user"))

    @app.get("/write")
    def write() -> str:
        session["user"] = session.get("user", "") + "x"
        session["cart"] = {"items": [{"n": n, "name": "é" * 20} for n in range(5)], 1: (1, 2)}
        return "written"

    @app.get("/nested")
    def nested() -> str:
        session["cart"]["items"].append({1, 2, 3})
        return "written"

    @app.get("/regenerate")
    def regenerate() -> str:
        session["login"] = True
        session.regenerate()
        return "regenerated"

    @app.get("/logout")
    def logout() -> str:
        session.clear()
        return "out"

    @app.get("/unencodable")
    def unencodable() -> str:
        session["x"] = {"deep": [Unencodable()]}
        return "never stored"

    @app.get("/all-methods")
    def all_methods() -> str:
        session.update(a=1, b=[2])
        session.setdefault("c", {})
        session.pop("a")
        copies = [dict(session), session.copy(), {**session}, session | {"d": 1}, list(session)]
        repr(session)
        return str(len(copies) + len(session.keys() & {"b"}) + len(session.items()))

    @app.errorhandler(flask_session.SessionStoreError)
    def down(error: Exception) -> Any:
        return "down", 503

    @app.errorhandler(500)
    def broken(error: Exception) -> Any:
        return "broken", 500

    return app


class Client:
    def __init__(self, app: flask.Flask) -> None:
        self.app = app
        self.cookie = ""

    def get(self, path: str, cookie: str | None = None) -> int:
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": False,
            "wsgi.multiprocess": False, "wsgi.run_once": False,
        }  # fmt: skip
        sent = self.cookie if cookie is None else cookie
        if sent:
            environ["HTTP_COOKIE"] = sent
        answer: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[..., Any]:
            answer[:] = [int(status[:3]), headers]
            return lambda data: None

        body: Iterable[bytes] = self.app.wsgi_app(environ, start_response)
        for _ in body:
            pass
        getattr(body, "close", lambda: None)()
        for name, value in answer[1]:
            if name == "Set-Cookie" and cookie is None:
                pair = value.partition(";")[0]
                self.cookie = "" if pair.endswith("=") else pair
        return int(answer[0])


VISIT = (
    "/write", "/read", "/untouched", "/read", "/write", "/nested", "/all-methods", "/read",
    "/logout", "/read",
)  # fmt: skip
STRANGE = (
    "session=" + "s" * 43, "session=short", "session=" + "x" * 300, 'session="quoted value"',
    "session=a.b.c; other=1", "session=sp ace", "other=1", "session=\xe9\xe8", "session=",
)  # fmt: skip


def visit(client: Client, number: int) -> int:
    """One visit; how many requests it was."""
    client.cookie = ""
    for path in VISIT:
        assert client.get(path) == 200
    count = len(VISIT)
    assert client.get("/read", cookie=STRANGE[number % len(STRANGE)]) == 200
    if number % 50 == 0:
        for path in ("/write", "/regenerate", "/read", "/unencodable", "/logout"):
            assert client.get(path) == (500 if path == "/unencodable" else 200)
        count += 5
    return count + 1


def trouble(client: Client, number: int) -> int:
    adapter = client.app.adapter  # type: ignore[attr-defined]
    adapter.trouble = TROUBLES[number % len(TROUBLES)]
    paths = ("/read", "/write", "/regenerate", "/logout", "/unencodable")
    for path in paths:
        # With an id the store is asked, without one a session is made.
        for cookie in ("session=" + "s" * 43, ""):
            assert client.get(path, cookie=cookie) in (200, 500, 503)
    # The breaker would keep the failures away from here.
    adapter.trouble = "none"
    assert client.get("/read", cookie="session=" + "s" * 43) in (200, 503)
    return 2 * len(paths) + 1


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def malloc_in_use() -> int | None:
    """Bytes that malloc has given out to this (single) thread; None where that cannot be told."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def count_sessions() -> int:
    return sum(isinstance(one, _core.Session) for one in gc.get_objects())


def state(app: flask.Flask) -> dict[str, int | None]:
    gc.collect()
    interface = app.session_interface
    watched: dict[str, Any] = {
        "app": app,
        "interface": interface,
        "session class": interface.session_class,
        "base class": _core.Session,
        "store": interface._store,
        "config": app.config,
        "empty tuple": (),
        "error": flask_session.SessionStoreError,
    }
    return {
        "rss": rss(),
        "malloc": malloc_in_use(),
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        "sessions": count_sessions(),
        **{f"references to {name}": sys.getrefcount(one) for name, one in watched.items()},
    }


def main() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    settings, requests = json.loads(sys.argv[1]), int(sys.argv[2])
    app = make_app(settings)
    client = Client(app)
    turn = trouble if settings["SESSION_TYPE"] == "broken" else visit

    done = number = 0
    while done < requests // 3:
        done += turn(client, number)
        number += 1
    state(app)
    before = state(app)
    while done < requests:
        done += turn(client, number)
        number += 1
    after = state(app)
    result = {"before": before, "after": after, "requests": done}

    if turn is visit:
        # Without errors, whose tracebacks hold their frames in circles, no session waits for the
        # collector.
        gc.disable()
        for number in range(1, 20):
            visit(client, number)
        result["sessions left to the collector"] = count_sessions()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
