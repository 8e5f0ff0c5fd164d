"""The work of a request is done in C: while it runs, no Python code of this package does, but for
what is listed here.

A profiler sees every Python function that begins, from the moment a server calls the application to
the end of the answer.
"""

from __future__ import annotations

import collections
import sys
import threading
import time
from pathlib import Path

import flask
import flask_session
import pytest
from flask import session
from flask_session import Session, _core, session_loaded, session_saved
from flask_session.memory import MemorySessionInterface
from werkzeug.test import EnvironBuilder

PACKAGE = Path(flask_session.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400


class Profile:
    """Python functions that began: in the package, and anywhere (to see that the profiler does)."""

    def __init__(self):
        self.package = collections.Counter()
        self.all = collections.Counter()

    def __call__(self, frame, event, argument):
        if event == "call":
            code = frame.f_code
            path = Path(code.co_filename)
            name = getattr(code, "co_qualname", code.co_name).rpartition(".")[2]
            self.all[name] += 1
            if PACKAGE in path.parents:
                self.package[f"{path.name}:{name}"] += 1


def run_here(profile, work):
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)


def run_in_a_thread(profile, work):
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threading.setprofile(profile)
    try:
        worker = threading.Thread(target=run)
        worker.start()
    finally:
        threading.setprofile(None)
    worker.join()
    assert errors == []


class Site:
    def __init__(self, folder, run=run_here, interface=None, **settings):
        self.run = run
        self.app = app = flask.Flask(__name__, instance_path=str(folder))
        app.config.update({"SECRET_KEY": "k", "PERMANENT_SESSION_LIFETIME": DAY, **settings})
        app.config.setdefault("SESSION_FILE_DIR", str(folder / "sessions"))
        if interface is None:
            Session(app)
        else:
            app.session_interface = interface
        self.store = app.session_interface._store

        @app.get("/untouched")
        def untouched():
            return "no session in sight"

        @app.get("/get")
        def get():
            return str(session.get("user"))

        @app.get("/template")
        def template():
            return flask.render_template_string("{{ session.user }}")

        @app.get("/set/<value>")
        def put(value):
            session["user"] = value
            session.setdefault("nested", {"list": []})
            return "set"

        @app.get("/nested")
        def nested():
            session["nested"]["list"].append(1)
            return "set"

        @app.get("/login/<value>")
        def login(value):
            session.regenerate()
            session["user"] = value
            return "logged in"

        @app.get("/clear")
        def clear():
            session.clear()
            return "cleared"

        @app.get("/pop")
        def pop():
            for key in list(session):
                session.pop(key)
            return "popped"

        @app.get("/save")
        def save():
            session["saved"] = True
            session.save()
            return "saved"

        @app.get("/permanent")
        def permanent():
            session.permanent = not session.permanent
            return "set"

        # What is done once and kept (scripts, templates, prepared statements) is done.
        client = app.test_client()
        for path in ("/set/x", "/get", "/template", "/permanent", "/login/x", "/clear"):
            assert client.get(path).status_code == 200

    def browser(self):
        client = self.app.test_client()
        assert client.get("/set/ann").status_code == 200
        return client

    def profile(self, client, path):
        """The profile of one request, as a server makes it, and its answer's headers."""
        profile = Profile()
        cookie = client.get_cookie("session")
        builder = EnvironBuilder(path=path)
        if cookie:
            builder.headers["Cookie"] = f"session={cookie.value}"
        environ = builder.get_environ()
        answers = []

        def work():
            def start_response(status, headers, exc_info=None):
                answers.append((status, headers))

            body = self.app.wsgi_app(environ, start_response)
            list(body)
            body.close()

        self.run(profile, work)
        [(status, headers)] = answers
        assert status == "200 OK"
        assert profile.all["wsgi_app"] == 1
        assert profile.all["full_dispatch_request"] == 1
        return profile, [value for name, value in headers if name == "Set-Cookie"]

    def age(self, client, seconds):
        sid = client.get_cookie("session").value
        value, version, _ = self.store.load(sid)
        assert self.store.touch(sid, value, version, (DAY - seconds) * 1000) == _core.OK


