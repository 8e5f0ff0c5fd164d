"""The native Redis driver: when it serves, and what it does when the server or the wire fails.
test_row_contract.py has the contract, tests/c/test_redis.c what can be seen without Python."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from urllib.parse import quote

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core, redis_native
from flask_session import redis as adapter
from flask_session.redis import RedisSessionInterface, RedisStore

from tests.python.apps.views import add_views
from tests.services.base import wait_until

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
    return add_views(app)


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
    wrapped = _core.Store.wrap(RedisStore(client_of(redis_server)))
    assert (native.name, native.capabilities) == (wrapped.name, wrapped.capabilities)
    assert native.native is True
    assert wrapped.native is False


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
    other = _core.Store.wrap(RedisStore(client_of(redis_server))).prefixed(prefix)
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

    stores = [native[0], native[1], other, other]
    threads = [
        threading.Thread(target=count, args=(store, f"t{n}")) for n, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(other.load("k")[0]) == {f"t{n}": rounds for n in range(4)}
    native[0].remove("k")
    assert other.load("k") is None


def test_the_scripts_are_those_of_the_adapter(redis_private):
    """So a server knows them already, whoever came first."""
    server = redis_private()
    store = _core.Store.open_url(server.url)
    store.create("k", b"one", HOUR)
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
    assert store.touch("k", b"two", b"", HOUR) == _core.OK
    known = client_of(server).script_exists(adapter._replace.sha, adapter._touch.sha)
    assert known == [True, True]


# ---- round trips ---------------------------------------------------------------------------------


def test_every_operation_is_one_round_trip(redis_private, counting_proxy):
    proxy = counting_proxy(redis_private().port())
    store = _core.Store.open_url(f"redis://127.0.0.1:{proxy.port}")
    store.create("k", b"one", HOUR)
    store.touch("k", b"one", b"", HOUR)
    store.replace("k", b"one", b"", b"one", HOUR)  # the scripts are known from here on
    for operation in (
        lambda: store.load("k"),
        lambda: store.load("nothing"),
        lambda: store.touch("k", b"one", b"", HOUR),
        lambda: store.replace("k", b"one", b"", b"one", HOUR),
        lambda: store.replace("k", b"other", b"", b"two", HOUR),
        lambda: store.remove("k"),
        lambda: store.create("k", b"one", HOUR),
    ):
        before = proxy.round_trips
        operation()
        assert proxy.round_trips - before == 1
    assert proxy.connections == 1


def test_the_greeting_is_one_round_trip(redis_server, counting_proxy):
    proxy = counting_proxy(redis_server.port())
    url = proxy.url(redis_server.acl_url).replace("/0", "/7")
    store = _core.Store.open_url(f"{url}?client_name=greeting")
    store.load("session:none")
    assert proxy.round_trips == 2


# ---- the wire fails ------------------------------------------------------------------------------

NONE = 10**9


class Cutter:
    """Lets so many bytes of the server's answers through, then ends the connection."""

    def __init__(self, then):
        self.left, self.then, self.garbage = NONE, then, b""
        self.fired = False

    def set(self, left):
        self.left, self.fired = left, False

    def __call__(self, data):
        if self.fired or len(data) <= self.left:
            self.left -= len(data)
            return data, ""
        part, self.fired = data[: self.left], True
        return part + self.garbage, self.then


class Wire:
    """A store behind a proxy, and another one on the server itself."""

    def __init__(self, proxy, server):
        self.proxy, self.prefix = proxy, f"session:{uuid.uuid4()}:"
        self.direct = _core.Store.open_url(server.url).prefixed(self.prefix)
        self.store = _core.Store.open_url(f"redis://127.0.0.1:{proxy.port}").prefixed(self.prefix)

    def prepare(self):
        self.direct.remove("k")
        self.direct.remove("new")
        assert self.direct.create("k", b"old value", HOUR)


@pytest.fixture
def wire(redis_server, counting_proxy):
    return Wire(counting_proxy(redis_server.port()), redis_server)


