"""Subclasses of every concrete interface: each method that may be overridden is called, and the
session works on. And which stores do not compare and set: these and no others.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from typing import Any

import flask
import pytest
from flask.sessions import SessionInterface
from flask_session import _core
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.cachelib import CacheLibSessionInterface
from flask_session.config import BACKENDS
from flask_session.datastore import GoogleCloudDatastoreSessionInterface
from flask_session.dynamodb import DynamoDBSessionInterface
from flask_session.elasticsearch import ElasticsearchSessionInterface
from flask_session.filesystem import FileSystemSessionInterface
from flask_session.firestore import GoogleFireStoreSessionInterface
from flask_session.memcached import MemcachedSessionInterface
from flask_session.memory import MemorySessionInterface
from flask_session.mongodb import MongoDBSessionInterface
from flask_session.peewee import PeeweeSessionInterface
from flask_session.postgresql import PostgreSqlSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface
from flask_session.sqlite import SqliteSessionInterface

from tests.python.apps.views import add_views

pytestmark = pytest.mark.filterwarnings("ignore:cachelib loads")


def sqlite(request):
    return {"path": request.getfixturevalue("tmp_path") / "s.sqlite3"}


def filesystem(request):
    return {"cache_dir": request.getfixturevalue("tmp_path") / "sessions"}


def redis(request):
    url = request.getfixturevalue("redis_server").url
    return {"client": url, "key_prefix": f"overrides-{uuid.uuid4()}:"}


def mongodb(request):
    url = request.getfixturevalue("start_row")("mongodb-url").where["MONGODB_URL"]
    return {"client": url, "key_prefix": f"overrides-{uuid.uuid4()}:"}


def elasticsearch(request):
    url = request.getfixturevalue("start_row")("elasticsearch").where["ELASTICSEARCH_URL"]
    return {"client": f"elasticsearch+{url}", "key_prefix": f"overrides-{uuid.uuid4()}:"}


def client_of(name):
    def options(request):
        row = request.getfixturevalue("start_row")(name)
        place = f"SESSION_{name.upper()}"
        return {
            "client": row.settings(row.where)[place],
            "key_prefix": f"overrides-{uuid.uuid4()}:",
        }

    return options


def cachelib(request):
    return {"client": pytest.importorskip("cachelib").SimpleCache()}


def memcached(request):
    where = request.getfixturevalue("start_row")("memcached-pymemcache").where
    return {"client": where["MEMCACHED_URL"], "key_prefix": f"overrides-{uuid.uuid4()}:"}


def postgresql(request):
    return {"client": request.getfixturevalue("start_row")("postgresql-url").where["POSTGRES_URL"]}


def sqlalchemy(request):
    pytest.importorskip("sqlalchemy")
    return {"client": f"sqlite:///{request.getfixturevalue('tmp_path')}/sessions.sqlite3"}


def peewee(request):
    path = request.getfixturevalue("tmp_path") / "sessions.db"
    return {"client": pytest.importorskip("peewee").SqliteDatabase(str(path))}


INTERFACES = {
    "memory": (MemorySessionInterface, lambda request: {}),
    "sqlite": (SqliteSessionInterface, sqlite),
    "filesystem": (FileSystemSessionInterface, filesystem),
    "redis": (RedisSessionInterface, redis),
    "memcached": (MemcachedSessionInterface, memcached),
    "mongodb": (MongoDBSessionInterface, mongodb),
    "elasticsearch": (ElasticsearchSessionInterface, elasticsearch),
    "dynamodb": (DynamoDBSessionInterface, client_of("dynamodb")),
    "sqlalchemy": (SqlAlchemySessionInterface, sqlalchemy),
    "cachelib": (CacheLibSessionInterface, cachelib),
    "postgresql": (PostgreSqlSessionInterface, postgresql),
    "peewee": (PeeweeSessionInterface, peewee),
    "datastore": (GoogleCloudDatastoreSessionInterface, client_of("datastore")),
    "firestore": (GoogleFireStoreSessionInterface, client_of("firestore")),
}
SERVED = ("datastore", "dynamodb", "firestore", "memcached", "mongodb", "postgresql", "redis")
CLIENT = pytest.mark.client
MARKS: dict[str, Any] = dict.fromkeys(SERVED, (pytest.mark.server, CLIENT))
MARKS |= {"redis": pytest.mark.server, "sqlalchemy": CLIENT, "peewee": CLIENT}
MARKS["elasticsearch"] = (pytest.mark.server, pytest.mark.slow, CLIENT)
THREE = ("_retrieve_session_data", "_upsert_session", "_delete_session")


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in INTERFACES])
def concrete(request):
    """(class, constructor arguments) of a concrete interface."""
    cls, options = INTERFACES[request.param]
    return cls, options(request)


def make_app(interface):
    app = flask.Flask(__name__)
    app.testing = True
    app.secret_key = "secret"
    app.session_interface = interface

    return add_views(app)


def visit(app):
    """A visitor's life; every step is checked."""
    client = app.test_client()
    assert client.get("/get").text == "None"
    client.get("/set/1")
    assert client.get("/get").text == "1"
    client.get("/set/2")
    assert client.get("/get").text == "2"
    before = client.get_cookie("session").value
    client.get("/regenerate")
    assert client.get_cookie("session").value != before
    assert client.get("/get").text == "2"
    stranger = app.test_client()
    stranger.set_cookie("session", before)
    assert stranger.get("/get").text == "None"
    sid = client.get_cookie("session").value
    client.get("/clear")
    assert client.get_cookie("session") is None
    client.set_cookie("session", sid)
    assert client.get("/get").text == "None"


