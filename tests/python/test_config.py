"""Every configuration key has its effect or its error."""

from __future__ import annotations

import enum
import os
import re
import stat
import time
from datetime import timedelta

import flask
import flask_session
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core, config
from flask_session.base import ServerSideSessionInterface
from flask_session.config import BACKENDS, SCHEMES
from flask_session.defaults import Defaults
from flask_session.memory import MemorySession, MemorySessionInterface
from flask_session.redis import RedisSessionInterface
from flask_session.sqlite import SqliteSession, SqliteSessionInterface
from itsdangerous import Signer
from werkzeug.http import parse_date

from tests.python.apps.views import add_keyed_views

HOUR_MS = 3_600_000


def make_app(tmp_path, **settings):
    """An application with its instance folder in tmp_path, and the views the tests visit."""
    app = flask.Flask(__name__, instance_path=str(tmp_path / "instance"))
    app.config.update(SESSION_TYPE="memory")
    app.config.update(settings)
    Session(app)
    return add_keyed_views(app)


def extension(app):
    return app.extensions["flask_session"]


def cookie_of(response):
    return response.headers["Set-Cookie"]


def sid_of(response):
    return re.match(r"session=([^;]*)", cookie_of(response)).group(1)


class Adapter:
    """A store of the tests: what it is asked is written down, and it fails when told to."""

    name = "test"
    capabilities = _core.CAP_ATOMIC

    def __init__(self):
        self.records = {}
        self.timeouts = []
        self.broken = False

    def ask(self, timeout):
        self.timeouts.append(timeout)
        if self.broken:
            raise ConnectionError("the test's store is down")

    def load(self, key, timeout):
        self.ask(timeout)
        return (self.records[key], b"", None) if key in self.records else None

    def create(self, key, value, ttl_ms, timeout):
        self.ask(timeout)
        return self.records.setdefault(key, value) is value

    def replace(self, key, expected, version, value, ttl_ms, timeout):
        self.ask(timeout)
        if key not in self.records:
            return _core.GONE
        if self.records[key] != expected:
            return self.records[key], b"", None
        self.records[key] = value
        return _core.OK

    def touch(self, key, expected, version, ttl_ms, timeout):
        self.ask(timeout)
        return _core.OK if key in self.records else _core.GONE

    def remove(self, key, timeout):
        self.ask(timeout)
        self.records.pop(key, None)


class AdapterInterface(ServerSideSessionInterface):
    def __init__(self, app=None, **options):
        self.adapter = Adapter()
        super().__init__(app, **options)

    def _open_store(self, key_prefix):
        return _core.Store.wrap(self.adapter)


def adapter_app(**settings):
    app = flask.Flask(__name__)
    app.config.update(settings)
    app.session_interface = AdapterInterface(app)
    return add_keyed_views(app), app.session_interface.adapter


# ---- SESSION_TYPE and SESSION_URL ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["sqlite", "SQLite", "SQLITE"])
def test_type_in_any_case(tmp_path, name):
    app = make_app(tmp_path, SESSION_TYPE=name)
    assert type(app.session_interface) is SqliteSessionInterface
    client = app.test_client()
    client.get("/set/name/ann")
    assert client.get("/get/name").text == "ann"


@pytest.mark.parametrize(
    ("settings", "session_class"),
    [
        ({"SESSION_TYPE": "memory"}, MemorySession),
        ({"SESSION_TYPE": "sqlite"}, SqliteSession),
        ({"SESSION_TYPE": None, "SESSION_URL": "memory:"}, MemorySession),
        ({"SESSION_TYPE": "memory", "SESSION_URL": "memory:"}, MemorySession),
    ],
)
def test_session_is_of_the_backend_s_class(tmp_path, settings, session_class):
    app = make_app(tmp_path, **settings)
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is session_class


