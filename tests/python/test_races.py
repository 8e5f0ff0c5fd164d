"""Requests of one session at the same time: nothing is lost, nothing comes back.

Every test runs on every store (STORES), with the requests in threads of this process, in two
processes and in two processes with threads; on rows of tests/rows that are `raced` in two processes
(the tests marked as `telling`; with CESSION_LONG=1 all, and the other rows the telling ones).
Interleavings are forced: a request of apps/script.py waits in the middle of its view ("meet") until
the test lets it go on. Only the tests "without a plan" leave the order to chance.

CESSION_LONG=1: 1,000 rounds, on raced rows 300.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from flask_session import _core, config
from flask_session.cachelib import CacheLibStore
from werkzeug.serving import WSGIRequestHandler, make_server

import tests.rows
from tests import examples, long_run_wanted
from tests.python.apps import script
from tests.python.flask_version import LATE
from tests.rows import ROWS, Row, new_prefix
from tests.services.stage import Stage
from tests.services.visitor import Visitor as Browser
from tests.services.web import Answer, Gunicorn

Settings = dict[str, Any]
LIFETIME = 3600

# ---- stores and servers -------------------------------------------------------------------------


def sqlite_settings(folder: Path, request: pytest.FixtureRequest) -> Settings:
    return {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(folder / "sessions.sqlite3")}


def filesystem_settings(folder: Path, request: pytest.FixtureRequest) -> Settings:
    return {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder / "sessions")}


def redis_settings(folder: Path, request: pytest.FixtureRequest) -> Settings:
    return {
        "SESSION_TYPE": "redis",
        "SESSION_REDIS": request.getfixturevalue("redis_server").url,
        "SESSION_NATIVE": False,  # the native driver is a row
        "SESSION_KEY_PREFIX": f"races-{uuid.uuid4()}:",
    }


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], Settings]] = {
    "sqlite": sqlite_settings,
    "filesystem": filesystem_settings,
    "redis": redis_settings,
}
RACED_ROWS = [name for name, row in ROWS.items() if vars(row).get("raced")]
STORE_MARKS = {"redis": [pytest.mark.server]}
# Name -> gunicorn's settings; None: threads of this process.
SERVERS: dict[str, dict[str, Any] | None] = {
    "threads": None,
    "2-sync": {"workers": 2, "worker_class": "sync"},
    "2-gthread": {"workers": 2, "worker_class": "gthread", "threads": 4},
}
# In other processes a sanitizer of this one sees nothing: there the threads are enough.
SERVER_MARKS = {"2-sync": [pytest.mark.process, pytest.mark.slow],
                "2-gthread": [pytest.mark.process, pytest.mark.slow]}  # fmt: skip
# Applications beside the plain one, on the same store and the same sessions.
VARIANTS: dict[str, Settings] = {
    "still": {"SESSION_REFRESH_EACH_REQUEST": False},
    # Another lifetime than the records were stored with: each request finds a touch due.
    "due": {"PERMANENT_SESSION_LIFETIME": 10 * LIFETIME},
    "raise": {"SESSION_CONFLICT": "raise"},
    "signed": {"SESSION_USE_SIGNER": True},
}


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


class ThreadServer:
    """The application in threads of this process, on a socket like any other."""

    def __init__(self, application: Any) -> None:
        self.server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler
        )
        self.application = application
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.application.close()


@dataclass
class Site:
    url: str
    stage: Stage
    events_file: Path
    pool: ThreadPoolExecutor
    parallel: int
    """So many requests can be under way at once."""
    processes: int
    row: str | None

    def rounds(self, full: int, short: int) -> int:
        """How often, in a long run and else."""
        if self.row is not None:
            short = min(short, 10 if ROWS[self.row].slow_server else 25)
            full = 300 if self.row in RACED_ROWS else short
        return examples(short, full)

    def visitor(self) -> Visitor:
        return Visitor(self.url, self.pool)

    def events(self) -> list[str]:
        """Names of what happened since the last call."""
        with self.events_file.open("r+") as file:
            names = [json.loads(line)[0] for line in file]
            file.truncate(0)
        if not self.tells_expiry:
            # A process that did not write a record itself finds it due.
            names = [name for name in names if name != "touched"]
        return names

    @cached_property
    def tells_expiry(self) -> bool:
        capabilities: int = json.loads(self.visitor().get("/capabilities").body)
        return bool(capabilities & _core.CAP_GIVES_EXPIRY)


def open_site(
    folder: Path, settings: Settings, server: str, row: Row | None = None
) -> Iterator[Site]:
    stage = Stage()
    events = folder / "events"
    events.touch()
    given = {
        "settings": {
            "SECRET_KEY": "a secret of the tests",
            "PERMANENT_SESSION_LIFETIME": LIFETIME,
            "SESSION_STORE_TIMEOUT": 20,
            **settings,
        },
        "variants": VARIANTS,
        "stage": stage.port,
        "events": str(events),
        "row": None if row is None else [row.name, row.where, new_prefix()],
    }
    options = SERVERS[server]
    running: ThreadServer | Gunicorn
    if options is None:
        running = ThreadServer(script.Site(given))
    else:
        (folder / "script.py").write_text(Path(script.__file__).read_text())
        environment = {"CESSION_SCRIPT": json.dumps(given)}
        if row is not None:
            path = [str(Path(tests.rows.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        running = Gunicorn(folder, "script:site", env=environment, **options)
        running.start()
    parallel = 2 if server == "2-sync" else 4
    with ThreadPoolExecutor(8) as pool:
        try:
            processes = 2 if options else 1
            name = None if row is None else row.name
            yield Site(running.url, stage, events, pool, parallel, processes, name)
        finally:
            stage.close()
            running.stop()


def site_parameters() -> list[Any]:
    return [
        pytest.param(
            (store, server, False),
            id=f"{store}-{server}",
            marks=[*STORE_MARKS.get(store, []), *SERVER_MARKS.get(server, [])],
        )
        for store in STORES
        for server in SERVERS
    ]


def row_parameters(chosen: Callable[[str], bool]) -> list[Any]:
    server = "2-sync"
    return [
        pytest.param(
            (name, server, True),
            id=f"row-{name}-{server}",
            marks=[*row.marks, *SERVER_MARKS[server]],
        )
        for name, row in ROWS.items()
        if row.raced is not None and chosen(name)
    ]


def telling(test: Any) -> Any:
    """One of the few races that tell most: raced rows take part in these in every run."""
    test.telling = True
    return test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running_site" in metafunc.fixturenames:
        long, tells = long_run_wanted(), hasattr(metafunc.function, "telling")
        parameters = site_parameters()
        parameters += row_parameters(
            lambda name: (tells and long) or ((tells or long) and name in RACED_ROWS)
        )
        metafunc.parametrize("running_site", parameters, indirect=True, scope="module")


@pytest.fixture(scope="module")
def running_site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    name, server, is_row = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{server}")
    if is_row:
        row = request.getfixturevalue("start_row")(name)
        yield from open_site(folder, {}, server, row)
    else:
        yield from open_site(folder, STORES[name](folder, request), server)


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    running_site.events()
    yield running_site
    # Those that a failed test left waiting.
    running_site.stage.go()


# ---- visitors -----------------------------------------------------------------------------------


class Reply:
    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.text = answer.text
        self.set_cookie = answer.all("Set-Cookie")
        self.values = json.loads(answer.body) if answer.status == 200 else None

    @property
    def value(self) -> Any:
        assert self.values is not None, (self.status, self.text[:500])
        return self.values[-1]


class Slow:
    """A request that is under way."""

    def __init__(self, future: Future[Answer]) -> None:
        self.future = future

    def reply(self) -> Reply:
        reply = Reply(self.future.result(90))
        assert reply.status == 200, (reply.status, reply.text[:500])
        return reply


class Visitor(Browser):
    def do(self, *steps: list[Any], variant: str = "", status: int = 200) -> Reply:
        reply = Reply(self.post(self._path(variant), steps))
        assert reply.status == status, (reply.status, reply.text[:500])
        return reply

    def slow(self, *steps: list[Any], variant: str = "") -> Slow:
        return Slow(self.start("POST", self._path(variant), steps))

    @staticmethod
    def _path(variant: str) -> str:
        return f"/{variant}/do" if variant else "/do"

    def content(self) -> dict[str, Any]:
        """What the application sees with this browser's cookie."""
        content: dict[str, Any] = self.do(["all"]).value
        return content

    def record(self, sid: str | None) -> dict[str, Any] | None:
        """What the store holds: None for nothing, {"data": None} for a tombstone."""
        assert sid
        record: dict[str, Any] | None = json.loads(self.get(f"/record/{sid}").body)
        return record

    def live(self, **marker: Any) -> list[dict[str, Any]]:
        """All live sessions in the store that hold this."""
        records = json.loads(self.get("/records").body)
        return [data for data in records if data and data.items() >= marker.items()]

    def stranger(self) -> Visitor:
        return Visitor(self.url, self._pool)

    def old(self, sid: str | None) -> Visitor:
        """A browser that holds this id."""
        other = self.stranger()
        other.sid = sid
        return other


