"""flask session migrate: all sessions of one store to another.

CESSION_LONG=1: full counts.
"""

from __future__ import annotations

import json
import os
import pickle
import pty
import random
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import flask
import pytest
from flask_session import Session, _core, stores
from flask_session.migrate import Migration

import tests.rows
from tests.rows import ROWS, new_prefix

HOUR_MS = 3_600_000
ROOT = Path(tests.rows.__file__).parents[2]


class Site:
    """An application with the settings of both stores, as the command finds it."""

    def __init__(self, folder, source, target, start_row, **settings):
        self.folder, self.source, self.target = folder, source, target
        self.rows = []
        self.settings = {
            "SECRET_KEY": "a secret of the tests",
            "SESSION_KEY_PREFIX": new_prefix(),
            "SESSION_SQLITE": str(folder / "sessions.sqlite3"),
            "SESSION_FILE_DIR": str(folder / "files"),
            **settings,
        }
        self.config = {}
        for name in (source, target):
            row = next((row for row in ROWS if row == name or row.startswith(f"{name}-")), None)
            if row:
                made = start_row(row)
                self.rows.append([row, made.where])
                self.config.update(made.settings(made.where))
        self.settings["SESSION_TYPE"] = target
        self.config.update(self.settings)
        self.app = flask.Flask(__name__, instance_path=str(folder / "instance"))
        self.app.config.update(self.config)
        Session(self.app)

    def open(self, name, prefix=None):
        self.kept, store = stores.open_beside(self.app, "--from", name, prefix)
        return store

    def fill(self, count, value=None):
        """So many sessions in the source: {sid: (data, expiry in ms)}"""
        store, made = self.open(self.source), {}
        for number in range(count):
            sid = f"{number:043}"
            data = value(number) if value else {"number": number, "money": Decimal(number)}
            ttl_ms = HOUR_MS + 1000 * (number % 5000)
            assert store.create(sid, _core.encode(data), ttl_ms, timeout=20)
            made[sid] = data, time.time() * 1000 + ttl_ms
        return made

    def run(self, *arguments, source=None, target=None):
        command = ["session", "migrate", "--from", source or self.source]
        command += ["--to", target or self.target, *arguments]
        return self.app.test_cli_runner().invoke(args=command)

    def process(self, *arguments, kill=None):
        given = {
            "settings": self.settings,
            "rows": self.rows,
            "kill": kill,
            "instance": str(self.folder / "instance"),
        }
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {"CESSION_MIGRATING": json.dumps(given), "PYTHONPATH": path}
        command = [sys.executable, "-m", "flask", "--app", "tests.python.apps.migrating:app"]
        command += ["session", "migrate", "--from", self.source, "--to", self.target, *arguments]
        return command, {**os.environ, **environment}

    def check(self, made, left=True):
        """What was made is in the target, with what it has left to live."""
        target, source = self.open(self.target), self.open(self.source)
        for sid, (data, expires) in made.items():
            found = target.load(sid, timeout=20)
            assert found is not None
            assert _core.decode(found[0]) == data
            if found[2] is not None:
                assert abs(found[2] - expires) <= 2000
            there = source.load(sid, timeout=20)
            assert (there is not None and _core.decode(there[0]) == data) is left


def states(site):
    return list((site.folder / "instance").glob("session-migrate-*"))


@pytest.fixture
def site(tmp_path, start_row):
    def make(source, target, **settings):
        return Site(tmp_path, source, target, start_row, **settings)

    return make


SERVER = pytest.mark.server
CLIENT = [SERVER, pytest.mark.client]
LISTABLE = [
    "filesystem",
    pytest.param("redis", marks=SERVER),
    *(pytest.param(name, marks=CLIENT) for name in ("mongodb", "postgresql")),
    *(
        pytest.param(name, marks=[*CLIENT, pytest.mark.slow])
        for name in ("dynamodb", "elasticsearch")
    ),
    pytest.param("sqlalchemy-sqlite", id="sqlalchemy", marks=pytest.mark.client),
    pytest.param("peewee-sqlite", id="peewee", marks=pytest.mark.client),
]