def test_unset_type_with_a_secret_key_lists_the_types(tmp_path):
    with pytest.raises(SessionConfigError, match="SESSION_TYPE is not set") as caught:
        make_app(tmp_path, SESSION_TYPE=None, SECRET_KEY="x")
    assert all(name in str(caught.value) for name in [*BACKENDS, "null", "custom"])
    assert isinstance(caught.value, ValueError)


def test_unknown_type_lists_the_types(tmp_path):
    with pytest.raises(SessionConfigError, match="'carrier-pigeon' is unknown") as caught:
        make_app(tmp_path, SESSION_TYPE="carrier-pigeon")
    assert all(name in str(caught.value) for name in BACKENDS)


def test_url_and_type_disagree(tmp_path):
    with pytest.raises(SessionConfigError, match="SESSION_URL names another type"):
        make_app(tmp_path, SESSION_TYPE="redis", SESSION_URL="memory:")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_url_and_place_are_both_set(tmp_path, kind):
    settings = {"SESSION_" + kind.upper(): str(tmp_path / "x")}
    with pytest.raises(SessionConfigError, match=f"SESSION_URL and SESSION_{kind.upper()}"):
        make_app(tmp_path, SESSION_TYPE=None, SESSION_URL=f"{kind}:///x", **settings)


def test_url_of_another_scheme_is_refused_without_being_shown(tmp_path):
    with pytest.raises(SessionConfigError) as caught:
        make_app(tmp_path, SESSION_TYPE=None, SESSION_URL="mysql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)
    assert all(f"{scheme}:" in str(caught.value) for scheme in SCHEMES)


@pytest.mark.parametrize("url", ["redis://:hunter2@host:port/1", "redis://:hunter2@[::1/1"])
def test_malformed_redis_url_is_refused_without_being_shown(tmp_path, url):
    with pytest.raises(SessionConfigError) as caught:
        make_app(tmp_path, SESSION_TYPE=None, SESSION_URL=url)
    seen = caught.value
    while seen is not None:
        assert "hunter2" not in str(seen)
        seen = seen.__cause__


def test_sqlite_url(tmp_path):
    path = tmp_path / "by-url.sqlite3"
    app = make_app(tmp_path, SESSION_TYPE=None, SESSION_URL=f"sqlite://{path}?synchronous=full")
    app.test_client().get("/set/a/1")
    assert path.exists()


# ---- the common keys ----------------------------------------------------------------------------

BAD_VALUES = [
    ("SESSION_TYPE", 3, "a string"),
    ("SESSION_URL", 3, "a string"),
    ("SESSION_PERMANENT", "False", "True or False"),
    ("SESSION_PERMANENT", None, "True or False"),
    ("SESSION_USE_SIGNER", 2, "True or False"),
    ("SESSION_KEY_PREFIX", None, "a string"),
    ("SESSION_KEY_PREFIX", b"session:", "a string"),
    ("SESSION_KEY_PREFIX", "x" * 701, "at most 700 bytes"),
    ("SESSION_KEY_PREFIX", "\N{SNOWMAN}" * 234, "at most 700 bytes"),
    ("SESSION_ID_LENGTH", 15, "from 16 to 192"),
    ("SESSION_ID_LENGTH", 193, "from 16 to 192"),
    ("SESSION_ID_LENGTH", "32", "from 16 to 192"),
    ("SESSION_ID_LENGTH", True, "from 16 to 192"),
    ("SESSION_SERIALIZATION_FORMAT", "pickle", '"msgpack" or "json"'),
    ("SESSION_SERIALIZATION_FORMAT", None, '"msgpack" or "json"'),
    ("SESSION_CLEANUP_N_REQUESTS", -1, "None or a whole number"),
    ("SESSION_CLEANUP_N_REQUESTS", "100", "None or a whole number"),
    ("SESSION_AUTODELETE", "yes", "True or False"),
    ("SESSION_TOUCH_INTERVAL", -1, "not negative"),
    ("SESSION_TOUCH_INTERVAL", float("nan"), "not negative"),
    ("SESSION_TOUCH_INTERVAL", "60", "a number of seconds"),
    ("SESSION_CONFLICT", "mine", '"merge" or "raise"'),
    ("SESSION_ON_STORE_ERROR", "ignore", '"raise" or "empty" or "503"'),
    ("SESSION_STRICT_TYPES", [], "True or False"),
    ("SESSION_STORE_TIMEOUT", 0, "above zero"),
    ("SESSION_STORE_TIMEOUT", None, "a number of seconds"),
    ("SESSION_STORE_TIMEOUT", float("inf"), "above zero"),
    ("SESSION_NATIVE", "no", "True or False"),
    ("PERMANENT_SESSION_LIFETIME", 0, "above zero"),
    ("PERMANENT_SESSION_LIFETIME", timedelta(0), "above zero"),
    ("PERMANENT_SESSION_LIFETIME", -5, "above zero"),
    ("PERMANENT_SESSION_LIFETIME", "forever", "above zero"),
    ("PERMANENT_SESSION_LIFETIME", None, "above zero"),
]


@pytest.mark.parametrize(("key", "value", "accepted"), BAD_VALUES)
def test_refused_value(tmp_path, key, value, accepted):
    with pytest.raises(SessionConfigError) as caught:
        make_app(tmp_path, **{key: value})
    assert str(caught.value).startswith(key)
    assert accepted in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("SESSION_SQLITE", 5, "the path of a file"),
        ("SESSION_SQLITE", b"bytes", "the path of a file"),
        ("SESSION_SQLITE", "", "the path of a file"),
        ("SESSION_SQLITE", ":memory:", 'SESSION_TYPE = "memory"'),
        ("SESSION_SQLITE_SYNCHRONOUS", "off", '"normal" or "full"'),
    ],
)
def test_refused_value_of_sqlite(tmp_path, key, value, accepted):
    with pytest.raises(SessionConfigError) as caught:
        make_app(tmp_path, SESSION_TYPE="sqlite", **{key: value})
    assert str(caught.value).startswith(key)
    assert accepted in str(caught.value)


