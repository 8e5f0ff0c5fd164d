"""The store contract (docs/design.md) on every row of tests/rows: real clients, real servers."""

from __future__ import annotations

import fcntl
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
from flask_session import Session, SessionStoreError, _core

from tests.rows import Row, configuration, new_prefix

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000
# What a server and its client may take on a busy machine.
SLACK = 5 * SECOND


def open_store(row: Row, **settings: Any) -> _core.Store:
    """The store of an application of this row, under a prefix of its own."""
    app = flask.Flask(__name__)
    app.config.update(configuration(type(row), row.where, SESSION_STORE_TIMEOUT=20, **settings))
    Session(app)
    store: _core.Store = app.extensions["flask_session"].store
    return store


@pytest.fixture
def store(row: Row) -> _core.Store:
    return open_store(row)


def now() -> float:
    return time.time() * 1000


def check_expiry(store: _core.Store, row: Row, key: str, before: float, ttl: int) -> None:
    """Expires at now + ttl, where now is a moment since `before`."""
    stored = store.load(key)
    assert stored is not None
    expires = stored[2]
    assert expires is not None
    assert before + ttl - 1 <= expires <= now() + ttl + row.tick_ms


def value_of(store: _core.Store, key: str) -> bytes | None:
    stored = store.load(key)
    return None if stored is None else stored[0]


def test_it_says_what_it_can(store):
    assert store.capabilities & _core.CAP_ATOMIC
    if store.capabilities & _core.CAP_NATIVE_TTL:
        with pytest.raises(ValueError, match=r"by (itself|themselves)"):
            store.purge()
    if not store.capabilities & _core.CAP_LISTABLE:
        with pytest.raises(ValueError, match="list"):
            store.scan()


def test_load_and_create(store, row):
    assert store.load("k") is None
    before = now()
    assert store.create("k", b"\x80\x00one", HOUR) is True
    assert value_of(store, "k") == b"\x80\x00one"
    check_expiry(store, row, "k", before, HOUR)
    assert len(store.load("k")[1]) <= 32
    # insert only
    assert store.create("k", b"two", 5 * HOUR) is False
    assert value_of(store, "k") == b"\x80\x00one"
    check_expiry(store, row, "k", before, HOUR)
    assert store.load("other") is None


def test_replace(store, row):
    assert store.replace("k", b"", b"", b"two", HOUR) == _core.GONE
    assert store.load("k") is None
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    before = now()
    assert store.replace("k", value, version, b"two", 2 * HOUR) == _core.OK
    assert value_of(store, "k") == b"two"
    check_expiry(store, row, "k", before, 2 * HOUR)
    # the same value again, in the same second: a write like any other
    value, version, _ = store.load("k")
    assert store.replace("k", value, version, b"two", 2 * HOUR) == _core.OK
    assert value_of(store, "k") == b"two"


@pytest.mark.parametrize("stale", [b"one", b"tw", b"two\0", b"", b"TWO"])
def test_a_stale_value_is_a_conflict(store, row, stale):
    store.create("k", b"one", HOUR)
    value, old, _ = store.load("k")
    before = now()
    assert store.replace("k", value, old, b"two", HOUR) == _core.OK
    told = store.replace("k", stale, old, b"three", 5 * HOUR)
    assert isinstance(told, tuple)
    assert told[0] == b"two"
    assert value_of(store, "k") == b"two"
    check_expiry(store, row, "k", before, HOUR)
    # what it told is enough to go on
    assert store.replace("k", told[0], told[1], b"three", HOUR) == _core.OK
    assert value_of(store, "k") == b"three"


def test_a_touch_in_between_is_no_conflict(store):
    store.create("k", b"one", HOUR)
    value, old, _ = store.load("k")
    assert store.touch("k", value, old, 2 * HOUR) == _core.OK
    # the version may be another one now, the value is not
    assert store.touch("k", value, old, HOUR) == _core.OK
    assert store.replace("k", value, old, b"two", HOUR) == _core.OK
    assert value_of(store, "k") == b"two"
    # a change in between is one
    assert store.touch("k", value, old, HOUR) == _core.CHANGED
    told = store.replace("k", value, old, b"x", HOUR)
    assert isinstance(told, tuple)
    assert told[0] == b"two"
    assert value_of(store, "k") == b"two"


def test_versions_do_not_come_back(store):
    """A value that returns to what it was is that value again; nothing else is."""
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    store.replace("k", value, version, b"two", HOUR)
    told = store.load("k")
    store.replace("k", told[0], told[1], b"one", HOUR)
    assert store.replace("k", value, version, b"three", HOUR) == _core.OK
    assert value_of(store, "k") == b"three"


