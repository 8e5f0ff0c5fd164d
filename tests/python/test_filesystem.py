"""The file store under an application: settings, what lies where, that no live session is dropped,
clean-up, hostile directories. The driver itself is tested in tests/c/test_filesystem.c.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import flask
import flask_session
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError
from flask_session.filesystem import FileSystemSession, FileSystemSessionInterface

from tests.python import apps
from tests.python.apps.views import add_views


def make_app(folder=None, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="filesystem", **settings)
    if folder is not None:
        app.config["SESSION_FILE_DIR"] = str(folder)
    app.testing = True
    Session(app)
    return add_views(app)


def session_files(folder):
    return [path for path in Path(folder).rglob("*") if len(path.name) == 64]


def temporary_files(folder):
    return list(Path(folder).rglob("tmp-*"))


def remove_tree(folder):
    while folder.exists():  # maintenance in the background may make a file meanwhile
        shutil.rmtree(folder, ignore_errors=True)


def store_of(app):
    return app.extensions["flask_session"].store


def sid_of(client):
    return client.get_cookie("session").value


# ---- settings -----------------------------------------------------------------------------------


def test_default_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app()
    monkeypatch.chdir("/")
    app.test_client().get("/set/1")
    assert len(session_files(tmp_path / "flask_session")) == 1


def test_nothing_is_made_before_it_is_needed(tmp_path):
    app = make_app(tmp_path / "sessions")
    client = app.test_client()
    client.get("/untouched")
    client.get("/get")
    client.set_cookie("session", "s" * 43)
    assert client.get("/get").text == "None"
    assert list(tmp_path.iterdir()) == []


def test_modes(tmp_path):
    app = make_app(tmp_path / "sessions", SESSION_FILE_MODE=0o640)
    app.test_client().get("/set/1")
    [path] = session_files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "sessions" / "cession").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("SESSION_FILE_DIR", 5, "the path of a directory"),
        ("SESSION_FILE_DIR", "", "the path of a directory"),
        ("SESSION_FILE_DIR", b"bytes", "the path of a directory"),
        ("SESSION_FILE_DIR", "a\0b", "the path of a directory"),
        ("SESSION_FILE_THRESHOLD", -1, "a number of files"),
        ("SESSION_FILE_THRESHOLD", "500", "a number of files"),
        ("SESSION_FILE_THRESHOLD", True, "a number of files"),
        ("SESSION_FILE_MODE", "0600", "the mode of a file"),
        ("SESSION_FILE_MODE", 0o444, "the mode of a file"),
        ("SESSION_FILE_MODE", 0o1600, "the mode of a file"),
    ],
)
def test_refused_value(key, value, accepted):
    app = flask.Flask(__name__)
    app.config.update({"SESSION_TYPE": "filesystem", key: value})
    with pytest.raises(SessionConfigError) as caught:
        Session(app)
    assert str(caught.value).startswith(f"{key} must be {accepted}")


def by_url(url, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_URL=url, **settings)
    app.testing = True
    Session(app)
    return add_views(app)


@pytest.mark.parametrize("query", ["", "?threshold=7", "?sync=data&mode=0640"])
def test_url(tmp_path, query):
    app = by_url(f"filesystem://{tmp_path}/a%20b{query}", SESSION_FILE_MODE=0o600)
    assert type(app.session_interface) is FileSystemSessionInterface
    app.test_client().get("/set/1")
    [path] = session_files(tmp_path / "a b")
    assert stat.S_IMODE(path.stat().st_mode) == (0o640 if "mode" in query else 0o600)


def test_settings_count_beside_a_url(tmp_path):
    app = by_url(f"filesystem://{tmp_path}/s", SESSION_FILE_MODE=0o640)
    app.test_client().get("/set/1")
    [path] = session_files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("url", ["filesystem:", "filesystem://host/dir", "filesystem:///x?y=1"])
def test_wrong_url(url):
    with pytest.raises(ValueError, match=r"URL|option"):
        by_url(url)


def test_url_and_directory(tmp_path):
    with pytest.raises(SessionConfigError, match="SESSION_URL and SESSION_FILE_DIR are both set"):
        by_url(f"filesystem://{tmp_path}", SESSION_FILE_DIR="x")


# ---- interface.cache ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_cache(tmp_path, format):
    app = make_app(tmp_path, SESSION_SERIALIZATION_FORMAT=format)
    client = app.test_client()
    client.get("/set/1")
    cache, key = app.session_interface.cache, "session:" + sid_of(client)
    assert cache.get(key) == {"_permanent": True, "value": "1"}
    assert cache.has(key)
    assert cache.get("session:" + "x" * 43) is None
    assert not cache.has("session:" + "x" * 43)
    assert cache.set(key, {"value": "2"}, timeout=60)
    assert client.get("/get").text == "2"
    assert cache.delete(key)
    assert client.get("/get").text == "None"
    assert cache.get(key) is None


def test_session_class(tmp_path):
    app = make_app(tmp_path)
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is FileSystemSession


# ---- nothing live is dropped --------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_live_sessions(tmp_path):
    """The predecessor drops sessions past 500; here each is alive."""
    app = make_app(tmp_path / "sessions")
    client = app.test_client(use_cookies=False)
    sids = []
    for number in range(10_000):
        line = client.get(f"/set/{number}").headers["Set-Cookie"]
        sids.append(line.partition("=")[2].partition(";")[0])
    for number, sid in enumerate(sids):
        assert client.get("/get", headers={"Cookie": f"session={sid}"}).text == str(number)
    assert len(session_files(tmp_path)) == 10_000


# ---- clean-up -----------------------------------------------------------------------------------


def fill(app, live=3, expired=4):
    store = store_of(app)
    for number in range(expired):
        store.create(f"expired-{number:016}", b"\x80", 1)
    for number in range(live):
        store.create(f"live-{number:016}", b"\x80", 3_600_000)
    time.sleep(0.02)


def test_session_cleanup(tmp_path):
    app = make_app(tmp_path)
    fill(app)
    assert len(session_files(tmp_path)) == 7
    answer = app.test_cli_runner().invoke(args=["session_cleanup"])
    assert (answer.exit_code, answer.output) == (0, "")
    assert len(session_files(tmp_path)) == 3


@pytest.mark.process
def test_session_cleanup_by_flask(tmp_path):
    """As a scheduler runs it: another process, over what the first one left."""
    (tmp_path / "app.py").write_text(
        "from flask import Flask\nfrom flask_session import Session\n"
        "app = Flask(__name__)\napp.config['SESSION_TYPE'] = 'filesystem'\nSession(app)\n"
    )
    fill(make_app(tmp_path / "flask_session"))
    done = subprocess.run(
        [sys.executable, "-m", "flask", "session_cleanup"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(session_files(tmp_path)) == 3


def test_cleanup_n_requests(tmp_path):
    app = make_app(tmp_path, SESSION_CLEANUP_N_REQUESTS=1)
    fill(app)
    app.test_client().get("/untouched")
    assert len(session_files(tmp_path)) == 3


def test_autodelete(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("flask_session.base.time.monotonic", lambda: now)
    app = make_app(tmp_path, SESSION_AUTODELETE=True)
    client = app.test_client()
    fill(app)
    client.get("/untouched")
    assert len(session_files(tmp_path)) == 3
    store = store_of(app)
    store.create("expired-again-000", b"\x80", 1)
    time.sleep(0.02)
    client.get("/untouched")
    assert store.counts()["purge"] == 1
    now += 60
    client.get("/untouched")
    assert store.counts()["purge"] == 2
    assert len(session_files(tmp_path)) == 3


# ---- no temporary files -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_requests_leave_no_temporary_files(tmp_path, long_run):
    """Writes, reads, logins and logouts of four threads."""
    requests = 200_000 if long_run else 5_000
    app = make_app(tmp_path / "sessions")
    failed = []

    def visit(seed):
        client = app.test_client()
        paths = ["/set/1", "/get", "/set/2", "/regenerate", "/get", "/clear"]
        try:
            for number in range(requests // 4):
                assert client.get(paths[(number + seed) % len(paths)]).status_code == 200
            client.get("/clear")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert temporary_files(tmp_path) == []
    # At most the tombstones of the last 30 seconds are left.
    assert all(b"__cession__" in path.read_bytes() for path in session_files(tmp_path))


# ---- hostile directories ------------------------------------------------------------------------


def link(path, outside):
    path.unlink()
    path.symlink_to(outside)


def hard_link(path, outside):
    path.unlink()
    os.link(outside, path)


def fifo(path, outside):
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path, outside):
    path.unlink()
    path.mkdir()


def unix_socket(path, outside):
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def empty(path, outside):
    path.write_bytes(b"")


def truncated(path, outside):
    path.write_bytes(path.read_bytes()[:-3])


def foreign(path, outside):
    path.write_bytes(b"something else\n" * 10)


def linked_shard(path, outside):
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.symlink_to(away)


def deleted_shard(path, outside):
    remove_tree(path.parent)


def deleted_directory(path, outside):
    remove_tree(path.parents[2])


def emptied_directory(path, outside):
    remove_tree(path.parents[1])


SPOILED = [link, hard_link, fifo, directory, unix_socket, empty, truncated, foreign,
           linked_shard, deleted_shard, deleted_directory, emptied_directory]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILED)
def test_reading_a_spoiled_directory(tmp_path, spoil):
    """No session, never an error; what is outside stays as it is; others' sessions live."""
    folder = tmp_path / "sessions"
    app = make_app(folder)
    client = app.test_client()
    client.get("/set/secret")
    [path] = session_files(folder)
    outside = tmp_path / "outside"
    content = path.read_bytes()
    outside.write_bytes(content)
    before = outside.stat()
    spoil(path, outside)
    for _ in range(2):
        answer = client.get("/get")
        assert (answer.status_code, answer.text) == (200, "None")
        assert client.get("/untouched").status_code == 200
    # another visitor comes in
    other = app.test_client()
    other.get("/set/other")
    assert other.get("/get").text == "other"
    after = outside.stat()
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    assert outside.read_bytes() == content


