"""The store is down, slow, or dies between load and save.

The applications run in this process (apps/failing.py); the stores are real: a redis-server behind
a proxy that can refuse, and SQLite files that other processes lock, remove or may not read.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import flask_session
import pytest
from flask_session import SessionStoreError

from tests.python.apps import failing
from tests.python.flask_version import LATE
from tests.services.base import wait_until
from tests.services.visitor import Visitor

SID = "Sid-that-no-log-may-show_0123456789abcdefgh"
SECRET = "data-that-no-log-may-show"
# Seconds until a store that says nothing has failed: tests wait for it, and everything that works
# must be done by then, also on a busy machine.
TIMEOUT = 0.5

Settings = dict[str, Any]

# ---- stores that fail ---------------------------------------------------------------------------


class RedisWorld:
    """A redis-server behind a proxy."""

    native = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        server = request.getfixturevalue("redis_server")
        self.proxy = request.getfixturevalue("counting_proxy")(server.port())
        self.settings: Settings = {
            "SESSION_TYPE": "redis",
            # With a password that must not show up either.
            "SESSION_REDIS": self.proxy.url(server.acl_url),
            "SESSION_NATIVE": self.native,
            "SESSION_KEY_PREFIX": f"session:{uuid.uuid4()}:",
            # It fails by refusing, which takes no time.
            "SESSION_STORE_TIMEOUT": 20,
        }
        self.secrets = ["sessions-secret"]

    def fail(self, phase: str) -> None:
        self.proxy.refuse()

    def mend(self) -> None:
        self.proxy.listen()

    def close(self) -> None:
        pass


class NativeRedisWorld(RedisWorld):
    """The same through the library's own driver."""

    native = True


class SqliteWorld:
    """A file that cannot be opened when it is first needed, or that another process locks."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.folder = request.getfixturevalue("tmp_path") / "store"
        self.folder.mkdir()
        self.path = self.folder / "sessions.sqlite3"
        self.settings: Settings = {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(self.path)}
        self.secrets: list[str] = []
        self.locker: Locker | None = None

    def fail(self, phase: str) -> None:
        if phase == "load":
            # A missing folder would be made.
            self.folder.rmdir()
            self.folder.touch()
        else:
            self.locker = Locker(self.path)

    def mend(self) -> None:
        if self.locker is not None:
            self.locker.close()
            self.locker = None
        if self.folder.is_file():
            self.folder.unlink()

    def close(self) -> None:
        if self.locker is not None:
            self.locker.close()


class Locker:
    """Another process that holds the write lock of an SQLite file."""

    CODE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
connection.close()
"""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "locked\n"

    def close(self) -> None:
        self.process.communicate("")
        assert self.process.returncode == 0


WORLDS = {"sqlite": SqliteWorld, "redis": RedisWorld, "redis-native": NativeRedisWorld}
World = SqliteWorld | RedisWorld


@pytest.fixture(params=[
    pytest.param("sqlite", marks=pytest.mark.process),
    pytest.param("redis", marks=pytest.mark.server),
    pytest.param("redis-native", marks=pytest.mark.server),
])  # fmt: skip
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = WORLDS[request.param](request)
    yield made
    made.close()


def make_app(world_or_settings: World | Settings, handlers: str = "none", **more: Any):
    settings = getattr(world_or_settings, "settings", world_or_settings)
    return failing.make_app({"SESSION_STORE_TIMEOUT": TIMEOUT, **settings, **more}, handlers)


def login(app: flask.Flask, user: str = SECRET):
    """A client with a stored session."""
    client = app.test_client()
    assert client.get(f"/write/{user}").status_code == 200
    assert client.get_cookie("session") is not None
    return client


def stranger(app: flask.Flask):
    """A client with a well-formed session id."""
    client = app.test_client()
    client.set_cookie("session", SID)
    return client


def counts(app: flask.Flask) -> dict[str, int]:
    """Store operations that were asked for."""
    asked = app.extensions["flask_session"].store.counts()
    names = ("load", "create", "replace", "touch", "remove", "failed")
    return {name: asked[name] for name in names if asked[name]}


