"""What is special to Redis: test_row_contract.py has the contract."""

from __future__ import annotations

import time
import uuid

import flask
import flask_session
import pytest
from flask_session import Session, SessionStoreError, _core
from flask_session.redis import RedisSession, RedisSessionInterface, RedisStore

from tests.python.apps.views import add_views
from tests.rows import configuration

redis = pytest.importorskip("redis")

pytestmark = pytest.mark.server

HOUR = 3_600_000


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request, redis_server):
    made = redis.Redis.from_url(redis_server.url, protocol=request.param, socket_timeout=5)
    yield made
    made.close()


@pytest.fixture
def prefix(client):
    text = f"cession-test-{uuid.uuid4()}*?[a]:"
    yield text
    names = [name for name in client.scan_iter(count=1000) if name.startswith(text.encode())]
    if names:
        client.delete(*names)


@pytest.fixture
def store(client, prefix):
    made = _core.Store.wrap(RedisStore(client, prefix)).prefixed(prefix)
    yield made
    made.close()


def test_capabilities(store):
    assert store.name == "redis"
    assert store.capabilities == (
        _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_NATIVE_TTL | _core.CAP_LISTABLE
    )


def test_expired_is_missing_everywhere(store):
    for key in ("a", "b", "c", "d"):
        store.create(key, b"one", 1)
    time.sleep(0.05)
    assert store.load("a") is None
    assert store.replace("b", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("c", b"one", b"", HOUR) == _core.GONE
    assert store.create("d", b"two", HOUR) is True


def test_without_expiry(client, prefix, store):
    client.set(prefix + "k", b"one")
    assert store.load("k") == (b"one", b"", _core.EXPIRES_NEVER)
    assert store.touch("k", b"one", b"", HOUR) == _core.OK
    assert store.load("k")[2] > 0


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream"])
def test_key_of_another_type_is_no_session_and_left_alone(client, prefix, store, kind):
    name = prefix + "k"
    {
        "list": lambda: client.rpush(name, "x"),
        "hash": lambda: client.hset(name, "f", "x"),
        "set": lambda: client.sadd(name, "x"),
        "zset": lambda: client.zadd(name, {"x": 1}),
        "stream": lambda: client.xadd(name, {"f": "x"}),
    }[kind]()
    assert store.load("k") == (b"", b"", _core.EXPIRES_NEVER)
    assert store.replace("k", b"x", b"", b"y", HOUR) == _core.GONE
    assert store.touch("k", b"x", b"", HOUR) == _core.GONE
    assert store.create("k", b"y", HOUR) is False
    assert client.type(name) == kind.encode()
    assert client.pttl(name) == -1


def test_ttl_below_a_second_and_very_long(client, prefix, store):
    store.create("short", b"one", 1500)
    assert 0 < client.pttl(prefix + "short") <= 1500
    ten_years = 10 * 365 * 24 * HOUR
    store.create("long", b"one", ten_years)
    assert ten_years - 60_000 < client.pttl(prefix + "long") <= ten_years


def test_scan_sees_the_prefix_only(client, prefix, store):
    expected = {f"k{number}".encode() for number in range(300)}
    for key in expected:
        store.create(key.decode(), b"v" + key, HOUR)
    client.set(prefix.replace("*", "x") + "stranger", b"no", px=60_000)
    client.rpush(prefix + "list", "x")
    seen, cursor = {}, b""
    while True:
        cursor, rows = store.scan(cursor, 50)
        seen.update({key: (value, expires) for key, value, expires in rows})
        if not cursor:
            break
    client.delete(prefix.replace("*", "x") + "stranger")
    assert set(seen) == expected
    assert all(value == b"v" + key and expires > 0 for key, (value, expires) in seen.items())


def test_scripts_survive_a_flush(client, store):
    store.create("k", b"one", HOUR)
    for operation in (
        lambda: store.load("k")[0] == b"one",
        lambda: store.touch("k", b"one", b"", HOUR) == _core.OK,
        lambda: store.replace("k", b"one", b"", b"two", HOUR) == _core.OK,
    ):
        client.script_flush()
        assert operation()


def calls(client):
    return {
        name.removeprefix("cmdstat_"): row["calls"]
        for name, row in client.info("commandstats").items()
    }


def test_every_operation_is_one_round_trip(redis_private, counting_proxy):
    server = redis_private()
    proxy = counting_proxy(server.port())
    client = redis.Redis(port=proxy.port, socket_timeout=5)
    store = _core.Store.wrap(RedisStore(client))
    store.create("k", b"one", HOUR)
    store.load("k")
    store.touch("k", b"one", b"", HOUR)
    store.replace("k", b"one", b"", b"one", HOUR)  # the scripts are known from here on
    direct = redis.Redis(port=server.port())
    for operation in (
        lambda: store.load("k"),
        lambda: store.touch("k", b"one", b"", HOUR),
        lambda: store.replace("k", b"one", b"", b"one", HOUR),
        lambda: store.replace("k", b"other", b"", b"two", HOUR),
        lambda: store.remove("k"),
        lambda: store.create("k", b"one", HOUR),
    ):
        direct.config_resetstat()
        before = proxy.round_trips
        operation()
        assert proxy.round_trips - before == 1
        top = {name for name in calls(direct) if name in ("evalsha", "set", "del", "eval")}
        assert len(top) >= 1


# ---- other clients, and failures ----------------------------------------------------------------


def quickstart(**settings):
    app = flask.Flask(__name__)
    app.testing = True
    app.config.update({"SESSION_TYPE": "redis", "SESSION_NATIVE": False, **settings})
    Session(app)

    return add_views(app)


@pytest.mark.parametrize("kind", ["url", "acl_url", "unix_url"])
def test_urls(redis_server, kind):
    app = quickstart(SESSION_URL=getattr(redis_server, kind))
    client = app.test_client()
    client.get("/set/here")
    assert client.get("/get").text == "here"


def test_interface_without_an_application(redis_server):
    app = flask.Flask(__name__)
    client = redis.Redis.from_url(redis_server.url, socket_timeout=5)
    app.session_interface = RedisSessionInterface(client=client)
    assert app.session_interface.client is client
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is RedisSession
        flask.session["a"] = 1
        sid = flask.session.sid
        response = app.make_response("")
        app.session_interface.save_session(app, flask.session._get_current_object(), response)
    assert _core.decode(client.get("session:" + sid)) == {"a": 1, "_permanent": True}
    client.delete("session:" + sid)


def test_dead_server_and_recovery(redis_private):
    server = redis_private()
    app = quickstart(SESSION_URL=server.url, SESSION_STORE_TIMEOUT=0.5)
    client = app.test_client()
    client.get("/set/here")
    server.stop()
    with pytest.raises(SessionStoreError) as caught:
        client.get("/get")
    assert isinstance(caught.value.__cause__, redis.exceptions.ConnectionError)
    assert flask_session.SessionStoreError is type(caught.value)
    server.restart()
    client.get("/set/again")
    assert client.get("/get").text == "again"


def test_silent_server_costs_the_timeout_once(redis_private):
    server = redis_private()
    app = quickstart(SESSION_URL=server.url, SESSION_STORE_TIMEOUT=0.3)
    client = app.test_client()
    client.get("/set/here")
    server.pause()
    try:
        with app.test_request_context(headers={"Cookie": f"session={'x' * 43}"}):
            with pytest.raises(SessionStoreError) as caught:
                flask.session.get("value")
        assert isinstance(caught.value.__cause__, redis.exceptions.TimeoutError)
    finally:
        server.resume()
    assert client.get("/get").text == "here"


# ---- a master that dies --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["redis-sentinel", "redis-cluster"])
def test_failover(start_row, name):
    """The replica takes over; the application goes on with the session, without a restart."""
    row = start_row(name, own=True)
    try:
        settings = configuration(type(row), row.where)
        app = quickstart(**settings)
        client = app.test_client()
        client.get("/set/here")
        key = settings["SESSION_KEY_PREFIX"] + client.get_cookie("session").value
        connection = row.connect(row.where)
        replicated(connection, key)
        row.server.kill_master(port_of(connection, key))
        end = time.monotonic() + 30
        while True:
            try:
                text = client.get("/get").text
                break
            except SessionStoreError:
                assert time.monotonic() < end
                time.sleep(0.1)
        assert text == "here"
        client.get("/set/again")
        assert client.get("/get").text == "again"
    finally:
        row.server.end()


def port_of(connection, key):
    """The port of the master that has the key."""
    if hasattr(connection, "get_node_from_key"):
        return connection.get_node_from_key(key).port
    return connection.connection_pool.get_master_address()[1]


def replicated(connection, key):
    """Wait until a replica has what was written."""
    if hasattr(connection, "get_node_from_key"):
        node = connection.get_node_from_key(key)
        assert connection.wait(1, 5000, target_nodes=node) >= 1
    else:
        assert connection.wait(1, 5000) >= 1
