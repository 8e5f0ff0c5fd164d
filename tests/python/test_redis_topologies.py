"""The redis driver behind Sentinel and on a Cluster, while 200 requests a second run: the master is
killed, slots are migrated.

Every request loads a session and writes its next number by compare-and-set, and every session has
one writer, who knows which number was acknowledged last. So a number that is not the last one is a
wrong answer, unless Redis itself lost what it had acknowledged: replication is asynchronous, and a
replica that takes over may not have the last writes. Those are told apart by the killed master's
append-only file, which it writes before it answers: what stands there was executed and acknowledged
by the server, and what does not was never acknowledged, so that its loss would be the driver's.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGSTOP

import flask
import flask_session
import pytest
from flask_session import _core
from flask_session._core import SessionConfigError, SessionStoreError
from flask_session.redis_urls import make_client

from tests.services import RedisClusterService, RedisSentinelService, Services
from tests.services.base import signal_processes, wait_until
from tests.services.redis import ask

pytestmark = [pytest.mark.server, pytest.mark.slow]

THREADS, SESSIONS, RATE = 10, 40, 200
RECOVERY = 3.0  # seconds after the failover until every request succeeds again
TTL_MS = 600_000


def value_of(number: int) -> bytes:
    return _core.encode({"number": number, "more": "x" * 100})


@dataclass
class Writer:
    """The one writer of a session. `possible` are the numbers that may be read next: more than one
    after a write of which only the answer is missing."""

    key: str
    possible: set[int] = field(default_factory=lambda: {0})
    acknowledged: int = 0


class Load:
    """Requests at a steady rate, by several threads over one store."""

    def __init__(self, url: str) -> None:
        self.prefix = f"t{uuid.uuid4().hex[:12]}:"
        self.store = _core.Store.open_url(url).prefixed(self.prefix)
        self.writers = [Writer(f"{number}-{uuid.uuid4().hex}") for number in range(SESSIONS)]
        self.requests = 0
        self.errors: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self.lost: list[tuple[str, int]] = []  # acknowledged, and not there any more
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        for writer in self.writers:
            assert self.store.create(writer.key, value_of(0), TTL_MS)

    def __enter__(self) -> Load:
        self._began = time.monotonic()
        for number in range(THREADS):
            thread = threading.Thread(target=self._run, args=(number,))
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        mine = self.writers[number::THREADS]
        turn = 0
        while not self._over.is_set():
            self._request(mine[turn % len(mine)])
            turn += 1
            due = self._began + (turn * THREADS + number) / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def _request(self, writer: Writer) -> None:
        self.requests += 1
        try:
            found = self.store.load(writer.key, 1.0)
            number = self._judge(writer, found)
            if number is None or found is None:
                return
            answer = self.store.replace(
                writer.key, found[0], found[1], value_of(number + 1), TTL_MS, 1.0
            )
            if answer == _core.OK:
                writer.possible = {number + 1}
                writer.acknowledged = number + 1
            else:
                # Nobody else writes it, but another server may have taken over since the load: it
                # has what it has.
                self._judge(writer, None if isinstance(answer, int) else answer)
        except SessionStoreError as error:
            self.errors.append((time.monotonic(), str(error)))
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _judge(self, writer: Writer, found: tuple[bytes, bytes, int] | None) -> int | None:
        """The number that was read; what follows from it for the writes before."""
        if found is None:
            if writer.acknowledged == 0:
                self.lost.append((writer.key, 0))
            self.lost.extend((writer.key, n) for n in range(1, writer.acknowledged + 1))
            self.store.create(writer.key, value_of(writer.acknowledged), TTL_MS, 1.0)
            writer.possible = {writer.acknowledged}
            return None
        number: int = _core.decode(found[0])["number"]
        if number not in writer.possible or number < writer.acknowledged:
            if number > writer.acknowledged:
                self.wrong.append(f"{writer.key}: read {number}, wrote {writer.possible}")
            self.lost.extend((writer.key, n) for n in range(number + 1, writer.acknowledged + 1))
        # What was read is as good as acknowledged.
        writer.acknowledged = number
        # What the next write may leave behind when its answer is missing.
        writer.possible = {number, number + 1}
        return number

    def errors_after(self, moment: float) -> list[tuple[float, str]]:
        late = [(round(at - moment, 2), text) for at, text in self.errors if at > moment]
        print("after the failover", *late[-1:])
        return late

    def progress(self, seconds: float) -> None:
        """Let it run, and see that it does."""
        before = self.requests
        time.sleep(seconds)
        assert self.requests - before > RATE * seconds * 0.3, "the load does not run"


# ---- what the killed master knew ----------------------------------------------------------------


def keep_log(port: int) -> Path:
    """Let a server append every write to a file before it answers; its folder."""
    assert ask(port, "CONFIG", "SET", "appendonly", "yes").startswith("+OK")

    def ready() -> bool:
        info = ask(port, "INFO", "persistence")
        return "aof_enabled:1" in info and "aof_rewrite_in_progress:0" in info

    assert wait_until(ready, 20)
    return Path(ask(port, "CONFIG", "GET", "dir").split("\r\n")[4]) / "appendonlydir"


def executed(folder: Path, prefix: str) -> set[tuple[str, int]]:
    """The writes of our sessions in the append-only file: (key, number)."""
    found = set()
    for path in sorted(folder.glob("*.incr.aof")):
        data, at = path.read_bytes(), 0
        words: list[bytes] = []
        left = 0
        while at < len(data):
            end = data.find(b"\r\n", at)
            if end < 0:
                break  # the last command was cut off by the kill
            line, at = data[at:end], end + 2
            if line.startswith(b"*"):
                words, left = [], int(line[1:])
            elif line.startswith(b"$"):
                length = int(line[1:])
                words.append(data[at : at + length])
                at, left = at + length + 2, left - 1
                if left == 0 and words[0].upper() == b"SET" and at <= len(data):
                    key = words[1].decode()
                    if key.startswith(prefix):
                        number = _core.decode(words[2])["number"]
                        found.add((key.removeprefix(prefix), number))
    return found


def tell_lost_apart(load: Load, *folders: Path) -> None:
    """Nothing is missing that the killed server had not acknowledged by itself."""
    known = set().union(*(executed(folder, load.prefix) for folder in folders))
    assert known, "the append-only file has none of the writes"
    print(f"{load.requests} requests, {len(load.errors)} failed, {len(load.lost)} acknowledged")
    print("writes were lost with the killed master, all of them in its append-only file")
    assert [write for write in load.lost if write not in known] == []
    assert load.wrong == []


# ---- from Flask ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RedisSentinelService, RedisClusterService])
def test_the_driver_and_redis_py_take_the_same_url(start, kind):
    import redis

    url = start(kind).url
    prefix = f"t{uuid.uuid4().hex[:12]}:"
    apps = []
    for native in (True, False):
        app = flask.Flask(__name__)
        app.config.update(SESSION_URL=url, SESSION_KEY_PREFIX=prefix, SESSION_NATIVE=native)
        flask_session.Session(app)
        assert app.extensions["flask_session"].stats()["native"] is native
        wanted = redis.RedisCluster if kind is RedisClusterService else redis.Redis
        assert type(app.session_interface.client) is wanted

        @app.get("/<key>/<value>")
        def put(key, value):
            flask.session[key] = value
            return {name: text for name, text in flask.session.items() if name != "_permanent"}

        apps.append(app)
    first, second = (app.test_client() for app in apps)
    assert first.get("/a/1").json == {"a": "1"}
    second.set_cookie("session", first.get_cookie("session").value)
    assert second.get("/b/2").json == {"a": "1", "b": "2"}
    assert first.get("/c/3").json == {"a": "1", "b": "2", "c": "3"}


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://user:hidden@a:1",
        "redis+sentinel://user:hidden@a:x/m",
        "redis+sentinel://user:hidden@/m",
        "redis+cluster://user:hidden@a/1",
        "redis+cluster://user:hidden@",
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_wrong_urls_are_errors(url, native):
    app = flask.Flask(__name__)
    app.config.update(SESSION_URL=url, SESSION_NATIVE=native)
    with pytest.raises(SessionConfigError, match="redis") as caught:
        flask_session.Session(app)
    assert "hidden" not in str(caught.value)


def test_redis_py_gets_what_the_url_says():
    import redis

    limits = {"socket_timeout": 1.5}
    url = "rediss+sentinel://u:p%40@[::1],b:2/my%2Fmaster/3?sentinel_password=x&scan_prefix=s"
    client = make_client(redis, url, limits)
    pool = client.connection_pool
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("my/master", 3)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("u", "p@")
    sentinels = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
    assert [(s["host"], s["port"], s["password"]) for s in sentinels] == [
        ("::1", 26379, "x"),
        ("b", 2, "x"),
    ]
    assert all(s["socket_timeout"] == 1.5 for s in [*sentinels, pool.connection_kwargs])
    assert issubclass(pool.connection_class, redis.SSLConnection)


# ---- Sentinel -----------------------------------------------------------------------------------


@pytest.fixture
def start(services: Services, not_run: Callable) -> Iterator[Callable]:
    made = []

    def make(kind: type) -> RedisSentinelService | RedisClusterService:
        server = services.own(kind)
        made.append(server)
        return server

    yield make
    for server in made:
        server.end()


def master_of(server: RedisSentinelService) -> int:
    answer = ask(server.port("sentinel0"), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", server.master)
    return int(answer.split("\r\n")[4])


def is_master(port: int) -> bool:
    return "role:master" in ask(port, "INFO", "replication")


def check_recovery(load: Load, failover: float, folder: Path) -> None:
    """Nothing failed later than RECOVERY after the failover, and what is lost is Redis' own."""
    assert [late for late in load.errors_after(failover) if late[0] > RECOVERY] == []
    assert load.errors, "the failover was not noticed"
    tell_lost_apart(load, folder)