@pytest.fixture
def visitor(site: Site) -> Visitor:
    """Somebody who is logged in: `user` is a name of his own."""
    visitor = site.visitor()
    visitor.do(["set", "user", uuid.uuid4().hex])
    site.events()
    return visitor


def user_of(visitor: Visitor) -> str:
    return str(visitor.do(["get", "user"]).value)


@contextlib.contextmanager
def crowd(site: Site, visitor: Visitor, sid: str | None) -> Iterator[set[str | None]]:
    """Requests with this id, one after the other in three threads: a writer, a reader with a touch
    due, a writer without refresh. Gives the ids that they were told in the end."""
    done = threading.Event()
    started = threading.Barrier(4)
    told: set[str | None] = set()

    def work(step: list[Any], variant: str) -> None:
        visitor.old(sid).do(step, variant=variant)
        started.wait(60)
        while not done.is_set():
            one = visitor.old(sid)
            one.do(step, variant=variant)
            told.add(one.sid)

    plans = [(["add", "count"], ""), (["get", "user"], "due"), (["set", "x", 1], "still")]
    workers = [site.pool.submit(work, *plan) for plan in plans]
    try:
        started.wait(60)
        yield told
    finally:
        done.set()
        for worker in workers:
            worker.result(90)


# ---- what the tests stand on --------------------------------------------------------------------