@pytest.fixture(params=[run_here, run_in_a_thread], ids=["here", "thread"])
def run(request):
    return request.param


@pytest.fixture(params=["sqlite", "filesystem", "memory"])
def kind(request):
    return request.param


@pytest.fixture(
    params=[
        (run_here, {}),
        (run_in_a_thread, {}),
        (run_here, {"SESSION_USE_SIGNER": True}),
        (run_here, {"SESSION_SERIALIZATION_FORMAT": "json"}),
        (run_here, {"SESSION_PERMANENT": False, "SESSION_REFRESH_EACH_REQUEST": False}),
    ],
    ids=["plain", "thread", "signed", "json", "not permanent"],
)
def site(request, tmp_path, kind):
    run, settings = request.param
    return Site(tmp_path, run, SESSION_TYPE=kind, **settings)


# ---- nothing of ours runs -----------------------------------------------------------------------


def test_request_that_writes_nothing(site):
    for path in ("/untouched", "/get", "/template"):
        for client in (site.browser(), site.app.test_client()):
            profile, cookies = site.profile(client, path)
            assert profile.package == {}, path
            assert cookies == []


def test_change(site):
    client = site.browser()
    for path in ("/set/bob", "/nested", "/save", "/permanent"):
        before = site.store.counts()["replace"]
        profile, _ = site.profile(client, path)
        assert profile.package == {}, path
        assert site.store.counts()["replace"] == before + 1


def test_new_session(site):
    for path in ("/set/ann", "/login/ann"):
        profile, cookies = site.profile(site.app.test_client(), path)
        assert profile.package == {}, path
        assert len(cookies) == 1


def test_login_of_a_known_visitor(site):
    profile, cookies = site.profile(site.browser(), "/login/bob")
    assert profile.package == {}
    assert len(cookies) == 1


def test_logout(site):
    for path in ("/clear", "/pop"):
        profile, cookies = site.profile(site.browser(), path)
        assert profile.package == {}, path
        assert len(cookies) == 1
        assert "Expires=Thu, 01 Jan 1970" in cookies[0]


def test_touch_that_is_due(tmp_path, run, kind):
    site = Site(tmp_path, run, SESSION_TYPE=kind)
    client = site.browser()
    site.age(client, 1000)
    before = site.store.counts()["touch"]
    profile, cookies = site.profile(client, "/get")
    assert profile.package == {}
    assert site.store.counts()["touch"] == before + 1
    assert len(cookies) == 1


def test_unknown_and_expired_ids(tmp_path, run, kind):
    site = Site(tmp_path, run, SESSION_TYPE=kind)
    unknown, expired = site.app.test_client(), site.browser()
    unknown.set_cookie("session", _core.generate_sid(32))
    sid = expired.get_cookie("session").value
    value, version, _ = site.store.load(sid)
    assert site.store.touch(sid, value, version, 1) == _core.OK
    time.sleep(0.02)
    for client in (unknown, expired):
        for path in ("/get", "/set/ann"):
            assert site.profile(client, path)[0].package == {}


# ---- what does run ------------------------------------------------------------------------------

EMIT = {"signals.py:emit": 1}


def test_a_refused_cookie_is_logged(tmp_path, run, kind):
    site = Site(tmp_path, run, SESSION_TYPE=kind)
    client = site.app.test_client()
    client.set_cookie("session", "refused")
    profile, _ = site.profile(client, "/get")
    assert set(profile.package) == {"signals.py:emit", "signals.py:_shown"} | {
        name for name in profile.package if name.startswith("signals.py:<")
    }


def test_signals_are_sent_where_somebody_listens(tmp_path, run, kind):
    site = Site(tmp_path, run, SESSION_TYPE=kind)
    client = site.browser()

    def receive(sender, **details):
        pass

    with session_loaded.connected_to(receive), session_saved.connected_to(receive):
        profile, _ = site.profile(client, "/get")
        assert profile.package == EMIT
        profile, _ = site.profile(client, "/set/bob")
        assert profile.package == {"signals.py:emit": 2}
    assert site.profile(client, "/get")[0].package == {}