@pytest.mark.parametrize("cut_off", [False, True], ids=["in step", "replica behind"])
def test_sentinel_the_master_is_killed(start, cut_off):
    server = start(RedisSentinelService)
    old, new = server.port(), server.port("replica")
    folder = keep_log(old)
    with Load(server.url) as load:
        load.progress(1)
        assert load.errors == []
        if cut_off:
            # The replica loses its link and cannot come back: what is acknowledged from now on is
            # lost with the master.
            assert ask(old, "ACL", "SETUSER", "default", "-psync", "-sync").startswith("+OK")
            assert ask(old, "CLIENT", "KILL", "TYPE", "replica").startswith(":1")
            load.progress(0.5)
        server.kill_master(old)
        assert wait_until(lambda: master_of(server) == new and is_master(new), 20)
        failover = time.monotonic()
        time.sleep(RECOVERY)
        load.progress(1)
    check_recovery(load, failover, folder)
    assert bool(load.lost) or not cut_off
    # the replica that is the master now has them all
    for writer in load.writers:
        found = load.store.load(writer.key, 2.0)
        assert found is not None
        assert _core.decode(found[0])["number"] in writer.possible


def test_sentinel_the_master_is_frozen(start):
    """It takes connections and answers nothing; requests in its hands fail at their deadline."""
    server = start(RedisSentinelService)
    old, new = server.port(), server.port("replica")
    folder = keep_log(old)
    number = int(ask(old, "INFO", "server").partition("process_id:")[2].split()[0])
    frozen = [process for process in server.processes if process[0] == number]
    with Load(server.url) as load:
        load.progress(1)
        signal_processes(frozen, SIGSTOP)
        assert wait_until(lambda: master_of(server) == new and is_master(new), 20)
        failover = time.monotonic()
        time.sleep(RECOVERY)
        load.progress(1)
    check_recovery(load, failover, folder)