def test_every_atomic_store_is_here():
    """Not here: memory, which processes do not share and which C tests race, and what says itself
    that it cannot compare and set."""
    raced = {*STORES, *(name.partition("-")[0] for name in RACED_ROWS)}
    assert set(config.BACKENDS) - raced == {"memory", "cachelib"}
    assert not CacheLibStore.capabilities & _core.CAP_ATOMIC


@telling
def test_these_stores_promise_what_is_raced(site, visitor):
    assert json.loads(visitor.get("/capabilities").body) & _core.CAP_ATOMIC


def test_a_touch_is_due_in_its_variant(site, visitor):
    if site.tells_expiry:
        assert visitor.do(["get", "user"]).set_cookie == []
        assert site.events() == []
    reply = visitor.do(["get", "user"], variant="due")
    assert len(reply.set_cookie) == 1
    assert site.events() == (["touched"] if site.tells_expiry else [])
    record = visitor.record(visitor.sid)
    assert record["left_ms"] > 2 * LIFETIME * 1000


@telling
def test_requests_go_to_every_process(site, visitor):
    seen: set[int] = set()
    for _ in range(500):
        held = [visitor.slow(["pid"], ["meet", "held"]) for _ in range(site.parallel)]
        site.stage.pass_together("held", site.parallel)
        seen |= {one.reply().values[0] for one in held}
        if len(seen) == site.processes:
            return
    pytest.fail(f"only {len(seen)} of {site.processes} processes answered")


# ---- writers ------------------------------------------------------------------------------------


