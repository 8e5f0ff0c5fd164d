"""Sessions in a cachelib cache."""

from __future__ import annotations

import pickle
import re
import sys
import time
import warnings

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.cachelib import CacheLibSession, CacheLibSessionInterface, CacheLibStore
from flask_session.contract import Adapter

from tests.python.apps.views import add_views

cachelib = pytest.importorskip("cachelib")

pytestmark = pytest.mark.filterwarnings("ignore:cachelib loads")


def make_app(cache, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache, **settings)
    app.testing = True
    Session(app)

    return add_views(app)


def sid_of(client):
    return client.get_cookie("session").value


def stats(app):
    return app.extensions["flask_session"].stats()


@pytest.fixture(params=["simple", "file", "redis"])
def cache(request, tmp_path):
    if request.param == "simple":
        return cachelib.SimpleCache()
    if request.param == "file":
        return cachelib.FileSystemCache(str(tmp_path / "cache"))
    server = request.getfixturevalue("redis_server")
    redis = pytest.importorskip("redis")
    prefix = f"cachelib-{time.time_ns()}"
    return cachelib.RedisCache(redis.Redis(port=server.port()), key_prefix=prefix)


# ---- life ---------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_life(cache, format):
    app = make_app(cache, SESSION_SERIALIZATION_FORMAT=format)
    client = app.test_client()
    assert client.get("/get").text == "None"
    client.get("/set/1")
    key = "session:" + sid_of(client)
    assert cache.get(key) == {"_permanent": True, "value": "1"}
    assert client.get("/get").text == "1"
    client.get("/set/2")
    assert cache.get(key) == {"_permanent": True, "value": "2"}
    client.get("/regenerate")
    assert cache.get(key) is None
    assert client.get("/get").text == "2"
    old, key = key, "session:" + sid_of(client)
    assert key != old
    client.get("/clear")
    assert cache.get(key) is None
    assert client.get_cookie("session") is None


def test_values_keep_their_types():
    cache = cachelib.SimpleCache()
    app = make_app(cache)
    client = app.test_client()
    with client.session_transaction() as session:
        session["value"] = value = {"tuple": (1, {2}), "bytes": b"x"}
    assert cache.get("session:" + sid_of(client))["value"] == value
    with client.session_transaction() as session:
        assert session["value"] == value


def test_interface():
    cache = cachelib.SimpleCache()
    app = make_app(cache)
    interface = app.session_interface
    assert type(interface) is CacheLibSessionInterface
    assert interface.cache is interface.client is cache
    assert isinstance(interface._store.adapter, Adapter)
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is CacheLibSession


def test_lifetime_goes_to_the_cache():
    class Recorder(cachelib.SimpleCache):
        timeouts = ()

        def add(self, key, value, timeout=None):
            self.timeouts += (timeout,)
            return super().add(key, value, timeout)

        def set(self, key, value, timeout=None):
            self.timeouts += (timeout,)
            return super().set(key, value, timeout)

    cache = Recorder()
    client = make_app(cache, PERMANENT_SESSION_LIFETIME=3600).test_client()
    client.get("/set/1")
    client.get("/set/2")
    assert len(cache.timeouts) == 2
    assert all(3600 <= timeout <= 3601 for timeout in cache.timeouts)


def test_an_expired_entry_is_no_session(tmp_path):
    cache = cachelib.FileSystemCache(str(tmp_path))
    app = make_app(cache)
    client = app.test_client()
    client.get("/set/1")
    cache.set("session:" + sid_of(client), {"value": "1"}, timeout=-5)
    assert client.get("/get").text == "None"


def test_a_read_writes_only_when_a_touch_is_due():
    cache = cachelib.SimpleCache()
    app = make_app(cache)
    client = app.test_client()
    client.get("/set/1")
    client.get("/get")
    assert stats(app)["touch"] == 0
    # another process does not know when it expires
    other = make_app(cache)
    stranger = other.test_client()
    stranger.set_cookie("session", sid_of(client))
    stranger.get("/get")
    stranger.get("/get")
    assert stats(other)["touch"] == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("flask_session.clients._REMEMBERED_MAX", 3)
    interface = CacheLibSessionInterface(client=cachelib.SimpleCache())
    store = interface._store
    for number in range(5):
        store.create(f"k{number}", _core.encode({"a": 1}), 60_000)
    assert store.load("k0")[2] is None
    assert store.load("k4")[2] > time.time() * 1000
    assert [store.load(f"k{number}")[2] is None for number in range(5)] == [True] * 2 + [False] * 3
    store.remove("k4")
    assert store.load("k4") is None


# ---- the contract, as far as it goes ------------------------------------------------------------


