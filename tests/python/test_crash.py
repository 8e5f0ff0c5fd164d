"""Processes that are killed, and processes that fork: on SQLite no acknowledged write is lost,
nor by kills on the file store.

The file is looked at by other processes than the servers: two copies of SQLite in one process
would drop each other's locks.

CESSION_LONG=1: 200 kills instead of 50.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.error
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import flask_session
import pytest

from tests.python.apps import forker, script
from tests.services.base import HOST, process_start, tcp_answers, wait_until
from tests.services.visitor import Visitor
from tests.services.web import WebServer

pytestmark = [pytest.mark.process, pytest.mark.slow]

Acknowledged = dict[str, set[str]]

# ---- looking at the file from outside -----------------------------------------------------------

CHECK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("PRAGMA integrity_check").fetchone())
"""

LOAD = """
import json, os, sys
from flask_session import _core
kind = "filesystem" if os.path.isdir(sys.argv[1]) else "sqlite"
store = _core.Store.open(kind, {"path": sys.argv[1]}).prefixed("session:")
found = {}
for sid in json.load(sys.stdin):
    stored = store.load(sid)
    found[sid] = sorted(_core.decode(stored[0])) if stored else None
print(json.dumps(found))
"""


def assert_nothing_lost(path: Path, acknowledged: Acknowledged, run_python, python) -> None:
    if not path.is_dir():
        assert run_python(python, CHECK, str(path)) == "ok\n"
    found = json.loads(
        run_python(python, LOAD, str(path), cession=True, input=json.dumps(list(acknowledged)))
    )
    lost = {
        sid: keys - set(found[sid] or ()) for sid, keys in acknowledged.items()
        if not keys <= set(found[sid] or ())
    }  # fmt: skip
    assert lost == {}


@contextlib.contextmanager
def another_process_opens_and_closes(path: Path) -> Iterator[None]:
    """All the time. Whoever is the last to close the file moves the log into it and deletes the
    log, and goes by the locks in judging whether it is the last."""
    code = """
import sqlite3, sys, threading
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
count = 0
while not done.is_set():
    connection = sqlite3.connect(sys.argv[1], timeout=20)
    connection.execute("SELECT count(*) FROM cession_sessions").fetchone()
    connection.close()
    count += 1
print(count)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield
    finally:
        output, _ = process.communicate("", timeout=60)
    assert process.returncode == 0
    assert int(output) >= 10


# ---- writers over HTTP --------------------------------------------------------------------------


class Writers:
    """Visitors who write key after key, and what the server acknowledged to them."""

    KEYS = 30

    def __init__(self, url: str, count: int) -> None:
        self.acknowledged: Acknowledged = defaultdict(set)
        self.writes = 0
        self.broken = 0
        self._url = url
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._wrong: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        assert self._wrong == []

    def _work(self, number: int) -> None:
        turn = 0
        while not self._done.is_set():
            turn += 1
            visitor = Visitor(self._url)
            for n in range(self.KEYS):
                if self._done.is_set():
                    return
                key = f"{number}-{turn}-{n}"
                try:
                    answer = visitor.post("/do", [["set", key, n]])
                except (OSError, http.client.HTTPException, urllib.error.URLError):
                    with self._lock:
                        self.broken += 1
                    continue
                with self._lock:
                    if answer.status != 200 or visitor.sid is None:
                        self._wrong.append(f"{answer.status}: {answer.text[:300]}")
                        return
                    self.acknowledged[visitor.sid].add(key)
                    self.writes += 1

    def wait_for_more(self, writes: int) -> None:
        wanted = self.writes + writes
        assert wait_until(lambda: self.writes >= wanted or bool(self._wrong), 60), "nothing written"
        assert self._wrong == []


def script_settings(path: Path, kind: str = "sqlite") -> dict[str, str]:
    place = {"sqlite": "SESSION_SQLITE", "filesystem": "SESSION_FILE_DIR"}[kind]
    given = {
        "settings": {"SESSION_TYPE": kind, place: str(path), "SESSION_STORE_TIMEOUT": 20},
        "stage": 0,
        "events": str(path.parent / "events"),
    }
    return {"CESSION_SCRIPT": json.dumps(given)}


# The store is in use before the first fork.
USED_BY_THE_MASTER = """
from script import site

client = site.apps[""].test_client()
for number in range(3):
    assert client.post("/do", json=[["set", f"master-{number}", 1]]).status_code == 200