def test_cleanup_that_the_application_asked_for(tmp_path, run, kind):
    site = Site(tmp_path, run, SESSION_TYPE=kind, SESSION_CLEANUP_N_REQUESTS=1)
    profile, _ = site.profile(site.browser(), "/get")
    assert profile.package == {
        "base.py:_cleanup_n_requests": 1,
        "base.py:_delete_expired_sessions": 1,
    }


def test_overridden_methods(tmp_path, run):
    """A subclass that only calls what it overrides: the package's own Python method runs then."""

    class Own(MemorySessionInterface):
        def should_set_storage(self, app, session):
            return super().should_set_storage(app, session)

    site = Site(tmp_path, run, Own())
    profile, _ = site.profile(site.browser(), "/get")
    assert profile.package == {"base.py:should_set_storage": 1}


class FakeRedis:
    """Enough of a client for the adapter."""

    def __init__(self):
        self.values = {}

    def evalsha(self, sha, count, key, *arguments):
        if not arguments:
            value = self.values.get(key)
            return None if value is None else [value, 3_600_000]
        self.values[key] = arguments[0 if len(arguments) == 1 else 1]
        return 1

    def eval(self, script, count, key, *arguments):
        return self.evalsha("", count, key, *arguments)

    def set(self, key, value, nx, px):
        self.values[key] = value
        return True

    def delete(self, key):
        self.values.pop(key, None)


def test_adapter_over_a_client_object(tmp_path, run):
    """An operation is a method of the adapter and what that calls; nothing else runs."""
    client = FakeRedis()
    site = Site(
        tmp_path, run, SESSION_TYPE="redis", SESSION_REDIS=client, PERMANENT_SESSION_LIFETIME=3600
    )
    browser = site.browser()
    load = {"redis.py:load": 1, "redis.py:_stored": 1, "clients.py:now_ms": 1}
    assert site.profile(browser, "/untouched")[0].package.keys() <= {*load, "redis.py:__call__"}
    profile, _ = site.profile(browser, "/get")
    assert profile.package == {**load, "redis.py:__call__": 1}
    profile, _ = site.profile(browser, "/set/bob")
    assert profile.package == {**load, "redis.py:replace": 1, "redis.py:__call__": 2}


# ---- nothing of werkzeug's either, for cookie and headers ----------------------------------------

HEADER_WORK = {"cookies", "parse_cookie", "set_cookie", "dump_cookie", "http_date", "vary"}
FLASK_GETTERS = {name for name in dir(flask.sessions.SessionInterface) if name.startswith("get_")}


def test_cookie_and_headers_are_made_in_c(site):
    """The shortcuts are taken, not only right."""
    for path in ("/get", "/set/bob", "/nested", "/permanent", "/login/bob"):
        profile, _ = site.profile(site.browser(), path)
        assert profile.all.keys() & (HEADER_WORK | FLASK_GETTERS) <= {"get_ident"}, path
    profile, cookies = site.profile(site.app.test_client(), "/set/ann")
    assert profile.all.keys() & (HEADER_WORK | FLASK_GETTERS) == set()
    assert len(cookies) == 1


def test_a_configuration_that_answers_in_its_own_way_is_asked(tmp_path):
    class Config(flask.Config):
        def __getitem__(self, key):
            value = super().__getitem__(key)
            return "mine" if key == "SESSION_COOKIE_NAME" else value

    site = Site(tmp_path, SESSION_TYPE="memory")
    config = Config(tmp_path)
    config.update(site.app.config)
    site.app.config = config
    profile, [cookie] = site.profile(site.app.test_client(), "/set/ann")
    assert profile.all["dump_cookie"] == 1
    assert cookie.startswith("mine=")


# ---- how much of it is C ------------------------------------------------------------------------


def count_lines(folders, suffixes):
    lines = 0
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes:
                lines += sum(1 for line in path.read_text().splitlines() if line.strip())
    return lines


def test_two_thirds_of_the_lines_are_c(capsys):
    in_c = count_lines(("src", "include", "ext"), {".c", ".h"})
    in_python = count_lines(("python",), {".py", ".pyi"})
    share = in_c / (in_c + in_python)
    with capsys.disabled():
        print(f"\nlines that are not blank: C {in_c}, Python {in_python}; C is {share:.0%}")
    assert in_python > 500
    assert share >= 2 / 3