@pytest.mark.parametrize("source", LISTABLE)
def test_from_everything_that_can_be_listed(site, source):
    if source.endswith("-sqlite"):
        pytest.importorskip(source.removesuffix("-sqlite"))
        source = source.removesuffix("-sqlite")
    here = site(source, "sqlite")
    made = here.fill(220)
    answer = here.run()
    assert answer.exit_code == 0, answer.output
    assert answer.output.splitlines() == [
        "220 sessions: 220 copied, 0 there, 0 retired, 0 ended, 0 unreadable, 0 refused",
        "220 found in the target, 0 missing",
    ]
    here.check(made)
    assert states(here) == []
    again = here.run()
    assert again.exit_code == 0
    assert "220 sessions: 0 copied, 220 there" in again.output


@pytest.mark.parametrize(
    "target",
    [
        "filesystem",
        pytest.param("redis", marks=SERVER),
        *(pytest.param(name, marks=CLIENT) for name in ("mongodb", "postgresql")),
        *(pytest.param(name, marks=CLIENT) for name in ("memcached", "dynamodb")),
    ],
)
def test_to_everything(site, target):
    here = site("filesystem" if target != "filesystem" else "sqlalchemy", target)
    made = here.fill(60)
    answer = here.run()
    assert answer.exit_code == 0, answer.output
    here.check(made)


@pytest.mark.parametrize("source", ["filesystem", pytest.param("redis", marks=SERVER)])
def test_moving(site, source):
    here = site(source, "sqlite")
    made = here.fill(300)
    copied = dict(list(made.items())[:100])
    target = here.open("sqlite")
    for sid, (data, expires) in copied.items():  # by a copy before
        target.create(sid, _core.encode(data), int(expires - time.time() * 1000))
    answer = here.run("--move")
    assert answer.exit_code == 0, answer.output
    assert answer.output.splitlines() == [
        "300 sessions: 200 copied, 100 there, 0 retired, 0 ended, 0 unreadable, 0 refused",
        "0 left in the source",
    ]
    here.check(made, left=False)


def test_a_change_in_the_target_is_kept(site):
    here = site("filesystem", "sqlite")
    made = here.fill(20)
    assert here.run().exit_code == 0
    target, sid = here.open("sqlite"), f"{7:043}"
    value, version, expires = target.load(sid)
    target.replace(sid, value, version, _core.encode({"changed": True}), HOUR_MS)
    assert here.run().exit_code == 0
    assert _core.decode(target.load(sid)[0]) == {"changed": True}
    made[sid] = {"changed": True}, target.load(sid)[2]
    assert expires != target.load(sid)[2]


def test_what_is_no_session_is_counted_and_listed_by_number(site):
    here = site("filesystem", "sqlite")
    store = here.open("filesystem")
    values = {
        "a": _core.encode({"fine": 1}),
        "b": b"no session at all",
        "c": pickle.dumps({"pickled": (1, "x"), "n": 2}),
        "d": _core.encode_json({"tagged": (1, 2)}),
        "e": b"\x81\xab__cession__\x81\xa1t\xc3",
        "f": pickle.dumps({"code": random.Random}),
        "g": b"\xc1cession-moving\xc1" + _core.encode({"half": 1}),
    }
    for name, value in values.items():
        store.create(name * 43, value, HOUR_MS)
    answer = here.run()
    assert answer.exit_code == 1
    lines = answer.output.splitlines()
    assert lines[0] == "7 sessions: 3 copied, 0 there, 1 retired, 0 ended, 3 unreadable, 0 refused"
    assert re.fullmatch(r"unreadable, by number: \d, \d, \d", lines[1])
    assert lines[2] == "3 found in the target, 0 missing"
    target = here.open("sqlite")
    found = {name: target.load(name * 43) for name in values}
    assert [name for name in values if found[name]] == ["a", "c", "d"]
    assert found["c"][0] == _core.encode({"pickled": (1, "x"), "n": 2})
    assert found["d"][0] == _core.encode({"tagged": (1, 2)})
    assert all(name * 43 not in answer.output for name in values)


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_values_become_those_of_the_configured_format(site, format):
    here = site("filesystem", "sqlite", SESSION_SERIALIZATION_FORMAT=format)
    store = here.open("filesystem")
    store.create("a" * 43, pickle.dumps({"n": [1, (2,)]}), HOUR_MS)
    assert here.run().exit_code == 0
    encode = _core.encode if format == "msgpack" else _core.encode_json
    assert here.open("sqlite").load("a" * 43)[0] == encode({"n": [1, (2,)]})