@telling
def test_writers_of_different_keys_lose_nothing(site, visitor):
    """All have read before the first writes, so all but one meet another's write."""
    rounds = site.rounds(1000, 100)
    keys = [f"key{number}" for number in range(site.parallel)]
    for number in range(rounds):
        writers = [
            visitor.slow(["get", "user"], ["meet", "read"], ["set", key, number]) for key in keys
        ]
        site.stage.pass_together("read", len(writers))
        for writer in writers:
            writer.reply()
        content = visitor.content()
        assert {key: content[key] for key in keys} == dict.fromkeys(keys, number)
    assert site.events() == []


@telling
def test_writers_without_a_plan_lose_nothing(site, visitor):
    """Each counts in a key of its own, as fast as it can."""
    rounds = site.rounds(1000, 100)

    def count(key: str) -> list[int]:
        mine = visitor.twin()
        return [mine.do(["add", key], ["get", key]).value for _ in range(rounds)]

    keys = [f"key{number}" for number in range(site.parallel)]
    counts = list(site.pool.map(count, keys))
    assert counts == [list(range(1, rounds + 1))] * len(keys)
    content = visitor.content()
    assert {key: content[key] for key in keys} == dict.fromkeys(keys, rounds)
    assert site.events() == []


def test_a_deletion_and_another_key_s_write_are_both_kept(site, visitor):
    visitor.do(["set", "cart", 1], ["set", "old", 1])
    write, delete = ["set", "new", 1], ["delete", "old"]
    for slow, quick in ((write, delete), (delete, write)):
        visitor.do(["set", "old", 1], ["delete", "new"])
        late = visitor.slow(["get", "cart"], ["meet", "read"], slow)
        site.stage.wait("read")
        visitor.do(quick)
        site.stage.go("read")
        late.reply()
        content = visitor.content()
        content.pop("user")
        assert content == {"cart": 1, "new": 1}
    assert {"conflict", "lost"}.isdisjoint(site.events())


def test_a_deleted_key_does_not_come_back_by_another_s_write(site, visitor):
    """The writer still has the deleted key in its copy."""
    visitor.do(["set", "token", "t"])
    late = visitor.slow(["get", "token"], ["meet", "read"], ["set", "seen", True])
    site.stage.wait("read")
    visitor.do(["delete", "token"])
    site.stage.go("read")
    late.reply()
    content = visitor.content()
    assert content["seen"] is True
    assert "token" not in content


@telling
def test_both_changed_one_key_the_later_one_wins_with_one_event(site, visitor):
    late = visitor.slow(["get", "x"], ["meet", "read"], ["set", "x", "late"], ["set", "y", 1])
    site.stage.wait("read")
    visitor.do(["set", "x", "early"], ["set", "z", 1])
    site.stage.go("read")
    late.reply()
    content = visitor.content()
    assert (content["x"], content["y"], content["z"]) == ("late", 1, 1)
    assert site.events() == ["conflict"]


def test_both_made_the_same_change_is_no_conflict(site, visitor):
    late = visitor.slow(["get", "x"], ["meet", "read"], ["set", "x", [1, 2]], ["set", "y", 1])
    site.stage.wait("read")
    visitor.do(["set", "x", [1, 2]])
    site.stage.go("read")
    late.reply()
    content = visitor.content()
    assert (content["x"], content["y"]) == ([1, 2], 1)
    assert site.events() == []


def test_conflict_can_be_an_error_and_then_stores_nothing(site, visitor):
    late = visitor.start(
        "POST", "/raise/do",
        [["get", "x"], ["meet", "read"], ["set", "x", "late"], ["set", "y", 1]],
    )  # fmt: skip
    site.stage.wait("read")
    visitor.do(["set", "x", "early"])
    site.stage.go("read")
    answer = late.result(90)
    assert (answer.status, answer.text, answer.all("Set-Cookie")) == (409, "conflict", [])
    content = visitor.content()
    assert content["x"] == "early"
    assert "y" not in content


def test_conflict_as_an_error_still_merges_different_keys(site, visitor):
    late = visitor.slow(["get", "x"], ["meet", "read"], ["set", "x", 1], variant="raise")
    site.stage.wait("read")
    visitor.do(["set", "y", 2], variant="raise")
    site.stage.go("read")
    late.reply()
    content = visitor.content()
    assert (content["x"], content["y"]) == (1, 2)


