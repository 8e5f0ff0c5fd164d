"""What is special about memcached and its client libraries. The store contract, whole
applications and outages are tested for every row (test_row_*.py)."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core, memcached_clients
from flask_session.memcached import MemcachedSessionInterface, MemcachedStore

from tests.rows import ROWS, Row, configuration, parameters, with_timeout
from tests.rows.memcached import MemcachedRow
from tests.services.memcached import MemcachedService, ask

pytestmark = [pytest.mark.server, pytest.mark.client]

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000
TEXT, COMPRESSED = 16, 8
LIBRARIES = ("pylibmc", "memcache", "pymemcache", "libmc")


@pytest.fixture(
    params=parameters(lambda row: issubclass(row, MemcachedRow) and row.one_port), scope="module"
)
def row(request: pytest.FixtureRequest, start_row: Any) -> Row:
    """Each kind of client object."""
    return start_row(request.param)


def make_app(row: type[Row], where: dict[str, str], **settings: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(configuration(row, where, **settings))
    Session(app)
    return app


def open_store(row: type[Row], where: dict[str, str], **settings: Any) -> _core.Store:
    store: _core.Store = make_app(row, where, **settings).extensions["flask_session"].store
    return store


@pytest.fixture
def prefix() -> str:
    return f"memcached-{random.randbytes(6).hex()}:"


@pytest.fixture
def store(row: Row, prefix: str) -> _core.Store:
    return open_store(type(row), row.where, SESSION_KEY_PREFIX=prefix)


def library_client(row: Row, **options: Any) -> Any:
    """A client of the row's library as an application makes it."""
    return type(row).client(row.where)  # type: ignore[attr-defined]


def hashed(key: str) -> str:
    return "cession-sha256:" + hashlib.sha256(key.encode()).hexdigest()


# ---- keys, values, expiry -----------------------------------------------------------------------


def test_plain_keys_are_stored_as_they_are(store, row, prefix):
    for key in ("x", "A-b_9", "x" * (250 - len(prefix)), "~!\"'%?{}"):
        store.create(key, b"one", HOUR)
        assert ask(row.server.port(), f"mg {prefix}{key} v", b"one\r\n").startswith("VA 3")


@pytest.mark.parametrize(
    "key", ["with space", "\N{SNOWMAN}", "a\tb", "a\x7fb", "x" * 251, "\r\nflush_all\r\n"]
)
def test_other_keys_are_hashed(store, row, prefix, key):
    store.create(key, b"one", HOUR)
    name = hashed(prefix + key)
    assert ask(row.server.port(), f"mg {name} v", b"one\r\n").startswith("VA 3")
    assert store.load(key)[0] == b"one"


def test_a_key_that_looks_hashed_is_hashed(row):
    store = open_store(type(row), row.where, SESSION_KEY_PREFIX="")
    key = f"odd {random.random()}"
    store.create(key, b"one", HOUR)
    name = hashed(key)
    assert store.load(name) is None
    assert store.create(name, b"two", HOUR)
    assert store.load(key)[0] == b"one"
    store.remove(key)
    store.remove(name)


@pytest.mark.parametrize("size", [1024 * 1024, 3_000_000])
def test_a_value_that_is_too_large(store, size):
    with pytest.raises(SessionStoreError) as caught:
        store.create("k", b"x" * size, HOUR)
    assert f"{size:,} bytes" in str(caught.value)
    assert "1,048,576 bytes" in str(caught.value)
    assert store.load("k") is None
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    for _ in range(8):  # nor does the store count as down after some of them
        with pytest.raises(SessionStoreError, match="1,048,576 bytes"):
            store.replace("k", value, version, b"x" * size, HOUR)
    assert store.load("k")[0] == b"one"


@pytest.mark.parametrize("days", [1, 29, 30, 31, 40, 365])
def test_expiry_of_days(store, row, prefix, days):
    before = time.time()
    store.create("k", b"one", days * DAY)
    expires = row.stored_expiry(row.where, prefix + "k")
    assert before + days * 86400 - 2 <= expires <= time.time() + days * 86400 + 2
    store.touch("k", b"one", b"", 2 * days * DAY)
    expires = row.stored_expiry(row.where, prefix + "k")
    assert before + 2 * days * 86400 - 2 <= expires <= time.time() + 2 * days * 86400 + 2


