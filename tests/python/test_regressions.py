"""Faults that were found once. What freed memory showed runs in an interpreter of its own, where
freed memory is overwritten.
"""

from __future__ import annotations

import datetime
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import flask
import flask_session
import pytest
from flask_session import _core
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.memory import MemorySessionInterface

from tests.python.apps.views import add_views
from tests.services.base import wait_until


def run_alone(code):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "PYTHONMALLOC": "malloc",
            "MALLOC_PERTURB_": "165",
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
        },
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.split()


def make_app(interface_class=MemorySessionInterface, **config):
    app = flask.Flask(__name__)
    app.secret_key = "secret"
    app.config.update(config)
    app.session_interface = interface_class(app)

    return add_views(app)


class Records:
    """A store in a dict."""

    name = "records"
    capabilities = _core.CAP_ATOMIC | _core.CAP_NATIVE_TTL

    def __init__(self):
        self.values = {}

    def load(self, key, timeout):
        return (self.values[key], b"", None) if key in self.values else None

    def create(self, key, value, ttl_ms, timeout):
        return self.values.setdefault(key, value) is value

    def replace(self, key, expected, version, value, ttl_ms, timeout):
        if key not in self.values:
            return _core.GONE
        if self.values[key] != expected:
            return (self.values[key], b"", None)
        self.values[key] = value
        return _core.OK

    def touch(self, key, expected, version, ttl_ms, timeout):
        return _core.OK if key in self.values else _core.GONE

    def remove(self, key, timeout):
        self.values.pop(key, None)


# ---- what is in use stays -----------------------------------------------------------------------


def test_the_serializer_is_replaced_while_a_session_is_opened():
    assert run_alone("""
        import flask, json, secrets
        from flask_session.memory import MemorySessionInterface

        class Interface(MemorySessionInterface):
            def _generate_sid(self, length):
                for _ in range(4):
                    self.serializer = json
                return secrets.token_urlsafe(length)

        app = flask.Flask("app")
        app.session_interface = Interface(app)

        @app.get("/")
        def view():
            flask.session["count"] = flask.session.get("count", 0) + 1
            return str(flask.session["count"])

        client = app.test_client()
        print(*[client.get("/").text for _ in range(3)])
    """) == ["1", "1", "2"]  # json does not read what was opened before it came


def test_the_serializer_is_replaced_while_it_encodes():
    assert (
        run_alone("""
        import flask, json
        from flask_session.base import ServerSideSession
        from flask_session.memory import MemorySessionInterface

        app = flask.Flask("app")
        interface = MemorySessionInterface(app)

        class Other:
            dumps, loads = staticmethod(json.dumps), staticmethod(json.loads)

        class Session(ServerSideSession):
            def items(self):
                interface.serializer = Other()
                return super().items()

        interface.serializer = Other()
        for _ in range(20):
            made = interface._encode(Session({"key": 1}))
            assert json.loads(made) == {"key": 1}, made
    """)
        == []
    )


def test_a_receiver_reloads_the_session_that_is_announced():
    created, saved, known = run_alone("""
        import flask, flask_session
        from flask_session.memory import MemorySessionInterface

        app = flask.Flask("app")
        app.testing = True
        app.session_interface = MemorySessionInterface(app)
        heard = []

        def reload(sender, **details):
            heard.append(details["sid_hash"])
            flask.session.reload()

        def note(sender, **details):
            heard.append(details["sid_hash"])

        @app.get("/")
        def view():
            flask.session["value"] = 1
            return "set"

        @app.get("/get")
        def get():
            return str(flask.session["value"])

        client = app.test_client()
        with flask_session.session_created.connected_to(reload), \\
                flask_session.session_saved.connected_to(note):
            client.get("/")
        print(*heard, client.get("/get").text)
    """)
    assert created == saved
    assert known == "1"


@pytest.mark.parametrize("ending", [lambda store: store.close(), lambda store: store.prefixed("a")])
def test_a_store_in_use_is_not_closed(ending):
    app = make_app()
    client = app.test_client()
    client.get("/set/1")
    with pytest.raises(RuntimeError, match="uses this store"):
        ending(app.session_interface._store)
    assert client.get("/get").text == "1"


def test_a_store_is_not_closed_by_its_own_operation():
    class Closing(Records):
        def load(self, key, timeout):
            store.close()

    store = _core.Store.wrap(Closing())
    with pytest.raises(_core.SessionStoreError) as caught:
        store.load("key")
    assert isinstance(caught.value.__cause__, RuntimeError)
    store.close()
    store.close()


# ---- one session, several users of it ------------------------------------------------------------


def test_who_waited_to_save_does_not_write_old_content():
    class Slow(Records):
        gate = None

        def replace(self, *arguments):
            if self.gate:
                inside.set()
                gate, self.gate = self.gate, None
                assert gate.wait(30)
            return super().replace(*arguments)

    records = Slow()
    inside, again = threading.Event(), threading.Event()

    class Interface(ServerSideSessionInterface):
        def _open_store(self, key_prefix):
            return _core.Store.wrap(records)

    app = make_app(Interface)
    with app.test_request_context():
        session = flask.session._get_current_object()
        session["value"] = 0
        session.save()

        def first():
            records.gate = go_on
            session["value"] = 1
            session.save()
            # Newer content, saved while the second thread still waits for its turn.
            records.gate = again
            inside.clear()
            session["value"] = 3
            session.save()

        def second():
            session["value"] = 2
            started.set()
            session.save()

        go_on, started = threading.Event(), threading.Event()
        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        threads[0].start()
        assert inside.wait(30)
        threads[1].start()
        assert started.wait(30)
        time.sleep(0.2)  # it gets to its wait; without that the test says nothing
        go_on.set()
        time.sleep(0.2)
        again.set()
        for thread in threads:
            thread.join(30)
        (value,) = records.values.values()
        assert _core.decode(value)["value"] == session["value"]