def test_a_second_save_after_a_merge_goes_by_what_is_stored(site, visitor):
    """save() in the view merges; what the view does afterwards is merged again."""
    late = visitor.slow(
        ["set", "a", 1], ["meet", "one"], ["save"], ["meet", "two"], ["set", "b", 1]
    )
    site.stage.wait("one")
    visitor.do(["set", "c", 1])
    site.stage.go("one")
    site.stage.wait("two")
    visitor.do(["delete", "c"], ["set", "d", 1])
    site.stage.go("two")
    late.reply()
    content = visitor.content()
    content.pop("user")
    assert content == {"a": 1, "b": 1, "d": 1}


# ---- nested values ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["", "still"], ids=["refresh", "no-refresh"])
def test_nested_mutation_persists(site, visitor, variant):
    visitor.do(["set", "cart", {"items": [], "by": {}}], variant=variant)
    reply = visitor.do(["nest", "cart", "by", "apple", 3], variant=variant)
    assert len(reply.set_cookie) == 1  # permanent: what is written slides, and so does the cookie
    visitor.do(["set", "list", []], variant=variant)
    visitor.do(["append", "list", {"n": 1}], variant=variant)
    content = visitor.content()
    assert content["cart"] == {"items": [], "by": {"apple": 3}}
    assert content["list"] == [{"n": 1}]


@pytest.mark.parametrize("variant", ["", "still"], ids=["refresh", "no-refresh"])
def test_nested_mutation_against_another_key_s_write(site, visitor, variant):
    visitor.do(["set", "cart", {"items": {}}])
    late = visitor.slow(
        ["get", "cart"], ["meet", "read"], ["nest", "cart", "items", "apple", 3], variant=variant
    )
    site.stage.wait("read")
    visitor.do(["set", "other", 1], variant=variant)
    site.stage.go("read")
    late.reply()
    content = visitor.content()
    assert (content["cart"], content["other"]) == ({"items": {"apple": 3}}, 1)
    assert site.events() == []


# ---- logout -------------------------------------------------------------------------------------


def assert_logged_out(visitor: Visitor, sid: str, user: str) -> None:
    assert visitor.record(sid) is None
    assert visitor.live(user=user) == []
    assert visitor.content() == {}
    old = visitor.old(sid)
    assert old.content() == {}
    # The id is never adopted, whatever is written with it.
    old.do(["set", "user", "somebody else"])
    assert old.sid not in (None, sid)
    assert visitor.record(sid) is None


@pytest.mark.parametrize("logout", ["clear", "destroy"])
@pytest.mark.parametrize(
    ("variant", "steps", "lost"),
    [
        ("", [["get", "user"]], 0),
        ("due", [["get", "user"]], 0),  # a late touch
        ("", [["set", "seen", 1]], 1),
        ("still", [["set", "seen", 1]], 1),
        ("", [["set", "user", "again"]], 1),
        ("", [["delete", "user"], ["set", "x", 1]], 1),
        ("raise", [["set", "seen", 1]], 1),
        ("", [["set", "a", 1], ["save"], ["set", "b", 1]], 2),
        ("", [["regenerate"]], 1),
        ("", [["set", "seen", 1], ["regenerate"]], 1),
    ],
    ids=["reader", "touch", "writer", "writer-no-refresh", "same-key", "deletion", "writer-raise",
         "writer-twice", "regenerate", "write-and-regenerate"],
)  # fmt: skip
@telling
def test_logout_while_a_request_is_under_way(site, visitor, variant, steps, lost, logout):
    sid, user = visitor.sid, user_of(visitor)
    late = visitor.slow(["all"], ["meet", "read"], *steps, variant=variant)
    site.stage.wait("read")
    reply = visitor.do([logout])
    assert visitor.sid is None
    assert len(reply.set_cookie) == 1
    site.events()

    site.stage.go("read")
    assert late.reply().set_cookie == []
    assert visitor.sid is None
    assert site.events() == ["lost"] * lost
    assert_logged_out(visitor, sid, user)