def watching(cls, *names):
    """A subclass that overrides these methods: it notes the call and asks super()."""
    calls = []

    def override(name):
        def method(self, *args):
            calls.append((name, args))
            return getattr(super(Own, self), name)(*args)

        return method

    Own = type("Own", (cls,), {name: override(name) for name in names})
    return Own, calls


@pytest.mark.parametrize("names", [(name,) for name in THREE] + [THREE], ids="-".join)
def test_methods_of_the_store(concrete, names):
    cls, options = concrete
    own, calls = watching(cls, *names)
    interface = own(**options)
    visit(make_app(interface))
    assert {name for name, _ in calls} == set(names)
    for name, args in calls:
        if name == "_upsert_session":
            lifetime, session, store_id = args
            assert lifetime.total_seconds() == 31 * 24 * 3600
            assert isinstance(session, interface.session_class)
        else:
            [store_id] = args
        assert store_id.startswith(interface.key_prefix)


def test_methods_of_the_store_may_ask_the_cache(tmp_path):
    class Own(FileSystemSessionInterface):
        def _retrieve_session_data(self, store_id):
            return self.cache.get(store_id)

        def _upsert_session(self, session_lifetime, session, store_id):
            self.cache.set(store_id, dict(session), session_lifetime.total_seconds())

        def _delete_session(self, store_id):
            self.cache.delete(store_id)

    visit(make_app(Own(cache_dir=tmp_path)))


def test_generate_sid(concrete):
    cls, options = concrete

    class Own(cls):
        def _generate_sid(self, session_id_length):
            assert session_id_length == 32
            return f"own.{uuid.uuid4()}"

    app = make_app(Own(**options))
    visit(app)
    client = app.test_client()
    client.get("/set/1")
    assert client.get_cookie("session").value.startswith("own.")


def test_get_store_id(concrete):
    cls, options = concrete
    own, calls = watching(cls, "_get_store_id")
    visit(make_app(own(**options)))
    assert calls


@pytest.mark.parametrize("answer", [True, False])
def test_should_set_cookie(concrete, answer):
    cls, options = concrete

    class Own(cls):
        def should_set_cookie(self, app, session):
            return answer

    app = make_app(Own(**options))
    client = app.test_client()
    assert ("Set-Cookie" in client.get("/set/1").headers) is answer
    assert ("Set-Cookie" in client.get("/get").headers) is answer
    # an empty session never gets one
    assert "Set-Cookie" not in app.test_client().get("/untouched").headers


def test_should_set_storage_refuses(concrete):
    cls, options = concrete

    class Own(cls):
        def should_set_storage(self, app, session):
            return session.get("value") != "forbidden"

    app = make_app(Own(**options))
    client = app.test_client()
    client.get("/set/1")
    client.get("/set/forbidden")
    assert client.get("/get").text == "1"
    other = app.test_client()
    assert "Set-Cookie" not in other.get("/set/forbidden").headers


def test_should_set_storage_demands(concrete):
    cls, options = concrete

    class Own(cls):
        def should_set_storage(self, app, session):
            return True

    interface = Own(**options)
    client = make_app(interface).test_client()
    client.get("/set/1")
    before = interface._store.counts()["replace"]
    client.get("/get")
    client.get("/untouched")
    assert interface._store.counts()["replace"] == before + 2


