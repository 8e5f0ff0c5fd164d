"""The native Redis driver: when it serves, and what it does when the server or the wire fails.
test_row_contract.py has the contract, tests/c/test_redis.c what can be seen without Python."""

from __future__ import annotations

import json
import socket
import sys
import threading
import uuid

import flask
import pytest
from flask_session import Session, SessionConfigError, _core
from flask_session.redis import RedisSessionInterface, RedisStore

redis = pytest.importorskip("redis")

HOUR = 3_600_000

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not _core.HAS_REDIS, reason="built without hiredis"),
]


def make_app(**settings):
    app = flask.Flask(__name__)
    app.testing = True
    app.config.update({
        "SESSION_TYPE": "redis",
        "SESSION_KEY_PREFIX": f"session:{uuid.uuid4()}:",
        **settings,
    })  # fmt: skip
    Session(app)

    @app.get("/set/<value>")
    def put(value):
        flask.session["value"] = value
        return "set"

    @app.get("/get")
    def get():
        return str(flask.session.get("value"))

    return app


def is_native(app):
    return app.extensions["flask_session"].stats()["native"]


def works(app):
    client = app.test_client()
    client.get("/set/here")
    return client.get("/get").text == "here"


# ---- when it serves ------------------------------------------------------------------------------


def test_a_url_is_served_natively(redis_server):
    app = make_app(SESSION_URL=redis_server.url)
    assert works(app)
    assert is_native(app)
    app = make_app(SESSION_URL=redis_server.url, SESSION_NATIVE=False)
    assert works(app)
    assert not is_native(app)