def test_values_of_a_serializer_of_the_application_s_own(site):
    class Backwards:
        @staticmethod
        def dumps(data):
            return json.dumps(data).encode()[::-1]

        @staticmethod
        def loads(value):
            return json.loads(value[::-1])

    here = site("filesystem", "sqlite")
    here.app.session_interface.serializer = Backwards
    store = here.open("filesystem")
    store.create("a" * 43, Backwards.dumps({"n": 1}), HOUR_MS)
    store.create("b" * 43, pickle.dumps({"n": 2}), HOUR_MS)
    store.create("c" * 43, b"neither", HOUR_MS)
    answer = here.run()
    assert "2 copied" in answer.output
    assert "1 unreadable" in answer.output
    target = here.open("sqlite")
    assert target.load("a" * 43)[0] == Backwards.dumps({"n": 1})
    assert target.load("b" * 43)[0] == Backwards.dumps({"n": 2})


def test_what_the_target_refuses_is_counted(site, monkeypatch):
    here = site("filesystem", "sqlite")
    here.fill(5)
    refused = []

    def create(self, key, value, ttl_ms, timeout):
        if not refused:
            refused.append(key)
            raise _core.SessionStoreError("too large")
        return True

    class Fussy:
        name, capabilities = "fussy", _core.CAP_ATOMIC

        def load(self, key, timeout):
            return None if key.endswith("probe") else (b"x", b"", None)

    Fussy.create = Fussy.replace = Fussy.touch = Fussy.remove = create
    opened = stores.open_beside

    def open_beside(app, key, place, prefix=None):
        interface, store = opened(app, key, place, prefix)
        return interface, (_core.Store.wrap(Fussy()) if key == "--to" else store)

    monkeypatch.setattr("flask_session.stores.open_beside", open_beside)
    answer = here.run("--no-verify")
    assert answer.exit_code == 1
    assert "5 sessions: 4 copied" in answer.output
    assert "refused, by number: 1\n" in answer.output


def test_expired_and_eternal_records(site, monkeypatch):
    here = site("filesystem", "sqlite", PERMANENT_SESSION_LIFETIME=500)
    migration = Migration(here.app, "filesystem", "sqlite")
    value = _core.encode({"n": 1})
    now = int(time.time() * 1000)
    assert migration._bring(b"a" * 43, value, now - 1) == "ended"
    assert migration._bring(b"b" * 43, value, -2) == "copied"
    assert migration._bring(b"c" * 43, value, -1) == "copied"
    for name in "bc":
        _, _, expires = here.open("sqlite").load(name * 43)
        assert abs(expires - now - 500_000) < 2000


def test_a_target_that_hesitates_adds_nothing_to_a_lifetime(site, monkeypatch):
    here = site("filesystem", "sqlite")
    monkeypatch.setattr("flask_session.migrate._PROMPT_SECONDS", 0.0)
    migration = Migration(here.app, "filesystem", "sqlite")
    ttls = iter([9_000_000, 8_000_000, 7_000_000])  # as the clock says, each time it is asked
    monkeypatch.setattr(migration, "_ttl_ms", lambda expires: next(ttls))
    assert migration._bring(b"a" * 43, _core.encode({"n": 1}), 1) == "copied"
    _, _, expires = here.open("sqlite").load("a" * 43)
    assert abs(expires - time.time() * 1000 - 7_000_000) < 20_000


def test_a_batch_that_takes_long_is_looked_at_again(site, monkeypatch):
    """Whoever logs out leaves a mark for a minute: what was read before may not be stored later."""
    here = site("filesystem", "sqlite")
    made = here.fill(6)
    gone = sorted(made)[3:]
    monkeypatch.setattr("flask_session.migrate._FRESH_SECONDS", -1.0)
    source = here.open("filesystem")
    original = Migration._bring

    def bring(self, *record):
        for sid in gone:
            source.remove(sid)
        return original(self, *record)

    monkeypatch.setattr(Migration, "_bring", bring)
    answer = here.run()
    target = here.open("sqlite")
    # But for one that may have been first, and looked at before.
    assert sum(target.load(sid) is not None for sid in gone) <= 1
    assert re.search(r"[23] ended", answer.output)