def events(app: flask.Flask) -> dict[str, int]:
    happened = app.session_interface._counts()
    return {name: happened[name] for name in ("store_error", "lost") if happened[name]}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def reported(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The failures that a person who reads the log sees as errors of the application."""
    return [record for record in log.records if record.exc_info]


# ---- every phase, every SESSION_ON_STORE_ERROR, every kind of handler ---------------------------

# mode, handlers -> status, start of the body
EXPECTED = {
    ("raise", "none"): (500, "<!doctype html>"),
    ("raise", "500"): (500, "own page: SessionStoreError"),
    ("raise", "store"): (418, "the store is down"),
    ("raise", "exception"): (419, "anything: SessionStoreError"),
    ("raise", "both"): (418, "the store is down"),
    ("503", "none"): (503, "<!doctype html>"),
    ("503", "store"): (503, "<!doctype html>"),
    ("503", "exception"): (419, "anything: ServiceUnavailable"),
    ("empty", "none"): (200, None),
    ("empty", "exception"): (200, None),
}


@pytest.mark.parametrize(("mode", "handlers"), EXPECTED, ids=str)
@pytest.mark.parametrize("phase", ["load", "save"])
def test_what_the_application_answers(world, log, phase, mode, handlers):
    app = make_app(world, handlers, SESSION_ON_STORE_ERROR=mode)
    if phase == "load":
        client, path = stranger(app), "/read"
        world.fail("load")
    else:
        client, path = login(app), f"/write-late/{SECRET}-2"
        app.hook = lambda: world.fail("save")
    before = counts(app)
    log.clear()
    answer = client.get(path)

    status, body = EXPECTED[mode, handlers]
    if body is None:
        body = "None" if phase == "load" else SECRET
    assert answer.status_code == status
    assert answer.text.startswith(body)
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.headers.get("Retry-After") == ("1" if answer.status_code == 503 else None)
    assert answer.headers.get("X-Handled") == {418: "store", 419: "any"}.get(status)
    assert "Set-Cookie" not in answer.headers
    if phase == "save":
        assert answer.headers["Vary"] == "Cookie"

    # One failing operation, whatever Flask called twice.
    wanted = {"load": 1} if phase == "load" else {"load": 1, "replace": 1}
    after = {name: count - before.get(name, 0) for name, count in counts(app).items()}
    assert {name: count for name, count in after.items() if count} == {**wanted, "failed": 1}
    lost = {"lost": 1} if (phase, mode) == ("save", "empty") else {}
    assert events(app) == {"store_error": 1, **lost}

    # One error for whoever reads the log, and only where nobody handled it.
    errors = reported(log)
    assert len(errors) == (1 if status == 500 else 0)
    if errors:
        assert errors[0].exc_info[0] is SessionStoreError
        assert errors[0].getMessage() == f"Exception on {path} [GET]"
    told = [record for record in log.records if record.name == "flask_session"]
    assert len([record for record in told if record.levelno == logging.ERROR]) == 1
    assert_no_secrets(world, client, log.text, answer.text)


def assert_no_secrets(world: World, client: Any, *texts: str) -> None:
    cookie = client.get_cookie("session")
    secrets = [SID, SECRET + "-2", *world.secrets, *([cookie.value] if cookie else [])]
    for text in texts:
        for secret in secrets:
            # A path with the value in it is the test's own doing.
            assert secret not in text.replace(f"/write-late/{SECRET}-2", "")


@pytest.mark.parametrize("phase", ["load", "save"])
def test_in_a_test_client_the_error_itself_arrives(world, phase):
    app = make_app(world, TESTING=True)
    if phase == "load":
        client = stranger(app)
        world.fail("load")
    else:
        client = login(app)
        app.hook = lambda: world.fail("save")
    with pytest.raises(SessionStoreError) as caught:
        client.get("/read" if phase == "load" else f"/write-late/{SECRET}-2")
    assert type(caught.value).__mro__[1] is Exception
    lines = [str(caught.value), repr(caught.value)]
    lines += traceback.format_exception_only(type(caught.value), caught.value)
    if not isinstance(world, RedisWorld) or world.native:
        # Nothing stands behind it; a client library's error may.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    else:
        assert type(caught.value.__cause__).__module__.startswith("redis")
        lines += traceback.format_exception(caught.value.__cause__)
    assert_no_secrets(world, client, *lines)


@pytest.mark.parametrize("path", ["/clear-late", "/regenerate-late", "/write-late/x"])
@pytest.mark.parametrize("mode", ["raise", "empty", "503"])
def test_every_kind_of_save_that_fails_sets_no_cookie(world, path, mode):
    app = make_app(world, "store", SESSION_ON_STORE_ERROR=mode)
    client = login(app)
    sid = client.get_cookie("session").value
    app.hook = lambda: world.fail("save")
    answer = client.get(path)
    assert answer.status_code == {"raise": 418, "empty": 200, "503": 503}[mode]
    assert "Set-Cookie" not in answer.headers
    assert client.get_cookie("session").value == sid
    # Nothing was half done: the session is what it was.
    world.mend()
    app.hook = lambda: None
    assert wait_until(lambda: client.get("/read").text == SECRET, 20)
    assert client.get("/write/again").status_code == 200


def test_a_new_session_that_cannot_be_created_sets_no_cookie(world):
    app = make_app(world, "store")
    client = app.test_client()
    world.fail("load")
    # Without an id there is nothing to load.
    assert client.get("/read").text == "None"
    assert counts(app) == {}
    answer = client.get("/write/x")
    assert answer.status_code == 418
    assert "Set-Cookie" not in answer.headers
    assert counts(app) == {"create": 1, "failed": 1}


def test_routes_that_never_touch_the_session_answer(world):
    app = make_app(world)
    client = stranger(app)
    world.fail("load")
    for _ in range(10):
        answer = client.get("/untouched")
        assert (answer.status_code, answer.text) == (200, "no session in sight")
        assert client.get("/nowhere").status_code == 404
        assert "Set-Cookie" not in answer.headers
        assert LATE is ("Vary" not in answer.headers)
    if LATE:
        assert counts(app) == {}
        assert events(app) == {}


@pytest.mark.parametrize("path", ["/truth", "/hasattr", "/template"])
def test_a_failed_load_never_looks_like_logged_out(world, path):
    app = make_app(world, "store")
    client = stranger(app)
    world.fail("load")
    answer = client.get(path)
    if path == "/hasattr" and not LATE:  # looks at the type alone
        assert (answer.status_code, answer.text) == (200, "True")
    else:
        assert answer.status_code == 418


def test_a_caught_failure_stays_one(world):
    """The same error at each use, without asking the store again, and nothing is saved."""
    app = make_app(world)
    client = stranger(app)
    world.fail("load")
    answer = client.get("/caught")
    assert (answer.status_code, answer.text) == (200, "down,down,down")
    assert counts(app) == {"load": 1, "failed": 1}
    assert events(app) == {"store_error": 1}
    assert "Set-Cookie" not in answer.headers


def test_each_use_of_a_failed_session_has_a_traceback_of_its_own(world):
    app = make_app(world)

    @app.get("/frames")
    def frames():
        found = []
        for _ in range(3):
            try:
                flask.session.get("user")
            except SessionStoreError as error:
                found.append([frame.name for frame in traceback.extract_tb(error.__traceback__)])
        return found

    client = stranger(app)
    world.fail("load")
    found = client.get("/frames").json
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("mode", ["raise", "empty"])
def test_available_says_so(world, mode):
    app = make_app(world, SESSION_ON_STORE_ERROR=mode)
    client = stranger(app)
    world.fail("load")
    answer = client.get("/available")
    assert answer.text == ("down" if LATE and mode == "raise" else "False")
    assert "Set-Cookie" not in answer.headers


def test_read_as_empty_is_never_saved(world):
    app = make_app(world, SESSION_ON_STORE_ERROR="empty")
    client = stranger(app)
    world.fail("load")
    answer = client.get("/write/x")
    assert (answer.status_code, answer.text) == (200, "written")
    assert "Set-Cookie" not in answer.headers
    assert events(app) == {"store_error": 1, "lost": 1}
    assert counts(app) == {"load": 1, "failed": 1}
    # Also when the store is back before the request ends.
    app.hook = world.mend
    answer = client.get("/write-late/x")
    app.hook = lambda: None
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert set(counts(app)) == {"load", "failed"}
    assert events(app) == {"store_error": 2, "lost": 2}


def test_save_session_called_twice_stores_nothing_the_second_time(world):
    app = make_app(world, "store")
    client = login(app)
    sid = client.get_cookie("session").value
    with app.test_request_context(headers={"Cookie": f"session={sid}"}) as context:
        flask.session["x"] = 1
        world.fail("save")
        before = counts(app)
        first, second = app.make_response("one"), app.make_response("two")
        app.session_interface.save_session(app, flask.session._get_current_object(), first)
        assert counts(app)["failed"] == before.get("failed", 0) + 1
        world.mend()
        before = counts(app)
        app.session_interface.save_session(app, flask.session._get_current_object(), second)
        assert counts(app) == before
        assert (first.status_code, second.status_code) == (418, 200)
        for response in (first, second):
            assert "Set-Cookie" not in response.headers
        del context
    assert events(app) == {"store_error": 1}


@pytest.mark.parametrize("mode", ["raise", "empty", "503"])
@pytest.mark.parametrize("path", ["/save/x", "/save-caught/x"])
def test_an_explicit_save_that_fails(world, log, mode, path):
    app = make_app(world, SESSION_ON_STORE_ERROR=mode)
    client = login(app)
    app.hook = lambda: world.fail("save")
    before = counts(app)
    log.clear()
    answer = client.get(path)
    expected = {
        ("raise", "/save/x"): (500, None),
        ("503", "/save/x"): (503, None),
        ("empty", "/save/x"): (200, "saved"),
        ("raise", "/save-caught/x"): (200, "not saved"),
        # It catches SessionStoreError, and 503 is not that.
        ("503", "/save-caught/x"): (503, None),
        ("empty", "/save-caught/x"): (200, "saved"),
    }[mode, path]
    assert answer.status_code == expected[0]
    assert expected[1] in (None, answer.text)
    assert "Set-Cookie" not in answer.headers
    assert counts(app)["failed"] - before.get("failed", 0) == 1
    assert counts(app)["replace"] - before.get("replace", 0) == 1
    assert events(app) == {"store_error": 1, **({"lost": 1} if mode == "empty" else {})}
    assert len(reported(log)) == (1 if answer.status_code == 500 else 0)


# ---- what a handler may answer ------------------------------------------------------------------


def test_the_handler_s_answer_is_the_answer(world):
    app = make_app(world)
    answers = {
        "text": lambda: ("text", 520),
        "json": lambda: flask.jsonify(error="down"),
        "redirect": lambda: flask.redirect("/elsewhere"),
        "response": lambda: flask.Response(iter(["a", "b"]), 521, {"X-Own": "1"}),
        "flash": lambda: (flask.flash("the store is down"), ("flashed", 522))[1],
    }
    chosen = "text"

    @app.errorhandler(SessionStoreError)
    def handle(error):
        return answers[chosen]()

    @app.after_request
    def header(response):
        response.headers["X-After"] = "1"
        return response

    client = login(app)
    seen = {}
    for chosen in answers:
        app.hook = lambda: world.fail("save")
        answer = client.get("/write-late/x")
        world.mend()
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Vary"] == "Cookie"
        assert answer.headers["X-After"] == "1"
        seen[chosen] = answer
    assert (seen["text"].status_code, seen["text"].text) == (520, "text")
    assert seen["json"].json == {"error": "down"}
    assert seen["json"].mimetype == "application/json"
    assert (seen["redirect"].status_code, seen["redirect"].location) == (302, "/elsewhere")
    assert (seen["response"].status_code, seen["response"].text) == (521, "ab")
    assert seen["response"].headers["X-Own"] == "1"
    assert (seen["flash"].status_code, seen["flash"].text) == (522, "flashed")


# ---- recovery and the circuit breaker -----------------------------------------------------------


def test_it_recovers_without_a_restart(world):
    """Also after so many failures that the store is left alone for a while."""
    app = make_app(world, "store")
    if isinstance(world, RedisWorld):
        client = login(app)
        expected = SECRET
    else:
        client, expected = stranger(app), "None"
    world.fail("load")
    for _ in range(8):
        assert client.get("/read").status_code == 418
    world.mend()
    assert wait_until(lambda: client.get("/read").status_code == 200, 20)
    assert client.get("/read").text == expected
    # From then on there is no further refusal.
    for number in range(20):
        assert client.get(f"/write/{number}").status_code == 200


@pytest.mark.server
def test_breaker_leaves_a_dead_store_alone(request):
    """After 5 failures in a row requests fail at once, but for one trial a second."""
    world = RedisWorld(request)
    app = make_app(world, "store")
    client = login(app)
    refused = 0
    for _ in range(5):
        world.proxy.refuse()
        for _ in range(5):
            assert client.get("/read").status_code == 418
        world.proxy.listen()
        # It would answer, but is not asked before the next trial.
        world.proxy.reset()
        while client.get("/read").status_code == 418:
            assert world.proxy.connections == 0
            refused += 1
            time.sleep(0.01)
        assert client.get("/read").text == SECRET
        if refused:  # else this process was not run for a whole second
            break
    assert refused


@pytest.mark.server
def test_breaker_makes_few_trials_while_the_store_hangs(request):
    world = RedisWorld(request)
    app = make_app(world, "store", SESSION_STORE_TIMEOUT=0.2)
    client = app.test_client()
    client.set_cookie("session", login(make_app(world)).get_cookie("session").value)
    world.proxy.swallow = True
    world.proxy.reset()
    start = time.monotonic()
    for _ in range(300):
        assert client.get("/read").status_code == 418
    # As many as failed before it opened, and one for each second that passed.
    assert 5 <= world.proxy.connections <= 6 + (time.monotonic() - start)
    world.proxy.swallow = False
    world.proxy.cut()
    assert wait_until(lambda: client.get("/read").text == SECRET, 20)


def test_breaker_counts_failures_in_a_row(world):
    app = make_app(world, "store")
    client = login(app)
    for _ in range(2):
        world.fail("save")
        for _ in range(4):
            assert client.get("/write/x").status_code == 418
        world.mend()
        # Not one refusal: the store was asked, and its answer ended the row.
        assert client.get("/write/x").status_code == 200


# ---- redis --------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(redis_private):
    return redis_private(appendonly="yes")


@pytest.fixture(params=[False, True], ids=["adapter", "native"])
def redis_app(request):
    return functools.partial(make_redis_app, native=request.param)


def make_redis_app(server: Any, handlers: str = "store", native: bool = False, **more: Any):
    return make_app(
        {"SESSION_TYPE": "redis", "SESSION_REDIS": server.url, "SESSION_NATIVE": native},
        handlers,
        **{"SESSION_STORE_TIMEOUT": 2, **more},
    )


@pytest.mark.server
@pytest.mark.parametrize("phase", ["load", "save"])
@pytest.mark.parametrize("way", ["stop", "kill", "pause"])
def test_redis_goes_away_and_comes_back(own_redis, redis_app, way, phase):
    app = redis_app(own_redis)
    client = login(app)
    down = getattr(own_redis, way)
    back = own_redis.resume if way == "pause" else own_redis.restart
    if phase == "load":
        down()
        answer = client.get("/read")
    else:
        app.hook = down
        answer = client.get("/write-late/x")
        app.hook = lambda: None
    assert answer.status_code == 418
    assert "Set-Cookie" not in answer.headers
    assert client.get("/untouched").status_code == 200
    back()
    assert wait_until(lambda: client.get("/read").text == SECRET, 20)
    assert client.get("/write/again").status_code == 200
    assert client.get("/read").text == "again"


@pytest.mark.server
def test_redis_restarted_between_two_requests_is_not_noticed(own_redis, redis_app):
    """The connection in the client's pool is dead, the server is not."""
    app = redis_app(own_redis)
    client = login(app)
    own_redis.restart()
    assert client.get("/read").text == SECRET
    app.hook = own_redis.restart
    assert client.get("/write-late/x").status_code == 200
    app.hook = lambda: None
    assert client.get("/read").text == SECRET
    assert events(app) == {}


@pytest.mark.server
@pytest.mark.parametrize("trouble", ["oom", "readonly", "no-set", "no-scripts"])
def test_redis_refuses(own_redis, redis_app, log, trouble):
    """It answers, but with an error; the session's data is not in what is said about it."""
    import redis

    admin = redis.Redis.from_url(own_redis.url)
    app = redis_app(own_redis, "none")
    client = login(app)
    sid = client.get_cookie("session").value

    def refuse() -> None:
        if trouble == "oom":
            admin.config_set("maxmemory", "1")
        elif trouble == "readonly":
            admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        elif trouble == "no-set":
            admin.execute_command("ACL", "SETUSER", "default", "-set")
        else:
            admin.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")

    def allow() -> None:
        admin.config_set("maxmemory", "0")
        admin.execute_command("REPLICAOF", "NO", "ONE")
        admin.execute_command("ACL", "SETUSER", "default", "+@all")

    app.hook = refuse
    log.clear()
    answer = client.get(f"/write-late/{SECRET}-2")
    assert answer.status_code == 500
    assert "Set-Cookie" not in answer.headers
    assert len(reported(log)) == 1
    shown = log.text.replace(f"/write-late/{SECRET}-2", "")
    assert SECRET not in shown
    assert sid not in shown
    allow()
    app.hook = lambda: None
    assert wait_until(lambda: client.get("/write/again").status_code == 200, 20)
    admin.close()


@pytest.mark.server
@pytest.mark.process
@pytest.mark.slow
def test_redis_down_under_gunicorn(gunicorn_app, own_redis):
    """Two workers: errors while it is down, none afterwards; one traceback for one failure."""
    settings = {
        "SESSION_TYPE": "redis",
        "SESSION_REDIS": own_redis.url,
        "SESSION_STORE_TIMEOUT": TIMEOUT,
    }
    server = gunicorn_app(
        "failing:app",
        source=Path(failing.__file__).read_text(),
        env={"CESSION_FAILING": json.dumps(settings)},
    )
    workers = set(server.worker_pids())
    visitor = Visitor(server.url)
    assert visitor.get(f"/write/{SECRET}").status == 200
    sid = visitor.sid
    own_redis.kill()
    for _ in range(4):
        assert visitor.get("/read").status == 500
        assert visitor.get("/untouched").status == 200
    own_redis.restart()
    assert wait_until(lambda: visitor.get("/read").status == 200, 20)
    assert wait_until(lambda: visitor.get("/write/x").status == 200, 20)
    assert visitor.sid == sid
    assert visitor.get("/read").text == "x"
    assert set(server.worker_pids()) == workers
    text = server.log()
    failures = text.count("Exception on /read [GET]") + text.count("Exception on /write/x [GET]")
    assert failures >= 4
    # Only our own error ends a traceback; gunicorn saw none.
    assert text.count("\nflask_session.SessionStoreError: ") == failures
    assert "Error handling request" not in text
    assert sid not in text
    assert SECRET not in text


# ---- sqlite -------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(request):
    made = SqliteWorld(request)
    yield made
    made.close()


@pytest.mark.process
def test_sqlite_is_read_while_another_process_holds_the_lock(sqlite):
    app = make_app(sqlite, "store")
    client = login(app)
    sqlite.fail("save")
    assert client.get("/read").text == SECRET
    assert client.get("/write/x").status_code == 418
    sqlite.mend()
    assert client.get("/write/x").status_code == 200
    assert client.get("/read").text == "x"


@pytest.mark.process
def test_sqlite_waits_for_a_lock_that_is_given_back_in_time(sqlite):
    app = make_app(sqlite, "store", SESSION_STORE_TIMEOUT=60)
    client = login(app)
    sqlite.fail("save")
    holder = sqlite.locker
    # Given back only when the writer is certain to have asked for it.
    os.kill(holder.process.pid, signal.SIGSTOP)

    def give_back() -> None:
        wait_until(lambda: counts(app).get("replace", 0) > 0, 20)
        os.kill(holder.process.pid, signal.SIGCONT)
        sqlite.mend()

    helper = threading.Thread(target=give_back)
    helper.start()
    answer = client.get("/write/x")
    helper.join()
    assert answer.status_code == 200
    assert client.get("/read").text == "x"
    assert events(app) == {}


def test_sqlite_folder_removed_under_a_running_application(sqlite):
    """It is made anew; what was in it is gone, and nobody is told that it was stored."""
    app = make_app(sqlite, "store")
    client = login(app)
    shutil.rmtree(sqlite.folder)
    assert wait_until(lambda: client.get("/read").text == "None", 20)
    assert client.get("/write/y").status_code == 200
    assert client.get("/read").text == "y"
    assert sqlite.path.exists()
    other = make_app(sqlite, "store").test_client()
    other.set_cookie("session", client.get_cookie("session").value)
    assert other.get("/read").text == "y"


def test_sqlite_folder_replaced_by_something_else(sqlite):
    app = make_app(sqlite, "store")
    client = login(app)
    away = sqlite.folder.with_name("away")
    sqlite.folder.rename(away)
    sqlite.folder.touch()
    assert wait_until(lambda: client.get("/read").status_code == 418, 20)
    answer = client.get("/write/x")
    assert answer.status_code == 418
    assert "Set-Cookie" not in answer.headers
    assert client.get("/untouched").status_code == 200
    sqlite.folder.unlink()
    away.rename(sqlite.folder)
    assert wait_until(lambda: client.get("/read").text == SECRET, 20)


@pytest.mark.parametrize("content", [b"not a database at all" * 400, b""], ids=["garbage", "empty"])
def test_sqlite_file_that_is_no_database(sqlite, content):
    sqlite.path.write_bytes(content)
    app = make_app(sqlite, "store")
    client = app.test_client()
    if content:
        answer = client.get("/write/x")
        assert answer.status_code == 418
        assert "Set-Cookie" not in answer.headers
        assert sqlite.path.read_bytes() == content
        sqlite.path.unlink()
        assert wait_until(lambda: client.get("/write/x").status_code == 200, 20)
    else:
        assert client.get("/write/x").status_code == 200
    assert client.get("/read").text == "x"


UNPRIVILEGED = Path(__file__).parent / "apps" / "unprivileged.py"


@pytest.mark.process
def test_sqlite_without_permission(tmp_path_factory):
    """The file or its folder cannot be read or written, as a user for whom that counts."""
    folder = Path(tempfile.mkdtemp(prefix="cession-unprivileged-"))
    try:
        done = subprocess.run(
            [sys.executable, str(UNPRIVILEGED), str(folder)],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(
                [str(Path(flask_session.__file__).parents[1]), str(UNPRIVILEGED.parent)])},
        )  # fmt: skip
    finally:
        for root, folders, _ in os.walk(folder):
            for name in (root, *(os.path.join(root, one) for one in folders)):
                with contextlib.suppress(OSError):
                    os.chmod(name, 0o700)
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("uid") != 0
    down = [418, "the store is down", False]
    fine = [200, "written", True]
    assert seen == {
        "login": fine,
        "unreadable file": {"read": down, "write": down, "untouched": 200},
        "readable again": [200, "me"],
        "read-only file": {"write": down, "untouched": 200},
        "writable again": [200, "written"],
        "unreadable folder": {"read": down, "write": down, "untouched": 200},
        "folder readable again": [200, "again"],
        "read-only folder, no file": {"write": down, "untouched": 200},
        "writable folder": fine,
        "disk full": {"read": [200, "big"], "write": down},
        "room again": [200, "written"],
    }