def test_touch(store, row):
    assert store.touch("k", b"one", b"", HOUR) == _core.GONE
    assert store.load("k") is None
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    before = now()
    assert store.touch("k", value, version, 2 * HOUR) == _core.OK
    check_expiry(store, row, "k", before, 2 * HOUR)
    assert value_of(store, "k") == b"one"
    # in the same second, to the same lifetime: nothing to change is not CHANGED
    for _ in range(3):
        value, version, _ = store.load("k")
        assert store.touch("k", value, version, 2 * HOUR) == _core.OK
    before = now()
    assert store.touch("k", b"one", version, HOUR) == _core.OK
    check_expiry(store, row, "k", before, HOUR)


def test_a_touch_with_a_foreign_value_changes_nothing(store, row):
    before = now()
    store.create("k", b"one", HOUR)
    _, version, _ = store.load("k")
    told = store.load("k")
    assert store.replace("k", told[0], told[1], b"two", HOUR) == _core.OK  # a foreign write
    assert store.touch("k", b"one", version, 9 * HOUR) == _core.CHANGED
    check_expiry(store, row, "k", before, HOUR)
    assert value_of(store, "k") == b"two"


def test_remove(store):
    store.remove("never")
    store.create("k", b"one", HOUR)
    store.create("other", b"stays", HOUR)
    value, version, _ = store.load("k")
    store.remove("k")
    assert store.load("k") is None
    store.remove("k")
    assert store.replace("k", value, version, b"two", HOUR) == _core.GONE
    assert store.touch("k", value, version, HOUR) == _core.GONE
    assert store.load("k") is None
    assert value_of(store, "other") == b"stays"
    assert store.create("k", b"anew", HOUR) is True
    assert value_of(store, "k") == b"anew"
    # another life of the key: what was known of the first one is stale
    told = store.replace("k", value, version, b"two", HOUR)
    assert isinstance(told, tuple)
    assert told[0] == b"anew"


def test_expiry(store, row):
    """One real wait for all that has to do with expiry."""
    for key in ("load", "create", "replace", "touch", "remove"):
        store.create(key, b"x", SECOND)
    store.create("shrunk", b"x", HOUR)
    value, version, _ = store.load("shrunk")
    assert store.touch("shrunk", value, version, SECOND) == _core.OK
    before = now()
    # above 30 days some stores take a number for a date
    store.create("40 days", b"x", 40 * DAY)
    check_expiry(store, row, "40 days", before, 40 * DAY)
    store.create("grown", b"x", 5 * SECOND)
    value, version, _ = store.load("grown")
    assert store.touch("grown", value, version, HOUR) == _core.OK

    time.sleep((SECOND + row.tick_ms) / 1000 + 0.1)
    assert store.load("load") is None
    assert store.load("shrunk") is None
    assert value_of(store, "40 days") == b"x"
    assert value_of(store, "grown") == b"x"
    assert store.replace("replace", b"x", b"", b"y", HOUR) == _core.GONE
    assert store.replace("replace", b"-", b"", b"y", HOUR) == _core.GONE
    assert store.touch("touch", b"x", b"", HOUR) == _core.GONE
    assert store.load("replace") is None
    assert store.load("touch") is None
    store.remove("remove")
    assert store.create("create", b"again", HOUR) is True
    assert value_of(store, "create") == b"again"


def test_a_second_is_a_second(store, row):
    before = now()
    store.create("k", b"x", SECOND)
    stored = store.load("k")
    assert stored is not None or now() >= before + SECOND
    if stored is not None:
        assert before + SECOND - 1 <= stored[2] <= now() + SECOND + row.tick_ms
    while store.load("k") is not None:
        assert now() < before + SECOND + row.tick_ms + SLACK
        time.sleep(0.02)