def test_logout_before_a_slow_request_looks_at_the_session(site, visitor):
    """It reads nothing any more; what it writes is a new session of its own. (Where it had loaded
    the session before, it reads that, and what it writes is lost.)"""
    sid, user = visitor.sid, user_of(visitor)
    other = visitor.twin()
    late = other.slow(["meet", "before"], ["all"], ["set", "note", user])
    site.stage.wait("before")
    visitor.do(["clear"])
    site.stage.go("before")
    reply = late.reply()
    if LATE:
        assert reply.values[1] == {}
        assert other.sid not in (None, sid)
        assert other.content() == {"note": user}
    else:
        assert reply.values[1] == {"user": user}
        assert reply.set_cookie == []
        assert other.content() == {}
    assert_logged_out(visitor, sid, user)


@pytest.mark.parametrize(
    "steps",
    [[["set", "seen", 1]], [["nest", "cart", "n", 2]], [["get", "user"]]],
    ids=["write", "nested", "read"],
)
@pytest.mark.parametrize("variant", ["", "due"])
@telling
def test_emptying_wins_over_a_write_in_between(site, visitor, steps, variant):
    """The slow one is the logout: it has read, another one writes, it empties."""
    visitor.do(["set", "cart", {"n": 1}])
    sid, user = visitor.sid, user_of(visitor)
    logout = visitor.slow(["all"], ["meet", "read"], ["clear"])
    site.stage.wait("read")
    visitor.do(*steps, variant=variant)
    site.stage.go("read")
    assert len(logout.reply().set_cookie) == 1
    assert visitor.sid is None
    assert_logged_out(visitor, sid, user)


def test_a_session_that_two_deletions_empty_together_is_gone(site):
    """Neither saw it empty; the merge is."""
    visitor = site.visitor()
    visitor.do(["set", "a", 1], ["set", "b", 2])
    sid = visitor.sid
    late = visitor.slow(["all"], ["meet", "read"], ["delete", "a"])
    site.stage.wait("read")
    visitor.do(["delete", "b"])
    assert visitor.sid == sid
    site.stage.go("read")
    assert len(late.reply().set_cookie) == 1
    assert visitor.sid is None
    assert visitor.record(sid) is None


def test_two_logouts_at_once(site, visitor):
    sid, user = visitor.sid, user_of(visitor)
    logouts = [visitor.slow(["all"], ["meet", "read"], ["clear"]) for _ in range(2)]
    site.stage.pass_together("read", 2)
    for logout in logouts:
        logout.reply()
    assert visitor.sid is None
    assert "lost" not in site.events()
    assert_logged_out(visitor, sid, user)


@telling
def test_logout_without_a_plan(site):
    """Writers, readers and touches run freely while one logs out: none of them brings it back."""
    for _ in range(site.rounds(300, 15)):
        visitor = site.visitor()
        user = uuid.uuid4().hex
        visitor.do(["set", "user", user])
        sid = visitor.sid
        with crowd(site, visitor, sid):
            visitor.do(["add", "count"])
            visitor.do(["clear"])
        assert visitor.sid is None
        assert visitor.record(sid) is None
        assert visitor.live(user=user) == []


# ---- regenerate ---------------------------------------------------------------------------------


def assert_moved(visitor: Visitor, old: str, user: str, **content: Any) -> None:
    """One live session, the browser holds its id, the old id is refused."""
    new = visitor.sid
    assert new not in (None, old)
    assert visitor.live(user=user) == [{"user": user, **content}]
    assert visitor.content() == {"user": user, **content}
    assert_refused(visitor, old)


def expires_soon(record: dict[str, Any]) -> bool:
    """As a tombstone does, after 30 seconds; some stores round up, some do not tell."""
    return record["left_ms"] is None or 0 < record["left_ms"] <= 31_000