# ---- prefixes, hashed keys, what cannot be -------------------------------------------------------


def test_prefixes_of_both_sides(site):
    here = site("filesystem", "sqlalchemy")
    store = here.open("filesystem", "old:")
    other = here.open("filesystem", "another:")
    store.create("a" * 43, _core.encode({"n": 1}), HOUR_MS)
    other.create("b" * 43, _core.encode({"n": 2}), HOUR_MS)
    answer = here.run("--from-prefix", "old:", "--to-prefix", "new:")
    assert answer.exit_code == 0, answer.output
    assert "1 sessions: 1 copied" in answer.output
    assert here.open("sqlalchemy", "new:").load("a" * 43)[0] == _core.encode({"n": 1})
    assert here.open("sqlalchemy", "new:").load("b" * 43) is None


def test_hashed_keys_go_to_the_same_hashes(site, tmp_path):
    here = site("sqlite", "filesystem")
    made = here.fill(30)
    other = f"sqlite://{tmp_path}/other.sqlite3"
    answer = here.run(target=other)
    assert answer.exit_code == 0, answer.output
    assert "30 sessions: 30 copied" in answer.output
    assert "30 found in the target, 0 missing" in answer.output
    here.target = other
    here.check(made)
    refused = here.run("--to-prefix", "else:", target=other)
    assert refused.exit_code == 1
    assert "the prefixes must be the same" in refused.output


def test_a_hashed_key_has_a_hash_s_length(tmp_path):
    store = _core.Store.open("sqlite", {"path": str(tmp_path / "x"), "keys": "hashed"})
    assert store.load(b"x" * 16) is None
    with pytest.raises(ValueError, match="a hashed key has 16 bytes"):
        store.load("x" * 17)


@pytest.mark.parametrize(
    ("source", "target", "more", "said"),
    [
        ("sqlite", "filesystem", [], "SESSION_MIGRATE_FROM moves each one"),
        ("sqlite", "sqlite:///{}/x", ["--move"], "SESSION_MIGRATE_FROM moves each one"),
        ("memcached", "sqlite", [], "a memcached store cannot list its sessions"),
        ("sqlite", "sqlite", [], "are the same store"),
        ("memory", "sqlite", [], "--from cannot be 'memory'"),
        ("filesystem", "null", [], "--to cannot be 'null'"),
        ("filesystem", "carrier-pigeon", [], "--to 'carrier-pigeon' is unknown"),
        ("filesystem", "mysql://me:hunter2@x/y", [], "--to must be a URL that begins with"),
    ],
)
def test_refused(site, tmp_path, source, target, more, said):
    pytest.importorskip("pymemcache")
    here = site("filesystem", "sqlite")
    answer = here.run(*more, source=source, target=target.format(tmp_path))
    assert answer.exit_code == 1
    assert said in answer.output
    assert "hunter2" not in answer.output
    assert "Traceback" not in answer.output


def test_a_store_that_is_down(site, free_port):
    pytest.importorskip("redis")
    here = site("filesystem", "sqlite")
    here.fill(3)
    dead = f"redis://127.0.0.1:{free_port()}/0"
    answer = here.run(target=dead)
    assert answer.exit_code == 1
    assert answer.output.startswith("Error: ")
    assert "0000000" not in answer.output
    # And it goes on where it was, elsewhere it is another migration.
    assert here.run().exit_code == 0


# ---- broken off ----------------------------------------------------------------------------------


def test_a_state_of_something_else(site, tmp_path):
    here = site("filesystem", "sqlite")
    here.fill(3)
    state = tmp_path / "state"
    state.write_text("{}")
    answer = here.run("--state", str(state))
    assert answer.exit_code == 1
    assert "the state of another migration" in answer.output
    state.write_text("not json")
    assert "is no state of a migration" in here.run("--state", str(state)).output


def test_the_state_is_the_owner_s_and_holds_no_url(site, tmp_path):
    here = site("filesystem", "sqlite")
    here.fill(3)
    state = tmp_path / "made" / "state"
    migration = Migration(
        here.app, "filesystem", f"sqlite://{tmp_path}/secret.sqlite3", state=state
    )
    for _ in migration.copy():
        pass
    assert state.stat().st_mode & 0o777 == 0o600
    assert "secret" not in state.read_text()