def test_an_endless_lifetime(store):
    store.create("k", b"one", 99 * 365 * DAY)
    assert store.load("k")[0] == b"one"


def test_a_touch_by_another_process_is_no_end(row, prefix):
    """What this process remembers says nothing about what others did meanwhile."""
    here, there = (open_store(type(row), row.where, SESSION_KEY_PREFIX=prefix) for _ in range(2))
    here.create("k", b"one", SECOND)
    assert there.touch("k", b"one", b"", HOUR) == _core.OK
    time.sleep(2.2)
    assert here.load("k")[0] == b"one"


def test_an_item_without_expiry(store, row, prefix):
    ask(row.server.port(), f"set {prefix}k 0 0 3\r\none")
    assert store.load("k")[0] == b"one"
    assert store.touch("k", b"one", b"", HOUR) == _core.OK
    assert row.stored_expiry(row.where, prefix + "k") > time.time() + 3000


# ---- what the libraries put into items ----------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_pickles_are_not_executed(row, store, prefix, tmp_path):
    exploded = tmp_path / "exploded"
    plain = {"name": "ann", "_permanent": True}
    app = make_app(type(row), row.where, SESSION_KEY_PREFIX=prefix)
    for flags in (1, 1 | COMPRESSED, 1 | TEXT, 32):
        value = pickle.dumps(Bomb(exploded), 0)
        sid = _core.generate_sid(32)
        head = f"set {prefix}{sid} {flags} 0 {len(value)}\r\n"
        assert ask(row.server.port(), head + value.decode()) == "STORED\r\n"
        assert store.load(sid)[0] in (b"", value)
        assert isinstance(store.replace(sid, b"x", b"", b"y", HOUR), tuple)
        with app.test_request_context(headers={"Cookie": f"session={sid}"}):
            assert not flask.session
            assert flask.session.sid != sid
    assert not exploded.exists()
    # as bytes, which is what the predecessors store, it is read by a reader that builds plain data
    for value, expected in ((pickle.dumps(Bomb(exploded), 0), {}), (pickle.dumps(plain, 0), plain)):
        sid = _core.generate_sid(32)
        ask(row.server.port(), f"set {prefix}{sid} 0 0 {len(value)}\r\n{value.decode()}")
        with app.test_request_context(headers={"Cookie": f"session={sid}"}):
            assert flask.session.get("name") == expected.get("name")
    assert not exploded.exists()


@pytest.mark.parametrize("serde", ["pickle_serde", "compressed_serde", "functions"])
def test_serializers_of_pymemcache(start_row, prefix, tmp_path, serde):
    pymemcache = pytest.importorskip("pymemcache")
    row = start_row("memcached-pymemcache")
    if serde == "functions":
        options = {
            "serializer": pymemcache.serde.python_memcache_serializer,
            "deserializer": pymemcache.serde.python_memcache_deserializer,
        }
    else:
        options = {"serde": getattr(pymemcache.serde, serde)}
    client = pymemcache.Client(row.address(row.where), timeout=2, connect_timeout=2, **options)
    store = _core.Store.wrap(MemcachedStore(client))
    client.set(f"{prefix}bomb", Bomb(tmp_path / "exploded"), noreply=False)
    client.set(f"{prefix}long", b"x" * 9000, noreply=False)
    client.set(f"{prefix}text", "text", noreply=False)
    assert store.load(f"{prefix}bomb")[0] == b""
    assert store.load(f"{prefix}long")[0] == b"x" * 9000
    assert store.load(f"{prefix}text")[0] == b"text"
    assert not (tmp_path / "exploded").exists()
    assert store.create(f"{prefix}ours", b"y" * 9000, HOUR)
    assert client.get(f"{prefix}ours") == b"y" * 9000