def assert_refused(visitor: Visitor, old: str) -> None:
    record = visitor.record(old)
    assert record is not None
    assert record["data"] is None
    assert expires_soon(record)
    late = visitor.old(old)
    reply = late.do(["all"], ["set", "user", "x"], ["all"])
    assert reply.values[0] == {}
    assert reply.set_cookie == []
    assert late.do(["clear"], variant="due").set_cookie == []
    assert late.do(["regenerate"]).set_cookie == []
    assert late.do(["all"], variant="due").value == {}
    record = visitor.record(old)
    assert record is not None
    assert record["data"] is None
    assert expires_soon(record)


def test_regenerate_alone(site, visitor):
    old, user = visitor.sid, user_of(visitor)
    reply = visitor.do(["set", "admin", True], ["regenerate"], ["sid"])
    assert reply.value == visitor.sid
    assert site.events() == ["regenerated"]
    assert_moved(visitor, old, user, admin=True)


@pytest.mark.parametrize(
    ("variant", "steps", "lost"),
    [
        ("", [["get", "user"]], 0),
        ("due", [["get", "user"]], 0),
        ("", [["set", "seen", 1]], 1),
        ("due", [["set", "seen", 1]], 1),
        ("", [["set", "user", "thief"]], 1),
        ("raise", [["set", "admin", False]], 1),
        ("", [["set", "a", 1], ["save"], ["set", "b", 1]], 2),
        ("", [["regenerate"]], 1),
        ("", [["set", "x", 1], ["regenerate"], ["save"], ["regenerate"]], 2),
    ],
    ids=["reader", "touch", "writer", "writer-touch", "same-key", "conflict-raise", "writer-twice",
         "second-login", "second-login-twice"],
)  # fmt: skip
@telling
def test_regenerate_while_a_request_is_under_way(site, visitor, variant, steps, lost):
    """What was under way keeps what it had loaded; it stores nothing and sets no cookie."""
    old, user = visitor.sid, user_of(visitor)
    late = visitor.slow(["all"], ["meet", "read"], ["get", "user"], *steps, variant=variant)
    site.stage.wait("read")
    visitor.do(["set", "admin", True], ["regenerate"])
    new = visitor.sid
    assert new not in (None, old)
    site.events()

    site.stage.go("read")
    reply = late.reply()
    assert reply.values[2] == user
    assert reply.set_cookie == []
    assert visitor.sid == new
    assert site.events() == ["lost"] * lost
    assert_moved(visitor, old, user, admin=True)


@pytest.mark.parametrize("variant", ["", "due"])
@pytest.mark.parametrize(
    ("steps", "content"),
    [
        ([["get", "user"]], {}),
        ([["set", "seen", 1]], {"seen": 1}),
        ([["nest", "cart", "n", 2]], {"cart": {"n": 2}}),
        ([["delete", "cart"]], {"cart": None}),
        ([["set", "admin", False]], {}),
    ],
    ids=["read", "write", "nested", "deletion", "same-key"],
)
@telling
def test_a_commit_while_regenerate_is_under_way(site, visitor, variant, steps, content):
    """It was committed before the old record was retired: it goes along into the new one."""
    visitor.do(["set", "cart", {"n": 1}])
    old, user = visitor.sid, user_of(visitor)
    login = visitor.slow(["all"], ["meet", "read"], ["set", "admin", True], ["regenerate"])
    site.stage.wait("read")
    visitor.do(*steps, variant=variant)
    assert visitor.sid == old
    site.stage.go("read")
    assert len(login.reply().set_cookie) == 1
    expected = {"cart": {"n": 1}, "admin": True, **content}
    expected = {key: value for key, value in expected.items() if value is not None}
    assert_moved(visitor, old, user, **expected)


@telling
def test_two_logins_at_once(site):
    """Both have read the anonymous session; one new session is left, and the browser has it."""
    for _ in range(site.rounds(300, 15)):
        visitor = site.visitor()
        visit = uuid.uuid4().hex
        visitor.do(["set", "visit", visit])
        old = visitor.sid
        site.events()
        logins = [
            visitor.slow(
                ["get", "visit"], ["meet", "read"], ["set", "user", name], ["regenerate"], ["sid"]
            )
            for name in ("first", "second")
        ]
        site.stage.pass_together("read", 2)
        replies = [login.reply() for login in logins]
        winners = [reply for reply in replies if reply.set_cookie]
        assert len(winners) == 1
        assert winners[0].value == visitor.sid != old
        assert sorted(site.events()) == ["lost", "regenerated"]
        name = "first" if winners[0] is replies[0] else "second"
        assert visitor.live(visit=visit) == [{"visit": visit, "user": name}]
        assert visitor.content() == {"visit": visit, "user": name}
    assert_refused(visitor, old)