FILES, REDIS, MONGO = ("filesystem", "sqlite"), ("redis", "sqlite"), ("mongodb", "postgresql")
KILLED = [
    pytest.param(*FILES, [], id="filesystem-sqlite"),
    pytest.param(*FILES, ["--move"], id="filesystem-sqlite-move"),
    pytest.param(*REDIS, [], id="redis-sqlite", marks=SERVER),
    pytest.param(*REDIS, ["--move"], id="redis-sqlite-move", marks=SERVER),
    pytest.param("filesystem", "redis", [], id="filesystem-redis", marks=SERVER),
    pytest.param(*MONGO, [], id="mongodb-postgresql", marks=CLIENT),
]


@pytest.mark.process
@pytest.mark.parametrize(("source", "target", "more"), KILLED)
def test_killed_and_resumed(site, source, target, more, long_run):
    count, batch = (100_000, 200) if long_run else (240, 40)
    here = site(source, target)
    made = here.fill(count)
    generator = random.Random(f"{source} {target}")
    for place in ("bring", "save"):
        most = count // 3 if place == "bring" else count // batch // 3
        kill = [place, 1 + generator.randrange(most)]
        command, environment = here.process("--batch", str(batch), *more, kill=kill)
        done = subprocess.run(
            command, env=environment, cwd=here.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    command, environment = here.process("--batch", str(batch), *more)
    done = subprocess.run(
        command, env=environment, cwd=here.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (", 0 missing" if not more else "0 left in the source") in done.stdout
    here.check(made, left=not more)
    target_store = here.open(target)
    if not target_store.capabilities & _core.CAP_HASHED_KEYS:
        cursor, total = b"", 0
        while True:
            cursor, rows = target_store.scan(cursor, 1000, timeout=60)
            total += len(rows)
            if not cursor:
                break
        assert total == count
    assert states(here) == []


@pytest.mark.process
def test_a_bar_on_a_terminal(site):
    here = site("filesystem", "sqlite")
    here.fill(50)
    command, environment = here.process()
    own, other = pty.openpty()
    with subprocess.Popen(
        command, env=environment, cwd=here.folder, stdout=other, stderr=other, stdin=other
    ) as process:
        os.close(other)
        shown = b""
        while True:
            try:
                shown += os.read(own, 65536)
            except OSError:  # the end of a terminal
                break
        assert process.wait() == 0
    os.close(own)
    assert b"sessions" in shown
    assert b"50" in shown
    assert b"\r" in shown
    assert b"50 sessions: 50 copied" in shown


def test_lines_elsewhere(site, monkeypatch):
    here = site("filesystem", "sqlite")
    here.fill(25)
    monkeypatch.setattr("flask_session.cli._LINE_EACH", 10)
    assert here.run().output.splitlines()[:4] == [
        *("10 sessions", "20 sessions"),
        "25 sessions: 25 copied, 0 there, 0 retired, 0 ended, 0 unreadable, 0 refused",
        "10 verified",
    ]


# ---- cachelib ------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.filterwarnings("ignore:cachelib loads")
def test_from_a_cache_in_redis(tmp_path, redis_server):
    cachelib = pytest.importorskip("cachelib.redis")
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(redis_server.url, socket_timeout=20)
    cache = cachelib.RedisCache(client, key_prefix=new_prefix())
    here = Site(tmp_path, "cachelib", "sqlite", None, SESSION_CACHELIB=cache)
    made = here.fill(120, lambda number: {"number": number})
    client.set(cache._get_prefix() + here.settings["SESSION_KEY_PREFIX"] + "x" * 43, b"!no")
    cache.set(here.settings["SESSION_KEY_PREFIX"] + "y" * 43, {"number": -1}, timeout=0)
    answer = here.run()
    assert answer.exit_code == 0, answer.output
    here.check(made)
    assert "121 sessions: 121 copied" in answer.output


@pytest.mark.filterwarnings("ignore:cachelib loads")
def test_other_caches_cannot_be_listed(tmp_path):
    cachelib = pytest.importorskip("cachelib")
    cache = cachelib.FileSystemCache(str(tmp_path / "cache"))
    here = Site(tmp_path, "cachelib", "sqlite", None, SESSION_CACHELIB=cache)
    answer = here.run()
    assert answer.exit_code == 1
    assert "a cachelib store cannot list its sessions" in answer.output