def test_sentinel_moves_the_master(start):
    """An ordered failover. The old master runs on and takes writes until Sentinel makes it a
    replica, after ten seconds and more; the driver leaves it before."""
    server = start(RedisSentinelService)
    old, new = server.port(), server.port("replica")
    folder = keep_log(old)
    with Load(server.url) as load:
        load.progress(0.5)
        assert ask(server.port("sentinel0"), "SENTINEL", "FAILOVER", server.master).startswith(
            "+OK"
        )
        assert wait_until(lambda: is_master(new), 20)
        failover = time.monotonic()
        time.sleep(RECOVERY)
        taken = executed(folder, load.prefix)
        still_master = is_master(old)
        load.progress(1)
        assert executed(folder, load.prefix) == taken
    assert still_master, "this test is about a master that does not know yet"
    assert [late for late in load.errors_after(failover) if late[0] > RECOVERY] == []
    tell_lost_apart(load, folder)


def test_sentinels_that_are_down_are_passed_over(start):
    server = start(RedisSentinelService)
    store = _core.Store.open_url(server.url.replace("//", "//127.0.0.1:1,"))
    assert store.load("nothing", 2.0) is None
    store = _core.Store.open_url(server.url.replace(server.master, "unknown"))
    with pytest.raises(SessionStoreError, match="knows no master of this name"):
        store.load("nothing", 2.0)
    store = _core.Store.open_url("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster")
    with pytest.raises(SessionStoreError, match="no connection"):
        store.load("nothing", 2.0)


def test_sentinel_a_replica_is_never_used(start):
    """A sentinel that names a replica is not believed."""
    server = start(RedisSentinelService)
    assert wait_until(lambda: not is_master(server.port("replica")), 5)
    name = "wrong"
    replica = str(server.port("replica"))
    assert ask(
        server.port("sentinel0"), "SENTINEL", "MONITOR", name, "127.0.0.1", replica, "2"
    ).startswith("+OK")
    # Sentinel finds out after ten seconds; until then it names the replica.
    only = f"redis+sentinel://127.0.0.1:{server.port('sentinel0')}/{name}"
    with pytest.raises(SessionStoreError, match="is none any more"):
        _core.Store.open_url(only).create("t:key", b"\x80", 1000, 2.0)