app = site
"""


def kill_a_worker(pid: int, workers: Callable[[], list[int]]) -> None:
    """And wait for the next one in its place."""
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: pid not in workers() and len(workers()) == 2, 60)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", "filesystem"])
def test_kill_9_of_a_writing_worker(gunicorn_app, tmp_path, long_run, run_python, python, kind):
    path = tmp_path / "sessions"
    server = gunicorn_app(
        "script:site",
        source=Path(script.__file__).read_text(),
        env=script_settings(path, kind),
        preload=True,  # a new worker is there at once
    )
    chance = random.Random(1)
    with Writers(server.url, 3) as writers:
        for _ in range(200 if long_run else 50):
            writers.wait_for_more(8)
            kill_a_worker(chance.choice(server.worker_pids()), server.worker_pids)
        # At last all of them, amid their work.
        writers.wait_for_more(20)
        server.kill()
    assert writers.broken > 0
    assert len(writers.acknowledged) > 3
    assert_nothing_lost(path, writers.acknowledged, run_python, python)
    # And the next server goes on with what it finds.
    server.start()
    for sid, keys in list(writers.acknowledged.items())[-3:]:
        visitor = Visitor(server.url)
        visitor.sid = sid
        content = json.loads(visitor.post("/do", [["set", "after", 1], ["all"]]).body)[-1]
        assert keys | {"after"} <= set(content)


# ---- forks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True], ids=["exits", "busy"])
def test_fork_of_a_process_that_uses_the_store(tmp_path, run_python, python, busy):
    path = tmp_path / "sessions.sqlite3"
    command = [python, forker.__file__, str(path), "3" if not busy else "12", "10"]
    if busy:
        command.append("busy")
    master = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert master.stdout is not None
    acknowledged: Acknowledged = defaultdict(set)
    first = master.stdout.readline().split()
    acknowledged[first[0]].add(first[1])
    with another_process_opens_and_closes(path):
        # Until the last of the children has closed it.
        for line in master.stdout:
            sid, key = line.split()
            acknowledged[sid].add(key)
    assert master.wait() == 0, master.stderr.read()
    assert master.stderr.read() == ""
    assert len(acknowledged) >= (12 if busy else 3) * 10 + 1
    assert_nothing_lost(path, acknowledged, run_python, python)


def test_gunicorn_preload_with_a_master_that_used_the_store(
    gunicorn_app, tmp_path, run_python, python
):
    path = tmp_path / "sessions.sqlite3"
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "script.py").write_text(Path(script.__file__).read_text())
    server = gunicorn_app(
        "used:app",
        source=USED_BY_THE_MASTER,
        folder=folder,
        env=script_settings(path),
        preload=True,
    )
    with another_process_opens_and_closes(path):
        with Writers(server.url, 3) as writers:
            for _ in range(5):
                writers.wait_for_more(30)
                kill_a_worker(server.worker_pids()[0], server.worker_pids)
            # The master goes first; its workers work on while there is work, and follow.
            workers = server.worker_pids()
            os.kill(server.pid, signal.SIGKILL)
            writers.wait_for_more(30)
        assert wait_until(lambda: all(process_start(pid) is None for pid in workers), 60)
    server.stop()
    assert_nothing_lost(path, writers.acknowledged, run_python, python)


class Uwsgi(WebServer):
    """uWSGI forks its workers without Python's knowledge."""

    def command(self) -> list[str]:
        return [
            str(Path(self.python).with_name("uwsgi")),
            "--http-socket", f"{HOST}:{self.port}", "--module", self.app,
            "--master", "--processes", "2", "--die-on-term", "--enable-threads", "--need-app",
            "--virtualenv", str(Path(self.python).parents[1]), *self.arguments,
        ]  # fmt: skip

    def prepare(self) -> None:
        pass

    def ready(self) -> bool:
        return len(self.children()) == 2 and tcp_answers(self.port)


def test_uwsgi_with_a_master_that_used_the_store(
    web_servers, predecessor, tmp_path, run_python, python
):
    path = tmp_path / "sessions.sqlite3"
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "script.py").write_text(Path(script.__file__).read_text())
    # Only the package, not what else lies in its folder.
    (folder / "flask_session").symlink_to(Path(flask_session.__file__).parent)
    environment = {**script_settings(path), "PYTHONPATH": str(folder)}
    server = web_servers(
        Uwsgi, "used:app", USED_BY_THE_MASTER, folder,
        {"env": environment, "python": predecessor("uwsgi")},
    )  # fmt: skip
    with Writers(server.url, 3) as writers, another_process_opens_and_closes(path):
        for _ in range(5):
            writers.wait_for_more(30)
            kill_a_worker(server.children()[0], server.children)
        writers.wait_for_more(30)
    server.stop()
    assert "spawned uWSGI worker 2" in server.log()
    assert_nothing_lost(path, writers.acknowledged, run_python, python)