def test_between_the_regenerate_and_its_answer_the_old_id_is_refused(site, visitor):
    """The login has committed and works on; the browser still sends the old id."""
    old, user = visitor.sid, user_of(visitor)
    login = visitor.slow(["regenerate"], ["save"], ["meet", "saved"], ["set", "admin", True])
    site.stage.wait("saved")
    reply = visitor.do(["all"], ["set", "seen", 1])
    assert reply.values[0] == {}
    assert reply.set_cookie == []
    assert visitor.sid == old
    site.stage.go("saved")
    login.reply()
    assert_moved(visitor, old, user, admin=True)


@telling
def test_logout_while_regenerate_is_under_way(site, visitor):
    """The logout is first: nothing is left, and the new id is told to nobody."""
    old, user = visitor.sid, user_of(visitor)
    login = visitor.slow(["all"], ["meet", "read"], ["regenerate"], ["sid"])
    site.stage.wait("read")
    visitor.do(["clear"])
    site.stage.go("read")
    reply = login.reply()
    assert reply.set_cookie == []
    assert visitor.sid is None
    assert visitor.record(reply.value) is None
    assert_logged_out(visitor, old, user)


def test_regenerate_while_a_logout_is_under_way(site, visitor):
    """The regenerate is first. The logout may delete the cookie; it never brings the old one
    back."""
    old, user = visitor.sid, user_of(visitor)
    logout = visitor.slow(["all"], ["meet", "read"], ["clear"])
    site.stage.wait("read")
    visitor.do(["regenerate"])
    new = visitor.sid
    site.stage.go("read")
    logout.reply()
    assert visitor.sid in (None, new)
    assert visitor.old(old).content() == {}
    assert len(visitor.live(user=user)) == 1
    assert visitor.old(new).content() == {"user": user}


def test_regenerate_twice_in_one_request(site, visitor):
    old, user = visitor.sid, user_of(visitor)
    reply = visitor.do(["regenerate"], ["sid"], ["regenerate"], ["sid"])
    assert len({old, *reply.values[1::2]}) == 3
    assert visitor.sid == reply.value
    assert visitor.record(reply.values[1]) is None
    assert_moved(visitor, old, user)


def test_regenerate_with_signed_cookies(site):
    visitor = site.visitor()
    user = uuid.uuid4().hex
    first = visitor.do(["set", "user", user], ["sid"], variant="signed").value
    assert visitor.sid.startswith(first + ".")
    late = visitor.slow(["all"], ["meet", "read"], ["set", "seen", 1], variant="signed")
    site.stage.wait("read")
    second = visitor.do(["regenerate"], ["sid"], variant="signed").value
    site.stage.go("read")
    assert late.reply().set_cookie == []
    assert visitor.sid.startswith(second + ".")
    assert visitor.do(["all"], variant="signed").value == {"user": user}
    assert visitor.live(user=user) == [{"user": user}]
    assert visitor.record(first)["data"] is None


@telling
def test_regenerate_without_a_plan(site):
    """Requests with the old id run freely while one regenerates: one live session, the new one."""
    for _ in range(site.rounds(300, 15)):
        visitor = site.visitor()
        user = uuid.uuid4().hex
        visitor.do(["set", "user", user])
        old = visitor.sid
        with crowd(site, visitor, old) as got:
            visitor.do(["set", "login", 1], ["regenerate"])
            new = visitor.sid
        assert got == {old}
        assert new not in (None, old)
        assert len(visitor.live(user=user)) == 1
        content = visitor.old(new).content()
        assert (content["user"], content["login"]) == (user, 1)
        assert visitor.record(old)["data"] is None