def test_every_default_is_accepted():
    assert set(config._CHECKS) <= set(vars(Defaults))
    for key in config._CHECKS:
        assert config.check(key, getattr(Defaults, key)) == getattr(Defaults, key)


def test_every_default_has_a_check():
    keys = {key for key in vars(Defaults) if key.startswith("SESSION_")}
    assert keys - {"SESSION_TYPE"} <= set(config._CHECKS)


@pytest.mark.parametrize("permanent", [True, False])
def test_permanent(tmp_path, permanent):
    app = make_app(tmp_path, SESSION_PERMANENT=permanent)
    answer = app.test_client().get("/set/a/1")
    assert ("Expires=" in cookie_of(answer)) is permanent


@pytest.mark.parametrize("number", [0, 1])
def test_permanent_as_a_number(tmp_path, number):
    app = make_app(tmp_path, SESSION_PERMANENT=number)
    assert app.session_interface.permanent is bool(number)


def test_signer(tmp_path):
    app = make_app(tmp_path, SESSION_USE_SIGNER=True, SECRET_KEY="secret")
    client = app.test_client()
    value = sid_of(client.get("/set/name/ann"))
    signer = Signer("secret", salt="flask-session", key_derivation="hmac")
    assert len(signer.unsign(value)) == 43
    assert client.get("/get/name").text == "ann"


def test_no_signer_by_default(tmp_path):
    app = make_app(tmp_path, SECRET_KEY="secret")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", sid_of(app.test_client().get("/set/a/1")))


@pytest.mark.parametrize(("length", "characters"), [(16, 22), (33, 44), (192, 256)])
def test_id_length(tmp_path, length, characters):
    app = make_app(tmp_path, SESSION_ID_LENGTH=length)
    client = app.test_client()
    assert len(sid_of(client.get("/set/a/1"))) == characters
    assert client.get("/get/a").text == "1"