# ---- Cluster ------------------------------------------------------------------------------------


def cluster_nodes(port: int) -> dict[int, str]:
    """Port -> the line of CLUSTER NODES."""
    lines = ask(port, "CLUSTER", "NODES").split("\r\n", 1)[1].splitlines()
    return {
        int(line.split()[1].partition("@")[0].rpartition(":")[2]): line for line in lines if line
    }


def masters(port: int) -> dict[int, str]:
    """Port -> id of the masters that have slots."""
    return {
        number: line.split()[0]
        for number, line in cluster_nodes(port).items()
        if "master" in line.split()[2] and "fail" not in line.split()[2] and line.split()[8:]
    }


def test_cluster_a_master_is_killed(start):
    server = start(RedisClusterService)
    old, other = server.port(), server.port("master1")
    folders = [keep_log(port) for port in masters(other)]
    with Load(server.url) as load:
        load.progress(1)
        assert load.errors == []
        server.kill_master(old)
        assert wait_until(
            lambda: len(masters(other)) == 3 and old not in masters(other)
            and all("cluster_state:ok" in ask(port, "CLUSTER", "INFO") for port in masters(other)),
            20,
        )  # fmt: skip
        failover = time.monotonic()
        time.sleep(RECOVERY)
        load.progress(1)
    assert [late for late in load.errors_after(failover) if late[0] > RECOVERY] == []
    assert load.errors, "the failover was not noticed"
    tell_lost_apart(load, *folders)


def slot_of(port: int, key: str) -> int:
    return int(ask(port, "CLUSTER", "KEYSLOT", key).strip(":\r\n"))


def owner_of(port: int, slot: int) -> int:
    import redis

    with redis.Redis(port=port) as client:
        for first, last, master, *_ in client.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return int(master[1])
    raise AssertionError(slot)


def migrate(port: int, slot: int, source: int, target: int, pause: float) -> None:
    """A slot with its keys from one master to another; between the steps the slot is in both
    hands, and the servers answer ASK."""
    ids = masters(port)
    steps = [
        (target, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[source]),
        (source, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[target]),
    ]
    for at, *words in steps:
        assert ask(at, *words).startswith("+OK")
    time.sleep(pause)
    while True:
        listed = ask(source, "CLUSTER", "GETKEYSINSLOT", str(slot), "1").split("\r\n")
        if listed[0] == "*0":
            break
        moved = ask(source, "MIGRATE", "127.0.0.1", str(target), listed[2], "0", "2000")
        assert moved.startswith(("+OK", "+NOKEY")), moved
    time.sleep(pause)
    for at in (target, source, *ids):
        ask(at, "CLUSTER", "SETSLOT", str(slot), "NODE", ids[target])


def test_cluster_slots_are_migrated(start):
    """No request fails."""
    server = start(RedisClusterService)
    port = server.port()
    with Load(server.url) as load:
        load.progress(0.5)
        moved = 0
        for writer in load.writers[:8]:
            slot = slot_of(port, load.prefix + writer.key)
            source = owner_of(port, slot)
            target = next(other for other in sorted(masters(port)) if other != source)
            migrate(port, slot, source, target, 0.1)
            moved += 1
        load.progress(1)
    assert moved == 8
    assert load.errors == []
    assert load.lost == []
    assert load.wrong == []


def test_cluster_keys_with_braces_and_listing(start):
    server = start(RedisClusterService)
    prefix = f"t{uuid.uuid4().hex[:12]}:"
    store = _core.Store.open_url(f"{server.url}?scan_prefix={prefix}").prefixed(prefix)
    keys = [f"{text}{number}" for number in range(30) for text in ("", "{a}", "{}", "{", "}{b}c")]
    for key in keys:
        assert store.create(key, b"\x80", TTL_MS, 2.0)
        assert store.load(key, 2.0)
    seen, cursor = [], b""
    while True:
        cursor, rows = store.scan(cursor, 7)
        seen += [row[0].decode() for row in rows]
        if not cursor:
            break
    assert sorted(set(seen)) == sorted(keys)


def test_cluster_seeds_that_are_down_are_passed_over(start):
    server = start(RedisClusterService)
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{server.port('replica1')}"
    assert _core.Store.open_url(url).load("nothing", 2.0) is None
    with pytest.raises(SessionStoreError, match="no connection"):
        _core.Store.open_url("redis+cluster://127.0.0.1:1").load("nothing", 2.0)