def test_a_serializer_of_the_application_s_own(start_row, prefix):
    pymemcache = pytest.importorskip("pymemcache")
    row = start_row("memcached-pymemcache")

    class Backwards:
        def serialize(self, key: Any, value: bytes) -> tuple[bytes, int]:
            return value[::-1], 7

        def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
            return value[::-1] if flags == 7 else None

    where = row.address(row.where)
    client = pymemcache.Client(where, timeout=2, connect_timeout=2, serde=Backwards())
    store = _core.Store.wrap(MemcachedStore(client))
    store.create(f"{prefix}k", b"one", HOUR)
    assert ask(where[1], f"mg {prefix}k v f", b"\r\neno\r\n").startswith("VA 3 f7")
    assert store.load(f"{prefix}k")[0] == b"one"
    ask(where[1], f"set {prefix}k 0 0 3\r\none")
    assert store.load(f"{prefix}k")[0] == b""


def test_compressed_items_are_read(row, store, prefix):
    client = library_client(row)
    name, value = f"{prefix}k", b"x" * 9000
    library = type(client).__module__.partition(".")[0]
    if library == "pymemcache":
        packed = zlib.compress(value)
        client.set(name, packed, flags=COMPRESSED, noreply=False)
        # without CompressedSerde (above) the flags mean nothing
        assert store.load("k")[0] == packed
        return
    if library == "libmc":
        client = type(client)(client.servers, comp_threshold=100)
        assert client.set(name, value)
    else:
        assert client.set(name, value, min_compress_len=100)
    assert int(ask(row.server.port(), f"mg {name} s").split("s")[1]) < 9000
    assert store.load("k")[0] == value
    assert store.touch("k", value, b"", HOUR) == _core.OK


@pytest.mark.parametrize("flags", [2, 4, 5, 8, 16, 24, 32, 64, 4096, 65535])
def test_items_with_any_flags_do_no_harm(row, store, prefix, flags):
    ask(row.server.port(), f"set {prefix}k {flags} 0 7\r\nnothing")
    value, _, _ = store.load("k")
    assert value in (b"", b"nothing")
    assert isinstance(store.replace("k", b"x", b"", b"y", HOUR), tuple)
    store.remove("k")
    assert store.load("k") is None


# ---- connections --------------------------------------------------------------------------------


@pytest.fixture
def proxied(row, prefix, counting_proxy):
    """(store, proxy): the client waits for half a second."""
    proxy = counting_proxy(row.server.port())
    kind = with_timeout(type(row), 0.5)
    store = open_store(kind, row.through(proxy.port), SESSION_KEY_PREFIX=prefix)
    store.create("k", b"one", HOUR)
    return store, proxy


@pytest.mark.parametrize("way", ["cut", "hang_up"])
def test_a_connection_that_was_lost_is_replaced(proxied, way):
    store, proxy = proxied

    def lose() -> None:
        getattr(proxy, way)()
        time.sleep(0.05)

    lose()
    value, version, _ = store.load("k")
    assert value == b"one"
    lose()
    assert store.touch("k", value, version, HOUR) == _core.OK
    lose()
    assert store.replace("k", value, version, b"two", HOUR) == _core.OK
    lose()
    assert store.create("k", b"x", HOUR) is False
    lose()
    assert store.create("other", b"x", HOUR) is True
    lose()
    store.remove("k")
    lose()
    assert store.load("k") is None
    lose()
    assert store.replace("k", b"two", version, b"x", HOUR) == _core.GONE


@pytest.mark.parametrize("operation", ["load", "create", "replace", "touch", "remove"])
@pytest.mark.parametrize("cut", [False, True], ids=["silent", "cut"])
def test_no_answer_is_an_error(proxied, operation, cut):
    """Above all it is not "there is nothing"."""
    store, proxy = proxied
    value, version, _ = store.load("k")
    proxy.swallow = True
    timer = threading.Timer(0.1, proxy.cut)
    if cut:
        timer.start()
    with pytest.raises(SessionStoreError):
        {
            "load": lambda: store.load("k"),
            "create": lambda: store.create("new", b"x", HOUR),
            "replace": lambda: store.replace("k", value, version, b"x", HOUR),
            "touch": lambda: store.touch("k", value, version, HOUR),
            "remove": lambda: store.remove("k"),
        }[operation]()
    if cut:
        timer.join()
    proxy.swallow = False
    proxy.cut()
    assert store.load("k")[0] == b"one"