@pytest.mark.parametrize("prefix", ["", "session:", "\N{SNOWMAN} ", "x" * 700])
def test_key_prefix(prefix):
    app, adapter = adapter_app()
    app.session_interface = interface = AdapterInterface(app, key_prefix=prefix)
    sid = sid_of(app.test_client().get("/set/a/1"))
    assert list(interface.adapter.records) == [prefix + sid]
    assert adapter.records == {}


def test_serialization_format():
    app, _ = adapter_app()
    for name, first in (("msgpack", 0x82), ("json", ord("{")), ("JSON", ord("{"))):
        app.session_interface = AdapterInterface(app, serialization_format=name)
        client = app.test_client()
        client.get("/set/a/1")
        [value] = app.session_interface.adapter.records.values()
        assert value[0] == first
        assert client.get("/get/a").text == "1"


def purges(app):
    return extension(app).stats()["purge"]


def test_no_purge_by_default(tmp_path):
    app = make_app(tmp_path)
    for _ in range(3):
        app.test_client().get("/untouched")
    assert purges(app) == 0
    assert app.before_request_funcs == {}


def test_cleanup_n_requests(tmp_path):
    app = make_app(tmp_path, SESSION_CLEANUP_N_REQUESTS=1)
    for _ in range(3):
        app.test_client().get("/untouched")
    assert purges(app) == 3


def test_cleanup_happens_by_chance(tmp_path, monkeypatch):
    app = make_app(tmp_path, SESSION_CLEANUP_N_REQUESTS=100)
    asked = []

    def randrange(bound):
        asked.append(bound)
        return len(asked) - 1

    monkeypatch.setattr("flask_session.base.random.randrange", randrange)
    for _ in range(3):
        app.test_client().get("/untouched")
    assert asked == [100, 100, 100]
    assert purges(app) == 1


def test_cleanup_zero_is_off(tmp_path):
    app = make_app(tmp_path, SESSION_CLEANUP_N_REQUESTS=0)
    assert app.before_request_funcs == {}