OPERATIONS = {
    "load": (lambda store: store.load("k")[0], b"old value"),
    "create": (lambda store: store.create("new", b"new value", HOUR), True),
    "replace": (lambda store: store.replace("k", b"old value", b"", b"new value", HOUR), _core.OK),
    "conflict": (lambda store: store.replace("k", b"?", b"", b"x", HOUR)[0], b"old value"),
    "touch": (lambda store: store.touch("k", b"old value", b"", HOUR), _core.OK),
    "remove": (lambda store: store.remove("k"), None),
}
AFTER = {"replace": b"new value", "remove": None}


def outcome(operation, store):
    """The answer, or the text of the error."""
    try:
        return operation(store)
    except SessionStoreError as error:
        return str(error)


@pytest.mark.parametrize("then", ["end", "reset"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_cut_at_every_byte_of_an_answer(wire, name, then):
    """Whatever arrives before the end: the right answer, from a second attempt, or a clear error;
    never a wrong one, neither then nor for whoever comes next. Nothing is done twice that may not
    be."""
    operation, expected = OPERATIONS[name]
    cutter = wire.proxy.tamper = Cutter(then)
    for at in range(200):
        wire.prepare()
        wire.store.load("k")  # a connection that was used before may be given up
        cutter.set(at)
        answer = outcome(operation, wire.store)
        if cutter.fired and name in ("create", "conflict"):
            assert "connection to the Redis server was lost" in answer
        else:
            assert answer == expected
        whole = not cutter.fired
        cutter.set(NONE)
        # The change was made once, or, where the request failed, at most once.
        current = wire.direct.load("k")
        assert (current and current[0]) == AFTER.get(name, b"old value")
        if name == "create":
            assert wire.direct.load("new")[0] == b"new value"
        wire.direct.remove("k")
        assert wire.store.load("k") is None
        if whole:
            assert at >= 3
            return
    pytest.fail("no answer is that long")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("garbage", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"$99999999999\r\n",
    b"*3\r\n:1\r\n$1\r\nx\r\n>1\r\n",
    b"*60000\r\n*60000\r\n",
    b":12x\r\n",
    b"\0" * 100,
])  # fmt: skip
def test_garbage_instead_of_an_answer(wire, name, garbage):
    operation, expected = OPERATIONS[name]
    cutter = wire.proxy.tamper = Cutter("")
    wire.prepare()
    wire.store.load("k")
    cutter.garbage = garbage
    cutter.set(0)
    with pytest.raises(SessionStoreError, match=r"no RESP|larger than"):
        operation(wire.store)
    wire.prepare()
    assert operation(wire.store) == expected


@pytest.mark.parametrize("name", [*OPERATIONS, "scan"])
@pytest.mark.parametrize("answer", [b"*0\r\n", b":7\r\n", b"$1\r\nx\r\n", b"*2\r\n:1\r\n:2\r\n"])
def test_an_answer_of_another_kind(wire, name, answer):
    """Well-formed, and not what the command gives."""
    if (name, answer) in (("remove", b":7\r\n"), ("load", b"$1\r\nx\r\n")):
        answer = b"*0\r\n"
    operation = OPERATIONS.get(name, (lambda store: store.scan(), None))[0]
    cutter = wire.proxy.tamper = Cutter("")
    wire.prepare()
    wire.store.load("k")
    cutter.garbage = answer * 2 if name == "load" else answer
    cutter.set(0)
    with pytest.raises(SessionStoreError, match="something unexpected"):
        operation(wire.store)
    cutter.set(NONE)
    wire.prepare()
    assert wire.store.load("k")[0] == b"old value"


def test_a_lifetime_that_is_refused_is_an_error(wire):
    cutter = wire.proxy.tamper = Cutter("")
    wire.prepare()
    wire.store.load("k")
    cutter.garbage = b"$9\r\nold value\r\n-NOPERM no permissions to run 'pttl'\r\n"
    cutter.set(0)
    with pytest.raises(SessionStoreError, match="NOPERM"):
        wire.store.load("k")


def test_a_server_without_resp3(redis_server, counting_proxy):
    proxy = counting_proxy(redis_server.port())
    cutter = proxy.tamper = Cutter("")
    cutter.garbage = b"-NOPROTO unsupported protocol version\r\n"
    cutter.set(0)
    store = _core.Store.open_url(f"redis://127.0.0.1:{proxy.port}?protocol=3")
    with pytest.raises(SessionStoreError, match="RESP3"):
        store.load("k")


def test_a_unix_socket_whose_queue_is_full(tmp_path):
    """There is nothing to wait for but time."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        while True:
            waiting = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(path))
            except BlockingIOError:
                break
        store = _core.Store.open_url(f"unix://{path}")
        with pytest.raises(SessionStoreError, match="timed out"):
            store.load("k", timeout=0.2)


def test_a_server_of_old_that_refuses_the_password(redis_server, counting_proxy):
    proxy = counting_proxy(redis_server.port())
    cutter = proxy.tamper = Cutter("")
    cutter.garbage = b"-ERR invalid password\r\n"
    cutter.set(0)
    store = _core.Store.open_url(f"redis://:hunter2@127.0.0.1:{proxy.port}")
    with pytest.raises(SessionStoreError, match="does not accept the password") as caught:
        store.load("k")
    assert "hunter2" not in str(caught.value)


def test_a_request_that_nobody_reads():
    """Sending ends at the deadline as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = _core.Store.open_url(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(SessionStoreError, match="in time"):
            store.create("k", bytes(30_000_000), HOUR, timeout=0.5)


@pytest.mark.parametrize(
    ("options", "error"), [([], TypeError), ({"a": 1}, TypeError), ({"port": "x"}, ValueError)]
)
def test_a_store_of_two_is_not_made(options, error):
    with pytest.raises(error):
        _core.Store.open_either("redis", options, RedisStore(None), redis_native.plain_sockets)
    with pytest.raises(TypeError):
        _core.Store.open_either("redis", {}, object(), redis_native.plain_sockets)


@pytest.mark.parametrize("more", [b":1\r\n", b"$3\r\nabc\r\n", b"$"])
def test_more_than_was_asked_for_reaches_nobody(wire, more):
    """What follows an answer is not taken for the next one."""
    cutter = wire.proxy.tamper = Cutter("")
    wire.prepare()
    wire.store.load("k")
    cutter.garbage = b"$9\r\nold value\r\n:1000000\r\n" + more
    cutter.set(0)
    assert wire.store.load("k")[0] == b"old value"
    for _ in range(3):
        assert wire.store.load("nothing") is None
        assert wire.store.load("k")[0] == b"old value"
    assert wire.proxy.connections == 2


def test_a_late_answer_reaches_nobody(wire):
    """The operation has failed at its deadline, and its answer comes afterwards."""
    wire.prepare()
    wire.store.load("k")
    wire.proxy.delay = 0.4
    with pytest.raises(SessionStoreError, match="in time"):
        wire.store.load("k", timeout=0.1)
    wire.proxy.delay = 0
    for _ in range(3):
        assert wire.store.load("nothing") is None
    assert wire.store.load("k")[0] == b"old value"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_silent_server_costs_the_deadline(wire, name):
    wire.prepare()
    wire.store.load("k")
    wire.proxy.swallow = True
    started = time.monotonic()
    call = OPERATIONS[name][0]
    limited = Limited(wire.store, 0.3)
    with pytest.raises(SessionStoreError, match="in time"):
        call(limited)
    assert time.monotonic() - started < 5
    wire.proxy.swallow = False
    assert wire.store.load("k")[0] == b"old value"


class Limited:
    """A store, all of whose operations have so many seconds."""

    def __init__(self, store, seconds):
        self.store, self.seconds = store, seconds

    def __getattr__(self, name):
        return lambda *args: getattr(self.store, name)(*args, timeout=self.seconds)


def test_socket_timeout_of_the_url(redis_server, counting_proxy):
    proxy = counting_proxy(redis_server.port())
    store = _core.Store.open_url(f"redis://127.0.0.1:{proxy.port}?socket_timeout=0.2")
    store.load("k")
    proxy.swallow = True
    started = time.monotonic()
    with pytest.raises(SessionStoreError, match="in time"):
        store.load("k", timeout=60)
    assert time.monotonic() - started < 10


def test_a_server_that_accepts_and_never_answers():
    """Neither the greeting nor TLS takes longer than the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for url in (
            f"redis://:pw@127.0.0.1:{port}",
            f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none",
        ):
            store = _core.Store.open_url(url)
            started = time.monotonic()
            with pytest.raises(SessionStoreError, match="in time"):
                store.load("k", timeout=0.3)
            assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", OPERATIONS)
def test_connections_that_the_server_gave_up_are_not_noticed(wire, name):
    """Closed while they were idle, all of them: the next request makes another one."""
    operation, expected = OPERATIONS[name]
    for way in (wire.proxy.hang_up, wire.proxy.cut):
        wire.prepare()
        barrier = threading.Barrier(4)

        def use(barrier=barrier):
            barrier.wait()
            for _ in range(20):
                wire.store.load("k")

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        way()
        time.sleep(0.05)  # until it has come
        assert operation(wire.store) == expected


def test_large_values_in_pieces(wire):
    value = bytes(range(256)) * 40_000
    assert wire.store.create("new", value, HOUR)
    assert wire.store.load("new")[0] == value
    assert wire.store.replace("new", b"?", b"", b"x", HOUR)[0] == value
    assert wire.store.replace("new", value, b"", value[:-1], HOUR) == _core.OK
    assert wire.store.load("new")[0] == value[:-1]
    wire.store.remove("new")


# ---- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(services):
    from tests.services.redis import RedisTlsService

    return services.start(RedisTlsService)


def tls_url(server, leave=(), host="127.0.0.1", **options):
    url = server.exports()["REDIS_TLS_URL"].replace("127.0.0.1", host)
    place, _, query = url.partition("?")
    kept = [part for part in query.split("&") if part.partition("=")[0] not in leave]
    return place + "?" + "&".join(kept + [f"{name}={value}" for name, value in options.items()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"protocol": 3},
        {"host": "localhost"},
        {"server_name": "localhost"},
        {"server_name": "other.example", "ssl_check_hostname": "false"},
        {"leave": ["ssl_ca_certs"], "ssl_cert_reqs": "none"},
    ],
)
def test_tls(tls, options):
    store = _core.Store.open_url(tls_url(tls, **options))
    key = str(uuid.uuid4())
    assert store.create(key, b"x" * 100_000, HOUR)
    assert store.load(key)[0] == b"x" * 100_000
    store.remove(key)


def test_a_large_value_over_tls(tls):
    store, key, value = _core.Store.open_url(tls_url(tls)), str(uuid.uuid4()), os.urandom(8_000_000)
    assert store.create(key, value, HOUR, timeout=20)
    assert store.load(key, timeout=20)[0] == value
    store.remove(key)


def test_a_key_with_a_password(tls, tmp_path):
    """It is asked for nowhere when it is missing."""
    key = tmp_path / "client.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:hunter2", "-out", key, "-in",
         tls.certificates / "client.key"],
        check=True, capture_output=True,
    )  # fmt: skip
    place = {"leave": ["ssl_keyfile"], "ssl_keyfile": quote(str(key), safe="")}
    assert _core.Store.open_url(tls_url(tls, ssl_password="hunter2", **place)).load("k") is None
    for password in ({}, {"ssl_password": "wrong"}, {"ssl_password": "x" * 2000}):
        with pytest.raises(SessionStoreError, match="ssl_keyfile") as caught:
            _core.Store.open_url(tls_url(tls, **password, **place)).load("k")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave": ["ssl_ca_certs"]}, "certificate was not accepted"),
        ({"server_name": "other.example"}, "certificate was not accepted.*mismatch"),
        ({"leave": ["ssl_certfile", "ssl_keyfile"]}, "TLS|lost"),
    ],
)
def test_tls_that_does_not_fit(tls, options, message):
    store = _core.Store.open_url(tls_url(tls, **options))
    with pytest.raises(SessionStoreError, match=message) as caught:
        store.load("k")
    assert "sessions-secret" not in str(caught.value)


def test_a_certificate_of_another_authority(tls, tmp_path):
    from tests.services.certificates import make_certificates

    others = make_certificates(tmp_path / "others")
    url = tls_url(tls, leave=["ssl_ca_certs"], ssl_ca_certs=quote(str(others / "ca.crt"), safe=""))
    store = _core.Store.open_url(url)
    with pytest.raises(SessionStoreError, match="certificate was not accepted"):
        store.load("k")


def test_tls_to_a_server_without(redis_server, tls):
    store = _core.Store.open_url(f"rediss://127.0.0.1:{redis_server.port()}")
    with pytest.raises(SessionStoreError):
        store.load("k", timeout=1)
    store = _core.Store.open_url(f"redis://127.0.0.1:{tls.port()}")
    with pytest.raises(SessionStoreError, match=r"no RESP|lost"):
        store.load("k", timeout=5)


def test_tls_is_cut_anywhere(tls, counting_proxy):
    """Also in the middle of the handshake: no hang, no crash, and it recovers."""
    proxy = counting_proxy(tls.port())
    store = _core.Store.open_url(tls_url(tls).replace(f":{tls.port()}/", f":{proxy.port}/"))
    cutter = proxy.tamper = Cutter("reset")
    for at in (0, 1, 5, 60, 200, 900, 1500, 2000, 2300, 2600, 2700, 2800):
        proxy.cut()
        cutter.set(at)
        with contextlib.suppress(SessionStoreError):
            assert store.load("nothing", timeout=5) is None
        cutter.set(NONE)
        assert _wait_until(lambda: store.load("nothing", timeout=5) is None)


def _wait_until(call):
    for _ in range(200):
        try:
            return call()
        except SessionStoreError:  # the circuit breaker has a rest of a second
            time.sleep(0.02)
    return False


# ---- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["url", "tls", "client"])
def test_fork_after_first_use(redis_server, tls, kind):
    """Parent and children on one store object: each has its own connection."""
    place = {"url": redis_server.url, "tls": tls_url(tls), "client": client_of(redis_server)}[kind]
    app = flask.Flask(__name__)
    prefix = f"session:{uuid.uuid4()}:"
    store = RedisSessionInterface(app, place, key_prefix=prefix)._store

    def work():
        for number in range(50):
            key = f"{os.getpid()} {number}"
            assert store.create(key, key.encode(), HOUR)
            assert store.load(key)[0] == key.encode()
            store.remove(key)

    work()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    work()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert store.native


def test_threads_share_few_connections(redis_server, counting_proxy, long_run):
    """8 threads on a pool of 3: nobody starves, nothing leaks, every answer is one's own."""
    proxy = counting_proxy(redis_server.port())
    store = _core.Store.open_url(f"redis://127.0.0.1:{proxy.port}?max_connections=3")
    prefix, rounds = f"session:{uuid.uuid4()}:", 2000 if long_run else 150
    files = len(os.listdir("/proc/self/fd"))
    done = []

    def work(number):
        for turn in range(rounds):
            key, value = f"{prefix}{number}", f"{number} {turn}".encode()
            assert store.create(key, value, HOUR, timeout=30)
            assert store.load(key, timeout=30)[0] == value
            assert store.replace(key, value, b"", value * 2, HOUR, timeout=30) == _core.OK
            store.remove(key, timeout=30)
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))
    assert proxy.connections == 3
    store.close()
    # What is left is the proxy's, which has two ends of each.
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files + 2 * 3, 10)