def test_an_answer_that_was_lost(row, prefix, counting_proxy):
    """The server did what it was told, and nobody heard of it."""
    proxy = counting_proxy(row.server.port())
    store = open_store(type(row), row.through(proxy.port), SESSION_KEY_PREFIX=prefix)
    adapter = MemcachedStore(type(row).client(row.through(proxy.port)))
    lost: list[str] = []

    class Losing:
        """Loses the first answer to a command that writes."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            command = getattr(self._connection, name)

            def run(*args: Any) -> Any:
                answer = command(*args)
                if name in ("add", "cas", "delete") and name not in lost:
                    lost.append(name)
                    raise ConnectionResetError
                return answer

            return run

    opener = adapter._connections._connect
    adapter._connections._connect = lambda: Losing(opener())
    assert adapter.create(prefix + "k", b"one", HOUR, 2) is True
    value, version, _ = store.load("k")
    assert adapter.replace(prefix + "k", value, version, b"two", HOUR, 2) == _core.OK
    assert store.load("k")[0] == b"two"
    adapter.remove(prefix + "k", 2)
    assert store.load("k") is None
    assert lost == ["add", "cas", "delete"]


def test_the_given_client_is_left_alone(row, store):
    client = library_client(row)
    kind = type(client).__module__.partition(".")[0]

    def state() -> Any:
        if kind == "pylibmc":
            return dict(client.behaviors)
        if kind == "memcache":
            return [vars(host).copy() for host in client.servers], dict(vars(client))
        if kind == "libmc":
            return repr(client.__reduce__())
        return {name: repr(value) for name, value in vars(client).items()}

    before = state()
    own = _core.Store.wrap(MemcachedStore(client))
    key = f"alone-{random.random()}"
    assert own.create(key, b"one", HOUR)
    value, version, _ = own.load(key)
    assert own.replace(key, value, version, b"two", HOUR) == _core.OK
    own.remove(key)
    assert state() == before


def test_a_child_has_connections_of_its_own(store):
    store.create("k", b"parent", HOUR)
    for number in range(5):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                value, version, _ = store.load("k")
                store.replace("k", value, version, b"child %d" % number, HOUR)
                status = 0
            finally:
                os._exit(status)
        # at the same time on what would be the same connection
        for _ in range(50):
            assert store.load("k")[0].startswith((b"parent", b"child"))
        assert os.waitpid(child, 0)[1] == 0
        assert store.load("k")[0] == b"child %d" % number


@pytest.mark.parametrize("name", ["memcached-pymemcache", "memcached-pymemcache-pooled"])
def test_pymemcache_sends_at_once(start_row, name):
    import socket

    row = start_row(name)
    connection = memcached_clients.opener(type(row).client(row.where), 2)()
    connection.gets("nothing")
    assert connection._client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


# ---- several servers ----------------------------------------------------------------------------


def pymemcache_hash(addresses: list[tuple[str, int]]) -> Any:
    library = pytest.importorskip("pymemcache")
    return library.HashClient(addresses, default_noreply=False, timeout=1, connect_timeout=1)


def pymemcache_hash_of_pools(addresses: list[tuple[str, int]]) -> Any:
    library = pytest.importorskip("pymemcache")
    return library.HashClient(
        addresses, default_noreply=False, timeout=1, connect_timeout=1, use_pooling=True
    )


def python_memcached(addresses: list[tuple[str, int]]) -> Any:
    library = pytest.importorskip("memcache")
    return library.Client(["{}:{}".format(*address) for address in addresses])


def pylibmc_ketama(addresses: list[tuple[str, int]]) -> Any:
    library = pytest.importorskip("pylibmc")
    servers = ["{}:{}".format(*address) for address in addresses]
    return library.Client(servers, behaviors={"ketama": True, "_poll_timeout": 1000})


def libmc_failover(addresses: list[tuple[str, int]]) -> Any:
    library = pytest.importorskip("libmc")
    return library.Client(["{}:{}".format(*address) for address in addresses], failover=True)


@pytest.fixture
def two_servers(services):
    servers = [services.own(MemcachedService) for _ in range(2)]
    yield servers
    for server in servers:
        server.end()


@pytest.mark.parametrize(
    "make",
    [
        pymemcache_hash,
        pymemcache_hash_of_pools,
        python_memcached,
        pylibmc_ketama,
        libmc_failover,
    ],
)
def test_a_key_has_one_server(two_servers, make):
    """The one that the client itself takes; while it is down there is no other."""
    client = make([("127.0.0.1", server.port()) for server in two_servers])
    keys = [f"k{number}" for number in range(40)]
    for key in keys:
        assert client.set(key, key.encode())
    store = _core.Store.wrap(MemcachedStore(client))
    for key in keys:
        assert store.load(key)[0] == key.encode()
        assert store.replace(key, key.encode(), b"", b"x" + key.encode(), HOUR) == _core.OK
    assert {client.get(key) for key in keys} == {b"x" + key.encode() for key in keys}

    two_servers[1].stop()
    adapter = store.adapter
    found = failed = 0
    for key in keys:
        try:
            found += adapter.load(key, 1)[0] == b"x" + key.encode()
        except Exception:
            failed += 1
    assert found > 0
    assert failed > 0
    assert found + failed == len(keys)
    two_servers[1].restart()
    empty = [key for key in keys if adapter.load(key, 1) is None]
    assert len(empty) == failed
    for key in empty:
        assert adapter.create(key, b"again", HOUR, 1)
        assert adapter.load(key, 1)[0] == b"again"


# ---- threads ------------------------------------------------------------------------------------


def test_eight_threads(row, long_run, capsys):
    """No hang, no failure; how long a request takes is shown."""
    app = make_app(type(row), row.where)

    @app.get("/count")
    def count() -> str:
        flask.session["n"] = flask.session.get("n", 0) + 1
        return str(flask.session["n"])

    requests = (10_000 if long_run else 1_000) // 8
    shared = app.test_client()
    shared.get("/count")
    sid = shared.get_cookie("session").value

    def work(number: int) -> list[float]:
        own, other = app.test_client(), app.test_client()
        other.set_cookie("session", sid)
        times = []
        for step in range(requests):
            # one in ten belongs to a session that all share
            client = other if step % 10 == 9 else own
            start = time.perf_counter()
            answer = client.get("/count")
            times.append(time.perf_counter() - start)
            assert answer.status_code == 200
            if client is own:
                assert answer.text == str(step + 1 - (step + 1) // 10)
        return times

    with ThreadPoolExecutor(8) as pool:
        times = sorted(one for part in pool.map(work, range(8)) for one in part)
    with capsys.disabled():
        p50, p99 = (1000 * times[len(times) * share // 100] for share in (50, 99))
        slowest = 1000 * times[-1]
        print(
            f"\n{row.name}: {len(times)} requests in 8 threads,"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {slowest:.1f} ms"
        )


# ---- configuration ------------------------------------------------------------------------------


class Memory(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value

    gets = cas = add = delete = set


async def nothing() -> None: ...


class Asynchronous(Memory):
    async def gets(self, key: str) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize("client", [5, object(), Memory(), Asynchronous(), ["127.0.0.1:11211"]])
def test_clients_that_are_refused(client):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client)
    with pytest.raises(SessionConfigError) as caught:
        Session(app)
    assert str(caught.value).startswith("SESSION_MEMCACHED")
    assert "pylibmc, python-memcached, pymemcache" in str(caught.value)


def test_libmc_s_threaded_client_is_refused():
    libmc = pytest.importorskip("libmc")
    with pytest.raises(SessionConfigError, match=r"libmc \(Client\)"):
        MemcachedSessionInterface(client=libmc.ThreadedClient(["127.0.0.1:1"]))


@pytest.mark.parametrize("name", ["pylibmc", "libmc"])
def test_an_old_library_is_refused(monkeypatch, name):
    """pylibmc before 1.6 cannot be kept from unpickling."""
    library = pytest.importorskip(name)

    class Old(library.Client):  # type: ignore[misc, name-defined]
        def __getattribute__(self, name: str) -> Any:
            if name in ("deserialize", "get_raw"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(SessionConfigError, match=f"newer version of the package that {name}"):
        MemcachedSessionInterface(client=Old(["127.0.0.1:1"]))


@pytest.mark.parametrize(
    "url",
    [
        "memcached:",
        "memcached://",
        "memcached:///",
        "memcached://host:99999",
        "memcached://host:0",
        "memcached://host/path",
        "memcached://user:secret@host:11211",
        "memcached://host:11211?timeout=1",
        "redis://host:11211",
        "host:11211",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(SessionConfigError) as caught:
        MemcachedSessionInterface(client=url)
    assert "memcached://host:port" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("pylibmc", ["[::1]:5"]),
        ("memcache", ("::1", 5)),
        ("pymemcache", ("::1", 5)),
    ],
)
def test_ipv6(monkeypatch, library, expected):
    only(monkeypatch, library)
    client = MemcachedSessionInterface(client="memcached://[::1]:5").client
    found = {
        "pylibmc": lambda: client.addresses,
        "memcache": lambda: client.servers[0].address,
        "pymemcache": lambda: client.server,
    }[library]()
    assert found == expected


def only(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    for name in libraries:
        pytest.importorskip(name)
    for name in {*LIBRARIES, *sys.modules}:
        if name.partition(".")[0] in set(LIBRARIES) - set(libraries):
            monkeypatch.setitem(sys.modules, name, None)


def test_no_library(monkeypatch):
    only(monkeypatch)
    with pytest.raises(SessionConfigError, match=r"pip install 'cession\[memcached\]'"):
        MemcachedSessionInterface()


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_that_is_there_is_used(monkeypatch, start_row, library, prefix):
    row = start_row("memcached-pymemcache")
    only(monkeypatch, library)
    app = flask.Flask(__name__)
    app.config.update(SESSION_URL=row.where["MEMCACHED_URL"], SESSION_KEY_PREFIX=prefix)
    Session(app)
    assert type(app.session_interface.client).__module__.partition(".")[0] == library
    store = app.extensions["flask_session"].store
    assert store.create("k", b"one", HOUR)
    assert store.load("k")[0] == b"one"


def test_client_from_a_function(start_row):
    row = start_row("memcached-pymemcache")
    made: list[Any] = []

    def make() -> Any:
        made.append(type(row).client(row.where))
        return made[-1]

    interface = MemcachedSessionInterface(client=make)
    assert [interface.client] == made


def test_a_client_without_timeout_is_told_of():
    pymemcache = pytest.importorskip("pymemcache")
    for client in (
        pymemcache.Client(("127.0.0.1", 1)),
        pymemcache.PooledClient(("127.0.0.1", 1), timeout=1),
        pymemcache.HashClient([("127.0.0.1", 1)], connect_timeout=1),
    ):
        with pytest.warns(UserWarning, match="SESSION_MEMCACHED has no timeout"):
            MemcachedSessionInterface(client=client)


def test_the_others_are_not(row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MemcachedSessionInterface(client=library_client(row))


def test_no_connection_before_the_first_session(free_port):
    app = flask.Flask(__name__)
    app.config.update(SESSION_URL=f"memcached://127.0.0.1:{free_port()}", SESSION_STORE_TIMEOUT=0.5)
    app.testing = True
    Session(app)

    @app.get("/")
    def index() -> str:
        return "no session"

    @app.get("/read")
    def read() -> str:
        return str(flask.session.get("a"))

    assert app.test_client().get("/").text == "no session"
    assert app.test_client().get("/read").text == "None"  # nor without a cookie
    client = app.test_client()
    client.set_cookie("session", _core.generate_sid(32))
    with pytest.raises(SessionStoreError):
        client.get("/read")


def test_every_kind_has_a_row():
    names = {name for name, row in ROWS.items() if issubclass(row, MemcachedRow)}
    assert len(names) >= len(memcached_clients.KINDS)