@pytest.mark.server
def test_contract(cache):
    interface = CacheLibSessionInterface(client=cache)
    store = interface._store
    one, two, three = (_core.encode({"a": number}) for number in (1, 2, 3))
    assert not store.capabilities & _core.CAP_ATOMIC
    assert store.load("k" * 16) is None
    assert store.create("k" * 16, one, 60_000) is True
    assert store.create("k" * 16, two, 60_000) is False
    value, version, expires = store.load("k" * 16)
    assert (value, version) == (one, b"")
    assert abs(expires - time.time() * 1000 - 60_000) < 5_000
    assert store.replace("k" * 16, two, b"", three, 60_000)[0] == one
    assert store.touch("k" * 16, two, b"", 60_000) == _core.CHANGED
    assert store.touch("k" * 16, one, b"", 90_000) == _core.OK
    assert store.load("k" * 16)[2] > expires
    assert store.replace("k" * 16, one, b"", two, 60_000) == _core.OK
    assert store.load("k" * 16)[0] == two
    store.remove("k" * 16)
    store.remove("k" * 16)
    assert store.load("k" * 16) is None
    assert store.replace("k" * 16, two, b"", three, 60_000) == _core.GONE
    assert store.touch("k" * 16, two, b"", 60_000) == _core.GONE


def test_create_over_an_expired_entry(tmp_path):
    """FileSystemCache.add says no to a key whose entry has expired but lies there."""
    cache = cachelib.FileSystemCache(str(tmp_path))
    interface = CacheLibSessionInterface(client=cache)
    store = interface._store
    cache.set("session:" + "k" * 16, {"a": 1}, timeout=-5)
    assert cache.add("session:" + "k" * 16, {"a": 2}) is False
    assert store.create("k" * 16, _core.encode({"a": 3}), 60_000) is True
    assert cache.get("session:" + "k" * 16) == {"a": 3}


# ---- what goes wrong ----------------------------------------------------------------------------


class Broken(cachelib.SimpleCache):
    def set(self, key, value, timeout=None):
        return False

    add = set

    def delete(self, key):
        return False


def test_a_cache_that_does_not_store():
    app = make_app(Broken())
    with pytest.raises(SessionStoreError) as caught:
        app.test_client().get("/set/1")
    assert "did not store" in str(caught.value.__cause__)


def test_a_cache_that_does_not_delete():
    cache = Broken()
    key = "s" * 20
    cachelib.SimpleCache.set(cache, "session:" + key, {"value": "1"})
    app = make_app(cache, SESSION_REFRESH_EACH_REQUEST=False)
    client = app.test_client()
    client.set_cookie("session", key)
    with pytest.raises(SessionStoreError) as caught:
        client.get("/clear")
    assert "did not delete" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"garbage", pickle.dumps({"a": 1})[:-3], b"cnosuchmodule\nx\n.", b"(I1\nd."],
)
def test_a_damaged_entry_is_no_session(tmp_path, content):
    cache = cachelib.FileSystemCache(str(tmp_path))
    app = make_app(cache)
    client = app.test_client()
    client.get("/set/1")
    path = cache._get_filename("session:" + sid_of(client))
    with open(path, "rb") as file:
        head = file.read(4)
    with open(path, "wb") as file:
        file.write(head + content)
    assert client.get("/get").text == "None"
    client.get("/set/2")
    assert client.get("/get").text == "2"


@pytest.mark.parametrize("value", [[1], "text", 5, {"a": object()}, {"__cession__": {"t": True}}])
def test_an_entry_of_something_else_is_no_session(value):
    cache = cachelib.SimpleCache()
    app = make_app(cache)
    client = app.test_client()
    cache.set("session:" + "s" * 20, value)
    client.set_cookie("session", "s" * 20)
    assert client.get("/get").text == "None"
    assert stats(app)["events"]["rejected"] == 1


# ---- settings -----------------------------------------------------------------------------------


def warned(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(warning.message) for warning in caught]


def test_one_warning_about_pickle():
    [text] = warned(lambda: make_app(cachelib.SimpleCache()))
    assert re.match("cachelib loads what it stored with pickle, which runs code", text)


@pytest.mark.parametrize("kind", [tuple, list])
def test_tuple_of_one_is_unwrapped_with_one_warning(kind):
    cache = cachelib.SimpleCache()
    apps = []
    texts = warned(lambda: apps.append(make_app(kind([cache]))))
    assert apps[0].session_interface.cache is cache
    assert len(texts) == 2
    assert "SESSION_CACHELIB is a tuple of one cache (a comma" in texts[0]


@pytest.mark.parametrize("make", [lambda: cachelib.SimpleCache(), cachelib.SimpleCache])
def test_factory(make):
    assert type(make_app(make).session_interface.cache) is cachelib.SimpleCache


def test_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(None)
    app.test_client().get("/set/1")
    cache = app.session_interface.cache
    assert type(cache) is cachelib.FileSystemCache
    assert len(list((tmp_path / "flask_session").iterdir())) == 2


@pytest.mark.parametrize(
    "value", [5, {}, object(), (), (1, 2), "redis://x", (cachelib.SimpleCache(),) * 2]
)
def test_refused(value):
    with pytest.raises(SessionConfigError, match="SESSION_CACHELIB must be a cachelib cache"):
        make_app(value)


def test_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cachelib.file", None)
    with pytest.raises(SessionConfigError, match=r"pip install 'cession\[cachelib\]'"):
        make_app(None)


def test_store_is_found_by_its_interface():
    interface = CacheLibSessionInterface(client=cachelib.SimpleCache())
    assert isinstance(interface._store.adapter, CacheLibStore)
    assert interface.ttl is True