def test_redis_py_is_not_needed(redis_server, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    app = make_app(SESSION_URL=redis_server.url)
    assert works(app)
    assert is_native(app)
    with pytest.raises(SessionConfigError, match="redis store takes"):
        make_app(SESSION_URL=redis_server.url + "?health_check_interval=30")


def test_a_url_that_only_redis_py_understands(redis_server):
    app = make_app(SESSION_URL=redis_server.url + "?health_check_interval=30")
    assert works(app)
    assert not is_native(app)


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_the_client_of_a_url_is_there_when_asked_for(redis_server, scheme):
    app = make_app(SESSION_URL=redis_server.url.replace("redis", scheme, 1))
    client = app.session_interface.client
    assert client is app.session_interface.client
    assert client.ping()


def test_not_built(monkeypatch):
    monkeypatch.setattr(_core, "HAS_REDIS", 0)
    with pytest.raises(SessionConfigError, match="libhiredis-dev"):
        make_app(SESSION_NATIVE=True)
    assert not is_native(make_app())


def client_of(server, **options):
    return redis.Redis(port=server.port(), socket_timeout=5, **options)


def test_a_plain_client_is_promoted_with_its_parameters(redis_server):
    app = make_app(SESSION_REDIS=client_of(redis_server, db=3, client_name="promoted", protocol=3))
    assert works(app)
    assert is_native(app)
    admin = client_of(redis_server, db=3)
    prefix = app.config["SESSION_KEY_PREFIX"].encode()
    assert any(key.startswith(prefix) for key in admin.scan_iter(count=1000))
    mine = [one for one in admin.client_list() if one["name"] == "promoted"]
    assert mine
    assert all((one["db"], one["resp"]) == ("3", "3") for one in mine)
    assert app.session_interface.client is app.config["SESSION_REDIS"]


def test_user_unix_socket_and_tls_are_promoted(redis_server, services):
    from tests.services.redis import PASSWORD, RedisTlsService

    path = str(redis_server.socket_path)
    client = redis.Redis(unix_socket_path=path, username="app", password=PASSWORD)
    for promoted in (
        client,
        redis.Redis.from_url(services.start(RedisTlsService).exports()["REDIS_TLS_URL"]),
    ):
        app = make_app(SESSION_REDIS=promoted)
        assert works(app)
        assert is_native(app)


class Derived(redis.Redis):
    pass


class DerivedPool(redis.ConnectionPool):
    pass


class DerivedConnection(redis.Connection):
    pass


class Credentials(redis.CredentialProvider):
    def get_credentials(self):
        return ("app", "sessions-secret")


def patched(port):
    client = redis.Redis(port=port)
    client.execute_command = client.execute_command
    return client


OTHERS = {
    "subclass": lambda port: Derived(port=port),
    "pool": lambda port: redis.Redis(connection_pool=DerivedPool(port=port)),
    "blocking pool": lambda port: redis.Redis(
        connection_pool=redis.BlockingConnectionPool(port=port)
    ),
    "connection": lambda port: redis.Redis(
        connection_pool=redis.ConnectionPool(port=port, connection_class=DerivedConnection)
    ),
    "credentials": lambda port: redis.Redis(port=port, credential_provider=Credentials()),
    "one connection": lambda port: redis.Redis(port=port, single_connection_client=True),
    "encoding": lambda port: redis.Redis(port=port, encoding="latin-1"),
    "hook": lambda port: redis.Redis(port=port, redis_connect_func=lambda c: c.on_connect()),
    "patched object": patched,
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore:the client in SESSION_REDIS")
def test_other_clients_serve_themselves(redis_server, kind):
    app = make_app(SESSION_REDIS=OTHERS[kind](redis_server.port()))
    assert works(app)
    assert not is_native(app)


@pytest.mark.parametrize("name", ["execute_command", "evalsha"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.filterwarnings("ignore:the client in SESSION_REDIS")
def test_a_patched_library_serves_itself(redis_server, monkeypatch, name, when):
    """What instruments a client sees its commands, also when it came later."""
    seen = []
    original = getattr(redis.Redis, name)

    def instrumented(self, *args, **options):
        seen.append(args)
        return original(self, *args, **options)

    if when == "before":
        monkeypatch.setattr(redis.Redis, name, instrumented)
    app = make_app(SESSION_REDIS=client_of(redis_server))
    if when == "after":
        assert works(app)
        assert is_native(app)
        monkeypatch.setattr(redis.Redis, name, instrumented)
    assert works(app)
    assert not is_native(app)
    assert seen


@pytest.mark.parametrize("place", ["SESSION_URL", "SESSION_REDIS"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.filterwarnings("ignore:the client in SESSION_REDIS")
def test_patched_sockets(redis_server, monkeypatch, place, when):
    """As gevent and eventlet do; a session that was stored natively goes on."""

    class Green(socket.socket):
        __module__ = "gevent._socket3"

    if when == "before":
        monkeypatch.setattr(socket, "socket", Green)
    app = make_app(
        **{place: redis_server.url if place == "SESSION_URL" else client_of(redis_server)}
    )
    client = app.test_client()
    client.get("/set/here")
    assert is_native(app) is (when == "after")
    monkeypatch.setattr(socket, "socket", Green)
    assert client.get("/get").text == "here"
    assert not is_native(app)


def test_redirected_sockets(redis_server, monkeypatch):
    """Whoever sends connections elsewhere, or resolves names, is not passed by."""
    app = make_app(SESSION_URL="redis://127.0.0.1:1/0")
    original = socket.socket.connect

    def connect(self, address):
        return original(self, ("127.0.0.1", redis_server.port()))

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert works(app)
    assert not is_native(app)


def test_stats_and_capabilities_are_those_of_the_adapter(redis_server):
    native = make_app(SESSION_URL=redis_server.url).extensions["flask_session"].store
    adapter = _core.Store.wrap(RedisStore(client_of(redis_server)))
    assert (native.name, native.capabilities) == (adapter.name, adapter.capabilities)
    assert native.native is True
    assert adapter.native is False


def test_an_interface_of_a_native_store_goes_away(redis_server):
    """Nothing holds on to it: neither the adapter beside the driver nor the check."""
    import gc
    import weakref

    app = flask.Flask(__name__)
    interfaces = [
        RedisSessionInterface(app, redis_server.url),
        RedisSessionInterface(app, client_of(redis_server)),
    ]
    gone = [weakref.ref(interface) for interface in interfaces]
    del interfaces
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_native_and_adapter_on_one_store_lose_nothing(redis_server, long_run):
    prefix = f"session:{uuid.uuid4()}:"
    native = [_core.Store.open_url(redis_server.url).prefixed(prefix) for _ in range(2)]
    adapter = _core.Store.wrap(RedisStore(client_of(redis_server))).prefixed(prefix)
    rounds = 300 if long_run else 60
    native[0].create("k", b"{}", HOUR)

    def count(store, name):
        for _ in range(rounds):
            current = store.load("k")
            while True:
                content = json.loads(current[0])
                content[name] = content.get(name, 0) + 1
                answer = store.replace(
                    "k", current[0], current[1], json.dumps(content).encode(), HOUR
                )
                if answer == _core.OK:
                    break
                current = answer
            assert store.touch("k", b"something else", b"", HOUR) == _core.CHANGED

    stores = [native[0], native[1], adapter, adapter]
    threads = [
        threading.Thread(target=count, args=(store, f"t{n}")) for n, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(adapter.load("k")[0]) == {f"t{n}": rounds for n in range(4)}
    native[0].remove("k")
    assert adapter.load("k") is None