def test_autodelete_is_throttled(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("flask_session.base.time.monotonic", lambda: now)
    app = make_app(tmp_path, SESSION_AUTODELETE=True)
    client = app.test_client()
    for _ in range(3):
        client.get("/untouched")
    assert purges(app) == 1
    now += 59
    client.get("/untouched")
    assert purges(app) == 1
    now += 1
    client.get("/untouched")
    assert purges(app) == 2


def test_failing_cleanup_does_not_fail_the_request(tmp_path, monkeypatch, caplog):
    app = make_app(tmp_path, SESSION_CLEANUP_N_REQUESTS=1)

    def fail(self):
        raise SessionStoreError("down")

    monkeypatch.setattr(MemorySessionInterface, "_delete_expired_sessions", fail)
    assert app.test_client().get("/untouched").text == "hello"
    assert "expired sessions could not be purged" in caplog.text


def test_touch_interval(tmp_path):
    def touches(**settings):
        app = make_app(tmp_path, PERMANENT_SESSION_LIFETIME=1000, **settings)
        client = app.test_client()
        client.get("/set/a/1")
        sid = client.get_cookie("session").value
        store = extension(app).store
        value, version, _ = store.load(sid)
        assert store.touch(sid, value, version, 990_000) == _core.OK
        before = store.counts()["touch"]
        client.get("/get/a")
        return store.counts()["touch"] - before

    assert touches() == 0  # the default is 1000 s / 20 = 50 s
    assert touches(SESSION_TOUCH_INTERVAL=5) == 1
    assert touches(SESSION_TOUCH_INTERVAL=timedelta(seconds=5)) == 1
    assert touches(SESSION_TOUCH_INTERVAL=20) == 0
    assert touches(SESSION_TOUCH_INTERVAL=0) == 1


def interfere(app):
    """Two requests that change one key: the answer to the one that commits later."""
    first, second = app.test_client(), app.test_client()

    @app.get("/both")
    def both():
        flask.session["key"] = "mine"
        second.get("/set/key/theirs")
        return "done"

    first.get("/set/key/old")
    second.set_cookie("session", first.get_cookie("session").value)
    return first.get("/both"), first


def test_conflict_merge(tmp_path):
    app = make_app(tmp_path)
    answer, client = interfere(app)
    assert answer.status_code == 200
    assert client.get("/get/key").text == "mine"
    assert extension(app).stats()["events"]["conflict"] == 1


def test_conflict_raise(tmp_path):
    app = make_app(tmp_path, SESSION_CONFLICT="raise")
    seen = []

    @app.errorhandler(flask_session.SessionConflict)
    def conflict(error):
        seen.append(error)
        return "conflict", 409

    answer, client = interfere(app)
    assert answer.status_code == 409
    assert len(seen) == 1
    assert client.get("/get/key").text == "theirs"


@pytest.mark.parametrize("value", ["503", 503])
def test_on_store_error_503(value):
    app, adapter = adapter_app(SESSION_ON_STORE_ERROR=value)
    client = app.test_client()
    client.get("/set/a/1")
    adapter.broken = True
    answer = client.get("/get/a")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    other = app.test_client().get("/set/b/2")  # nothing to load: it fails while saving
    assert other.status_code == 503
    assert int(other.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in other.headers
    assert app.test_client().get("/untouched").status_code == 200


def test_on_store_error_raise():
    app, adapter = adapter_app()
    app.testing = True
    client = app.test_client()
    client.get("/set/a/1")
    adapter.broken = True
    for path in ("/get/a", "/set/a/2"):
        with pytest.raises(SessionStoreError) as caught:
            client.get(path)
        assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(SessionStoreError):
        app.test_client().get("/set/b/2")


def test_on_store_error_raise_reaches_the_error_handler():
    app, adapter = adapter_app()

    @app.errorhandler(SessionStoreError)
    def down(error):
        return "come back later", 500, {"X-Handled": "yes"}

    @app.after_request
    def stamp(response):
        response.headers["X-Stamp"] = "kept"
        return response

    client = app.test_client()
    client.get("/set/a/1")
    adapter.broken = True
    for answer in (client.get("/get/a"), app.test_client().get("/set/b/2")):
        assert answer.status_code == 500
        assert answer.text == "come back later"
        assert answer.headers["X-Handled"] == "yes"
        assert answer.headers["X-Stamp"] == "kept"
        assert answer.content_length == len("come back later")
        assert "Set-Cookie" not in answer.headers


def test_answer_to_a_failed_save_brings_its_own_content_headers():
    app, adapter = adapter_app()

    @app.errorhandler(SessionStoreError)
    def down(error):
        return flask.Response(iter(["come ", "back"]), 500, mimetype="text/x-later")

    @app.get("/tagged")
    def tagged():
        flask.session["a"] = 1
        response = flask.Response("a longer text than the error's")
        response.content_length = 30
        response.set_etag("old")
        return response

    adapter.broken = True
    answer = app.test_client().get("/tagged")
    assert (answer.status_code, answer.text) == (500, "come back")
    assert answer.mimetype == "text/x-later"
    assert "Content-Length" not in answer.headers
    assert "ETag" not in answer.headers


def test_on_store_error_empty():
    app, adapter = adapter_app(SESSION_ON_STORE_ERROR="empty")
    client = app.test_client()
    client.get("/set/a/1")
    before = dict(adapter.records)
    adapter.broken = True
    answer = client.get("/get/a")
    assert (answer.status_code, answer.text) == (200, "None")
    assert "Set-Cookie" not in answer.headers
    answer = client.get("/set/a/2")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    adapter.broken = False
    assert adapter.records == before


class Colour(enum.Enum):
    RED = "red"


def test_strict_types(tmp_path):
    def visit(**settings):
        app = make_app(tmp_path, **settings)
        app.testing = True

        @app.get("/colour")
        def colour():
            flask.session["colour"] = Colour.RED
            return "ok"

        return app.test_client().get("/colour")

    with pytest.warns(UserWarning, match="colour"):
        assert visit().status_code == 200
    with pytest.raises(TypeError, match="colour"):
        visit(SESSION_STRICT_TYPES=True)


@pytest.mark.parametrize(
    ("value", "seconds"), [(0.25, 0.25), (3, 3), (timedelta(milliseconds=500), 0.5), (None, 2)]
)
def test_store_timeout(value, seconds):
    settings = {} if value is None else {"SESSION_STORE_TIMEOUT": value}
    app, adapter = adapter_app(**settings)
    client = app.test_client()
    client.get("/set/a/1")
    client.get("/set/a/2")
    assert adapter.timeouts
    assert all(seconds / 2 < timeout <= seconds for timeout in adapter.timeouts)


def test_lifetime_is_read_in_every_request(tmp_path):
    app = make_app(tmp_path, PERMANENT_SESSION_LIFETIME=3600)
    client = app.test_client()
    client.get("/set/a/1")
    store = extension(app).store
    sid = client.get_cookie("session").value
    first = store.load(sid)[2]
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(hours=3)
    client.get("/set/a/2")
    assert abs(store.load(sid)[2] - first - 2 * HOUR_MS) < 60_000


class OwnLifetime(flask.Flask):
    permanent_session_lifetime = timedelta(hours=2)


class OwnAnswers(flask.Config):
    def __getitem__(self, key):
        return (
            timedelta(hours=2) if key == "PERMANENT_SESSION_LIFETIME" else super().__getitem__(key)
        )


class OwnConfig(flask.Flask):
    config_class = OwnAnswers


@pytest.mark.parametrize("cls", [flask.Flask, OwnLifetime, OwnConfig])
@pytest.mark.parametrize("given", [3600, timedelta(hours=1)])
def test_lifetime_is_the_application_s_own(cls, given):
    """An application may answer for its lifetime by itself."""
    app = cls(__name__)
    app.config.update(SESSION_TYPE="memory", PERMANENT_SESSION_LIFETIME=given)
    Session(app)
    client = add_keyed_views(app).test_client()
    answer = client.get("/set/a/1")
    hours = 1 if cls is flask.Flask else 2
    expires_at = extension(app).store.load(client.get_cookie("session").value)[2]
    assert abs(expires_at - time.time() * 1000 - hours * HOUR_MS) < 60_000
    expires = parse_date(cookie_of(answer).partition("Expires=")[2].partition(";")[0])
    assert abs(expires.timestamp() - time.time() - hours * 3600) < 60


def test_keys_are_fixed_once_read(tmp_path):
    app = make_app(tmp_path)
    app.config.update(SESSION_PERMANENT=False, SESSION_ID_LENGTH=64, SESSION_TYPE="sqlite")
    answer = app.test_client().get("/set/a/1")
    assert "Expires=" in cookie_of(answer)
    assert len(sid_of(answer)) == 43
    assert type(app.session_interface) is MemorySessionInterface


def test_cookie_keys_of_flask(tmp_path):
    app = make_app(
        tmp_path,
        SESSION_COOKIE_NAME="visit",
        SESSION_COOKIE_DOMAIN="example.org",
        SESSION_COOKIE_PATH="/set",
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
    )
    cookie = cookie_of(app.test_client().get("/set/a/1", base_url="https://example.org"))
    assert cookie.startswith("visit=")
    for part in ("Domain=example.org", "Path=/set", "Secure", "SameSite=Strict"):
        assert f"; {part}" in cookie
    assert "HttpOnly" not in cookie


# ---- one Session, several applications ----------------------------------------------------------


def test_one_session_object_for_several_applications(tmp_path):
    sessions = Session()
    apps = []
    for number in range(2):
        app = flask.Flask(__name__, instance_path=str(tmp_path / str(number)))
        app.config["SESSION_TYPE"] = "memory"
        assert sessions.init_app(app) is None
        apps.append(add_keyed_views(app))
    assert extension(apps[0]) is not extension(apps[1])
    assert extension(apps[0]).interface is apps[0].session_interface
    sid = sid_of(apps[0].test_client().get("/set/a/1"))
    assert extension(apps[0]).store.load(sid) is not None
    assert extension(apps[1]).store.load(sid) is None


# ---- sqlite -------------------------------------------------------------------------------------


def test_sqlite_default_place_and_modes(tmp_path):
    app = make_app(tmp_path, SESSION_TYPE="sqlite")
    app.test_client().get("/set/a/1")
    folder = tmp_path / "instance"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "flask_session.sqlite3").stat().st_mode) == 0o600