def test_a_session_in_use_is_not_given_to_another_visitor():
    class Kept(ServerSideSession):
        kept = None

        def __new__(cls, *arguments, **keywords):
            if cls.kept is None:
                cls.kept = super().__new__(cls)
            return cls.kept

    class Interface(MemorySessionInterface):
        session_class = Kept

    app = make_app(Interface)
    app.testing = True
    assert app.test_client().get("/set/mine").text == "set"
    with pytest.raises(TypeError, match="in use"):
        app.test_client().get("/get")


# ---- cookies -------------------------------------------------------------------------------------


def test_reload_takes_back_a_regenerate_that_is_not_saved():
    app = make_app()

    @app.get("/back")
    def back():
        sid = flask.session.sid
        flask.session.regenerate()
        flask.session.regenerate()
        flask.session.reload()
        return str(flask.session.sid == sid and flask.session["value"])

    @app.get("/saved")
    def saved():
        sid = flask.session.sid
        flask.session.regenerate()
        flask.session.save()
        flask.session.reload()
        return str(flask.session.sid != sid and flask.session["value"])

    client = app.test_client()
    client.get("/set/kept")
    assert client.get("/back").text == "kept"
    assert client.get("/get").text == "kept"
    assert client.get("/saved").text == "kept"
    assert client.get("/get").text == "kept"


def test_no_cookie_for_a_lost_session_whatever_an_override_says():
    class Interface(MemorySessionInterface):
        def should_set_cookie(self, app, session):
            return True

    app = make_app(Interface)

    @app.get("/lost")
    def lost():
        flask.session["value"] = "late"
        other.get("/logout")
        flask.session.save()
        return "lost"

    @app.get("/logout")
    def logout():
        flask.session.clear()
        return "out"

    client, other = app.test_client(), app.test_client()
    client.get("/set/1")
    other.set_cookie("session", client.get_cookie("session").value)
    answer = client.get("/lost")
    assert answer.text == "lost"
    assert "Set-Cookie" not in answer.headers


def test_a_failing_receiver_does_not_take_the_cookie_of_an_explicit_save():
    app = make_app()

    @app.get("/save")
    def save():
        flask.session["value"] = "kept"
        try:
            flask.session.save()
        except LookupError:
            return "caught"
        return "not caught"

    def fail(sender, **details):
        raise LookupError("receiver")

    client = app.test_client()
    with flask_session.session_created.connected_to(fail):
        assert client.get("/save").text == "caught"
    assert client.get("/get").text == "kept"


@pytest.mark.parametrize("signal", ["session_created", "session_regenerated"])
def test_a_failing_receiver_does_not_take_the_session(signal):
    app = make_app()
    app.logger.disabled = True

    @app.get("/login")
    def login():
        flask.session["value"] = "me"
        flask.session.regenerate()
        return "in"

    def fail(sender, **details):
        raise LookupError("receiver")

    client = app.test_client()
    if signal == "session_regenerated":
        client.get("/set/before")
    with getattr(flask_session, signal).connected_to(fail):
        assert client.get("/login").status_code == 500
    assert client.get("/get").text == "me"


def test_a_configuration_that_answers_in_its_own_way():
    class Config(flask.Config):
        def __getitem__(self, key):
            return "/tenant" if key == "SESSION_COOKIE_PATH" else super().__getitem__(key)

    class App(flask.Flask):
        config_class = Config

    app = App(__name__)
    app.session_interface = MemorySessionInterface(app)

    @app.get("/set")
    def put():
        flask.session["value"] = 1
        return "set"

    assert "Path=/tenant" in app.test_client().get("/set").headers["Set-Cookie"]


# ---- small things --------------------------------------------------------------------------------


def test_the_longest_timedelta_is_refused_for_what_it_is():
    app = make_app(PERMANENT_SESSION_LIFETIME=datetime.timedelta.max)
    app.testing = True
    with pytest.raises(ValueError, match="at most 100 years"):
        app.test_client().get("/set/1")


def test_a_missing_secret_key_leaks_no_cookie():
    app = make_app()
    app.session_interface.use_signer = True
    app.secret_key = None

    def attempt():
        context = app.test_request_context(headers={"Cookie": "session=" + "x" * 100})
        with pytest.raises(KeyError):
            app.session_interface.open_session(app, context.request)

    def growth():
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(100):
            attempt()
        gc.collect()
        return sys.getallocatedblocks() - before

    growth()
    # Threads of other tests may come and go meanwhile.
    assert min(growth() for _ in range(5)) < 50


def test_records_written_by_a_tool_leave_no_long_log(tmp_path):
    """A migration is no request; the log was nobody's business then."""
    path = tmp_path / "sessions.sqlite3"
    store = _core.Store.open("sqlite", {"path": str(path)})
    log = path.with_name(path.name + "-wal")
    for number in range(1300):
        store.create(f"k{number}", b"x" * 30_000, 3_600_000)
    assert log.stat().st_size > 30_000_000

    def is_short() -> bool:
        store.remove("k0")
        return log.stat().st_size < 20_000_000

    # Once a second; on a busy machine the first ones find the disk too slow to cut it.
    assert wait_until(is_short, 30)
    store.close()