@pytest.mark.parametrize("spoil", [spoil for spoil in SPOILED if spoil is not linked_shard])
def test_writing_to_a_spoiled_directory(tmp_path, spoil):
    """What the browser still has is no session; it gets another one, which works."""
    folder = tmp_path / "sessions"
    app = make_app(folder)
    client = app.test_client()
    client.get("/set/1")
    old = sid_of(client)
    [path] = session_files(folder)
    content = path.read_bytes()
    outside = tmp_path / "outside"
    outside.write_bytes(content)
    spoil(path, outside)
    assert client.get("/set/2").status_code == 200
    assert sid_of(client) != old
    assert client.get("/get").text == "2"
    assert client.get("/clear").status_code == 200
    assert outside.read_bytes() == content


def test_directory_deleted_between_load_and_save(tmp_path):
    """The session is gone, and stays gone."""
    folder = tmp_path / "sessions"
    app = make_app(folder)

    @app.get("/slow")
    def slow():
        flask.session["value"] = "slow"
        remove_tree(folder)
        return "slow"

    client = app.test_client()
    client.get("/set/1")
    answer = client.get("/slow")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert client.get("/get").text == "None"
    assert app.extensions["flask_session"].stats()["events"]["lost"] == 1


@pytest.mark.parametrize("place", ["file", "link", "fifo"])
def test_something_else_is_in_the_directory_s_place(tmp_path, place):
    folder = tmp_path / "sessions"
    if place == "file":
        folder.write_text("in the way")
    elif place == "fifo":
        os.mkfifo(folder)
    else:
        folder.mkdir()
        (tmp_path / "elsewhere").mkdir()
        (folder / "cession").symlink_to(tmp_path / "elsewhere")
    app = make_app(folder)
    client = app.test_client()
    with pytest.raises(SessionStoreError):
        client.get("/set/1")
    assert client.get("/untouched").status_code == 200
    client.set_cookie("session", "s" * 43)
    # a directory of which nothing can be said is an error, never somebody's empty session
    with pytest.raises(SessionStoreError):
        client.get("/get")
    if place == "link":
        assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.process
def test_unprivileged():
    """Modes, owners and a full disk, as a user for whom they count."""
    # not below pytest's folder, which nobody else may enter
    folder = Path(tempfile.mkdtemp(prefix="cession-files-"))
    script = Path(apps.__path__[0]) / "files.py"
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(folder)],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(flask_session.__file__).parents[1])},
        )  # fmt: skip
    finally:
        for root, names, _ in os.walk(folder):
            for name in (root, *(os.path.join(root, one) for one in names)):
                os.chmod(name, 0o700)
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("uid") != 0
    failed, none = [500, "SessionStoreError"], [200, "None"]
    assert seen == {
        "unreadable file": {"get": none, "set": [200, "set"]},
        "unreadable shard": {"get": failed, "set": failed, "untouched": [200, "hello"]},
        "readable again": [200, "1"],
        "unreadable directory": {"get": failed, "set": failed, "untouched": [200, "hello"]},
        "directory readable again": [200, "1"],
        "directory that others may write to": failed,
        "full disk": {"get": [200, "1"], "set": failed, "left": 0},
        "room again": [200, "set"],
    }