def test_sqlite_makes_no_file_before_it_is_needed(tmp_path):
    app = make_app(tmp_path, SESSION_TYPE="sqlite")
    app.test_client().get("/untouched")
    assert list((tmp_path / "instance").iterdir()) == []


@pytest.mark.parametrize("relative", [True, False])
def test_sqlite_path(tmp_path, relative):
    path = tmp_path / "instance" / "own.db" if relative else tmp_path / "own.db"
    app = make_app(tmp_path, SESSION_TYPE="sqlite", SESSION_SQLITE="own.db" if relative else path)
    app.test_client().get("/set/a/1")
    assert path.exists()


def test_sqlite_instance_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "instance").write_text("a file is in the way")
    with pytest.raises(SessionConfigError, match=r"instance folder.*SESSION_SQLITE"):
        make_app(tmp_path, SESSION_TYPE="sqlite")


@pytest.mark.parametrize("synchronous", ["normal", "FULL"])
def test_sqlite_synchronous_reaches_the_driver(tmp_path, monkeypatch, synchronous):
    opened = []

    class Recorder:
        SessionConfigError = SessionConfigError

        class Store:
            @staticmethod
            def open(name, options):
                opened.append((name, options))
                return _core.Store.open(name, options)

    monkeypatch.setattr("flask_session.sqlite._core", Recorder)
    make_app(tmp_path, SESSION_TYPE="sqlite", SESSION_SQLITE_SYNCHRONOUS=synchronous)
    [(name, options)] = opened
    assert name == "sqlite"
    assert options["synchronous"] == synchronous.lower()