@pytest.fixture
def alone(tmp_path_factory):
    """No other process purges meanwhile: rows of one server share its table."""
    with (tmp_path_factory.getbasetemp().parent / "purge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_purge(store, row, alone):
    if store.capabilities & _core.CAP_NATIVE_TTL:
        return  # see test_it_says_what_it_can
    store.purge(10_000)
    for number in range(25):
        store.create(f"k{number}", b"x", SECOND if number < 12 else HOUR)
    time.sleep((SECOND + row.tick_ms) / 1000 + 0.1)
    # 12, and what others who use this table left to expire.
    gone = list(itertools.takewhile(bool, (store.purge(5) for _ in range(100))))
    assert sum(gone) >= 12
    assert gone[:2] == [5, 5]
    assert max(gone) == 5
    assert all(value_of(store, f"k{number}") == b"x" for number in range(12, 25))


def test_scan(store):
    if not store.capabilities & _core.CAP_LISTABLE:
        return  # see test_it_says_what_it_can
    expected = {f"k{number}": b"v%d" % number for number in range(120)}
    for key, value in expected.items():
        store.create(key, value, HOUR)
    store.create("gone", b"x", HOUR)
    store.remove("gone")
    seen: dict[str, bytes] = {}
    cursor = b""
    while True:
        cursor, rows = store.scan(cursor, 50)
        for key, value, expires in rows:
            assert now() < expires <= now() + HOUR + SLACK
            seen[key.decode()] = value
        if not cursor:
            break
    assert seen == expected


def test_the_prefix_separates_applications(row, store):
    other = open_store(row)
    store.create("k", b"one", HOUR)
    assert other.load("k") is None
    assert other.create("k", b"two", HOUR)
    other.remove("k")
    assert value_of(store, "k") == b"one"


@pytest.mark.parametrize(
    "value",
    [b"\0", b"x", b"\r\nEND\r\n", b"'\"\\%s?;--", bytes(range(256)), b"\xff" * 3000, b"x" * 70_000],
    ids=["nul", "x", "crlf", "quotes", "all", "high", "70k"],
)
def test_any_bytes(store, value):
    assert store.create("k", value, HOUR)
    held, version, _ = store.load("k")
    assert held == value
    assert store.touch("k", value, version, HOUR) == _core.OK
    held, version, _ = store.load("k")
    assert store.replace("k", value, version, value + b"!", HOUR) == _core.OK
    assert value_of(store, "k") == value + b"!"


def test_a_large_value(store, row):
    value = bytes(range(256)) * 4096  # 1 MiB
    if row.max_value is None:
        assert store.create("k", value, HOUR)
        assert value_of(store, "k") == value
        held, version, _ = store.load("k")
        assert store.replace("k", held, version, value[::-1], HOUR) == _core.OK
        assert value_of(store, "k") == value[::-1]
        return
    with pytest.raises((SessionStoreError, ValueError), match="bytes"):
        store.create("k", value + value, HOUR)
    assert store.load("k") is None
    store.create("k", b"small", HOUR)
    held, version, _ = store.load("k")
    with pytest.raises((SessionStoreError, ValueError), match="bytes"):
        store.replace("k", held, version, value + value, HOUR)
    assert value_of(store, "k") == b"small"


ODD_KEYS = [
    "with space",
    "\N{SNOWMAN}",
    "a\tb",
    "quote'\"",
    "%s?",
    "UPPER",
    "upper",
    "end ",
]


def test_any_key(store, row):
    """An application may make ids of its own; those that differ stay apart."""
    longest = 250 if row.max_key is None else row.max_key - len(new_prefix())
    keys = [*ODD_KEYS, "x" * longest]
    for key in keys:
        assert store.create(key, key.encode(), HOUR), key
    for key in keys:
        assert value_of(store, key) == key.encode()
    if row.max_key is not None:  # refused, and never cut short
        beyond = "x" * (longest + 1)
        with pytest.raises(SessionStoreError) as caught:
            store.create(beyond, b"x", HOUR)
        assert str(row.max_key) in str(caught.value.__cause__)
        assert "xxx" not in str(caught.value.__cause__)
        assert store.load(beyond) is None
        assert store.replace(beyond, b"x", b"", b"y", HOUR) == _core.GONE
        assert store.touch(beyond, b"x", b"", HOUR) == _core.GONE
        store.remove(beyond)
        assert value_of(store, "x" * longest) == b"x" * longest
    for key in keys:
        store.remove(key)
        assert store.load(key) is None


def compete(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The answers of so many threads that start together."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_no_change_is_lost(store, row, long_run):
    changes = 200 if long_run else row.changes
    store.create("k", b"0", HOUR)

    def count_up(number: int) -> None:
        done = 0
        value, version, _ = store.load("k")
        while done < changes:
            answer = store.replace("k", value, version, b"%d" % (int(value) + 1), HOUR)
            done += answer == _core.OK
            if answer == _core.OK:
                value, version, _ = store.load("k")
            else:
                assert isinstance(answer, tuple)
                value, version, _ = answer

    compete(8, count_up)
    assert value_of(store, "k") == b"%d" % (8 * changes)


def test_create_has_one_winner(store, long_run):
    for round_number in range(50 if long_run else 8):
        won = compete(8, lambda n, r=round_number: store.create(f"k{r}", b"%d" % n, HOUR))
        assert won.count(True) == 1
        assert value_of(store, f"k{round_number}") == b"%d" % won.index(True)


def test_removed_stays_removed(store, long_run):
    """Changes, touches and a removal at once: the key is gone in the end."""

    def work(number: int) -> None:
        if number == 0:
            store.remove("k")
            return
        for step in range(10):
            stored = store.load("k")
            if stored is None:
                break
            value, version, _ = stored
            if number % 2:
                store.replace("k", value, version, b"%d-%d" % (number, step), HOUR)
            else:
                store.touch("k", value, version, HOUR)

    for _ in range(50 if long_run else 8):
        store.create("k", b"one", HOUR)
        compete(6, work)
        assert store.load("k") is None