def test_get_expiration_time(concrete):
    cls, options = concrete

    class Own(cls):
        def get_expiration_time(self, app, session):
            assert session["value"] == "1"
            return datetime(2040, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    answer = make_app(Own(**options)).test_client().get("/set/1")
    assert "Expires=Mon, 02 Jan 2040 03:04:05 GMT" in answer.headers["Set-Cookie"]


GETTERS = {
    "get_cookie_name": ("own", "own="),
    "get_cookie_domain": ("example.org", "; Domain=example.org"),
    "get_cookie_path": ("/own", "; Path=/own"),
    "get_cookie_secure": (True, "; Secure"),
    "get_cookie_samesite": ("Strict", "; SameSite=Strict"),
    "get_cookie_partitioned": (True, "; Partitioned"),
}
if not hasattr(SessionInterface, "get_cookie_partitioned"):  # Flask before 3.1
    del GETTERS["get_cookie_partitioned"]


@pytest.mark.parametrize("on", ["class", "instance"])
@pytest.mark.parametrize("getter", GETTERS)
def test_getters(concrete, getter, on):
    cls, options = concrete
    value, shown = GETTERS[getter]
    if on == "class":
        interface = type("Own", (cls,), {getter: lambda self, app: value})(**options)
    else:
        interface = cls(**options)
        setattr(interface, getter, lambda app: value)
    app = make_app(interface)
    put = app.test_client().get("/set/1", base_url="https://example.org").headers["Set-Cookie"]
    assert shown in put
    name = "own" if getter == "get_cookie_name" else "session"
    sid = put.partition("=")[2].partition(";")[0]
    with app.test_client(use_cookies=False) as client:
        cookie = {"Cookie": f"{name}={sid}"}
        assert client.get("/get", headers=cookie).text == "1"
        deleted = client.get("/clear", headers=cookie).headers["Set-Cookie"]
    assert shown in deleted
    assert attributes(deleted) == attributes(put)


def attributes(set_cookie):
    """All but value and time."""
    return {
        part for part in set_cookie.split("; ")[1:] if not part.startswith(("Expires=", "Max-Age="))
    }


def test_get_cookie_httponly(concrete):
    cls, options = concrete

    class Own(cls):
        def get_cookie_httponly(self, app):
            return False

    answer = make_app(Own(**options)).test_client().get("/set/1")
    assert "HttpOnly" not in answer.headers["Set-Cookie"]


def test_session_class(concrete):
    cls, options = concrete

    class OwnSession(ServerSideSession):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.made = True

    class Own(cls):
        session_class = OwnSession

    app = make_app(Own(**options))
    visit(app)
    with app.test_request_context():
        assert flask.session.made


@pytest.mark.parametrize("name", ["memory", "sqlite", "filesystem", "peewee"])
def test_delete_expired_sessions(name, request):
    cls, options = INTERFACES[name]
    own, calls = watching(cls, "_delete_expired_sessions")
    app = flask.Flask(__name__)
    app.config["SESSION_AUTODELETE"] = True
    app.session_interface = own(app, **options(request))
    app.test_client().get("/")
    assert len(calls) == 1


# ---- who does not compare and set ---------------------------------------------------------------


def atomic(interface):
    return bool(interface._store.capabilities & _core.CAP_ATOMIC)


@pytest.mark.server
@pytest.mark.client
def test_the_stores_that_are_not_atomic_are_exactly_these(request):
    assert set(INTERFACES) == set(BACKENDS)
    made = {name: cls(**options(request)) for name, (cls, options) in INTERFACES.items()}
    assert {name for name, interface in made.items() if not atomic(interface)} == {"cachelib"}


def test_three_methods_are_not_atomic(concrete):
    cls, options = concrete
    for name in THREE:
        own, _ = watching(cls, name)
        assert not atomic(own(**options))


def test_everything_else_stays_atomic(concrete):
    cls, options = concrete
    names = {"_generate_sid", "_get_store_id", "_delete_expired_sessions", "should_set_storage"}
    names |= {name for name in dir(cls) if name.startswith("get_cookie_")}
    own, _ = watching(cls, *names, "should_set_cookie", "get_expiration_time")
    interface = own(**options)
    interface.serializer = json
    assert atomic(interface) is (cls is not CacheLibSessionInterface)


def test_a_store_of_three_methods_alone_is_not_atomic():
    class Own(ServerSideSessionInterface):
        def _retrieve_session_data(self, store_id):
            return None

        _upsert_session = _delete_session = _retrieve_session_data

    assert not atomic(Own())