def test_sqlite_without_an_application(tmp_path, monkeypatch):
    with pytest.raises(SessionConfigError, match="SESSION_SQLITE"):
        SqliteSessionInterface()
    monkeypatch.chdir(tmp_path)
    app = flask.Flask(__name__)
    app.session_interface = SqliteSessionInterface(path="here.db")
    os.chdir("/")
    add_keyed_views(app).test_client().get("/set/a/1")
    assert (tmp_path / "here.db").exists()


# ---- constructors -------------------------------------------------------------------------------


def test_constructor_arguments():
    interface = MemorySessionInterface(
        key_prefix="p:", use_signer=True, permanent=False, sid_length=16
    )
    assert (interface.key_prefix, interface.use_signer) == ("p:", True)
    assert (interface.permanent, interface.sid_length) == (False, 16)
    assert interface.app is None


@pytest.mark.parametrize(
    ("argument", "value", "key"),
    [
        ("key_prefix", 1, "SESSION_KEY_PREFIX"),
        ("use_signer", "no", "SESSION_USE_SIGNER"),
        ("permanent", "no", "SESSION_PERMANENT"),
        ("sid_length", 8, "SESSION_ID_LENGTH"),
        ("serialization_format", "xml", "SESSION_SERIALIZATION_FORMAT"),
        ("cleanup_n_requests", -1, "SESSION_CLEANUP_N_REQUESTS"),
    ],
)
def test_constructor_refuses(argument, value, key):
    with pytest.raises(SessionConfigError, match=key):
        MemorySessionInterface(**{argument: value})


def test_first_argument_must_be_an_application():
    with pytest.raises(TypeError, match="Flask application or None, not dict"):
        MemorySessionInterface({})


def test_redis_positional_arguments_as_in_flask_session():
    app = flask.Flask(__name__)
    interface = RedisSessionInterface(
        app, "redis://127.0.0.1:1/0", "p:", True, False, 16, "msgpack"
    )
    assert interface.app is app
    assert (interface.key_prefix, interface.use_signer) == ("p:", True)
    assert (interface.permanent, interface.sid_length) == (False, 16)


# ---- redis: what is refused without a server ----------------------------------------------------


@pytest.mark.parametrize("value", [5, {}, object(), "localhost:6379", b"redis://x"])
def test_redis_of_an_unknown_kind(tmp_path, value):
    with pytest.raises(SessionConfigError, match="redis://"):
        make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=value)


def test_redis_asyncio(tmp_path):
    redis = pytest.importorskip("redis.asyncio")
    with pytest.raises(SessionConfigError, match=r"asyncio client.*synchronous"):
        make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=redis.Redis())


def test_redis_decode_responses(tmp_path):
    redis = pytest.importorskip("redis")
    with pytest.raises(SessionConfigError, match="without decode_responses"):
        make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(decode_responses=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"socket_timeout": None}, "has no timeout"),
        ({"socket_timeout": 4, "attempts": 3}, "4 s in each of 4 attempts"),
        ({"socket_timeout": 11, "attempts": 0}, "11 s in each of 1 attempts"),
        ({"socket_timeout": 2, "attempts": 3}, None),
    ],
)
def test_redis_client_that_waits_long(tmp_path, recwarn, options, message):
    redis = pytest.importorskip("redis")
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = dict(options)
    retry = Retry(NoBackoff(), options.pop("attempts", 0))
    client = redis.Redis(retry=retry, **options)
    make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_NATIVE=False)
    texts = [str(warning.message) for warning in recwarn if "SESSION_REDIS" in str(warning.message)]
    assert len(texts) == (message is not None)
    assert all(message in text for text in texts)


def test_redis_default_client(tmp_path, recwarn):
    pytest.importorskip("redis")
    app = make_app(tmp_path, SESSION_TYPE="redis", SESSION_STORE_TIMEOUT=1.5)
    settings = app.session_interface.client.connection_pool.connection_kwargs
    assert (settings["host"], settings["port"], settings["db"]) == ("127.0.0.1", 6379, 0)
    assert settings["socket_timeout"] == settings["socket_connect_timeout"] == 1.5
    assert settings["retry"]._retries == 0
    assert not recwarn.list


@pytest.mark.parametrize("place", ["SESSION_REDIS", "SESSION_URL"])
def test_redis_url(tmp_path, place):
    pytest.importorskip("redis")
    url = "redis://:pw@redis.example:6380/3"
    app = make_app(tmp_path, SESSION_TYPE="redis", **{place: url})
    settings = app.session_interface.client.connection_pool.connection_kwargs
    assert (settings["host"], settings["port"], settings["db"]) == ("redis.example", 6380, 3)
    assert settings["socket_timeout"] == 2.0


@pytest.mark.filterwarnings("ignore:the client in SESSION_REDIS")
def test_redis_factory(tmp_path):
    redis = pytest.importorskip("redis")
    client = redis.Redis(socket_timeout=1)
    app = make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=lambda: client)
    assert app.session_interface.client is client
    app = make_app(tmp_path, SESSION_TYPE="redis", SESSION_REDIS=redis.Redis)
    assert type(app.session_interface.client) is redis.Redis


def test_session_subclass_that_chooses_the_interface(tmp_path):
    class Own(Session):
        def _get_interface(self, app):
            return MemorySessionInterface(app, key_prefix="own:")

    app = flask.Flask(__name__)
    app.config["SESSION_TYPE"] = "sqlite"
    Own(app)
    assert app.session_interface.key_prefix == "own:"


def test_redis_package_is_missing(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SessionConfigError, match=r"pip install 'cession\[redis\]'"):
        make_app(tmp_path, SESSION_TYPE="redis", SESSION_NATIVE=False)
